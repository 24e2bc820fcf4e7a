"""The dataset loop: the same numbers as a loop by hand, a baseline and a control that mean what they say, and honest words around them."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from kit.data import DataError, Sample, toy_data, toy_samples
from kit.evaluate import Evaluation, Measured, StageScore, evaluate, evaluate_masks
from kit.fit import fit
from kit.images import save_mask
from kit.method import Comparison
from kit.methods import METHODS, ClipEs, FmaWsss
from kit.score import Confusion
from kit.vote import oracle_vote
from kit.words import COCO_CLASSES, VOC_CLASSES

NAMES = ("background", *VOC_CLASSES)


@pytest.fixture(scope="module")
def method(clip):
    return ClipEs(clip, iterations=2)


@pytest.fixture(scope="module")
def samples():
    return list(toy_samples("train", 4, size=96))


@pytest.fixture(scope="module")
def evaluation(method, data_of, samples):
    return evaluate(method, data_of(samples), batch=1)


def of_first(evaluation):
    return next(iter(evaluation.methods.values()))


def by_hand(samples, label_map):
    """mIoU of `label_map(sample)`, labels in 0..C by the sample's own names, written once more and differently."""
    confusion = Confusion(NAMES)
    for sample in samples:
        labels, ids = label_map(sample), torch.zeros(sample.truth.shape, dtype=torch.long)
        for index, name in enumerate(sample.names, start=1):
            ids[labels == index] = VOC_CLASSES.index(name) + 1
        confusion.add(sample.truth, ids)
    return confusion.miou()


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("plain", {"cam": "plain", "affinity": False, "refiner": "none"}),
        ("cam", {"affinity": False, "refiner": "none"}),
        ("affinity", {"refiner": "none"}),
        ("refined", {}),
    ],
)
def test_every_stage_equals_a_loop_by_hand(method, samples, evaluation, stage, changes):
    alone = method.changed(**changes)
    assert evaluation.stages[stage].miou == by_hand(samples, lambda sample: alone.segment(sample).labels)


def test_control_asks_with_the_next_class_words(method, samples, evaluation):
    def shifted(sample):
        wrong = {name: VOC_CLASSES[(VOC_CLASSES.index(name) + 1) % 20] for name in sample.names}
        return method.changed(synonyms=wrong, affinity=False, refiner="none").segment(sample).labels

    assert evaluation.stages["control"].miou == by_hand(samples, shifted)


def test_the_second_column_counts_only_images_with_two_or_more_classes(method, samples, data_of):
    def tagged(*names):
        image = samples[0].image
        return Sample(image, names, np.zeros(image.shape[:2], np.uint8))

    one, two = tagged("cat"), tagged("cat", "dog")
    apart = evaluate(method, data_of([two]))
    together = evaluate(method, data_of([one, two]))
    assert (together.images, together.images_two_or_more) == (2, 1)
    assert {stage: score.miou_two_or_more for stage, score in together.stages.items()} == {
        stage: score.miou for stage, score in apart.stages.items()
    }
    assert math.isnan(evaluate(method, data_of([one])).stages["cam"].miou_two_or_more)


def test_batches_and_sizes_change_nothing_but_rounding(method, samples, evaluation, data_of):
    wide = list(toy_samples("train", 1, size=(64, 128), start=9))
    mixed = [samples[0], samples[1], *wide, samples[2], samples[3]]
    calls = method.clip.calls
    together = evaluate(method, data_of(mixed), batch=16)
    assert method.clip.calls - calls == 3  # two squares, one wide, two squares
    alone = evaluate(method, data_of(mixed), batch=1)
    for stage, score in together.stages.items():
        assert score.miou == pytest.approx(alone.stages[stage].miou, abs=2e-3)


def test_large_pictures_are_encoded_in_smaller_batches(method, samples, monkeypatch, data_of):
    monkeypatch.setattr("kit.batches.BATCH_ATTENTION", 1)
    calls = method.clip.calls
    evaluate(method, data_of(samples[:2]))
    assert method.clip.calls - calls == 2


