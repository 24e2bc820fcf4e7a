"""The contract of a method, with every method of the kit and one of the test's own: what is repeated, what is kept, what is refused."""

import dataclasses
import itertools
import json
import pickle
import threading
from collections import Counter

import numpy as np
import pytest
import torch

from kit import cam, mask, refine
from kit.data import Sample, toy_samples
from kit.learned import Learned, LearnedError
from kit.method import (
    MAX_CLASSES,
    Comparison,
    Driver,
    Kept,
    Method,
    Result,
    Scene,
    Stage,
    WorkerJob,
    labels_of_size,
    own_functions,
    with_settings,
    world_of,
)  # fmt: skip
from kit.methods import METHODS, ClipEs, FmaWsss
from kit.prompt import PromptError
from kit.settings import Settings, SettingsError
from kit.toy import draw
from kit.words import COCO_CLASSES, VOC_CLASSES, label_numbers

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 64
QUICK = {"clip-es": {"refiner": "crf" if refine.has_dense_crf() else "pixel-adaptive", "iterations": 2}}


@pytest.fixture(scope="module", params=[*METHODS, "otsu"])
def method(request, own) -> Method:
    return METHODS.get(request.param, own)


@pytest.fixture(scope="module")
def pipeline(method, clip):
    return method(clip, side=SIDE, **QUICK.get(method.name, {}))


@pytest.fixture(scope="module")
def boat() -> Sample:
    scene = draw(3, size=(64, 80), classes=("boat",), place="sea", style="photo")
    return Sample(scene.image, ("boat", "cat"), scene.truth)


@pytest.fixture(scope="module")
def tokens(clip, boat):
    return ClipEs(clip, side=SIDE).encode(boat.image)


def same(one: Result, other: Result) -> bool:
    stages = one.stages.keys() == other.stages.keys() and all(torch.equal(one.stages[name], other.stages[name]) for name in one.stages)
    return stages and torch.equal(one.planes, other.planes) and one.scores == other.scores and one.notes == other.notes


def counted(pipeline):
    """The pipeline with stages that are counted when they run."""
    runs = Counter()

    def noted(stage):
        def run(scene, done):
            runs[stage.name] += 1
            return stage.run(scene, done)

        return dataclasses.replace(stage, run=run)

    method = dataclasses.replace(pipeline.method, stages=tuple(map(noted, pipeline.method.stages)))
    return dataclasses.replace(pipeline, method=method), runs


def last(steps) -> Result:
    *_, result = steps
    return result


def test_stages_run_only_as_often_as_what_they_read_changes(clip, boat, tokens):
    """Two settings over six values: the text and the CAM once, the matrix for each power, boxes for each threshold."""
    pipeline, runs = counted(ClipEs(clip, side=SIDE, refiner="none"))
    kept, calls = Kept(), clip.calls
    for power, threshold in itertools.product((1, 2), (0.2, 0.4, 0.6)):
        changed = pipeline.changed(power=power, box_threshold=threshold)
        assert same(last(changed.steps(boat, tokens=tokens, kept=kept)), changed.segment(boat, tokens=tokens))
    alone = Counter(dict.fromkeys(runs, 6))  # what segment, which keeps nothing, ran
    assert runs - alone == Counter({"text": 1, "raw": 1, "coarse": 1, "cam": 1, "matrix": 2, "boxes": 3, "affinity": 6})
    assert clip.calls == calls


def test_groups_are_read_setting_by_setting(clip, boat, tokens):
    pipeline, runs = counted(FmaWsss(clip, side=SIDE))
    kept = Kept()
    for changes in ({}, {"coarse__vote_power": 2.0}, {"fine__vote_power": 2.0}, {"fine__box_threshold": 0.4}, {"fine__rate": 0.5}):
        last(pipeline.changed(**changes).steps(boat, tokens=tokens, kept=kept))
    often = {name: count for name, count in runs.items() if count > 1}
    assert often == {"coarse": 2, "fine": 3, "fine spread": 2, "fine_affinity": 2}


