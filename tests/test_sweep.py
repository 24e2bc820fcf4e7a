"""Ablations: the numbers of `evaluate`, without the encoder, and nothing computed twice."""

import csv
import io
import json
import math
import statistics
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from kit.data import Sample, toy_data, toy_samples
from kit.encode import Clip, ClipError
from kit.evaluate import StageScore, evaluate
from kit.methods import METHODS, ClipEs, FmaWsss
from kit.score import Confusion
from kit.settings import SettingsError
from kit.sweep import FIXED, Sweep, SweepRow, encode_all, sweep
from kit.words import VOC_CLASSES


@pytest.fixture(scope="module")
def method(clip):
    return ClipEs(clip, iterations=2, side=64, refiner="none")


@pytest.fixture(scope="module")
def samples():
    return list(toy_samples("val", 6, size=64))


@pytest.fixture(scope="module")
def encoded(method, samples):
    return encode_all(method, samples, split="val")


@pytest.fixture(scope="module")
def encoded_for(samples):
    """Two samples for a pipeline of any method."""
    return lambda pipeline: encode_all(pipeline, samples[:2], split="val")


def same(score: StageScore, other: StageScore) -> bool:
    """Equal to the last bit, classes that no truth shows included."""
    return np.array_equal(
        [score.miou, score.miou_two_or_more, *score.iou.values()], [other.miou, other.miou_two_or_more, *other.iou.values()], equal_nan=True
    )


@pytest.mark.parametrize(
    ("stage", "evaluated", "refiner", "knobs"),
    [
        ("cam", "cam", "none", {"template": ["a photo of a {}.", "a drawing of a {}."]}),
        ("cam", "cam", "none", {"cam": ["softmax", "plain"], "background": [(), ("sky", "grass")]}),
        ("affinity", "affinity", "none", {"box_threshold": [0.2, 0.6]}),
        (None, "affinity", "none", {"layers": [1, (0, 2)], "power": [1, 3]}),
        (None, "affinity", "none", {"background_power": [0.5, 2.0], "sinkhorn": [0, 3]}),
        (None, "refined", "crf", {"bilateral_rgb": [3.0, 30.0]}),
        ("refined", "refined", "pixel-adaptive", {"iterations": [1, 3], "power": [1, 2]}),
    ],
)
def test_every_number_is_that_of_evaluate(method, samples, encoded, data_of, stage, evaluated, refiner, knobs):
    pipeline = method.changed(refiner=refiner)
    table = sweep(pipeline, encoded, stage=stage, **knobs)
    assert len(table.rows) == math.prod(map(len, knobs.values()))
    for row in table.rows:
        expected = evaluate(pipeline.changed(**row.values), data_of(samples), control=False)
        assert same(row.score, expected.stages[evaluated]), row.values
        assert (table.images, table.images_two_or_more) == (expected.images, expected.images_two_or_more)


def test_the_confusion_itself_is_that_of_a_loop_by_hand(method, samples, encoded, monkeypatch):
    seen = []
    monkeypatch.setattr(Confusion, "miou", lambda self: seen.append(self.matrix) or 0.0)
    sweep(method, encoded, seeds=1, box_threshold=[0.3])
    seen = [one for one in seen if one.sum() == len(samples) * 64**2]
    expected = Confusion(("background", *VOC_CLASSES))
    for sample, tokens in zip(samples, encoded.tokens, strict=True):
        labels = method.changed(box_threshold=0.3).segment(sample, tokens=tokens).labels.numpy()
        expected.add(sample.truth, np.array([0, *(1 + VOC_CLASSES.index(name) for name in sample.names)])[labels])
    assert torch.equal(seen[0], expected.matrix)