def test_pictures_over_the_side_limit_are_scored_in_their_own_size(clip, samples, data_of):
    small = ClipEs(clip, side_limit=48, iterations=1)
    result = evaluate(small, data_of(samples[:2]), batch=1)
    for stage in ("refined", "cam"):
        changes = {} if stage == "refined" else {"affinity": False, "refiner": "none"}
        alone = small.changed(**changes)
        assert result.stages[stage].miou == by_hand(samples[:2], lambda sample, alone=alone: alone.segment(sample).labels)


def test_stages_follow_the_settings(method, samples, data_of):
    bare = evaluate(method.changed(affinity=False, refiner="none"), data_of(samples[:1]))
    assert list(bare.stages) == ["plain", "cam", "control"] and set(of_first(bare).about["seconds_per_image"]) == {"encode", "text", "cam"}
    other = evaluate(method.changed(refiner="pixel-adaptive"), data_of(samples[:1]))
    assert list(other.stages) == ["plain", "cam", "affinity", "refined", "control"]
    assert list(of_first(other).about["seconds_per_image"]) == ["encode", "text", "cam", "affinity", "refined"]
    assert "+ pixel-adaptive refinement" in other.table()


def test_an_image_without_tags_is_all_background(method, data_of):
    truth = np.zeros((32, 32), np.uint8)
    truth[:16] = 3
    result = evaluate(method, data_of([Sample(np.zeros((32, 32, 3), np.uint8), (), truth)]))
    assert all(score.iou["background"] == 0.5 and score.iou["bird"] == 0 for score in result.stages.values())


def test_truth_255_is_left_out(method, samples, data_of):
    sample = samples[0]
    unjudged = dataclasses.replace(sample, truth=np.where(sample.truth == 0, 255, sample.truth).astype(np.uint8))
    assert math.isnan(evaluate(method, data_of([unjudged])).stages["cam"].iou["background"])


def test_other_classes_than_voc(method, samples, data_of):
    truth = (samples[0].truth > 0).astype(np.uint8)
    result = evaluate(method, data_of([Sample(samples[0].image, ("boat",), truth)], classes=("boat", "cat")))
    assert result.classes == ("background", "boat", "cat") and not math.isnan(result.stages["cam"].iou["boat"])


def test_progress_counts_every_image(method, samples, data_of):
    seen = []
    evaluate(method, data_of(samples[:3]), progress=seen.append)
    assert seen == [1, 2, 3]


def test_the_dictionary_is_plain_json_without_nan(evaluation):
    values = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert (values["data"], values["split"], values["labels_from"], values["images"]) == ("planted", "train", "planted", 4)
    assert values["classes"] == list(NAMES) and values["model"] == "tiny" and values["refused"] == []
    assert list(values["stages"]) == ["plain", "cam", "affinity", "refined", "control"] and values["tuned_on_this_split"] is False
    for score in values["stages"].values():
        assert set(score) == {"miou", "iou", "miou_two_or_more"} and 0 <= score["miou"] <= 1 and list(score["iou"]) == list(NAMES)
        assert None in score["iou"].values()  # four images do not show all classes
    assert values["settings"]["iterations"] == 2 and values["settings_unlike_the_paper"]["iterations"] == 2
    assert set(values["seconds_per_image"]) == {"encode", "text", "cam", "affinity", "refined"}
    assert all(seconds > 0 for seconds in values["seconds_per_image"].values())