def other_value(setting):
    if setting.kind in ("whole", "number"):
        step = 1 if setting.kind == "whole" else 0.13
        value = (setting.default if setting.default is not None else 2 * SIDE) + step
        return value if setting.high is None or value <= setting.high else value - 2 * step
    return {
        "flag": not setting.default, "choice": next((choice for choice in setting.choices if choice != setting.default), None),
        "text": "a drawing of a {}.", "texts": ("sky",), "pairs": {"boat": "ship"}, "blocks": 1, "numbers": (40, 20, 8),
    }.get(setting.kind)  # fmt: skip


def test_what_is_kept_never_answers_for_other_settings(pipeline, boat, tokens):
    """Each setting changed alone and back: the same as without anything kept."""
    kept, first = Kept(), pipeline.segment(boat, tokens=tokens)
    skipped = {"proposals", "scale", *pipeline.method.belongs}
    described = {name: setting for name, setting in pipeline.settings.described().items() if name not in skipped}
    for name, setting in described.items():
        if (value := other_value(setting)) is None or name.split(".")[-1] in ("steps", "warm_up", "horizon"):
            continue
        changed = pipeline.changed(**{name: value})
        result = last(changed.steps(boat, tokens=tokens, kept=kept))
        assert same(result, changed.segment(boat, tokens=tokens)), name
        assert same(last(pipeline.steps(boat, tokens=tokens, kept=kept)), first), name


def test_a_second_run_repeats_nothing_and_another_picture_everything(pipeline, boat, tokens):
    pipeline, runs = counted(pipeline)
    kept = Kept()
    first, second = (last(pipeline.steps(boat, tokens=tokens, kept=kept)) for _ in range(2))
    assert same(first, second) and set(runs.values()) == {1} and first.planes is second.planes and kept.nbytes > 0
    last(pipeline.steps(Sample(boat.image[:, ::-1].copy(), boat.names), tokens=pipeline.encode(boat.image[:, ::-1].copy()), kept=kept))
    assert set(runs.values()) == {2}
    last(pipeline.steps(boat, ("cat",), tokens=tokens, kept=kept))
    assert runs["text"] + runs["coarse text"] == 3  # other names are asked anew


def test_kept_forgets_the_oldest(clip, boat, tokens):
    pipeline, runs = counted(ClipEs(clip, refiner="none"))
    kept = Kept(limit=2)
    for power in (1, 2, 3, 1):
        last(pipeline.changed(power=power).steps(boat, tokens=tokens, kept=kept))
    assert runs["matrix"] == 4 and runs["raw"] == 1


def test_the_driver_tells_which_settings_were_read(clip, boat, tokens):
    pipeline = ClipEs(clip, refiner="none")
    driver = Driver(pipeline.method.stages, pipeline.scene(boat, tokens))
    assert [stage.name for stage in driver.steps()] == [stage.name for stage in pipeline.stages]
    assert {"cam", "power", "box_threshold", "affinity", "refiner", "template"} <= driver.read
    assert not {"iterations", "bilateral_xy", "confidence"} & driver.read
    assert "power" in driver.behind("affinity") and "power" not in driver.behind("cam") and "cam" in driver.behind("affinity")
    nested = FmaWsss(clip, side=SIDE)
    driver = Driver(nested.method.stages, nested.scene(boat, tokens))
    list(driver.steps())
    assert {"coarse.vote_power", "fine.box_threshold"} <= driver.read and "coarse.rate" not in driver.read


def test_steps_end_with_the_result(pipeline, boat, tokens):
    steps = list(pipeline.steps(boat, tokens=tokens))
    expected = pipeline.segment(boat, tokens=tokens)
    assert same(steps[-1], expected) and list(expected.stages) == list(pipeline.titles)
    seen = list(dict.fromkeys(list(step.stages)[-1] for step in steps))
    assert seen == list(pipeline.titles) and not torch.equal(steps[0].planes, expected.planes)  # later ones leave the earlier alone


def test_a_worker_does_the_rest(pipeline, boat, tokens):
    whole = pipeline.segment(boat, tokens=tokens)
    front = last(pipeline.steps(boat, tokens=tokens, worker=False))
    job = WorkerJob.of(front, boat.image)
    left = [stage.name for stage in pipeline.left]
    assert (job is None) == (not left) and list(whole.stages)[len(front.stages) :] == left
    if job is None:
        return
    maps, seconds = pickle.loads(pickle.dumps(job)).done()  # as another process gets it
    assert list(maps) == left and seconds.keys() == maps.keys()
    assert all(torch.equal(maps[name], whole.stages[name]) for name in left)


