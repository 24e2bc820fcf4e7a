"""FMA-WSSS as a whole: the paper's numbers, what is learned and what is not, and seeds that are the masks' votes."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from kit import cam, refine, words
from kit.data import DataSet, Entry, Sample, toy_data
from kit.encode import Clip, build_small_clip
from kit.fit import FitError, Schedule, fit
from kit.images import load_mask, save_mask
from kit.learned import LearnedError
from kit.methods import METHODS, FmaWsss, FmaWsssSettings
from kit.methods.fma_fit import AugmentedViews, CachedViews, SegmentationTask, augmented, colour_jitter, label_rows
from kit.methods.fma_wsss import CHOICES, PRESETS, RANGES, TASKS, coarse_seeds, painted_scores, preset, prompt_context
from kit.methods.settings import SettingsError
from kit.prompt import PromptError
from kit.propose import LIGHT, SUPERPIXELS, Proposals
from kit.vote import NO_MASK, mask_vote

QUICK = {
    "side": 64, "context": 4, "steps": 12, "horizon": 12, "warm_up": 2,
    "fine_steps": 6, "fine_horizon": 6, "fine_warm_up": 1, "fine_batch": 4,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def data() -> DataSet:
    return toy_data("train", 16, size=64)


@pytest.fixture(scope="module")
def sample(data) -> Sample:
    return next(sample for sample in data.samples() if len(sample.names) >= 2)


@pytest.fixture(scope="module")
def learned(clip, data) -> FmaWsss:
    """A method that has learned a little, with its steps."""
    method = FmaWsss(clip, **QUICK)
    method.told = list(method.fit(data))
    return method


def weights_of(clip) -> str:
    digest = hashlib.sha256()
    for tensor in clip.model.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def same(one, other) -> bool:
    return one.stages.keys() == other.stages.keys() and all(torch.equal(one.stages[name], other.stages[name]) for name in one.stages)


# settings


def test_defaults_are_the_papers():
    settings = FmaWsssSettings()
    expected = {
        "context": 16, "position": "end", "per_class": False, "std": 0.015, "fine_position": "front", "fine_per_class": True,
        "fine_std": 0.0125, "fine_background": "learned", "layers": 8, "sinkhorn": 1, "power": 2, "box_threshold": 0.4,
        "fine_box_threshold": 0.5, "spread": "score", "fine_spread": "raw", "vote_power": 0.6, "fine_vote_power": 0.7,
        "proposals": "facebook/sam-vit-huge", "sam_preset": "paper", "crop": 224, "scale": (288, 480), "batch": 16, "rate": 1e-3,
        "steps": 1800, "warm_up": 500, "fine_steps": 17000, "fine_warm_up": 500, "views": "augmented", "confidence": 0,
        "fine_foreground": 1.0,
    }  # fmt: skip
    assert {name: getattr(settings, name) for name in expected} == expected
    assert settings.background == words.VOC_BACKGROUND and settings.synonyms == words.VOC_PROMPTS
    assert preset("voc") == settings


def test_cocos_differences():
    settings = preset("coco")
    assert (settings.fine_per_class, settings.fine_position, settings.fine_background) == (False, "end", "words")
    assert settings.fine_affinity is False
    assert (settings.spread, settings.box_threshold, settings.fine_vote_power) == ("raw", 0.6, 1.0)
    assert (settings.steps, settings.horizon, settings.fine_steps, settings.fine_horizon) == (6150, 20500, 45000, 75000)
    assert (settings.parts, settings.fine_parts, settings.fine_labels) == (4, 8, "image")
    assert (settings.warm_up, settings.fine_warm_up, settings.scale, settings.vote_power) == (1000, 1000, (318, 530), 0.4)
    assert (settings.fine_std, settings.background) == (0.015, words.COCO_BACKGROUND)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_travels_through_json(name):
    settings = preset(name)
    assert FmaWsssSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert FmaWsssSettings.from_dict({"method": "fma-wsss", "model": "tiny", **settings.to_dict()}) == settings


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "0.5", "", None, [1], {}, 10**400])
@pytest.mark.parametrize("name", [*RANGES, "side"])
def test_what_is_no_number_in_range_is_refused(name, value):
    if name == "side" and value is None:
        return
    with pytest.raises(SettingsError, match=rf"expected {name} to be a (whole )?number from .* to .*, got"):
        FmaWsssSettings(**{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: "sideways"}, f"expected {name} to be one of") for name in CHOICES),
        ({"background": "sky"}, "expected background to be a list of words"),
        ({"synonyms": ["cat"]}, "expected synonyms"),
        ({"layers": 0}, "expected layers"),
        ({"affinity": 1}, "expected affinity to be true or false"),
        ({"proposals": " "}, "expected proposals to be 'superpixels' or a SAM's name or folder"),
        ({"regions": (30, 80, 250)}, "three numbers of regions, finest first"),
        ({"scale": (480, 288)}, "the lowest and highest length"),
        ({"fine_per_class": False}, "backgrounds without a word need contexts of their own"),
        ({"warm_up": 1800}, "expected warm_up to be less than steps"),
        ({"fine_horizon": 16999}, "fine_horizon at least fine_steps"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        FmaWsssSettings(**changes)


def test_unknown_names_are_refused(clip):
    for make in (lambda: preset("voc", colour=3), lambda: FmaWsss(clip, colour=3), lambda: FmaWsssSettings.from_dict({"colour": 3})):
        with pytest.raises(SettingsError, match="unknown setting colour: FMA-WSSS has affinity"):
            make()
    with pytest.raises(SettingsError, match="expected a preset out of voc, coco, toy"):
        preset("imagenet")
    with pytest.raises(SettingsError, match="expected settings of fma-wsss, got those of 'clip-es'"):
        FmaWsssSettings.from_dict({"method": "clip-es"})


def test_the_preset_fits_the_model(clip):
    assert FmaWsss(clip).settings == preset("toy") and METHODS["fma-wsss"] is FmaWsss
    for word in (*preset("toy").background, *words.VOC_CLASSES):
        assert clip.unknown_words(preset("toy").template.replace("{}", word)) == [], word
    for task in TASKS:
        prompt_context(clip, preset("toy"), words.VOC_CLASSES, task)  # it fits into the tiny CLIP's 32 tokens


# from a picture to its seeds


def test_without_learning_the_hand_written_prompts_are_asked(clip, sample):
    result = FmaWsss(clip, **QUICK).segment(sample)
    assert list(result.stages) == ["cam", "affinity", "coarse"] and list(result.votes) == ["coarse"]
    assert result.prompts == {name: f"a clean origami {name}." for name in sample.names}
    assert any("hand-written" in note for note in result.notes) and any("superpixels" in note for note in result.notes)


def test_stages_of_learned_prompts(learned, sample):
    result = learned.segment(sample)
    assert tuple(result.stages) == learned.stages
    assert set(learned.stages) <= set(learned.titles)
    count = len(sample.names)
    for name, planes in result.stages.items():
        assert planes.shape == (count + (name in ("coarse", "fine")), 64, 64), name
        assert planes.min() >= 0 and planes.max() <= 1, name
        assert learned.scores_of(result, name).shape == (1 + count, 64, 64)
    for name in ("cam", "affinity"):
        assert not torch.equal(result.stages[f"fine_{name}"], result.stages[name])
    assert not torch.equal(result.stages["fine"], result.stages["coarse"])
    assert result.settings["learned"] == learned.learned.fingerprint
    assert FmaWsssSettings.from_dict(result.settings) == learned.settings


def test_the_largest_plane_is_the_masks_vote(learned, sample):
    result = learned.segment(sample)
    for level, vote in result.votes.items():
        assert torch.equal(result.stages[level].max(0).indices, vote.labels), level
        assert torch.equal(result.stages[level].amax(0), vote.confidence), level
    assert torch.equal(result.labels, result.votes["fine"].labels)
    assert result.proposals.source == SUPERPIXELS and len(result.proposals) == len(result.votes["fine"].mask_labels)


def test_the_maps_are_those_of_the_vote(clip, sample):
    """A chain written out: what votes is the spread map, not the one that is shown."""
    method = FmaWsss(clip, **QUICK, affinity=False)
    proposals = method.proposals(sample.image)
    tokens = method.encode(sample.image)
    raw = cam.softmax_grad_cam(tokens, method.question(sample.names).texts["coarse"], range(len(sample.names)))
    expected = mask_vote(raw[0], proposals, power=method.settings.vote_power)
    assert torch.equal(method.segment(sample).labels, expected.labels)


@pytest.mark.parametrize("confidence", [0.0, 1e-3])
def test_pixels_in_no_mask_are_background_and_unsure(clip, sample, confidence):
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :20], masks[1, 20:40] = True, True
    proposals = Proposals(masks, torch.tensor([2, 2]), "two bars")
    method = FmaWsss(clip, **QUICK, confidence=confidence)
    result = method.segment(sample, proposals=proposals)
    assert (result.labels[40:] == 0).all() and (result.confidence[40:] == 0).all() and (result.votes["coarse"].mask[40:] == NO_MASK).all()
    assert (method.pseudo_mask(result)[40:] == (255 if confidence else 0)).all()
    assert (method.pseudo_mask(result)[:40] != 255).all()


def test_without_any_mask_each_pixel_votes(clip, sample):
    nothing = Proposals(torch.zeros(0, 64, 64, dtype=torch.bool), torch.zeros(0, dtype=torch.long), "nobody")
    result = FmaWsss(clip, **QUICK).segment(sample, proposals=nothing)
    assert torch.equal(result.labels, result.votes["coarse"].labels) and result.labels.any()
    assert torch.equal(painted_scores(result.votes["coarse"]).amax(0), result.votes["coarse"].confidence)


def test_a_sam_is_loaded_once_and_asked_as_its_preset_says(clip, sample, monkeypatch):
    told = []
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, :32] = True
    step = SimpleNamespace(proposals=Proposals(masks, torch.tensor([2]), "SAM planted"))
    monkeypatch.setattr("kit.methods.fma_wsss.Sam.load", lambda name, device: told.append(name) or "a SAM")
    monkeypatch.setattr("kit.methods.fma_wsss.sam_proposals", lambda image, sam, settings: told.append((sam, settings)) or iter([step]))
    method = FmaWsss(clip, **QUICK, proposals="a/sam", sam_preset="light")
    for _ in range(2):
        result = method.segment(sample)
    assert told == ["a/sam", ("a SAM", LIGHT), ("a SAM", LIGHT)] and result.proposals.source == "SAM planted"
    assert not any("superpixels" in note for note in result.notes)


def test_affinity_can_be_left_out(learned, sample):
    method = FmaWsss(learned.clip, learned=learned.learned, affinity=False, fine_affinity=False)
    assert list(method.segment(sample).stages) == ["cam", "coarse", "fine_cam", "fine"]


def test_large_pictures_are_worked_on_smaller(clip):
    picture = np.random.default_rng(0).integers(0, 256, (90, 150, 3), dtype=np.uint8)
    result = FmaWsss(clip, **QUICK, side_limit=75).segment(Sample(picture, ("cat",)))
    assert result.labels.shape == (90, 150) and result.stages["coarse"].shape == (2, 45, 75)


def test_what_cannot_be_asked_is_refused(learned, clip, sample):
    with pytest.raises(PromptError, match="the prompts were learned for 20 classes, dragon is none of them"):
        learned.segment(dataclasses.replace(sample, names=("cat", "dragon")))
    with pytest.raises(PromptError, match="choose at least one class"):
        learned.segment(dataclasses.replace(sample, names=()))
    with pytest.raises(SettingsError, match="encode again"):
        learned.segment(sample, tokens=clip.encode(clip.prepare(sample.image)[None], layers=(3,)))
    with pytest.raises(SettingsError, match="background belongs to the learned prompts"):
        FmaWsss(clip, learned=learned.learned, background=("sky",))


def test_siblings_ask_otherwise(learned, clip, sample):
    siblings = learned.siblings(words.VOC_CLASSES)
    assert list(siblings) == ["by hand", "control"]
    own = learned.segment(sample)
    assert same(siblings["by hand"].segment(sample), FmaWsss(clip, **QUICK).segment(sample))
    assert not torch.equal(siblings["control"].segment(sample).stages["cam"], own.stages["cam"])
    index = words.VOC_CLASSES.index(sample.names[0])
    shifted = siblings["control"].learned.texts[TASKS[0]]
    assert torch.equal(shifted[index], learned.learned.texts[TASKS[0]][(index + 1) % 20])
    assert torch.equal(shifted[20:], learned.learned.texts[TASKS[0]][20:])
    assert list(FmaWsss(clip, **QUICK).siblings(words.VOC_CLASSES)) == ["control"]


# learning


def test_learning_lowers_the_contrastive_loss_and_changes_nothing_but_the_contexts(clip, data):
    before = weights_of(clip)
    method = FmaWsss(clip, **{**QUICK, "steps": 20, "horizon": 20, "batch": 16}, rate=0.05)  # each step sees all pictures
    steps = list(method.fit(data))
    assert weights_of(clip) == before and all(weights.grad is None for weights in clip.model.parameters())
    losses = [step.loss for step in steps if step.task == TASKS[0]]
    assert losses[-1] < 0.97 * losses[0]
    start = {task: prompt_context(clip, method.settings, data.classes, task).vectors for task in TASKS}
    assert all(not torch.equal(method.learned.contexts[task], start[task].detach()) for task in TASKS)


def test_learning_moves_the_maps_onto_the_seeds(clip, data):
    views = CachedViews(clip, data, prepare=clip.prepare)
    list(views.fill())
    truths = [entry.truth() for entry in data.entries]
    context = prompt_context(clip, preset("toy"), data.classes, TASKS[1])

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
    task = SegmentationTask(clip, context, views, 20, truths.__getitem__, foreground=4.0)
    list(fit(task, Schedule(20, 3.0), batch=16))
    assert share_inside() > before + 0.02


def test_the_steps_tell_their_task(learned):
    tasks = list(dict.fromkeys(step.task for step in learned.told))
    assert tasks == ["encoding", "classification", "coarse seeds", "segmentation"]
    assert [step.step for step in learned.told if step.task == "coarse seeds"] == list(range(1, 17))
    assert {tuple(step.losses) for step in learned.told if step.task == "segmentation"} == {("foreground", "background")}


def test_the_same_seed_learns_the_same_and_another_does_not(clip, data):
    def vectors(seed):
        method = FmaWsss(clip, **{**QUICK, "steps": 4, "fine_steps": 2}, seed=seed)
        list(method.fit(data))
        return method.learned.contexts

    first, again, other = vectors(3), vectors(3), vectors(4)
    assert all(torch.equal(first[task], again[task]) and not torch.equal(first[task], other[task]) for task in TASKS)


@pytest.mark.parametrize("left_in", ["classification", "coarse seeds", "segmentation"])
def test_a_run_that_was_left_goes_on_the_same_course(clip, data, learned, tmp_path, left_in):
    path = tmp_path / "prompts.safetensors"
    steps = FmaWsss(clip, **QUICK).fit(data, path)
    for step in steps:
        if step.task == left_in and step.step == 3:
            break
    steps.close()
    work = tmp_path / "prompts.safetensors.work"
    assert work.is_dir() and not path.exists()
    method = FmaWsss(clip, **QUICK)
    later = [step for step in method.fit(data, path) if step.task in TASKS]
    assert (later[0].task, later[0].step) == {"coarse seeds": (TASKS[1], 1)}.get(left_in, (left_in, 4))
    assert all(torch.equal(method.learned.contexts[task], learned.learned.contexts[task]) for task in TASKS)
    assert path.exists() and not work.exists()


def test_two_processes_learn_what_one_learns_with_two_parts(clip, data, tmp_path):
    changes = {**QUICK, "parts": 2, "fine_parts": 2}
    alone = FmaWsss(clip, **changes)
    list(alone.fit(data))
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, torch\n"
        "from kit.data import toy_data\n"
        "from kit.encode import Clip\n"
        "from kit.methods import FmaWsss\n"
        'torch.distributed.init_process_group("gloo")\n'
        f"method = FmaWsss(Clip.load('tiny', device='cpu'), **{changes!r})\n"
        "list(method.fit(toy_data('train', 16, size=64), sys.argv[1], rank=torch.distributed.get_rank(), world=2))\n"
        "torch.distributed.destroy_process_group()\n"
    )
    path = tmp_path / "prompts.safetensors"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(path)]
    subprocess.run(command, check=True, timeout=250, capture_output=True, env={**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"})
    together = FmaWsss.load(path, clip)
    for task in TASKS:
        assert torch.allclose(together.learned.contexts[task], alone.learned.contexts[task], atol=1e-4), task
    assert not list(tmp_path.glob("*.work"))


def test_a_way_of_other_settings_is_refused(clip, data, tmp_path):
    path = tmp_path / "prompts.safetensors"
    for left_in in ("classification", "coarse seeds"):
        steps = FmaWsss(clip, **QUICK).fit(data, path)
        next(step for step in steps if step.task == left_in)
        steps.close()
        with pytest.raises(ValueError, match="other settings" if left_in == "classification" else "learned with settings"):
            list(FmaWsss(clip, **QUICK, vote_power=3.0).fit(data, path))


def test_a_way_with_other_labels_is_refused(clip, data, tmp_path):
    path = tmp_path / "prompts.safetensors"
    steps = FmaWsss(clip, **QUICK).fit(data, path)
    next(step for step in steps if step.task == "segmentation")
    steps.close()
    relabelled = dataclasses.replace(data, entries=tuple(dataclasses.replace(entry, names=lambda: ("cat",)) for entry in data.entries))
    with pytest.raises(ValueError, match="learned with list"):
        list(FmaWsss(clip, **QUICK).fit(relabelled, path))
    assert list(FmaWsss(clip, **QUICK).fit(data, path))[-1].step == QUICK["fine_steps"]  # its own labels go on


def test_one_task_alone_and_the_other_later(clip, data, learned):
    method = FmaWsss(clip, **QUICK)
    with pytest.raises(FitError, match="learn these first"):
        next(method.fit(data, tasks=("segmentation",)))
    list(method.fit(data, tasks=("classification",)))
    assert list(method.learned.texts) == ["classification"] and method.learned.about["tasks"] == ["classification"]
    list(method.fit(data, tasks=("segmentation",)))
    assert all(torch.equal(method.learned.contexts[task], learned.learned.contexts[task]) for task in TASKS)
    other = dataclasses.replace(data, classes=(*data.classes, "dragon"))
    with pytest.raises(FitError, match="learned for other classes than those of toy"):
        next(method.fit(other, tasks=("segmentation",)))
    with pytest.raises(FitError, match="in this order"):
        next(method.fit(data, tasks=("segmentation", "classification")))


def test_seeds_of_other_prompts_are_not_taken(clip, data, learned, tmp_path):
    path = tmp_path / "prompts.safetensors"
    changed = dataclasses.replace(learned.learned, contexts={task: vectors + 1 for task, vectors in learned.learned.contexts.items()})
    for prompts in (learned.learned, changed):
        steps = FmaWsss(clip, learned=prompts).fit(data, path, tasks=("segmentation",))
        if prompts is changed:
            with pytest.raises(LearnedError, match="this was learned with fingerprint"):
                list(steps)
        else:
            next(step for step in steps if step.task == "coarse seeds")
            steps.close()


def test_what_was_learned_travels(learned, clip, sample, tmp_path):
    path = tmp_path / "prompts.safetensors"
    learned.save(path)
    loaded = FmaWsss.load(path, clip)
    assert loaded.settings == learned.settings and loaded.learned.classes == words.VOC_CLASSES
    assert same(loaded.segment(sample), learned.segment(sample))
    assert FmaWsss.load(path, clip, vote_power=2.0).settings.vote_power == 2.0
    about = loaded.learned.about
    assert (about["method"], about["model"], about["clip"], about["data"], about["split"], about["images"]) == (
        "fma-wsss", "tiny", clip.fingerprint, "toy", "train", 16,
    )  # fmt: skip
    assert about["tasks"] == list(TASKS) and about["settings"]["seed"] == 0 and about["kit"]


def test_a_file_that_does_not_belong_is_refused(learned, tmp_path, clip):
    path = tmp_path / "prompts.safetensors"
    learned.save(path)
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 64, "width": 8, "heads": 1, "layers": 1}
    other = Clip(build_small_clip({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}), None)
    with pytest.raises(LearnedError, match="this was learned with clip"):
        FmaWsss.load(path, other)
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(LearnedError, match="no file of something the kit has learned"):
        FmaWsss.load(tmp_path / "no.safetensors", clip)
    with pytest.raises(ValueError, match="nothing was learned"):
        FmaWsss(clip).save(path)


def test_seeds_are_numbers_of_the_data_sets_classes(learned, data, tmp_path):
    list(coarse_seeds(learned, data, tmp_path / "seeds"))
    files = sorted((tmp_path / "seeds").glob("*.png"))
    assert [file.name for file in files] == [f"{index:06d}.png" for index in range(16)]
    for file, sample in zip(files, data.samples(), strict=True):
        numbers = set(np.unique(load_mask(file)).tolist()) - {0}
        assert numbers <= {data.classes.index(name) + 1 for name in sample.names}
        expected = learned.segment(sample).labels.numpy()
        assert np.array_equal(load_mask(file) > 0, expected > 0)


def test_two_processes_make_half_of_the_seeds_each_and_keep_what_is_there(learned, data, tmp_path):
    folder = tmp_path / "seeds"
    folder.mkdir()
    save_mask(folder / "000001.png", np.full((64, 64), 7, np.uint8))
    steps = list(coarse_seeds(learned, data, folder, rank=1, world=2))
    assert [step.step for step in steps] == list(range(1, 9))
    assert sorted(file.stem for file in folder.glob("*.png")) == [f"{index:06d}" for index in range(1, 16, 2)]
    assert (load_mask(folder / "000001.png") == 7).all()


def test_pictures_without_a_class_in_the_seed_teach_nothing(clip, data):
    method = FmaWsss(clip, **QUICK)
    views = CachedViews(clip, data, prepare=clip.prepare)
    list(views.fill())
    seeds = {0: np.zeros((64, 64), np.uint8), 1: np.zeros((64, 64), np.uint8)}
    context = prompt_context(clip, method.settings, data.classes, TASKS[1])
    task = SegmentationTask(clip, context, views, 20, seeds.get)
    assert task.losses([0, 1], torch.Generator()) == {}
    seeds[1][:8] = 3
    both, alone = (task.losses(indices, torch.Generator()) for indices in ([0, 1], [1]))
    assert both["foreground"] > 0 and torch.allclose(both["foreground"], alone["foreground"])
    heavy = SegmentationTask(clip, context, views, 20, seeds.get, foreground=4.0).losses([1], torch.Generator())
    assert torch.allclose(heavy["foreground"], 4 * alone["foreground"]) and torch.equal(heavy["background"], alone["background"])


def test_on_coco_a_view_asks_for_the_classes_of_its_image(clip, data):
    method = FmaWsss(clip, **QUICK)
    views = CachedViews(clip, data, prepare=clip.prepare)
    list(views.fill())
    labels, context = label_rows(views.names, data.classes), prompt_context(clip, method.settings, data.classes, TASKS[1])
    empty = np.zeros((64, 64), np.uint8)
    of_seed = SegmentationTask(clip, context, views, 20, lambda index: empty)
    of_image = SegmentationTask(clip, context, views, 20, lambda index: empty, labels=labels)
    shown = [index for index, names in enumerate(views.names) if names][:2]
    assert of_seed.losses(shown, torch.Generator()) == {}
    losses = of_image.losses(shown, torch.Generator())
    assert losses["foreground"] == 0 and losses["background"] > 0  # classes that are not in the piece: all of it should be cold
    with pytest.raises(SettingsError, match="fine_labels"):
        preset("coco", fine_labels="truth")
    assert preset("voc").fine_labels == "seed"


def test_empty_names_and_their_contexts(clip, data):
    context = prompt_context(clip, preset("toy"), data.classes, TASKS[1])
    assert context.names == (*data.classes, *[""] * 22) and context.vectors.shape == (42, 16, 128)
    context = prompt_context(clip, preset("toy"), data.classes, TASKS[0])
    assert context.names[20:] == preset("toy").background and context.vectors.shape == (16, 128)


# views


def gradient(height, width):
    """A picture in which every pixel says where it is, and labels that say the same."""
    rows, columns = np.mgrid[:height, :width]
    labels = (columns >= width // 2) + 2 * (rows >= height // 2)
    return np.stack([rows, columns, rows * 0], 2).astype(np.uint8), labels.astype(np.uint8)


def test_pieces_of_picture_and_seed_are_cut_alike(monkeypatch):
    monkeypatch.setattr("kit.methods.fma_fit.JITTER", 0.0)
    image, labels = gradient(200, 240)
    mirrored = 0
    for chance in range(12):
        view, cut = augmented(image, labels, crop=96, scale=(240, 240), random=np.random.default_rng(chance))
        assert view.shape == (96, 96, 3) and cut.shape == (96, 96)
        assert np.array_equal(cut, (view[..., 1] >= 120).astype(np.uint8) + 2 * (view[..., 0] >= 100))
        mirrored += view[0, 0, 1] > view[0, -1, 1]
    assert 0 < mirrored < 12


@pytest.mark.parametrize("size", [(300, 50), (50, 300), (96, 96), (500, 375)])
def test_every_picture_is_large_enough_for_its_piece(size):
    for chance in range(4):
        view, cut = augmented(*gradient(*size), crop=96, scale=(100, 160), random=np.random.default_rng(chance))
        assert view.shape == (96, 96, 3) and cut.shape == (96, 96)


def test_the_longer_side_spans_the_scale(monkeypatch):
    lengths, resize = set(), Image.Image.resize
    noted = lambda self, size, *more, **named: lengths.add(max(size)) or resize(self, size, *more, **named)  # noqa: E731
    monkeypatch.setattr(Image.Image, "resize", noted)
    for chance in range(60):
        augmented(*gradient(100, 80), crop=8, scale=(20, 23), random=np.random.default_rng(chance))
    assert lengths == {20, 21, 22, 23}


def test_colours_change_within_bounds():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    changed = [colour_jitter(image, np.random.default_rng(chance)) for chance in range(30)]
    assert all(one.dtype == np.uint8 and one.shape == image.shape for one in changed)
    assert sum(np.array_equal(one, image) for one in changed) < 10  # one in sixteen stays as it is
    black = np.zeros((4, 4, 3), np.uint8)
    assert max(colour_jitter(black, np.random.default_rng(chance)).max() for chance in range(30)) <= round(25 * 1.4)  # nothing is reflected


def test_augmented_views_have_one_size_and_their_own_chance(clip, data):
    views = AugmentedViews(clip, data, crop=48, scale=(60, 90))
    zeros = lambda index: np.full((64, 64), index, np.uint8)  # noqa: E731
    tokens, seeds = views.tokens_and_seeds([3, 5], torch.Generator().manual_seed(0), zeros)
    assert tokens.grid == (6, 6) and seeds.shape == (2, 48, 48) and seeds.flatten(1).amax(1).tolist() == [3, 5]
    same_again, _ = views.tokens_and_seeds([3, 5], torch.Generator().manual_seed(0), zeros)
    otherwise, _ = views.tokens_and_seeds([3, 5], torch.Generator().manual_seed(1), zeros)
    assert torch.equal(tokens.last_input, same_again.last_input) and not torch.equal(tokens.last_input, otherwise.last_input)
    with pytest.raises(FitError, match="multiple of tiny's patch of 8 pixels, got 50"):
        AugmentedViews(clip, data, crop=50, scale=(60, 90))


def test_learning_from_augmented_views(clip, data):
    method = FmaWsss(clip, **{**QUICK, "steps": 3, "fine_steps": 2}, views="augmented", crop=48, scale=(60, 90))
    steps = list(method.fit(data))
    assert [step.task for step in steps if step.task in TASKS] == [TASKS[0]] * 3 + [TASKS[1]] * 2
    assert list(method.learned.texts) == list(TASKS)


def test_cached_views_refuse_what_does_not_fit(clip, data):
    with pytest.raises(FitError, match='GB allowed: take fewer pictures, or views "augmented"'):
        list(CachedViews(clip, data, prepare=clip.prepare, most_bytes=1000).fill())
    other = toy_data("train", 1, size=80)
    mixed = dataclasses.replace(data, entries=(*data.entries, *other.entries))
    with pytest.raises(FitError, match="pictures of one size"):
        list(CachedViews(clip, mixed, prepare=clip.prepare).fill())
    with pytest.raises(FitError, match="pictures of one size"):  # of one size once they are prepared, but their seeds would not be
        list(CachedViews(clip, mixed, prepare=lambda image: clip.prepare(image, side=64)).fill())


def test_labels_outside_the_classes_are_refused():
    assert label_rows([("cat",), (), ("dog", "cat")], ("cat", "dog")).tolist() == [[1, 0], [0, 0], [1, 1]]
    with pytest.raises(FitError, match="a picture shows dragon, which is none of the 2 classes"):
        label_rows([("dragon",)], ("cat", "dog"))


def test_a_data_set_of_other_classes(clip):
    sample = next(toy_data("train", 1, size=64).samples())
    entry = Entry("one", lambda: ("cat",), lambda: (64, 64), lambda: sample.image)
    method = FmaWsss(clip, **{**QUICK, "steps": 3, "fine_steps": 2})
    list(method.fit(DataSet("folder", "", ("cat", "dog"), "a list", (entry, dataclasses.replace(entry, id="two")))))
    assert method.learned.classes == ("cat", "dog")
    assert method.segment(Sample(sample.image, ("dog",))).labels.shape == (64, 64)
    with pytest.raises(PromptError, match="learned for 2 classes, sofa is none of them: choose among cat, dog"):
        method.segment(Sample(sample.image, ("sofa",)))