def test_the_table_is_in_percent_and_says_what_it_is():
    score = StageScore(0.25, {"background": 0.5, "cat": 0.0, "dog": math.nan}, math.nan)
    measured = Measured({"plain": "plain", "cam": "softmax"}, {"plain": score, "cam": score}, remarks=("Model tiny.",))
    refused = tuple((f"p{number}", "no such file") for number in range(12))
    result = Evaluation("voc", "val", "the list", ("background", "cat", "dog"), 7, 0, {"mine": measured}, refused)
    lines = result.table().splitlines()
    assert lines[1].split()[-2:] == ["25.0", "–"] and lines[2].startswith("softmax ") and repr(result) == result.table()
    for part in ("Split val of voc: 7 images, 0 with two", "labels: the list", "2 of 3 classes", "Model tiny.", "could not be used: 12"):
        assert part in result.table()
    assert "  p9: no such file" in lines and "p10" not in result.table() and lines[-1] == "  and 2 more"
    assert "Data set folder: 7" in dataclasses.replace(result, data="folder", split="").table()
    assert [line.split() for line in result.per_class().splitlines()[1:]] == [
        ["background", "50.0", "50.0"], ["cat", "0.0", "0.0"], ["dog", "–", "–"], ["mean", "25.0", "25.0"],
    ]  # fmt: skip
    both = dataclasses.replace(result, methods={"mine": measured, "other": measured})
    assert [line.split() for line in both.table().splitlines()[1:3]] == [["mine:"], lines[1].split()] and "other: Model" in both.table()
    assert set(both.to_dict()["methods"]) == {"mine", "other"} and "other plain" in both.per_class()


def test_what_was_tuned_and_what_is_unlike_the_paper_is_said(method, samples, data_of):
    quick = method.changed(affinity=False, refiner="none")
    honest, tuned = (evaluate(quick, data_of(samples[:1], name="toy", split=split), control=False) for split in ("val", "train"))
    assert "None of the kit's settings was tuned" in honest.table() and not of_first(honest).about["tuned_on_this_split"]
    assert "chosen by the truth of this split" in tuned.table() and of_first(tuned).about["tuned_on_this_split"]
    assert "background = 22 words" in honest.table() and "model tiny" in honest.table().lower()
    coco = ClipEs(method.clip, world="coco", layers=2)
    assert set(coco.unlike_the_paper(COCO_CLASSES)) == {"layers"}
    assert set(coco.unlike_the_paper()) == {"background", "synonyms", "box_threshold", "layers"}


def test_without_the_control_nothing_else_changes(method, samples, data_of, evaluation):
    bare = evaluate(method, data_of(samples), batch=1, control=False)
    assert list(bare.stages) == ["cam", "affinity", "refined"]
    assert all(bare.stages[stage].miou == evaluation.stages[stage].miou for stage in bare.stages)


def test_eighty_classes_can_be_asked_for(method, samples, data_of):
    truth = np.where(samples[0].truth > 0, COCO_CLASSES.index("boat") + 1, 0).astype(np.uint8)
    result = evaluate(
        ClipEs(method.clip, world="coco", refiner="none", layers=2),
        data_of([Sample(samples[0].image, ("boat",), truth)], classes=COCO_CLASSES),
    )
    assert len(result.classes) == 81 and not math.isnan(result.stages["control"].iou["boat"])


def test_the_drawn_world_as_a_data_set_gives_the_numbers_of_its_samples(method, samples, evaluation):
    result = evaluate(method, toy_data("train", 4, size=96), batch=1)
    assert {stage: score.miou for stage, score in result.stages.items()} == {
        stage: score.miou for stage, score in evaluation.stages.items()
    }
    assert (result.data, result.split, result.labels_from) == ("toy", "train", "what is drawn")


def test_what_cannot_be_scored_is_refused(method, samples, data_of):
    blind = dataclasses.replace(samples[0], truth=None, id="here")
    with pytest.raises(ValueError, match="at least one picture"):
        evaluate(method, data_of([]))
    for measure in (lambda data: evaluate(method, data), lambda data: evaluate_masks(".", data)):
        with pytest.raises(DataError, match=r"1 of 2 pictures of planted have no truth \(here\)"):
            measure(data_of([samples[0], blind]))
    with pytest.raises(DataError, match="1 of 1 pictures"):
        evaluate(method, data_of([blind]), skip_bad=True)
    with pytest.raises(ValueError, match="shows zebra"):
        evaluate(method, data_of([dataclasses.replace(samples[0], names=("zebra",))]))
    with pytest.raises(ValueError, match="the truth of x: expected labels 0 to 2 or 255, got 7"):
        truth = np.full_like(samples[0].truth, 7)
        evaluate(method, data_of([dataclasses.replace(samples[0], truth=truth, names=("cat",), id="x")], classes=("cat", "dog")))
    with pytest.raises(ValueError, match="at least one worker"):
        evaluate(method, data_of(samples), workers=0)
    with pytest.raises(ValueError, match="percent belongs"):
        StageScore(25.0, {}, 0.2)