def test_rows_may_end_at_different_stages(method, samples, encoded, data_of):
    table = sweep(method, encoded, refiner=["none", "pixel-adaptive"])
    assert [row.stage for row in table.rows] == ["affinity", "refined"] and list(table.knobs) == ["refiner"]
    expected = evaluate(method.changed(refiner="pixel-adaptive"), data_of(samples))
    assert same(table.rows[0].score, expected.stages["affinity"]) and same(table.rows[1].score, expected.stages["refined"])
    bare = sweep(method, encoded, affinity=[False, True])
    assert [row.stage for row in bare.rows] == ["cam", "affinity"] and same(bare.rows[0].score, expected.stages["cam"])


def test_functions_of_ones_own_are_swept_and_not_the_kits(method, samples, encoded, data_of):
    """A silent fault once: variants were built as the kit's own method."""

    def nothing(tokens, text, classes, *, done=None):
        return torch.zeros(1, len(classes), *tokens.grid)

    mine = method.changed(cam=nothing)
    table = sweep(mine, encoded, box_threshold=[0.1, 0.4])
    expected = evaluate(mine, data_of(samples), control=False).stages["affinity"]
    assert all(same(row.score, expected) for row in table.rows) and table.method == "clip-es (cam=nothing)"
    assert not same(expected, evaluate(method, data_of(samples), control=False).stages["affinity"])


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_that_is_read_can_be_swept(name, clip, encoded_for):
    """All settings of a method, one by one: each is swept, or refused in one sentence because nothing reads it."""
    pipeline = METHODS[name](clip, side=64)
    swept = []
    for setting in type(pipeline.settings).described():
        if setting in FIXED or setting in pipeline.method.belongs:
            continue
        try:
            table = sweep(pipeline, encoded_for(pipeline), seeds=1, **{setting: [pipeline.settings.value(setting)]})
        except SettingsError as error:
            assert "changes nothing at stage" in str(error)
        else:
            assert list(table.rows[0].values) == [setting]
            swept.append(setting)
    assert {"background_power", "power", "sinkhorn"} <= {*swept} or len(swept) >= 8


def test_a_groups_setting_is_measured_where_it_has_an_effect(clip, encoded_for, data_of):
    pipeline = FmaWsss(clip, side=64)
    encoded = encoded_for(pipeline)
    table = sweep(pipeline, encoded, seeds=1, coarse__box_threshold=[0.1, 0.3])
    assert list(table.knobs) == ["coarse.box_threshold"] and [row.stage for row in table.rows] == ["coarse", "coarse"]
    for row in table.rows:
        alone = evaluate(pipeline.changed(**row.values), data_of(encoded.samples), control=False)
        assert same(row.score, alone.stages["coarse"])
    with pytest.raises(SettingsError, match="coarse.box_threshold changes nothing at stage fine"):
        sweep(pipeline, encoded, seeds=1, stage="fine", coarse__box_threshold=[0.1])


def test_a_stage_runs_only_as_often_as_its_inputs_change(method, encoded, monkeypatch):
    ran = Counter()

    def counted(stage):
        def run(scene, done):
            ran[stage.name] += 1
            return stage.run(scene, done)

        return replace(stage, run=run)

    calls, images = method.clip.calls, len(encoded)
    watched = replace(method, method=replace(method.method, stages=tuple(map(counted, method.method.stages))))
    sweep(watched, encoded, box_threshold=[0.1, 0.2, 0.4], power=[1, 2])  # two settings, six values
    assert ran == {"text": images, "raw": images, "coarse": images, "cam": images, "boxes": 3 * images, "matrix": 2 * images,
                   "affinity": 6 * images}  # fmt: skip
    ran.clear()
    sweep(watched, encoded, background_power=[1.0, 2.0], box_threshold=[0.1, 0.2, 0.4])
    assert ran["raw"] == ran["matrix"] == images and ran["affinity"] == 3 * images
    ran.clear()
    sweep(watched, encoded, template=["a photo of a {}.", "a {}."])
    assert ran["raw"] == ran["text"] == 2 * images and ran["matrix"] == images
    assert method.clip.calls == calls  # and the encoder never


