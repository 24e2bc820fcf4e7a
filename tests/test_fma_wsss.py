"""FMA-WSSS as a whole: the paper's numbers, what is learned and what is not, and seeds that are the masks' votes."""

import dataclasses
import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kit import cam, refine, words
from kit.data import DataSet, Entry, Sample, toy_data
from kit.fit import FitError, Schedule, Study, descend, fit, fit_steps
from kit.images import load_mask, save_mask
from kit.learned import Learned, LearnedError
from kit.methods import FmaWsss, FmaWsssSettings
from kit.methods.fma_wsss import CLASSIFICATION, SEGMENTATION, SegmentationTask, coarse_seed, prompt_context
from kit.prompt import PromptError
from kit.propose import LIGHT, SUPERPIXELS, Proposals
from kit.views import CachedViews, label_rows
from kit.vote import NO_MASK, mask_vote, painted_scores

pytestmark = pytest.mark.usefixtures("one_thread")
LESSONS = tuple(FmaWsss.lessons)
QUICK = {
    "side": 64, "context": 4, "coarse": {"steps": 12, "horizon": 12, "warm_up": 2},
    "fine": {"steps": 6, "horizon": 6, "warm_up": 1, "batch": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def by_hand(clip):
    """With hand-crafted prompts, and quickly learned."""
    return FmaWsss(clip, learned=None, **QUICK)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return toy_data("train", 16, size=64)


@pytest.fixture(scope="module")
def sample(data) -> Sample:
    return next(sample for sample in data.samples() if len(sample.names) >= 2)


@pytest.fixture(scope="module")
def told(by_hand, data):
    """A method that has learned a little, and the steps it took."""
    learning = fit_steps(by_hand, data)
    return list(learning), learning.so_far()


@pytest.fixture(scope="module")
def learned(told):
    return told[1]


@pytest.fixture(scope="module")
def views(clip, data):
    views = CachedViews(clip, data, prepare=clip.prepare)
    list(views.fill())
    return views


def left_at(steps, task, number=1):
    """Go on until this step, and leave."""
    steps = iter(steps)
    next(step for step in steps if (step.task, step.step) == (task, number))
    steps.close()


def equal(one: Learned, other: Learned) -> bool:
    return all(torch.equal(one.tensors[lesson], other.tensors[lesson]) for lesson in LESSONS)


def weights_of(clip) -> str:
    digest = hashlib.sha256()
    for tensor in clip.model.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def test_defaults_are_the_papers():
    settings = FmaWsssSettings()
    expected = {
        "context": 16, "layers": 8, "sinkhorn": 1, "power": 2, "proposals": "facebook/sam-vit-huge", "sam_preset": "paper", "crop": 224,
        "scale": [288, 480], "views": "augmented", "confidence": 0,
        **{f"coarse.{name}": value for name, value in {
            "position": "end", "per_class": False, "std": 0.015, "box_threshold": 0.4, "spread": "score", "vote_power": 0.6,
            "batch": 16, "rate": 1e-3, "steps": 1800, "warm_up": 500, "affinity": True, "losses": {},
        }.items()},
        **{f"fine.{name}": value for name, value in {
            "position": "front", "per_class": True, "std": 0.0125, "background": "learned", "box_threshold": 0.5, "spread": "raw",
            "vote_power": 0.7, "batch": 16, "rate": 1e-3, "steps": 17000, "warm_up": 500, "affinity": True, "labels": "seed", "losses": {},
        }.items()},
    }  # fmt: skip
    flat = settings.flat()
    assert {name: flat[name] for name in expected} == expected
    assert settings.background == words.VOC_BACKGROUND and settings.synonyms == words.VOC_PROMPTS
    assert FmaWsss.preset("voc") == settings


def test_cocos_differences():
    settings = FmaWsss.preset("coco")
    coarse, fine = settings.coarse, settings.fine
    assert (fine.per_class, fine.position, fine.background, fine.affinity, fine.labels) == (False, "end", "words", False, "image")
    assert (coarse.spread, coarse.box_threshold, coarse.vote_power, fine.vote_power) == ("raw", 0.6, 0.4, 1.0)
    assert (coarse.steps, coarse.horizon, fine.steps, fine.horizon) == (6150, 20500, 45000, 75000)
    assert (coarse.parts, fine.parts, coarse.warm_up, fine.warm_up, settings.scale) == (4, 8, 1000, 1000, (318, 530))
    assert (fine.std, settings.background) == (0.015, words.COCO_BACKGROUND)


def test_the_tiny_clip_knows_its_words(clip):
    settings = FmaWsss.preset("toy")
    for word in (*settings.background, *words.VOC_CLASSES):
        assert clip.unknown_words(settings.template.replace("{}", word)) == [], word
    for lesson in LESSONS:
        prompt_context(clip, settings, words.VOC_CLASSES, lesson)  # it fits into the tiny CLIP's 32 tokens


def test_without_learning_the_hand_crafted_prompts_are_asked(by_hand, sample):
    result = by_hand.segment(sample)
    assert list(result.stages) == ["cam", "affinity", "coarse"] and list(result.votes) == ["coarse"]
    assert result.prompts == {name: f"a clean origami {name}." for name in sample.names}
    assert any("hand-crafted" in note for note in result.notes) and any("superpixels" in note for note in result.notes)


def test_stages_of_learned_prompts(learned, sample):
    result, count = learned.segment(sample), len(sample.names)
    assert list(result.stages) == list(learned.titles) == ["cam", "affinity", "coarse", "fine_cam", "fine_affinity", "fine"]
    for name, planes in result.stages.items():
        assert planes.shape == (count + (name in ("coarse", "fine")), 64, 64), name
    for name in ("cam", "affinity"):
        assert not torch.equal(result.stages[f"fine_{name}"], result.stages[name])
    assert not torch.equal(result.stages["fine"], result.stages["coarse"])
    assert result.settings["learned"] == learned.learned.fingerprint and not result.notes[0].startswith("the prompts are hand-crafted")
    assert result.prompts[sample.names[0]] == f"{sample.names[0]} [4 learned]."


def test_the_largest_plane_is_the_masks_vote(learned, sample):
    result = learned.segment(sample)
    for level, vote in result.votes.items():
        assert torch.equal(result.stages[level].max(0).indices, vote.labels), level
        assert torch.equal(result.stages[level].amax(0), vote.confidence), level
    assert torch.equal(result.labels, result.votes["fine"].labels)
    assert result.proposals.source == SUPERPIXELS and len(result.proposals) == len(result.votes["fine"].mask_labels)


def test_the_maps_are_those_of_the_vote(by_hand, sample):
    """A chain written out: what votes is the spread map, not the one that is shown."""
    method = by_hand.changed(coarse__affinity=False)
    tokens = method.encode(sample.image)
    result = method.segment(sample, tokens=tokens)
    raw = cam.softmax_grad_cam(tokens, result.words.text, range(len(sample.names)))
    assert torch.equal(result.labels, mask_vote(raw[0], result.proposals, power=method.settings.coarse.vote_power).labels)


def voted_by(pipeline, proposals):
    """The same method whose masks are these."""
    stage = dataclasses.replace(FmaWsss.stage("proposals"), run=lambda scene, done: proposals)
    return dataclasses.replace(pipeline, method=FmaWsss.with_stage(stage))


@pytest.mark.parametrize("confidence", [0.0, 1e-3])
def test_pixels_in_no_mask_are_background_and_unsure(by_hand, sample, confidence):
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :20], masks[1, 20:40] = True, True
    method = voted_by(by_hand.changed(confidence=confidence), Proposals(masks, torch.tensor([2, 2]), "two bars"))
    result = method.segment(sample)
    assert (result.labels[40:] == 0).all() and (result.confidence[40:] == 0).all() and (result.votes["coarse"].mask[40:] == NO_MASK).all()
    assert (result.pseudo_mask[40:] == (255 if confidence else 0)).all() and (result.pseudo_mask[:40] != 255).all()


def test_without_any_mask_each_pixel_votes(by_hand, sample):
    nothing = Proposals(torch.zeros(0, 64, 64, dtype=torch.bool), torch.zeros(0, dtype=torch.long), "nobody")
    result = voted_by(by_hand, nothing).segment(sample)
    assert torch.equal(result.labels, result.votes["coarse"].labels) and result.labels.any()
    assert torch.equal(painted_scores(result.votes["coarse"]).amax(0), result.votes["coarse"].confidence)


def test_a_sam_is_loaded_once_and_asked_as_its_preset_says(by_hand, sample, monkeypatch):
    asked = []
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, :32] = True
    step = SimpleNamespace(proposals=Proposals(masks, torch.tensor([2]), "SAM planted"))
    monkeypatch.setattr("kit.propose.Sam.load", lambda name, device: asked.append(name) or "a SAM")
    monkeypatch.setattr("kit.methods.fma_wsss.sam_proposals", lambda image, sam, settings: asked.append((sam, settings)) or iter([step]))
    method = by_hand.changed(proposals="a/sam", sam_preset="light")
    for _ in range(2):
        result = method.segment(sample)
    assert asked == ["a/sam", ("a SAM", LIGHT), ("a SAM", LIGHT)] and result.proposals.source == "SAM planted"
    assert not any("superpixels" in note for note in result.notes)