def test_bad_pictures_are_left_out_and_named_only_if_asked(method, samples, data_of):
    bad = [
        dataclasses.replace(samples[0], id="no-truth", truth=None),
        dataclasses.replace(samples[0], id="wrong-truth", truth=np.full_like(samples[0].truth, 99)),
    ]
    seen = []
    result = evaluate(method, data_of([bad[0], samples[0], bad[1], samples[1]]), skip_bad=True, batch=1, progress=seen.append)
    alone = evaluate(method, data_of(samples[:2]), batch=1)
    assert {stage: score.miou for stage, score in result.stages.items()} == {stage: score.miou for stage, score in alone.stages.items()}
    assert [name for name, _ in result.refused] == ["no-truth", "wrong-truth"] and result.images == 2 and seen[-1] == 4
    assert "labels 0 to 20 or 255, got 99" in result.table() and result.to_dict()["refused"][0]["id"] == "no-truth"
    with pytest.raises(ValueError, match="expected at least one picture to score, got none: 1 could not be used, the first because"):
        evaluate(method, data_of(bad[1:]), skip_bad=True)


@pytest.fixture(scope="module")
def learned(clip):
    """FMA-WSSS after a few steps."""
    level = {"steps": 3, "warm_up": 1}
    method = FmaWsss(clip, learned=None, side=64, context=2, coarse=level, fine=level, regions=(40, 20, 8))
    return fit(method, toy_data("train", 8, size=64), progress=False)


def test_every_stage_of_masks_that_vote_equals_a_loop_by_hand(learned, data_of):
    samples = list(toy_samples("val", 3, size=64))
    results = {id(sample): learned.segment(sample) for sample in samples}
    result = evaluate(learned, data_of(samples), batch=1)
    assert list(result.stages) == ["by hand", *learned.titles, "oracle", "control"]
    for stage in learned.titles:
        expected = by_hand(samples, lambda sample, stage=stage: results[id(sample)].scores_of(stage).argmax(0))
        assert result.stages[stage].miou == pytest.approx(expected, abs=1e-6), stage
    for name, comparison in learned.compared(VOC_CLASSES).items():
        assert result.stages[name].miou == by_hand(samples, lambda sample, one=comparison: one.pipeline.segment(sample).labels)
    best = Confusion(NAMES)
    for sample in samples:
        best.add(sample.truth, oracle_vote(sample.truth, results[id(sample)].proposals).labels)
    assert result.stages["oracle"].miou == best.miou() > result.stages["fine"].miou


def test_what_was_learned_and_who_made_the_masks_is_said(learned, data_of):
    sample = next(toy_samples("val", 1, size=64))
    result = evaluate(learned, data_of([sample]))
    for part in ("learned from 8 images of split train of toy", learned.learned.fingerprint, "that vote: superpixels", "ground truth"):
        assert part in result.table()
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["learned"]["images"] == 8 and values["proposals"] == ["superpixels"]
    assert {"encode", "proposals", *learned.titles} <= set(values["seconds_per_image"])
    words = evaluate(learned.changed(learned=None, coarse__affinity=False), data_of([sample]), control=False)
    assert list(words.stages) == ["cam", "coarse"] and "hand-crafted: nothing was learned" in words.table()
    assert "learned" not in of_first(words).about


