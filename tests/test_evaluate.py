"""The dataset loop: the same numbers as a loop by hand, a baseline and a control that mean what they say, and honest words around them."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from kit.data import Sample, toy_samples
from kit.encode import Clip
from kit.evaluate import Evaluation, StageScore, evaluate, shifted_words
from kit.methods import ClipEs
from kit.score import Confusion
from kit.words import VOC_CLASSES

NAMES = ("background", *VOC_CLASSES)


@pytest.fixture(scope="module")
def clip():
    return Clip.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def method(clip):
    return ClipEs(clip, iterations=2)


@pytest.fixture(scope="module")
def samples():
    return list(toy_samples("train", 4, size=96))


@pytest.fixture(scope="module")
def evaluation(method, samples):
    return evaluate(method, samples, split="train", batch=1)


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
        ("crf", {}),
    ],
)
def test_every_stage_equals_a_loop_by_hand(method, samples, evaluation, stage, changes):
    alone = ClipEs(method.clip, method.settings, **changes)
    assert evaluation.stages[stage].miou == by_hand(samples, lambda sample: alone.segment(sample).labels)


def test_control_asks_with_the_next_class_words(method, samples, evaluation):
    def shifted(sample):
        wrong = {name: VOC_CLASSES[(VOC_CLASSES.index(name) + 1) % 20] for name in sample.names}
        return ClipEs(method.clip, method.settings, synonyms=wrong, affinity=False, refiner="none").segment(sample).labels

    assert evaluation.stages["control"].miou == by_hand(samples, shifted)


def test_shifted_words_go_around_and_take_the_settings_words():
    assert shifted_words(("cat", "dog", "cow"), {"dog": "dog hound"}) == {"cat": "dog hound", "dog": "cow", "cow": "cat"}


def test_the_second_column_counts_only_images_with_two_or_more_classes(method, samples):
    def tagged(*names):
        image = samples[0].image
        return Sample(image, names, np.zeros(image.shape[:2], np.uint8))

    one, two = tagged("cat"), tagged("cat", "dog")
    apart = evaluate(method, [two], split="train")
    together = evaluate(method, [one, two], split="train")
    assert (together.images, together.images_two_or_more) == (2, 1)
    assert {stage: score.miou_two_or_more for stage, score in together.stages.items()} == {
        stage: score.miou for stage, score in apart.stages.items()
    }
    assert math.isnan(evaluate(method, [one]).stages["cam"].miou_two_or_more)


def test_batches_and_sizes_change_nothing_but_rounding(method, samples, evaluation):
    wide = list(toy_samples("train", 1, size=(64, 128), start=9))
    mixed = [samples[0], samples[1], *wide, samples[2], samples[3]]
    calls = method.clip.calls
    together = evaluate(method, mixed, batch=16)
    assert method.clip.calls - calls == 3  # two squares, one wide, two squares
    alone = evaluate(method, mixed, batch=1)
    for stage, score in together.stages.items():
        assert score.miou == pytest.approx(alone.stages[stage].miou, abs=2e-3)


def test_large_pictures_are_encoded_in_smaller_batches(method, samples, monkeypatch):
    monkeypatch.setattr("kit.evaluate.BATCH_ATTENTION", 1)
    calls = method.clip.calls
    evaluate(method, samples[:2])
    assert method.clip.calls - calls == 2


def test_pictures_over_the_side_limit_are_scored_in_their_own_size(clip, samples):
    small = ClipEs(clip, side_limit=48, iterations=1)
    result = evaluate(small, samples[:2], batch=1)
    for stage in ("crf", "cam"):
        changes = {} if stage == "crf" else {"affinity": False, "refiner": "none"}
        alone = ClipEs(clip, small.settings, **changes)
        assert result.stages[stage].miou == by_hand(samples[:2], lambda sample, alone=alone: alone.segment(sample).labels)


def test_stages_follow_the_settings(method, samples):
    bare = evaluate(ClipEs(method.clip, method.settings, affinity=False, refiner="none"), samples[:1])
    assert list(bare.stages) == ["plain", "cam", "control"] and set(bare.seconds_per_image) == {"encode", "text", "cam"}
    other = evaluate(ClipEs(method.clip, method.settings, refiner="pixel-adaptive"), samples[:1])
    assert list(other.stages) == ["plain", "cam", "affinity", "pixel-adaptive", "control"]
    assert list(other.seconds_per_image) == ["encode", "text", "cam", "affinity", "pixel-adaptive"]
    assert "+ pixel-adaptive refinement" in other.table()


def test_an_image_without_tags_is_all_background(method):
    truth = np.zeros((32, 32), np.uint8)
    truth[:16] = 3
    result = evaluate(method, [Sample(np.zeros((32, 32, 3), np.uint8), (), truth)])
    assert all(score.iou["background"] == 0.5 and score.iou["bird"] == 0 for score in result.stages.values())


def test_truth_255_is_left_out(method, samples):
    sample = samples[0]
    unjudged = dataclasses.replace(sample, truth=np.where(sample.truth == 0, 255, sample.truth).astype(np.uint8))
    assert math.isnan(evaluate(method, [unjudged]).stages["cam"].iou["background"])


def test_other_classes_than_voc(method, samples):
    truth = (samples[0].truth > 0).astype(np.uint8)
    result = evaluate(method, [Sample(samples[0].image, ("boat",), truth)], classes=("boat", "cat"))
    assert result.classes == ("background", "boat", "cat") and not math.isnan(result.stages["cam"].iou["boat"])


def test_progress_counts_every_image(method, samples):
    seen = []
    evaluate(method, samples[:3], progress=seen.append)
    assert seen == [1, 2, 3]


def test_the_dictionary_is_plain_json_without_nan(evaluation):
    values = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert set(values) >= {"split", "images", "classes", "model", "settings", "stages", "seconds_per_image"}
    assert (values["split"], values["images"], values["classes"], values["model"]) == ("train", 4, list(NAMES), "tiny")
    assert list(values["stages"]) == ["plain", "cam", "affinity", "crf", "control"]
    for score in values["stages"].values():
        assert set(score) == {"miou", "iou", "miou_two_or_more"} and 0 <= score["miou"] <= 1 and list(score["iou"]) == list(NAMES)
        assert None in score["iou"].values()  # four images do not show all classes
    assert values["settings"]["iterations"] == 2 and values["settings_unlike_the_paper"]["iterations"] == 2
    assert set(values["seconds_per_image"]) == {"encode", "text", "cam", "affinity", "crf"}
    assert all(seconds > 0 for seconds in values["seconds_per_image"].values())


def test_the_table_is_in_percent_and_says_what_it_is():
    score = StageScore(0.25, {"background": 0.5, "cat": 0.0, "dog": math.nan}, math.nan)
    settings = {"cam": "softmax"}
    stages = {"plain": score, "cam": score, "control": score}
    honest = Evaluation("val", 7, 0, ("background", "cat", "dog"), "tiny", settings, {"background": ["a"] * 9}, stages, {"cam": 0.1234})
    lines = honest.table().splitlines()
    assert lines[1].split()[-2:] == ["25.0", "–"] and lines[2].startswith("softmax Grad-CAM ")
    text = honest.table()
    for part in (
        "Split val: 7 images, 0 with two",
        "2 of 3 classes",
        "model tiny",
        "background = 9 words",
        "cam 0.123",
        "tuned on this split's truth",
    ):
        assert part in text
    assert "None of the kit's settings" not in dataclasses.replace(honest, tuned=True).table()


def test_what_cannot_be_scored_is_refused(method, samples):
    with pytest.raises(ValueError, match="at least one sample"):
        evaluate(method, [])
    with pytest.raises(ValueError, match="expected samples with truth, got here without"):
        evaluate(method, [dataclasses.replace(samples[0], truth=None, id="here")])
    with pytest.raises(ValueError, match="shows zebra"):
        evaluate(method, [dataclasses.replace(samples[0], names=("zebra",))])
    with pytest.raises(ValueError, match="at least one worker"):
        evaluate(method, samples, workers=0)
    with pytest.raises(ValueError, match="percent belongs"):
        StageScore(25.0, {}, 0.2)


def test_threads_are_given_back_when_the_loop_breaks(method, samples):
    before = torch.get_num_threads()

    def broken():
        yield samples[0]
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        evaluate(method, broken(), workers=2, batch=1)
    assert torch.get_num_threads() == before
