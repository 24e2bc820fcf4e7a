"""CLIP-ES as a whole: the paper's numbers, settings that travel, and pictures of every kind."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from kit import cam, mask, refine, words
from kit.data import Sample
from kit.encode import Clip, build_small_clip
from kit.methods import METHODS, ClipEs, ClipEsSettings, Result
from kit.methods.clip_es import MAX_CLASSES, PRESETS, RANGES, SettingsError, preset
from kit.prompt import PromptError
from kit.toy import draw

QUICK = {"refiner": "none"}
needs_crf = pytest.mark.skipif(not refine.has_dense_crf(), reason="pydensecrf2 is not installed (it needs a C++ compiler)")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def boat() -> Sample:
    scene = draw(3, size=(64, 80), classes=("boat",), place="sea", style="photo")
    return Sample(scene.image, ("boat", "cat"), scene.truth)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(one: Result, other: Result) -> bool:
    stages = one.stages.keys() == other.stages.keys() and all(torch.equal(one.stages[name], other.stages[name]) for name in one.stages)
    return stages and torch.equal(one.labels, other.labels) and torch.equal(one.confidence, other.confidence) and one.scores == other.scores


# settings


def test_defaults_are_the_papers():
    settings = ClipEsSettings()
    expected = {
        "template": "a clean origami {}.", "cam": "softmax", "affinity": True, "layers": 8, "box_threshold": 0.4, "exact_boxes": False,
        "sinkhorn": 3, "power": 2, "background_power": 1.0, "refiner": "crf", "iterations": 10, "gaussian_xy": 1, "gaussian_weight": 3,
        "bilateral_xy": 67, "bilateral_rgb": 3, "bilateral_weight": 4, "smoothing": 0, "confidence": 0.95, "side": None,
    }  # fmt: skip
    assert {name: getattr(settings, name) for name in expected} == expected
    assert settings.background == words.VOC_BACKGROUND and settings.synonyms == words.VOC_PROMPTS
    assert preset("voc") == settings


def test_cocos_differences():
    settings = preset("coco")
    assert (settings.box_threshold, settings.background, settings.synonyms) == (0.7, words.COCO_BACKGROUND, words.COCO_PROMPTS)
    changed = {name for name, value in settings.to_dict().items() if value != ClipEsSettings().to_dict()[name]}
    assert changed == {"box_threshold", "background", "synonyms"}


def test_presets():
    for name in PRESETS:
        assert isinstance(preset(name), ClipEsSettings)
    assert preset("toy", power=3).power == 3 and preset("voc", box_threshold=0.5).box_threshold == 0.5
    with pytest.raises(SettingsError, match="expected a preset out of voc, coco, toy, got 'imagenet'"):
        preset("imagenet")
    with pytest.raises(SettingsError, match="unknown setting colour"):
        preset("voc", colour=3)


def test_the_preset_fits_the_model(clip):
    assert ClipEs(clip).settings == preset("toy")
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 64, "width": 8, "heads": 1, "layers": 1}
    other = Clip(build_small_clip({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}), None)
    assert ClipEs(other).settings == preset("voc")
    assert ClipEs(other, preset("coco"), power=4).settings == preset("coco", power=4)
    assert METHODS["clip-es"] is ClipEs


def test_the_tiny_clip_knows_its_words(clip):
    settings = preset("toy")
    for word in (*settings.background, *words.VOC_CLASSES):
        assert clip.unknown_words(settings.template.replace("{}", word)) == [], word


def test_settings_travel_through_json(clip, boat):
    method = ClipEs(
        clip, layers=(0, 1), box_threshold=0.3, sinkhorn=2, refiner="pixel-adaptive", iterations=3, synonyms={"boat": "boat,ship"}
    )
    loaded = ClipEsSettings.from_dict(json.loads(json.dumps(method.settings.to_dict())))
    assert loaded == method.settings
    assert same(method.segment(boat), ClipEs(clip, loaded).segment(boat))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_travels_through_json(name):
    assert ClipEsSettings.from_dict(json.loads(json.dumps(preset(name).to_dict()))) == preset(name)


def test_a_result_carries_its_settings(clip, boat):
    result = ClipEs(clip, **QUICK, power=3).segment(boat)
    settings = json.loads(json.dumps(result.settings))
    assert (settings.pop("method"), settings.pop("model")) == ("clip-es", "tiny")
    assert same(ClipEs(clip, ClipEsSettings.from_dict(settings)).segment(boat), result)


def test_whole_numbers_may_be_written_as_json_floats(clip, boat):
    settings = ClipEsSettings.from_dict(
        {**preset("toy").to_dict(), **QUICK, "sinkhorn": 3.0, "power": 2.0, "iterations": 10.0, "side": 160.0}
    )
    assert [type(value) for value in (settings.sinkhorn, settings.power, settings.iterations, settings.side)] == [int] * 4
    assert same(ClipEs(clip, settings).segment(boat), ClipEs(clip, **QUICK).segment(boat))


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), True, False, "0.5", "", None, [1], {}, 1j, 10**400, -(10**400)]
)
@pytest.mark.parametrize("name", [*RANGES, "side"])
def test_what_is_no_number_in_range_is_refused(name, value):
    if name == "side" and value is None:
        return
    with pytest.raises(SettingsError, match=rf"expected {name} to be a (whole )?number from .* to .*, got"):
        ClipEsSettings(**{name: value})


@pytest.mark.parametrize("name", RANGES)
def test_ranges_end_where_they_say(name):
    low, high = RANGES[name]
    assert getattr(ClipEsSettings(**{name: low}), name) == low and getattr(ClipEsSettings(**{name: high}), name) == high
    for value in (low - 1e-3 if isinstance(low, float) else low - 1, high + 1e-3 if isinstance(high, float) else high + 1):
        with pytest.raises(SettingsError, match=f"expected {name}"):
            ClipEsSettings(**{name: value})


@pytest.mark.parametrize("name", [name for name, (low, high) in RANGES.items() if isinstance(low, int) and isinstance(high, int)])
def test_whole_numbers_are_whole(name):
    with pytest.raises(SettingsError, match=f"expected {name} to be a whole number"):
        ClipEsSettings(**{name: RANGES[name][0] + 0.5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cam": "grad"}, "expected cam to be one of softmax, plain, similarity, got 'grad'"),
        ({"cam": None}, "expected cam"),
        ({"refiner": "CRF"}, "expected refiner to be one of crf, pixel-adaptive, none, got 'CRF'"),
        ({"refiner": ["crf"]}, "expected refiner"),
        ({"layers": ()}, "expected layers"),
        ({"layers": 0}, "expected layers to be how many of the last blocks, at least 1"),
        ({"layers": -2}, "expected layers"),
        ({"layers": True}, "expected layers"),
        ({"layers": None}, "expected layers"),
        ({"layers": "8"}, "expected layers"),
        ({"layers": 1.5}, "expected layers"),
        ({"layers": (0, 1.5)}, "expected layers"),
        ({"layers": [True]}, "expected layers"),
        ({"background": "sky"}, "expected background to be a list of words, got 'sky'"),
        ({"background": None}, "expected background"),
        ({"background": ("sky", 3)}, "expected background"),
        ({"synonyms": None}, "expected synonyms"),
        ({"synonyms": "boat"}, "expected synonyms"),
        ({"synonyms": {"boat": None}}, "expected synonyms"),
        ({"synonyms": {"boat": ("boat", "ship")}}, "expected synonyms"),
        ({"template": None}, "expected template"),
        ({"affinity": "false"}, "expected affinity to be true or false, got 'false'"),
        ({"affinity": None}, "expected affinity"),
        ({"exact_boxes": 1}, "expected exact_boxes"),
        ({"released_crf_image": "no"}, "expected released_crf_image"),
    ],
)
def test_settings_of_a_wrong_kind_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        ClipEsSettings(**changes)


def test_unknown_settings_are_refused(clip):
    for make in (lambda: ClipEs(clip, colour=1), lambda: ClipEsSettings.from_dict({"colour": 1, "power": 2})):
        with pytest.raises(SettingsError, match="unknown setting colour: CLIP-ES has affinity, background"):
            make()
    for values in (None, [1], "power"):
        with pytest.raises(SettingsError, match="expected settings as names with values"):
            ClipEsSettings.from_dict(values)
    with pytest.raises(SettingsError, match="expected ClipEsSettings, got dict"):
        ClipEs(clip, {"power": 3})


def test_settings_cannot_be_changed_behind_their_back():
    synonyms = {"boat": "ship"}
    settings = ClipEsSettings(synonyms=synonyms, background=["sky"])
    synonyms["boat"] = ""
    assert settings.synonyms == {"boat": "ship"} and settings.background == ("sky",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.power = 3


# the chain


def test_the_chain_is_its_stages(clip, boat):
    """The method does what the stages do when they are called one by one."""
    settings = preset("toy", **QUICK, background_power=2.0)
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
def test_steps_end_with_the_result(clip, boat, refiner):
    method = ClipEs(clip, refiner=refiner, iterations=3)
    tokens = method.encode(boat.image)
    steps = list(method.steps(boat, tokens=tokens))
    assert len(steps) == 4 and [list(step.stages)[-1] for step in steps] == ["affinity", *["refined"] * 3]
    assert list(steps[-1].stages) == list(ClipEs.stages)
    assert same(steps[-1], method.segment(boat, tokens=tokens)) and not same(steps[-1], steps[-2])
    assert same(steps[0], ClipEs(clip, refiner="none").segment(boat))  # a later step leaves the earlier results alone
    assert same(steps[1], ClipEs(clip, refiner=refiner, iterations=1).segment(boat))


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
        {"cam": "similarity"}, {"affinity": False}, {"layers": 1},
        {"box_threshold": 0.9}, {"sinkhorn": 0}, {"power": 1}, {"background_power": 3.0},
        {"side": 96},
        {"side_limit": 48},
    ):  # fmt: skip
        changed = ClipEs(clip, **QUICK, **changes).segment(boat)
        assert not torch.equal(changed.confidence, usual.confidence), changes


def test_tokens_save_the_encoders_pass(clip, boat):
    method = ClipEs(clip, **QUICK)
    expected = method.segment(boat)
    tokens = method.encode(boat.image)
    calls = clip.calls
    assert same(method.segment(boat, tokens=tokens), expected)
    for changes in ({"power": 4}, {"template": "a drawing of a {}."}, {"background": ("sky",)}, {"cam": "plain"}, {"layers": 1}):
        ClipEs(clip, **QUICK, **changes).segment(boat, tokens=tokens)
    assert clip.calls == calls
    method.segment(boat)
    assert clip.calls == calls + 1


def test_layers_are_counted_from_either_end(clip, boat):
    last = clip.layer_count - 1
    by_number = [ClipEs(clip, **QUICK, layers=layers).segment(boat) for layers in (2, (last - 1, last))]
    assert torch.equal(by_number[0].labels, by_number[1].labels)
    every = [ClipEs(clip, **QUICK, layers=layers).segment(boat) for layers in (100, tuple(range(clip.layer_count)))]
    torch.testing.assert_close(every[0].stages["affinity"], every[1].stages["affinity"])
    with pytest.raises(SettingsError, match=rf"tiny has blocks 0 to {last}, got layers \(0, {last + 1}\)"):
        ClipEs(clip, **QUICK, layers=(0, last + 1)).segment(boat)


def test_without_affinity_there_is_no_such_stage(clip, boat):
    result = ClipEs(clip, **QUICK, affinity=False).segment(boat)
    assert list(result.stages) == ["cam"]


@pytest.mark.parametrize("count", [0, MAX_CLASSES + 1])
def test_too_few_and_too_many_classes_are_refused(clip, count):
    sample = Sample(picture(16, 16), tuple(f"thing {number}" for number in range(count)))
    with pytest.raises(PromptError, match=rf"expected 1 to {MAX_CLASSES} classes, got {count}"):
        ClipEs(clip, **QUICK).segment(sample)


def test_as_many_classes_as_allowed(clip):
    sample = Sample(picture(16, 16), tuple(f"thing {number}" for number in range(MAX_CLASSES)))
    assert ClipEs(clip, refiner="pixel-adaptive", iterations=1).segment(sample).stages["refined"].shape == (1 + MAX_CLASSES, 16, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "a photo"}, "exactly one"),
        ({"template": "{} {}"}, "exactly one"),
        ({"synonyms": {"boat": " "}}, "empty"),
        ({"background": ("sky", "")}, "empty"),
        ({"background": ("sky " * 80,)}, "80 words does not fit"),
    ],
)
def test_prompts_that_cannot_be_made_are_refused(clip, boat, changes, message):
    with pytest.raises(PromptError, match=message):
        ClipEs(clip, **QUICK, **changes).segment(boat)


def test_no_background_words_is_a_question_among_the_classes(clip, boat):
    result = ClipEs(clip, **QUICK, background=()).segment(boat)
    assert sum(result.scores.values()) == pytest.approx(1)


@pytest.mark.parametrize("refiner", [pytest.param("crf", marks=needs_crf), "pixel-adaptive", "none"])
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (7, 9)])
def test_the_smallest_pictures_work(clip, refiner, size):
    result = ClipEs(clip, refiner=refiner, iterations=2).segment(Sample(picture(*size), ("boat", "cat", "dog")))
    assert result.labels.shape == size and result.labels.min() >= 0 and result.labels.max() <= 3
    assert all(torch.isfinite(maps).all() for maps in result.stages.values()) and torch.isfinite(result.confidence).all()


def test_a_large_picture_gets_a_mask_of_its_own_size(clip):
    image = np.kron(picture(10, 15), np.ones((100, 100, 1), np.uint8))
    result = ClipEs(clip, refiner="pixel-adaptive", iterations=1, side_limit=160).segment(Sample(image, ("boat",)))
    assert image.shape == (1000, 1500, 3) and result.labels.shape == result.confidence.shape == (1000, 1500)
    assert result.stages["cam"].shape == (1, 107, 160)
    assert ClipEs(clip, **QUICK).segment(Sample(image, ("boat",))).stages["cam"].shape == (1, 427, 640)


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_picture_of_nothing_works(clip, colour):
    result = ClipEs(clip, **QUICK).segment(Sample(np.full((40, 50, 3), colour, np.uint8), ("boat",)))
    assert torch.isfinite(result.confidence).all()


def test_an_empty_map_is_told(clip, boat, monkeypatch):
    """The first class has nothing that speaks for it; the second stays as it is."""

    def planted(tokens, text, targets, *, done=None):
        maps = cam.softmax_grad_cam(tokens, text, targets, done=done)
        maps[:, 0] = -1
        return maps

    from kit.methods import clip_es

    monkeypatch.setattr(clip_es, "CAMS", {**clip_es.CAMS, "softmax": planted})
    result = ClipEs(clip, **QUICK).segment(boat)
    assert result.notes == ("boat: no patch speaks for it, its map is empty", "boat: no box above the threshold, so every patch counts")
    assert not result.stages["cam"][0].any() and result.stages["cam"][1].any() and not (result.labels == 1).any()
    assert ClipEs(clip, **QUICK, cam="plain", box_threshold=0.1).segment(boat).notes == ()


def test_uncertain_pixels_are_ignored(clip, boat):
    method = ClipEs(clip, **QUICK, confidence=0.6)
    result = method.segment(boat)
    pseudo = method.pseudo_mask(result)
    unsure = result.confidence < 0.6
    assert 0 < unsure.float().mean() < 1
    assert (pseudo[unsure] == mask.IGNORE).all() and torch.equal(pseudo[~unsure], result.labels[~unsure])


def test_stages_can_be_scored_one_by_one(clip, boat):
    method = ClipEs(clip, refiner="pixel-adaptive", iterations=1)
    result = method.segment(boat)
    for stage in result.stages:
        assert method.scores_of(result, stage).shape == (3, 64, 80)
    assert torch.equal(method.scores_of(result, "refined").argmax(0), result.labels)
    assert torch.equal(method.scores_of(result, "cam")[1:], result.stages["cam"])


def test_time_is_told_stage_by_stage(clip, boat):
    seconds = ClipEs(clip, refiner="pixel-adaptive", iterations=1).segment(boat).seconds
    assert list(seconds) == ["encode", "text", "cam", "affinity", "refined"] and all(value >= 0 for value in seconds.values())


def test_a_result_checks_itself():
    plane = torch.zeros(2, 3, dtype=torch.int64)
    fields = {
        "names": ("boat",),
        "prompts": {},
        "scores": {},
        "stages": {},
        "labels": plane,
        "confidence": torch.zeros(2, 3),
        "settings": {},
    }
    assert Result(**{**fields, "stages": {"cam": torch.zeros(1, 4, 4), "refined": torch.zeros(2, 2, 3)}}).notes == ()
    for wrong in (
        {"labels": plane[0]},
        {"confidence": torch.zeros(3, 2)},
        {"stages": {"cam": torch.zeros(3, 2, 3)}},
        {"stages": {"cam": plane}},
    ):
        with pytest.raises(ValueError, match="expected"):
            Result(**{**fields, **wrong})


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
