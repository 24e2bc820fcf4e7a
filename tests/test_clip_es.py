"""CLIP-ES as a whole: the paper's numbers, its stages written out, what its settings do, and a control."""

import numpy as np
import pytest
import torch

from kit import cam, mask, refine, words
from kit.data import Sample
from kit.encode import ClipError
from kit.method import MAX_CLASSES
from kit.methods import ClipEs, ClipEsSettings
from kit.toy import draw

QUICK = {"refiner": "none"}
needs_crf = pytest.mark.skipif(not refine.has_dense_crf(), reason="pydensecrf2 is not installed (it needs a C++ compiler)")


@pytest.fixture(scope="module")
def boat() -> Sample:
    scene = draw(3, size=(64, 80), classes=("boat",), place="sea", style="photo")
    return Sample(scene.image, ("boat", "cat"), scene.truth)


def test_defaults_are_the_papers():
    settings = ClipEsSettings()
    expected = {
        "template": "a clean origami {}.", "cam": "softmax", "affinity": True, "layers": 8, "box_threshold": 0.4, "exact_boxes": False,
        "sinkhorn": 3, "power": 2, "background_power": 1.0, "refiner": "crf", "iterations": 10, "gaussian_xy": 1, "gaussian_weight": 3,
        "bilateral_xy": 67, "bilateral_rgb": 3, "bilateral_weight": 4, "smoothing": 0, "confidence": 0.95, "side": None,
    }  # fmt: skip
    assert {name: getattr(settings, name) for name in expected} == expected
    assert settings.background == words.VOC_BACKGROUND and settings.synonyms == words.VOC_PROMPTS
    assert ClipEs.preset("voc") == settings


def test_cocos_differences():
    settings = ClipEs.preset("coco")
    assert (settings.box_threshold, settings.background, settings.synonyms) == (0.7, words.COCO_BACKGROUND, words.COCO_PROMPTS)
    assert settings.unlike(ClipEsSettings()).keys() == {"box_threshold", "background", "synonyms"}


def test_the_tiny_clip_knows_its_words(clip):
    settings = ClipEs.preset("toy")
    for word in (*settings.background, *words.VOC_CLASSES):
        assert clip.unknown_words(settings.template.replace("{}", word)) == [], word


def test_the_chain_is_its_stages(clip, boat):
    """The method does what the stages do when they are called one by one."""
    settings = ClipEs.preset("toy", **QUICK, background_power=2.0)
    result = ClipEs(clip, settings).segment(boat)
    tokens = clip.encode(clip.prepare(boat.image, side=settings.side)[None])
    text = clip.text([settings.template.format(word) for word in ("boat", "cat", *settings.background)])
    coarse = cam.normalised_cam(cam.softmax_grad_cam(tokens, text, [0, 1]))
    affinity = refine.attention_affinity(tokens.attention[:, list(settings.layers)])
    spread = cam.stretched(refine.spread(coarse, affinity, refine.box_mask(coarse, threshold=settings.box_threshold)))
    fine = refine.upsampled(spread, boat.image.shape[:2])
    scores = torch.cat([(1 - fine.amax(1, keepdim=True)) ** 2, fine], 1)
    torch.testing.assert_close(result.stages["cam"], refine.upsampled(coarse, boat.image.shape[:2])[0])
    torch.testing.assert_close(result.stages["affinity"], fine[0])
    assert torch.equal(result.labels, scores.argmax(1)[0])
    torch.testing.assert_close(result.confidence, mask.confidence(scores)[0])
    assert list(result.scores) == ["boat", "cat"] and result.prompts["boat"] == settings.template.format("boat")
    assert result.scores["boat"] == pytest.approx(cam.class_probabilities(tokens, text)[0, 0].item())


@pytest.mark.parametrize("refiner", [pytest.param("crf", marks=needs_crf), "pixel-adaptive"])
def test_each_iteration_of_the_refiner_is_a_step(clip, boat, refiner):
    method = ClipEs(clip, refiner=refiner, iterations=3)
    steps = list(method.steps(boat, tokens=method.encode(boat.image)))
    assert [list(step.stages)[-1] for step in steps] == ["cam", "affinity", *["refined"] * 3]
    assert not torch.equal(steps[-1].planes, steps[-2].planes)
    for step, changes in ((steps[1], QUICK), (steps[2], {"refiner": refiner, "iterations": 1})):
        assert torch.equal(step.planes, ClipEs(clip, **changes).segment(boat).planes)


@needs_crf
def test_the_crf_gets_the_settings(clip, boat):
    usual = ClipEs(clip, iterations=2).segment(boat)
    for changes in (
        {"gaussian_xy": 5.0}, {"gaussian_weight": 1.0}, {"bilateral_xy": 9.0}, {"bilateral_rgb": 40.0}, {"bilateral_weight": 1.0},
        {"smoothing": 0.5}, {"released_crf_image": True}, {"iterations": 3},
    ):  # fmt: skip
        changed = ClipEs(clip, **{"iterations": 2, **changes}).segment(boat)
        assert not torch.equal(changed.stages["refined"], usual.stages["refined"]), changes
        assert torch.equal(changed.stages["affinity"], usual.stages["affinity"])