def test_the_oracle_votes_at_the_masks_size(learned, data_of):
    sample = next(toy_samples("val", 1, size=64))
    result = evaluate(learned.changed(learned=None, side_limit=32), data_of([sample, dataclasses.replace(sample, names=())]))
    assert result.images == 2 and 0.3 < result.stages["oracle"].miou < 1 and list(result.stages)[-2:] == ["oracle", "control"]


def test_methods_beside_each_other_have_the_numbers_they_have_alone(clip, own, samples, data_of):
    quick = {ClipEs.name: {"iterations": 1}}
    pipelines = [one(clip, **quick.get(one.name, {})) for one in (*METHODS.values(), own)]
    calls = clip.calls
    together = evaluate(pipelines, data_of(samples[:2]), batch=1)
    assert clip.calls - calls == 2  # once a picture
    for pipeline in pipelines:
        alone = evaluate(pipeline, data_of(samples[:2]), batch=1)
        assert {stage: score.to_dict() for stage, score in together.methods[pipeline.name].stages.items()} == {
            stage: score.to_dict() for stage, score in alone.stages.items()
        }
    assert together.methods[own.name].about["code"].keys() >= {"stage otsu"} and "Code that is not the kit's" in together.table()
    two = evaluate([pipelines[0], pipelines[0].changed(power=3)], data_of(samples[:1]), control=False)
    assert list(two.methods) == ["clip-es", "clip-es (power = 3)"]
    two = evaluate([FmaWsss(clip), FmaWsss(clip, FmaWsss.preset("toy"), learned=None)], data_of(samples[:1]), control=False)
    assert list(two.methods) == ["fma-wsss", "fma-wsss (hand-crafted prompts)"]
    for wrong, told in (([], "at least one method"), ([pipelines[0]] * 2, "pipelines that differ")):
        with pytest.raises(ValueError, match=told):
            evaluate(wrong, data_of(samples[:1]))


def test_frames_hold_the_scores_by_stage_image_and_class(evaluation, method, samples):
    frame = evaluation.to_frame()
    assert dict(zip(frame["stage"], frame["miou"], strict=True)) == {stage: score.miou for stage, score in evaluation.stages.items()}
    assert list(frame["role"]) == ["baseline", "", "", "", "control"] and set(frame["method"]) == {"clip-es"}
    by_class = evaluation.to_frame(by="class")
    assert by_class[by_class["stage"] == "cam"]["iou"].mean() == pytest.approx(evaluation.stages["cam"].miou)
    by_image = evaluation.to_frame(by="image")
    one = by_image[(by_image["image"] == samples[0].id) & (by_image["stage"] == "refined")]["miou"].item()
    assert len(by_image) == 4 * 5 and one == by_hand(samples[:1], lambda sample: method.segment(sample).labels)
    with pytest.raises(ValueError, match="expected by to be stage, image or class"):
        evaluation.to_frame(by="pixel")


def test_processes_change_nothing(evaluation, method, samples, data_of, learned):
    by_two = evaluate(method, data_of(samples), batch=1, workers=2)
    assert {stage: score.to_dict() for stage, score in by_two.stages.items()} == {
        stage: score.to_dict() for stage, score in evaluation.stages.items()
    }
    of_its_own = method.changed(refiner=lambda image, scores: scores)  # cannot be sent to another process
    assert list(evaluate(of_its_own, data_of(samples[:1]), workers=2, control=False).stages) == ["cam", "affinity", "refined"]


@pytest.fixture
def drawn_lots(tmp_path, data_of):
    """Random truths and random masks of 4 classes, some of both 255: (data, folder, truths, masks)."""
    random = np.random.default_rng(5)
    classes = ("cat", "dog", "cow", "ufo")  # no truth shows the ufo
    samples, truths, masks = [], [], []
    for number in range(6):
        shape = (7 + number, 9)
        truth = random.choice([0, 1, 2, 3, 255], shape, p=[0.4, 0.2, 0.2, 0.1, 0.1]).astype(np.uint8)
        labels = np.where(random.random(shape) < 0.5, truth, random.choice([0, 1, 2, 3, 4, 255], shape)).astype(np.uint8)
        names = classes[: 1 + number % 3]
        samples.append(Sample(np.zeros((*shape, 3), np.uint8), names, truth, id=f"picture{number}"))
        save_mask(tmp_path / f"picture{number}.png", labels)
        truths.append(truth)
        masks.append(labels)
    return data_of(samples, classes=classes), tmp_path, truths, masks