def test_the_lock_is_held_while_the_model_runs(pipeline, boat):
    lock, seen = threading.Lock(), {}

    def noted(stage):
        def run(scene, done):
            seen[stage.name] = lock.locked()
            return stage.run(scene, done)

        return dataclasses.replace(stage, run=run)

    method = dataclasses.replace(pipeline.method, stages=tuple(map(noted, pipeline.method.stages)))
    last(dataclasses.replace(pipeline, method=method).steps(boat, lock=lock))
    left = {stage.name for stage in pipeline.left}
    assert seen == {stage.name: stage.name not in left for stage in pipeline.stages} and not lock.locked()


def test_a_result_says_what_it_is(pipeline, boat, tokens):
    result = pipeline.segment(boat, tokens=tokens)
    count, size = len(boat.names), boat.image.shape[:2]
    assert result.names == boat.names and list(result.prompts) == list(result.scores) == list(boat.names)
    assert all(0 <= score <= 1 for score in result.scores.values()) and len(result.words.text) > count
    for stage, maps in result.stages.items():
        assert maps.shape[1:] == size and maps.min() >= 0 and maps.max() <= 1, stage
        scores = result.scores_of(stage)
        assert scores.shape == (1 + count, *size) and torch.equal(scores[-count:], maps[-count:])
        assert np.array_equal(result.labels_of(stage), labels_of_size(scores, size))
    assert torch.equal(result.labels, result.planes.argmax(0)) and np.array_equal(result.labels.numpy(), result.labels_of(stage))
    unsure = dataclasses.replace(result, pipeline=pipeline.changed(confidence=0.6))
    ignored = result.confidence < 0.6
    assert (unsure.pseudo_mask[ignored] == mask.IGNORE).all() and torch.equal(unsure.pseudo_mask[~ignored], result.labels[~ignored])
    assert set(result.seconds) == {stage.name for stage in pipeline.stages}
    assert list(pipeline.segment(boat).seconds)[0] == "encode"


def test_its_settings_give_the_same_mask_again(pipeline, clip, boat, tokens):
    result = pipeline.segment(boat, tokens=tokens)
    values = json.loads(json.dumps(result.settings))
    assert (values["method"], values["model"]) == (pipeline.method.name, "tiny")
    assert ("learned" in values) == (pipeline.learned is not None)
    again = pipeline.method(clip, pipeline.method.settings_of(values), learned=pipeline.learned)
    assert again.settings == pipeline.settings and same(again.segment(boat, tokens=tokens), result)


def test_tokens_save_the_encoders_pass(pipeline, clip, boat, tokens):
    calls = clip.calls
    expected = pipeline.segment(boat, tokens=tokens)
    assert clip.calls == calls and same(pipeline.segment(boat), expected) and clip.calls == calls + 1