def test_the_spread_is_that_between_parts_scored_alone(method, samples, encoded):
    table = sweep(method, encoded, seeds=3, power=[1, 2])
    assert table.draws == (2, 2, 2)
    for row in table.rows:
        alone = [
            sweep(method, encode_part(encoded, part), seeds=1, power=[row.values["power"]]).rows[0] for part in ((0, 2), (2, 4), (4, 6))
        ]
        scores = [part.miou for part in alone]
        assert [draw.miou for draw in row.draws] == scores
        assert row.spread == (statistics.fmean(scores), statistics.stdev(scores))
        assert math.isnan(alone[0].spread[1])
    assert sweep(method, encoded, seeds=4, power=[1]).draws == (2, 2, 1, 1)


def encode_part(encoded, part):
    return replace(encoded, samples=encoded.samples[slice(*part)], tokens=encoded.tokens[slice(*part)])


def test_samples_of_other_sizes_and_without_classes(method, samples, data_of):
    empty = Sample(samples[0].image, (), np.zeros((64, 64), np.uint8), id="val-000099")
    mixed = [samples[0], empty, *toy_samples("val", 1, size=(64, 128), start=9), samples[1]]
    encoded = encode_all(method, mixed)
    assert [tokens is None for tokens in encoded.tokens] == [False, True, False, False] and encoded.samples == tuple(mixed)
    assert same(sweep(method, encoded, seeds=1, power=[2]).rows[0].score, evaluate(method, data_of(mixed)).stages["affinity"])


def test_processes_change_nothing(method, encoded):
    refined = method.changed(refiner="pixel-adaptive")
    here, by_two = (sweep(refined, encoded, iterations=[1, 2], workers=workers) for workers in (1, 2))
    assert here.to_dict() == by_two.to_dict()


def test_progress_counts_samples(method, samples):
    seen, done = [], []
    encoded = encode_all(method, iter(samples), progress=seen.append)
    sweep(method, encoded, power=[1, 2], progress=done.append)
    assert seen == done == [1, 2, 3, 4, 5, 6]


def test_memory_is_estimated_before_and_what_is_kept_is_what_was_estimated(method, samples):
    calls = method.clip.calls
    one = encode_all(method, samples[:1]).nbytes
    with pytest.raises(ValueError, match=r"4 of them fit; encode fewer"):
        encode_all(method, samples, max_bytes=4 * one + 10)
    with pytest.raises(ValueError, match="0 of them fit"):
        encode_all(method, samples, max_bytes=one - 1)
    assert method.clip.calls == calls + 1  # refused before anything was encoded
    assert encode_all(method, samples[:4], max_bytes=4 * one).nbytes == 4 * one


def test_attention_is_kept_only_as_needed(method, samples, encoded):
    fewer = encode_all(method, samples, layers=(0, 1, 2))
    assert fewer.layers == (0, 1, 2) and fewer.tokens[0].attention.shape[1] == 3
    for row, other in zip(*(sweep(method, kept, power=[1, 2]).rows for kept in (fewer, encoded)), strict=True):
        assert same(row.score, other.score)
    with pytest.raises(ClipError, match=r"attention of blocks \[3\], got \[0, 1, 2\]: encode again"):
        sweep(method, fewer, layers=[(0,), (3,)])
    none = encode_all(method, samples, layers=())
    sweep(method, none, stage="cam", cam=["plain"])
    with pytest.raises(ClipError, match="encode again"):
        sweep(method, none, power=[1])
    with pytest.raises(ValueError, match=f"blocks 0 to {method.clip.layer_count - 1}"):
        encode_all(method, samples, layers=[method.clip.layer_count])


def test_half_precision_halves_the_attention_and_hardly_moves_the_score(method, samples, encoded):
    half = encode_all(method, samples, half=True)
    assert half.tokens[0].attention.dtype == torch.float16
    assert half.tokens[0].attention.nbytes * 2 == encoded.tokens[0].attention.nbytes
    assert sweep(method, half, power=[2]).rows[0].miou == pytest.approx(sweep(method, encoded, power=[2]).rows[0].miou, abs=2e-3)