def test_every_setting_before_the_refiner_counts(clip, boat):
    usual = ClipEs(clip, **QUICK).segment(boat)
    for changes in (
        {"template": "a drawing of a {}."}, {"background": ("sky",)}, {"synonyms": {"boat": "ship"}}, {"cam": "plain"},
        {"cam": "similarity"}, {"affinity": False}, {"layers": 1}, {"box_threshold": 0.9}, {"sinkhorn": 0}, {"power": 1},
        {"background_power": 3.0}, {"side": 96}, {"side_limit": 48},
    ):  # fmt: skip
        changed = ClipEs(clip, **QUICK, **changes).segment(boat)
        assert not torch.equal(changed.confidence, usual.confidence), changes


def test_layers_are_counted_from_either_end(clip, boat):
    last = clip.layer_count - 1
    for layers, others in ((2, (last - 1, last)), (100, tuple(range(clip.layer_count)))):
        one, other = (ClipEs(clip, **QUICK, layers=some).segment(boat) for some in (layers, others))
        assert torch.equal(one.planes, other.planes)
    with pytest.raises(ClipError, match=rf"tiny has blocks 0 to {last}, got layers \(0, {last + 1}\)"):
        ClipEs(clip, **QUICK, layers=(0, last + 1)).segment(boat)


def test_stages_that_are_left_out_are_not_there(clip, boat):
    result = ClipEs(clip, **QUICK, affinity=False).segment(boat)
    assert list(result.stages) == ["cam"] and list(result.seconds) == ["encode", "text", "raw", "coarse", "cam"]


def test_as_many_classes_as_allowed(clip):
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    sample = Sample(picture, tuple(f"thing {number}" for number in range(MAX_CLASSES)))
    assert ClipEs(clip, refiner="pixel-adaptive", iterations=1).segment(sample).stages["refined"].shape == (1 + MAX_CLASSES, 16, 16)


def test_without_background_words_the_classes_compete_with_each_other(clip, boat):
    result = ClipEs(clip, **QUICK, background=()).segment(boat)
    assert sum(result.scores.values()) == pytest.approx(1)


def test_a_background_word_that_is_a_class_is_left_out_and_told(clip, boat):
    result = ClipEs(clip, **QUICK, background=("sky", "Boat")).segment(boat)
    assert result.notes == ("background word 'Boat' is left out: it is one of the classes",)
    assert torch.equal(result.planes, ClipEs(clip, **QUICK, background=("sky",)).segment(boat).planes)


def test_an_empty_map_is_told(clip, boat):
    """The first class has nothing that speaks for it; the second stays as it is."""

    def planted(tokens, text, targets, *, done=None):
        maps = cam.softmax_grad_cam(tokens, text, targets, done=done)
        maps[:, 0] = -1
        return maps

    result = ClipEs(clip, **QUICK, cam=planted).segment(boat)
    assert result.notes == ("boat: no patch speaks for it, its map is empty", "boat: no box above the threshold, so every patch counts")
    assert not result.stages["cam"][0].any() and result.stages["cam"][1].any() and not (result.labels == 1).any()
    assert ClipEs(clip, **QUICK, cam="plain", box_threshold=0.1).segment(boat).notes == ()


def overlap(sample: Sample, labels: torch.Tensor) -> float:
    """The mean IoU of a sample's classes."""
    shares = []
    for index, name in enumerate(sample.names, 1):
        found, there = labels.numpy() == index, sample.truth == 1 + words.VOC_CLASSES.index(name)
        shares.append((found & there).sum() / (found | there).sum())
    return float(np.mean(shares))


def test_a_drawn_boat_is_found_by_its_word_and_not_by_another(clip):
    """The control: the same pictures, the same chain, only the words have changed places."""
    scenes = [draw(seed, size=96, classes=("boat", "cat"), place="sea", style="close-up") for seed in range(6)]
    samples = [Sample(scene.image, ("boat", "cat"), scene.truth) for scene in scenes]
    own, shifted = (
        np.mean([overlap(sample, ClipEs(clip, **QUICK, synonyms=synonyms).segment(sample).labels) for sample in samples])
        for synonyms in ({}, {"boat": "cat", "cat": "boat"})
    )
    assert own > shifted + 0.1


def test_a_drawn_boat_scores_higher_than_what_is_not_there(clip):
    scenes = [draw(seed, size=96, classes=("boat",), place="sea", style="close-up") for seed in range(6)]
    own, shifted = (
        np.mean([ClipEs(clip, **QUICK, synonyms={"boat": word}).segment(Sample(scene.image, ("boat",))).scores["boat"] for scene in scenes])
        for word in ("boat", "sofa")
    )
    assert own > shifted + 0.1