def test_affinity_can_be_left_out(learned, sample):
    bare = learned.changed(coarse__affinity=False, fine__affinity=False)
    assert list(bare.segment(sample).stages) == ["cam", "coarse", "fine_cam", "fine"]


def test_only_what_was_learned_can_be_asked(learned, sample):
    with pytest.raises(PromptError, match="the prompts were learned for 20 classes, dragon is none of them"):
        learned.segment(sample, ("cat", "dragon"))
    half = dataclasses.replace(learned, learned=learned.learned.only(CLASSIFICATION))
    assert list(half.segment(sample).stages) == ["cam", "affinity", "coarse"]
    wrong = Learned({CLASSIFICATION: torch.zeros(3, 128)}, learned.learned.about)
    with pytest.raises(ValueError, match=r"expected classification contexts \(4, 128\), got \(3, 128\)"):
        dataclasses.replace(learned, learned=wrong).segment(sample)


def test_what_it_is_compared_with_asks_otherwise(learned, by_hand, sample):
    compared = learned.compared(words.VOC_CLASSES)
    assert list(compared) == ["by hand", "control"] and list(by_hand.compared(words.VOC_CLASSES)) == ["control"]
    crafted = compared["by hand"].pipeline.segment(sample)
    assert crafted.stages.keys() == {"cam", "affinity", "coarse"} and torch.equal(crafted.planes, by_hand.segment(sample).planes)
    right, shifted = (one.opened.texts[CLASSIFICATION] for one in (learned, compared["control"].pipeline))
    assert torch.equal(shifted[:20], right[:20].roll(-1, 0)) and torch.equal(shifted[20:], right[20:])
    control = by_hand.compared(words.VOC_CLASSES)["control"].pipeline
    assert control.segment(sample, ("cat",)).prompts["cat"] == "a clean origami chair."