def test_large_pictures_are_worked_on_smaller_and_masked_at_their_size(pipeline):
    picture = np.kron(np.random.default_rng(0).integers(0, 256, (9, 15, 3), np.uint8), np.ones((10, 10, 1), np.uint8))
    small = pipeline.changed(side_limit=75)
    result = small.segment(Sample(picture, ("cat",)))
    assert result.labels.shape == result.confidence.shape == (90, 150) == result.labels_of("cam").shape
    assert result.stages["cam"].shape == (1, 45, 75) and small.working_size((90, 150)) == (45, 75) and small.key != pipeline.key


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (7, 9)])
def test_the_smallest_pictures_work(pipeline, size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = pipeline.segment(Sample(picture, ("boat", "cat", "dog")))
    assert result.labels.shape == size and result.labels.min() >= 0 and result.labels.max() <= 3
    assert all(maps.isfinite().all() for maps in result.stages.values()) and result.confidence.isfinite().all()


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_picture_of_nothing_works(pipeline, colour):
    assert pipeline.segment(Sample(np.full((40, 50, 3), colour, np.uint8), ("boat",))).confidence.isfinite().all()


@pytest.mark.parametrize("count", [0, MAX_CLASSES + 1])
def test_too_few_and_too_many_classes_are_refused_before_the_encoder(pipeline, clip, boat, count):
    calls = clip.calls
    with pytest.raises(PromptError, match=f"expected 1 to {MAX_CLASSES} classes, got {count}"):
        pipeline.segment(boat, tuple(f"thing {number}" for number in range(count)))
    assert clip.calls == calls


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
def test_prompts_that_cannot_be_made_are_refused(method, clip, boat, tokens, changes, message):
    with pytest.raises(PromptError, match=message):
        method(clip, learned=None, **changes).segment(boat, tokens=tokens)


def test_what_every_method_is_called_with(method, clip, random_clip):
    assert method(clip, learned=None).settings == method.preset("toy")
    assert method(random_clip).settings == method.preset("voc") and method(random_clip, world="coco").settings == method.preset("coco")
    assert method(random_clip, method.preset("coco"), side=64).settings == method.preset("coco", side=64)
    with pytest.raises(SettingsError, match="unknown setting colour"):
        method(clip, colour=3)
    with pytest.raises(SettingsError, match=f"expected {method.Settings.__name__}, got dict"):
        method(clip, {"side": 64})
    assert [world_of(clip), world_of(random_clip), world_of(random_clip, COCO_CLASSES)] == ["toy", "voc", "coco"]


def test_every_method_tells_what_it_is_measured_against(pipeline, boat, tokens):
    """A control is told as one, keeps the settings, and does something else."""
    compared = pipeline.compared(VOC_CLASSES)
    assert bool(compared) == (pipeline.method.compared is not None)
    own = pipeline.segment(boat, tokens=tokens)
    for name, comparison in compared.items():
        assert isinstance(comparison, Comparison) and comparison.title
        assert comparison.control == (name == "control") and comparison.pipeline.key == pipeline.key
        assert not torch.equal(comparison.pipeline.segment(boat, tokens=tokens).stages["cam"], own.stages["cam"]), name


def test_what_a_pipeline_says_of_itself(method, pipeline):
    assert pipeline.name == method.name and bool(pipeline.code) == (method.name not in METHODS)
    assert pipeline.was_chosen_on("toy", "train") == (method.name in METHODS) and not pipeline.was_chosen_on("toy", "val")
    assert method(pipeline.clip, world="voc", learned=None).unlike_the_paper() == {}
    assert pipeline.unlike_the_paper()["side"] == SIDE
    assert ("hand-crafted" in pipeline.changed(learned=None).prompts_told()) == bool(method.lessons)
    assert (pipeline.layers == [0, 1, 2]) == (method.name in METHODS)


def rollout(tokens, text, classes, *, done=None):
    return cam.similarity_cam(tokens, text, classes, done=done)


def sharpened(image, scores, *, iterations):
    for _ in range(iterations):
        scores = (2 * scores).softmax(0)
        yield scores


def test_functions_stand_in_a_settings_place_under_their_own_names(clip, boat, tokens):
    mine = ClipEs(clip, cam=rollout, refiner=sharpened, iterations=3)
    assert mine.name == "clip-es (cam=rollout, refiner=sharpened)"
    assert own_functions(mine.settings) == {"cam": rollout, "refiner": sharpened}
    assert mine.titles == {"cam": "rollout", "affinity": "+ affinity", "refined": "+ sharpened"}
    steps = list(mine.steps(boat, tokens=tokens))
    assert [list(step.stages)[-1] for step in steps] == ["cam", "affinity", *["refined"] * 3]
    built_in = ClipEs(clip, cam="similarity", refiner="none").segment(boat, tokens=tokens)
    assert torch.equal(steps[-1].stages["affinity"], built_in.stages["affinity"])
    about = json.loads(json.dumps(steps[-1].settings))
    assert about["cam"] == "rollout" and set(about["code"]) == {"cam", "refiner"} and about["code"]["cam"].startswith("rollout ")
    assert mine.compared(VOC_CLASSES)["control"].pipeline.settings.cam is rollout  # the baseline and the control are the researcher's too
    job = WorkerJob.of(last(mine.steps(boat, tokens=tokens, worker=False)), boat.image)
    assert torch.equal(pickle.loads(pickle.dumps(job)).done()[0]["refined"], steps[-1].planes)


def test_keywords_called_like_a_setting_are_filled():
    settings = ClipEs.preset("voc", iterations=7)

    def takes(image, *, iterations, smoothing=9.0, unknown=1):
        return iterations, smoothing, unknown

    assert with_settings(takes, settings)(None) == (7, 0.0, 1)
    assert with_settings(lambda image, iterations=3: iterations, settings)(None) == 3  # positional ones are the caller's


def test_a_stage_can_be_exchanged_and_added(clip, boat, tokens):
    def inverted(scene, done):
        return 1 - done["cam"]

    def vote_of_none(scene, done):
        return done["scores"]

    exchanged = ClipEs.with_stage(dataclasses.replace(ClipEs.stage("affinity"), run=inverted, title="inverted"), name="inverse")
    result = exchanged(clip, refiner="none").segment(boat, tokens=tokens)
    assert torch.equal(result.stages["affinity"], 1 - result.stages["cam"]) and result.settings["method"] == "inverse"
    assert set(exchanged(clip).code) == {"stage affinity"} and exchanged(clip).titles["affinity"] == "inverted"
    added = ClipEs.with_stage(Stage("extra", "extra", vote_of_none, shows="maps"), after="cam")
    assert added.name == "clip-es+extra" and [stage.name for stage in added.stages][3:5] == ["cam", "extra"]
    with pytest.raises(ValueError, match="expected after to be one of text, raw"):
        ClipEs.with_stage(Stage("extra", "", inverted), after="nowhere")
    with pytest.raises(ValueError, match="give it a name"):
        ClipEs.replace(title="mine")


def give(output):
    return lambda scene, done: output


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([Stage("a", "", give(None)), Stage("a", "", give(None), shows="maps")], "expected stages with different names"),
        ([Stage("a", "", give(None))], "at least one of maps or votes"),
        ([Stage("scores", "", give(None), shows="maps")], "none called scores"),
    ],
)
def test_methods_that_cannot_be_are_refused(stages, message):
    with pytest.raises(ValueError, match=message):
        Method("odd", "odd", Settings, stages=stages)