def test_a_data_set_is_encoded_on_the_way(method, samples, encoded):
    table = sweep(method, toy_data("val", 6, size=64), power=[1, 2])
    assert table.to_dict() == sweep(method, encoded, power=[1, 2]).to_dict()
    assert len(repr(encoded)) < 200 and "Tensor" not in repr(encoded)


def test_the_split_is_named_and_held_out_only_by_name(method, samples):
    assert encode_all(method, samples[:1]).split == "val"
    assert encode_all(method, [replace(samples[0], id="")], split="mine").split == "mine"
    held_out = list(toy_samples("held_out", 1, size=48))
    for split in ("", "val"):
        with pytest.raises(ValueError, match="split='held_out'"):
            encode_all(method, [*samples[:1], *held_out], split=split)
    asked = encode_all(method, held_out, split="held_out")
    assert "Split held_out: 1 images" in sweep(method, asked, seeds=1, power=[1]).table()
    with pytest.raises(ValueError, match="expected scenes of the split train, got some of val"):
        encode_all(method, samples[:1], split="train")


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({}, "expected one or two settings to vary, got 0; clip-es has template"),
        ({"power": [1], "sinkhorn": [1], "cam": ["plain"]}, "got 3: power, sinkhorn, cam"),
        ({"speed": [1]}, "unknown setting speed: clip-es has template, background"),
        ({"power": [1, 99]}, "expected power to be a whole number from 1 to 8, got 99"),
        ({"box_threshold": [math.nan]}, "expected box_threshold"),
        ({"power": 2}, r"expected a list of values for power, got 2: write power=\[2\]"),
        ({"template": "a {}."}, "expected a list of values for template"),
        ({"power": []}, "at least one value for power"),
        ({"power": [1, 2.0, 2]}, "expected every value of power once, got 2 again"),
        ({"side": [96]}, "side cannot be varied in a sweep"),
        ({"confidence": [0.5]}, "confidence cannot be varied"),
        ({"layers": [(0, 99)]}, r"has blocks 0 to \d, got layers \(0, 99\)"),
        ({"iterations": [1]}, "iterations changes nothing at stage affinity"),
        ({"power": [1], "stage": "cam"}, "power changes nothing at stage cam"),
        ({"refiner": ["none", "crf"], "stage": "affinity"}, "refiner changes nothing at stage affinity"),
        ({"power": [1], "stage": "mask"}, "expected stage to be one of cam, affinity, got 'mask'"),
        ({"power": [1], "stage": "refined"}, "expected stage to be one of cam, affinity, got 'refined'"),
        ({"refiner": ["iron"]}, "crf, pixel-adaptive, none"),
        ({"power": [1], "seeds": 7}, "expected seeds to be from 1 to 6"),
        ({"power": [1], "workers": 0}, "at least one worker"),
        ({"template": ["boat"]}, "exactly one {}"),
    ],
)
def test_what_cannot_be_varied_is_told(method, encoded, knobs, told):
    with pytest.raises(ValueError, match=told):
        sweep(method, encoded, **knobs)


def test_knobs_that_do_nothing_without_affinity(method, encoded):
    bare = method.changed(affinity=False)
    with pytest.raises(SettingsError, match="box_threshold changes nothing at stage cam"):
        sweep(bare, encoded, box_threshold=[0.1, 0.2])
    with pytest.raises(SettingsError, match="expected stage to be one of cam, got 'affinity'"):
        sweep(bare, encoded, stage="affinity", cam=["plain"])


def test_tokens_of_another_encoder_or_side_are_refused(method, encoded, samples):
    with pytest.raises(ValueError, match="encoded with side 64, the method has 96"):
        sweep(method.changed(side=96), encoded, power=[1])
    with pytest.raises(ValueError, match=r"another Clip \(tiny\)"):
        sweep(ClipEs(Clip.load("tiny", device="cpu"), method.settings), encoded, power=[1])
    with pytest.raises(ValueError, match="at least one sample"):
        encode_all(method, [])
    with pytest.raises(ValueError, match="expected samples with truth"):
        encode_all(method, [replace(samples[0], truth=None)])