def test_learning_lowers_the_contrastive_loss_and_changes_nothing_but_the_contexts(by_hand, data):
    clip, start = by_hand.clip, by_hand.method.lessons[CLASSIFICATION].start(by_hand, data.classes)[CLASSIFICATION]
    before, pipeline = weights_of(clip), by_hand.changed(coarse={"steps": 20, "horizon": 20, "batch": 16, "rate": 0.05})
    steps = fit_steps(pipeline, data, lessons=CLASSIFICATION)  # each step sees all pictures
    losses = [step.loss for step in steps if step.task == CLASSIFICATION]
    assert losses[-1] < 0.97 * losses[0]
    assert weights_of(clip) == before and all(weights.grad is None for weights in clip.model.parameters())
    assert not torch.equal(steps.so_far().learned.tensors[CLASSIFICATION], start)


def test_learning_moves_the_maps_onto_the_seeds(clip, data, views):
    truths = [entry.truth() for entry in data.entries]
    context = prompt_context(clip, FmaWsss.preset("toy"), data.classes, SEGMENTATION)

    def share_inside() -> float:
        tokens, seeds = views.tokens_and_seeds(range(16), torch.Generator(), truths.__getitem__)
        present = label_rows(views.names, data.classes)
        with torch.no_grad():
            maps = cam.masked_softmax_grad_cam(tokens, context.text(clip), present).relu()
        images, classes = present.nonzero(as_tuple=True)
        maps = refine.upsampled(maps[:, None], (64, 64))[:, 0]
        inside = (maps * (seeds[images] == (classes + 1)[:, None, None])).flatten(1).sum(1) / maps.flatten(1).sum(1).clamp_min(1e-12)
        return float(inside.mean())

    before = share_inside()
    task = SegmentationTask(clip, context, views, 20, truths.__getitem__)
    list(descend(task, Schedule(20, 3.0), batch=16, weights={"foreground": 4.0}))
    assert share_inside() > before + 0.02