def torchmetrics_iou(truths, masks):
    """IoU of each class that the truth shows, by torchmetrics alone."""
    truth, labels = (torch.from_numpy(np.concatenate([part.flatten() for part in parts])).long() for parts in (truths, masks))
    judged = truth != 255
    index = MulticlassJaccardIndex(num_classes=5, average="none", ignore_index=255)(labels, truth)
    shown = MulticlassConfusionMatrix(num_classes=5)(labels[judged], truth[judged]).sum(1) > 0
    return [value.item() if there else math.nan for value, there in zip(index, shown, strict=True)]


def test_masks_agree_with_torchmetrics(drawn_lots):
    data, folder, truths, masks = drawn_lots
    result = evaluate_masks(folder, data)
    filled = [np.where(labels == 255, 0, labels) for labels in masks]
    only_sure = [np.where(labels == 255, 255, truth) for truth, labels in zip(truths, masks, strict=True)]
    for stage, expected in (("filled", torchmetrics_iou(truths, filled)), ("sure", torchmetrics_iou(only_sure, filled))):
        assert list(result.stages[stage].iou.values()) == pytest.approx(expected, abs=1e-6, nan_ok=True)
        assert result.stages[stage].miou == pytest.approx(np.nanmean(expected), abs=1e-6)
        several = [number for number in range(6) if number % 3]
        of_several = torchmetrics_iou([(truths if stage == "filled" else only_sure)[k] for k in several], [filled[k] for k in several])
        assert result.stages[stage].miou_two_or_more == pytest.approx(np.nanmean(of_several), abs=1e-6)
    judged = np.concatenate([truth.flatten() for truth in truths]) != 255
    unsure = np.concatenate([labels.flatten() for labels in masks]) == 255
    assert of_first(result).about["uncertain"] == (judged & unsure).sum() / judged.sum() and result.images_two_or_more == 4
    for part in ("sure pixels only", "uncertain pixels as background", "% of the judged pixels", "no model was run"):
        assert part in result.table()


def test_masks_that_are_sure_have_one_score(drawn_lots):
    data, folder, truths, _ = drawn_lots
    for number, truth in enumerate(truths):
        save_mask(folder / f"picture{number}.png", np.where(truth == 255, 4, truth))
    result = evaluate_masks(folder, data)
    assert result.stages["sure"].miou == 1 and list(result.stages) == ["sure"] and of_first(result).about["uncertain"] == 0
    assert "uncertain pixels" not in result.table() and json.dumps(result.to_dict(), allow_nan=False)


def test_the_folder_that_generate_writes_is_found(drawn_lots, tmp_path):
    data, folder, _, _ = drawn_lots
    (inside := tmp_path / "out" / "SegmentationClass").mkdir(parents=True)
    for path in folder.glob("*.png"):
        path.rename(inside / path.name)
    assert of_first(evaluate_masks(tmp_path / "out", data)).about["masks"] == str(inside)
    with pytest.raises(ValueError, match="expected a folder of masks named ID.png"):
        evaluate_masks(tmp_path / "gone", data)