@pytest.fixture
def planted():
    """Two values, two draws, scores known; no image with two classes in the second draw."""

    def score(miou, several=math.nan):
        return StageScore(miou, {"background": miou, "cat": math.nan}, several)

    rows = tuple(
        SweepRow({"background": value}, "affinity", score(miou, 0.25), (score(miou - 0.1, 0.25), score(miou + 0.1)))
        for value, miou in ((("sky",), 0.5), ((), 0.625))
    )
    classes, settings = ("background", "cat"), {"box_threshold": 0.2}
    return Sweep("mine", {"background": (("sky",), ())}, rows, "val", 5, 2, (3, 2), classes, "tiny", settings, settings)


def test_the_table_prints_itself_and_says_what_the_spread_is(planted):
    lines = str(planted).splitlines()
    assert repr(planted) == str(planted) == planted.table()
    assert lines[0].split() == ["background", "mIoU", "mean", "±", "sd", "of", "2", "two", "or", "more", "mean", "±", "sd", "of", "2"]
    assert lines[1].split() == ["sky", "50.0", "50.0", "±", "14.1", "25.0", "25.0", "±", "–"]
    assert lines[2].split() == ["none", "62.5", "62.5", "±", "14.1", "25.0", "25.0", "±", "–"]
    for part in (
        "1 of 2 classes",
        "Split val: 5 images, 2 with two",
        "2 parts, one after the other (3, 2 images)",
        "Method mine, stage affinity",
        "on another split",
    ):
        assert part in str(planted)
    assert "background = " not in str(planted) and "box_threshold = 0.2" in str(planted)


def test_the_dictionary_is_plain_json_and_names_the_split(planted):
    values = json.loads(json.dumps(planted.to_dict(), allow_nan=False))
    assert values["split"] == "val" and values["knobs"] == {"background": [["sky"], []]} and "background" not in values["settings"]
    first = values["rows"][0]
    assert first["values"] == {"background": ["sky"]} and first["miou"] == 0.5 and first["iou"]["cat"] is None
    assert first["draws"]["miou"] == [0.4, 0.6] and first["draws"]["deviation"] == pytest.approx(0.02**0.5)
    assert first["draws_two_or_more"] == {"mean": 0.25, "deviation": None, "miou": [0.25, None]}


def test_csv_reads_back(planted, tmp_path):
    text = planted.to_csv(tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == text == planted.to_csv()
    first, second = csv.DictReader(io.StringIO(text))
    assert json.loads(first["background"]) == ["sky"] and json.loads(second["background"]) == []
    assert (float(second["miou"]), first["split"], first["images"], first["model"]) == (0.625, "val", "5", "tiny")
    assert first["deviation_of_draws_two_or_more"] == "" and float(first["miou_draw_2"]) == 0.6


def test_saved_by_the_names_end(planted, tmp_path):
    for name in ("a.png", "a.svg", "a.csv", "a.json"):
        planted.save(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG" and json.loads((tmp_path / "a.json").read_text()) == planted.to_dict()
    assert (tmp_path / "a.csv").read_text() == planted.to_csv()
    with pytest.raises(ValueError, match="expected a name that ends with .png"):
        planted.save(tmp_path / "a.txt")


def test_one_knob_is_a_curve_with_bars_and_two_are_a_map(method, encoded):
    axes = sweep(method, encoded, box_threshold=[0.2, 0.4, 0.9]).plot().axes[0]
    assert [line.get_text() for line in axes.get_legend().get_texts()] == ["all images", "two or more classes"]
    table = sweep(method, encoded, power=[1, 2], cam=["plain", "softmax", "similarity"])
    axes = table.plot().axes[0]
    assert [text.get_text() for text in axes.texts] == [f"{100 * row.miou:.1f}" for row in table.rows]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["plain", "softmax", "similarity"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("power", "cam")