def test_the_steps_tell_their_task(told):
    steps, _ = told
    assert list(dict.fromkeys(step.task for step in steps)) == ["encoding", CLASSIFICATION, "coarse seeds", SEGMENTATION]
    assert [step.step for step in steps if step.task == "coarse seeds"] == list(range(1, 17))
    assert {tuple(step.losses) for step in steps if step.task == SEGMENTATION} == {("foreground", "background")}


def test_the_same_seed_learns_the_same_and_another_does_not(by_hand, data):
    first, again, other = (fit(by_hand.changed(seed=seed), data, steps=2, progress=False).learned for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint
    assert all(not torch.equal(first.tensors[lesson], other.tensors[lesson]) for lesson in LESSONS)


@pytest.mark.parametrize("left_in", ["classification", "coarse seeds", "segmentation"])
def test_learning_that_was_left_goes_on_the_same_way(by_hand, data, learned, tmp_path, left_in):
    path, work = tmp_path / "prompts.safetensors", tmp_path / "prompts.safetensors.work"
    left_at(fit_steps(by_hand, data, path), left_in, 3)
    assert work.is_dir() and not path.exists()
    again = fit_steps(by_hand, data, path)
    later = [step for step in again if step.task in LESSONS]
    assert (later[0].task, later[0].step) == {"coarse seeds": (SEGMENTATION, 1)}.get(left_in, (left_in, 4))
    assert equal(again.so_far().learned, learned.learned) and path.exists() and not work.exists()


@pytest.mark.parametrize(("left_in", "message"), [("classification", "other settings"), ("coarse seeds", "learned with settings")])
def test_a_way_of_other_settings_is_refused(by_hand, data, tmp_path, left_in, message):
    path = tmp_path / "prompts.safetensors"
    left_at(fit_steps(by_hand, data, path), left_in)
    with pytest.raises(ValueError, match=message):
        list(fit_steps(by_hand, data, path, coarse__vote_power=3.0))


def test_a_way_with_other_labels_is_refused(by_hand, data, tmp_path):
    path = tmp_path / "prompts.safetensors"
    left_at(fit_steps(by_hand, data, path), SEGMENTATION)
    relabelled = dataclasses.replace(data, entries=tuple(dataclasses.replace(entry, names=lambda: ("cat",)) for entry in data.entries))
    with pytest.raises(ValueError, match="learned with list"):
        list(fit_steps(by_hand, relabelled, path))
    assert list(fit_steps(by_hand, data, path))[-1].step == QUICK["fine"]["steps"]  # its own labels go on


def test_one_lesson_alone_and_the_other_later(by_hand, data, learned):
    with pytest.raises(FitError, match="segmentation builds on classification: learn that first, or both"):
        fit_steps(by_hand, data, lessons=SEGMENTATION)
    half = fit(by_hand, data, lessons=CLASSIFICATION, progress=False)
    assert list(half.learned.tensors) == half.learned.about["tasks"] == [CLASSIFICATION]
    whole = fit(half, data, lessons=SEGMENTATION, progress=False)
    assert equal(whole.learned, learned.learned) and whole.learned.about["tasks"] == list(LESSONS)
    with pytest.raises(FitError, match="learned for other classes than those of toy"):
        fit_steps(half, dataclasses.replace(data, classes=(*data.classes, "dragon")), lessons=SEGMENTATION)
    with pytest.raises(FitError, match="in this order"):
        fit_steps(by_hand, data, lessons=(SEGMENTATION, CLASSIFICATION))


def test_seeds_of_other_prompts_are_not_taken(learned, data, tmp_path):
    path, prompts = tmp_path / "prompts.safetensors", learned.learned
    left_at(fit_steps(learned, data, path, lessons=SEGMENTATION), "coarse seeds", 3)
    changed = dataclasses.replace(prompts, tensors={lesson: vectors + 1 for lesson, vectors in prompts.tensors.items()}, _made={})
    with pytest.raises(LearnedError, match="this was learned with fingerprint"):
        list(fit_steps(dataclasses.replace(learned, learned=changed), data, path, lessons=SEGMENTATION))


def test_what_was_learned_travels(learned, clip, sample, tmp_path):
    path = tmp_path / "prompts.safetensors"
    learned.save(path)
    loaded = FmaWsss(clip, learned=path)
    assert loaded.settings == learned.settings and loaded.learned.classes == words.VOC_CLASSES
    assert torch.equal(loaded.segment(sample).planes, learned.segment(sample).planes)
    assert FmaWsss(clip, learned=path, coarse__vote_power=2.0).settings.coarse.vote_power == 2.0
    about = loaded.learned.about
    assert (about["method"], about["model"], about["clip"], about["data"], about["split"], about["images"]) == (
        "fma-wsss", "tiny", clip.fingerprint, "toy", "train", 16,
    )  # fmt: skip
    assert about["tasks"] == list(LESSONS) and about["settings"]["seed"] == 0 and about["kit"]


def test_a_file_that_does_not_belong_is_refused(learned, by_hand, tmp_path, clip, random_clip):
    path = tmp_path / "prompts.safetensors"
    learned.save(path)
    with pytest.raises(LearnedError, match="this was learned with tiny"):
        FmaWsss(random_clip, learned=path)
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(LearnedError, match="no file of something the kit has learned"):
        FmaWsss(clip, learned=tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match="nothing was learned"):
        by_hand.save(path)


def test_seeds_are_numbers_of_the_data_sets_classes(learned, data, tmp_path):
    for index, sample in enumerate(data.samples()):
        coarse_seed(learned, data, index, tmp_path)
        seed, labels = load_mask(tmp_path / f"{index:06d}.png"), learned.segment(sample).labels.numpy()
        assert np.array_equal(seed, np.array([0, *(data.classes.index(name) + 1 for name in sample.names)], np.uint8)[labels])


def test_two_processes_make_half_of_the_seeds_each_and_keep_what_is_there(learned, data, tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "barrier", lambda self: None)
    save_mask(tmp_path / "000001.png", np.full((64, 64), 7, np.uint8))
    study = Study(learned, data, tmp_path, rank=1, world=2)
    steps = list(study.shared_out("coarse seeds", len(data), lambda index: coarse_seed(learned, data, index, tmp_path)))
    assert [step.step for step in steps] == list(range(1, 9))
    assert sorted(file.stem for file in tmp_path.glob("*.png")) == [f"{index:06d}" for index in range(1, 16, 2)]
    assert (load_mask(tmp_path / "000001.png") == 7).all()


def test_pictures_without_a_class_in_the_seed_teach_nothing(by_hand, data, views):
    clip, seeds = by_hand.clip, {0: np.zeros((64, 64), np.uint8), 1: np.zeros((64, 64), np.uint8)}
    task = SegmentationTask(clip, prompt_context(clip, by_hand.settings, data.classes, SEGMENTATION), views, 20, seeds.get)
    assert task.losses([0, 1], torch.Generator()) == {}
    seeds[1][:8] = 3
    both, alone = (task.losses(indices, torch.Generator()) for indices in ([0, 1], [1]))
    assert both["foreground"] > 0 and torch.allclose(both["foreground"], alone["foreground"])


def test_losses_are_weighted_by_name(learned, data):
    """The same lesson with one loss weighed four times: its first step tells four times that loss."""
    usual, heavy = (
        next(step for step in fit_steps(learned, data, lessons=SEGMENTATION, losses=losses) if step.losses).losses
        for losses in ({"foreground": 1}, {"foreground": 4})
    )
    assert heavy["foreground"] == pytest.approx(4 * usual["foreground"]) and heavy["background"] == usual["background"]


def test_on_coco_a_view_asks_for_the_classes_of_its_image(by_hand, data, views):
    clip, empty = by_hand.clip, np.zeros((64, 64), np.uint8)
    labels, context = label_rows(views.names, data.classes), prompt_context(clip, by_hand.settings, data.classes, SEGMENTATION)
    of_seed = SegmentationTask(clip, context, views, 20, lambda index: empty)
    of_image = SegmentationTask(clip, context, views, 20, lambda index: empty, labels=labels)
    pictured = [index for index, names in enumerate(views.names) if names][:2]
    assert of_seed.losses(pictured, torch.Generator()) == {}
    losses = of_image.losses(pictured, torch.Generator())
    assert losses["foreground"] == 0 and losses["background"] > 0  # classes that are not in the piece: all of it should be cold


def test_empty_names_and_their_contexts(clip, data):
    settings = FmaWsss.preset("toy")
    context = prompt_context(clip, settings, data.classes, SEGMENTATION)
    assert context.names == (*data.classes, *[""] * 22) and context.vectors.shape == (42, 16, 128)
    context = prompt_context(clip, settings, data.classes, CLASSIFICATION)
    assert context.names[20:] == settings.background and context.vectors.shape == (16, 128)


def test_vectors_of_a_class_can_be_read(learned):
    coarse, fine = (FmaWsss.lessons[lesson].vectors(learned, "cat") for lesson in LESSONS)
    assert torch.equal(coarse, learned.learned.tensors[CLASSIFICATION]) and coarse.shape == fine.shape == (4, 128)
    assert torch.equal(fine, learned.learned.tensors[SEGMENTATION][words.VOC_CLASSES.index("cat")])


def test_learning_from_augmented_views(by_hand, data):
    learning = fit_steps(by_hand, data, steps=2, views="augmented", crop=48, scale=(60, 90))
    assert [step.task for step in learning if step.task in LESSONS] == [CLASSIFICATION] * 2 + [SEGMENTATION] * 2
    assert list(learning.so_far().opened.texts) == list(LESSONS)


def test_a_data_set_of_other_classes(by_hand):
    sample = next(toy_data("train", 1, size=64).samples())
    entry = Entry("one", lambda: ("cat",), lambda: (64, 64), lambda: sample.image)
    data = DataSet("folder", "", ("cat", "dog"), "a list", (entry, dataclasses.replace(entry, id="two")))
    method = fit(by_hand, data, steps=2, progress=False)
    assert method.learned.classes == ("cat", "dog")
    assert method.segment(Sample(sample.image, ("dog",))).labels.shape == (64, 64)
    with pytest.raises(PromptError, match="learned for 2 classes, sofa is none of them: choose among cat, dog"):
        method.segment(Sample(sample.image, ("sofa",)))