def test_wrong_masks_are_named(drawn_lots):
    data, folder, truths, _ = drawn_lots
    expected = {}
    expected["picture0"] = "there is no such file"
    (folder / "picture0.png").unlink()
    save_mask(folder / "picture1.png", np.zeros((3, 4), int))
    expected["picture1"] = "expected 8 x 9 pixels like the truth, got 3 x 4"
    save_mask(folder / "picture2.png", np.full_like(truths[2], 90))
    expected["picture2"] = "expected labels 0..4 and 255, got 90"
    Image.fromarray(np.zeros((*truths[3].shape, 3), np.uint8)).save(folder / "picture3.png")
    expected["picture3"] = "expected labels"
    seen = []
    result = evaluate_masks(folder, data, skip_bad=True, progress=seen.append)
    assert result.images == 2 and [name for name, _ in result.refused] == list(expected) and seen == [1, 2, 3, 4, 5, 6]
    for name, reason in result.refused:
        assert f"{name}.png" in reason and expected[name] in reason
    with pytest.raises(ValueError, match=r"picture0\.png: there is no such file"):
        evaluate_masks(folder, data)


def test_threads_are_given_back_when_the_loop_breaks(method, samples, data_of):
    before = torch.get_num_threads()

    data, (first, second) = data_of(samples), data_of(samples[:2]).entries

    def broken():
        raise KeyError("planted")

    data = dataclasses.replace(data, entries=(first, dataclasses.replace(second, image=broken)))
    with pytest.raises(KeyError, match="planted"):
        evaluate(method, data, workers=2, batch=1)
    assert torch.get_num_threads() == before


def with_masks(samples, change):
    return [dataclasses.replace(sample, truth=change(sample.truth)) for sample in samples]


def test_masks_of_0_and_255_are_no_truth(method, samples, data_of):
    zero = with_masks(samples, lambda truth: np.where(truth > 0, 255, 0).astype(np.uint8))
    with pytest.raises(DataError, match="the truth of 4 pictures shows no class at all, though they name .*has to be 1 or another"):
        evaluate(method, data_of(zero))
    with pytest.raises(DataError, match="shows no class at all"):
        evaluate(method, data_of([dataclasses.replace(sample, id=f"{n}-{sample.id}") for n in range(3) for sample in zero]), skip_bad=True)
    black = evaluate(method, data_of(with_masks(samples, np.zeros_like)))  # nothing else says that they are wrong
    assert "Note: the truth shows no class at all: in its masks 0 is background, and 255 would be" in black.table()


def test_labels_that_the_truth_contradicts_are_said_and_the_control_is_looked_at(method, samples, data_of):
    """The truth's numbers are one too high, as with a background too many: the control, which asks for the next class, is right."""
    shifted = with_masks(samples, lambda truth: np.where((truth > 0) & (truth < 20), truth + 1, truth).astype(np.uint8))
    right, wrong = (evaluate(method, data_of(each), control=True) for each in (samples, shifted))
    assert not right.notes and "does better" not in right.table()
    said = " ".join(wrong.notes)
    assert "named and never shown by the truth: " in said and "shown by the truth and never named: " in said
    assert "labels and truth differ in 4 of 4 pictures" in said and "do the numbers in the masks mean these classes?" in said
    assert list(wrong.to_dict()["notes"]) == list(wrong.notes) and all(note in wrong.table() for note in wrong.notes)


def test_a_control_that_beats_the_method_is_said(clip, samples, data_of):
    """A run whose background takes everything against a control that segments: the control wins, and the table says so."""
    good = ClipEs(clip)
    others = dataclasses.replace(ClipEs, compared=lambda pipeline, classes: {"control": Comparison("other words", good, control=True)})
    poor = others(clip, background_power=0.1)
    result = evaluate(poor, data_of(samples), control=True)
    assert result.stages["control"].miou > result.stages["refined"].miou + 0.1
    assert "The control does better than the method (other words" in result.table()
    assert "does better" not in evaluate(good, data_of(samples), control=True).table()


def test_what_is_doubtful_about_a_picture_is_said_with_its_name(method, samples, data_of):
    data = data_of(samples)
    entry = dataclasses.replace(data.entries[0], turned=lambda: 3)
    data = dataclasses.replace(data, entries=(entry, *data.entries[1:]), notes=("1 picture is left aside, not in the list: x.jpg",))
    table = evaluate(method, data).table()
    assert f"1 of 4 pictures ({samples[0].id}): its EXIF orientation turns the picture" in table and "left aside" in table