def test_stages_that_do_not_keep_their_word_are_refused(clip, boat, tokens):
    with pytest.raises(ValueError, match="expected stage a to show one of"):
        Stage("a", "", give(None), shows="pictures")
    for output, message in ((torch.zeros(4, 8, 8), "expected stage a to give 2 or 3 planes"), (iter(()), "stage a gave nothing")):
        odd = Method("odd", "odd", Settings, stages=[Stage("a", "", give(output), shows="maps")])
        with pytest.raises(ValueError, match=message):
            odd(clip).segment(boat, tokens=tokens)


def test_notes_are_told_once_a_stage_and_kept(clip, boat, tokens):
    def remark(scene, done):
        yield f"{len(done['a'])} planes at {scene.settings.side_limit}"

    noted = Method(
        "noted", "noted", Settings, stages=[Stage("a", "a", lambda scene, done: torch.zeros(2, 8, 8), shows="maps", notes=remark)]
    )
    kept = Kept()
    notes = [last(noted(clip, side_limit=limit).steps(boat, tokens=tokens, kept=kept)).notes for limit in (640, 640, 320)]
    assert notes == [("2 planes at 640",), ("2 planes at 640",), ("2 planes at 320",)]


def test_what_was_learned_is_taken_from_the_kit_a_file_or_nowhere(clip, random_clip, random_prompts):
    shipped, by_hand = FmaWsss(clip), FmaWsss(clip, learned=None)
    assert shipped.learned.fingerprint == Learned.load(FmaWsss.shipped).fingerprint and by_hand.learned is None
    given = FmaWsss(clip, learned=random_prompts)
    assert given.learned.fingerprint == FmaWsss(clip, learned=str(random_prompts)).learned.fingerprint != shipped.learned.fingerprint
    assert FmaWsss(random_clip).learned is None  # it was learned with another CLIP
    assert shipped.changed(sinkhorn=2).learned is shipped.learned and shipped.changed(learned=None).learned is None
    with pytest.raises(LearnedError, match="this was learned with"):
        FmaWsss(random_clip, learned=random_prompts)
    with pytest.raises(LearnedError, match="learned with method fma-wsss, here it is otsu"):
        FmaWsss.replace(name="otsu")(clip, learned=random_prompts)


@pytest.mark.parametrize("name", FmaWsss.belongs)
def test_settings_that_belong_to_what_was_learned_stay(clip, name):
    shipped = FmaWsss(clip)
    setting = shipped.settings.described()[name]
    changes = {name: other_value(dataclasses.replace(setting, default=shipped.settings.value(name)))}
    if name == "fine.per_class":
        changes["fine.background"] = "words"
    with pytest.raises(SettingsError, match="belongs to what was learned and cannot be changed: ask without it .learned=None"):
        shipped.changed(**changes)
    shipped.changed(learned=None, **changes)


def test_numbers_of_mixed_classes_have_one_rule():
    assert label_numbers(("dog", "unicorn")) == {"dog": 12, "unicorn": 21}
    assert label_numbers(("unicorn", "aeroplane", "dragon")) == {"unicorn": 21, "aeroplane": 1, "dragon": 22}


def test_a_result_checks_itself(pipeline, boat, tokens):
    result = pipeline.segment(boat, tokens=tokens)
    for planes in (torch.zeros(4, 2, 3), torch.zeros(2, 3)):
        with pytest.raises(ValueError, match="expected stage cam to have 2 or 3 planes"):
            dataclasses.replace(result, stages={"cam": planes})


def test_a_scene_makes_the_last_pass_once(clip, boat, tokens):
    scene = Scene(clip, Settings(), boat.names, boat.image, tokens)
    assert scene.last is scene.last
    kept, pipeline = Kept(), ClipEs(clip)
    assert pipeline.scene(boat, tokens, kept).last is pipeline.scene(boat, tokens, kept).last


def test_a_stage_follows_what_it_has_read(clip):
    """Through stages that are not shown too; a second chain begins anew."""
    sample = next(toy_samples("val", 1, size=96, start=2))
    assert ClipEs(clip).segment(sample).follows == {"cam": "", "affinity": "cam", "refined": "affinity"}
    assert ClipEs(clip, affinity=False).segment(sample).follows == {"cam": "", "refined": "cam"}
    follows = FmaWsss(clip, proposals="superpixels").segment(sample).follows
    chains = [name for name, before in follows.items() if not before]
    assert len(chains) == 2 and len(follows) == 6 and follows[chains[1]] == ""


def test_what_may_not_be_meant_is_noted(clip):
    picture = next(toy_samples("val", 1, size=64)).image
    pipeline = ClipEs(clip, refiner="none")

    def doubts(names=("boat",), **changes):
        notes = pipeline.changed(**changes).segment(picture, names).notes
        return [note for note in notes if "unknown" in note or "layers" in note]

    assert doubts() == [] == doubts(layers=(1,))
    assert doubts(("boat", "giraffe")) == ["'giraffe' is unknown to the tiny model"]
    assert doubts(background=("zeppelin",)) == ["'zeppelin' is unknown to the tiny model"]
    assert doubts(layers=(1)) == ["layers=1 is the last block alone (3, counted from 0): block 1 alone is layers=(1,)"]  # no tuple
    assert doubts(layers=1, affinity=False) == []  # nobody reads them


def test_maps_that_are_no_numbers_are_refused(clip):
    """Damaged weights, or a function of one's own: never an ordinary-looking table."""
    pipeline = ClipEs(clip, refiner="none", cam=lambda *_, **__: torch.full((1, 1, 6, 6), torch.nan))
    with pytest.raises(ValueError, match=r"stage cam gave numbers that are none \(NaN or infinite\)"):
        pipeline.segment(np.full((48, 48, 3), 90, np.uint8), ("boat",))


def test_a_picture_needs_names(clip):
    for picture in ("dog.jpg", np.zeros((48, 48, 3), np.uint8)):
        with pytest.raises(ValueError, match=r'expected names of what the picture shows, such as names=\("cat", "sofa"\), got none'):
            ClipEs(clip).segment(picture)
