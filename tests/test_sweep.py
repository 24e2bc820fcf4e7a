"""Ablations: the numbers of `evaluate`, without the encoder, and nothing computed twice."""

import csv
import io
import json
import math
import statistics
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from kit import cam
from kit.data import Sample, toy_samples
from kit.encode import Clip
from kit.evaluate import StageScore, evaluate, refined_jobs
from kit.last_block import last_pass
from kit.methods import ClipEs
from kit.methods.clip_es import SettingsError
from kit.prompt import prompts, sharpness
from kit.score import Confusion
from kit.sweep import (
    KNOBS,
    Sweep,
    SweepRow,
    TemplateRow,
    TemplateTable,
    background_rows,
    encode_all,
    reworded,
    sweep,
    template_rows,
    template_table,
    word_rows,
)
from kit.words import VOC_CLASSES


@pytest.fixture(scope="module")
def clip():
    return Clip.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def method(clip):
    return ClipEs(clip, iterations=2, side=64)


@pytest.fixture(scope="module")
def samples():
    return list(toy_samples("val", 6, size=64))


@pytest.fixture(scope="module")
def encoded(method, samples):
    return encode_all(method, samples, split="val")


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
    table = sweep(method, encoded, stage=stage, refiner=refiner, **knobs)
    assert len(table.rows) == math.prod(map(len, knobs.values()))
    for row in table.rows:
        expected = evaluate(ClipEs(method.clip, method.settings, refiner=refiner, **row.values), data_of(samples))
        assert same(row.score, expected.stages[evaluated]), row.values
        assert (table.images, table.images_two_or_more) == (expected.images, expected.images_two_or_more)


def test_the_confusion_itself_is_that_of_a_loop_by_hand(method, samples, encoded, monkeypatch):
    seen = []
    monkeypatch.setattr(Confusion, "miou", lambda self: seen.append(self.matrix) or 0.0)
    sweep(method, encoded, seeds=1, box_threshold=[0.3])
    expected = Confusion(("background", *VOC_CLASSES))
    for sample, tokens in zip(samples, encoded.tokens, strict=True):
        labels = ClipEs(method.clip, method.settings, box_threshold=0.3, refiner="none").segment(sample, tokens=tokens).labels.numpy()
        expected.add(sample.truth, np.array([0, *(1 + VOC_CLASSES.index(name) for name in sample.names)])[labels])
    assert torch.equal(seen[0], expected.matrix)


def test_a_refiner_can_be_a_knob_and_rows_end_at_different_stages(method, samples, encoded, data_of):
    table = sweep(method, encoded, refiner=["none", "pixel-adaptive"])
    assert [row.stage for row in table.rows] == ["affinity", "refined"] and list(table.knobs) == ["refiner"]
    expected = evaluate(ClipEs(method.clip, method.settings, refiner="pixel-adaptive"), data_of(samples))
    assert same(table.rows[0].score, expected.stages["affinity"]) and same(table.rows[1].score, expected.stages["refined"])
    bare = sweep(method, encoded, affinity=[False, True])
    assert [row.stage for row in bare.rows] == ["cam", "affinity"] and same(bare.rows[0].score, expected.stages["cam"])
    own = sweep(ClipEs(method.clip, method.settings, refiner="pixel-adaptive"), encoded, refiner=None, power=[2])
    assert same(own.rows[0].score, expected.stages["refined"]) and own.settings["refiner"] == "pixel-adaptive"


def test_nothing_is_computed_again_that_a_knob_does_not_touch(method, encoded, monkeypatch):
    ran = dict.fromkeys(("class_maps", "affinity", "encode_text"), 0)

    def counted(owner, name):
        inside = getattr(owner, name)

        def outside(*arguments, **options):
            ran[name] += 1
            return inside(*arguments, **options)

        monkeypatch.setattr(owner, name, outside)

    counted(ClipEs, "class_maps")
    counted(ClipEs, "affinity")
    counted(method.clip.model, "encode_text")
    calls, images = method.clip.calls, len(encoded)
    sweep(method, encoded, box_threshold=[0.1, 0.2, 0.4], background_power=[1.0, 2.0])
    assert ran["class_maps"] == ran["affinity"] == images
    sweep(method, encoded, power=[1, 2, 3])
    assert (ran["class_maps"], ran["affinity"]) == (2 * images, 4 * images)
    method.clip._text.clear()
    ran["encode_text"] = 0
    templates = ["a photo of a {}.", "a {}."]
    sweep(method, encoded, template=templates)
    assert (ran["class_maps"], ran["affinity"]) == (4 * images, 5 * images)
    assert ran["encode_text"] <= len(templates) * images  # every prompt once; never again in a second sweep
    before = ran["encode_text"]
    sweep(method, encoded, template=templates)
    assert ran["encode_text"] == before
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


def test_processes_are_started_for_a_refiner_only(method, encoded, monkeypatch):
    asked = []
    monkeypatch.setattr("kit.sweep.refined_jobs", lambda jobs, workers: asked.append(workers) or refined_jobs(jobs, 1))
    sweep(method, encoded, refiner="pixel-adaptive", iterations=[1], workers=2)
    sweep(method, encoded, power=[1], workers=2)
    assert asked == [2, 1]


def test_progress_counts_samples(method, samples):
    seen, done = [], []
    encoded = encode_all(method, iter(samples), progress=seen.append)
    sweep(method, encoded, power=[1, 2], progress=done.append)
    assert seen == done == [1, 2, 3, 4, 5, 6]


# what is kept


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
    with pytest.raises(SettingsError, match=r"attention of blocks \[3\], kept are \[0, 1, 2\]: encode again"):
        sweep(method, fewer, layers=[(0,), (3,)])
    none = encode_all(method, samples, layers=())
    sweep(method, none, stage="cam", cam=["plain"])
    with pytest.raises(SettingsError, match="encode again"):
        sweep(method, none, power=[1])
    with pytest.raises(ValueError, match=f"blocks 0 to {method.clip.layer_count - 1}"):
        encode_all(method, samples, layers=[method.clip.layer_count])


def test_half_precision_halves_the_attention_and_hardly_moves_the_score(method, samples, encoded):
    half = encode_all(method, samples, half=True)
    assert half.tokens[0].attention.dtype == torch.float16
    assert half.tokens[0].attention.nbytes * 2 == encoded.tokens[0].attention.nbytes
    assert sweep(method, half, power=[2]).rows[0].miou == pytest.approx(sweep(method, encoded, power=[2]).rows[0].miou, abs=2e-3)


def test_a_clip_stands_for_its_preset(clip, samples):
    encoded = encode_all(clip, samples[:2])
    assert encoded.side == 160 and len(encoded) == 2 and "Tensor" not in repr(encoded) and len(repr(encoded)) < 200
    assert sweep(ClipEs(clip), encoded, seeds=2, power=[1]).images == 2


# which split


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


# what is refused


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({}, "expected one or two knobs, got 0; CLIP-ES has template"),
        ({"power": [1], "sinkhorn": [1], "cam": ["plain"]}, "got 3: power, sinkhorn, cam"),
        ({"speed": [1]}, "unknown knob speed: CLIP-ES has template, background"),
        ({"power": [1, 99]}, "expected power to be a whole number from 1 to 8, got 99"),
        ({"box_threshold": [math.nan]}, "expected box_threshold"),
        ({"power": 2}, r"expected a list of values for power, got 2: write power=\[2\]"),
        ({"template": "a {}."}, "expected a list of values for template"),
        ({"power": []}, "at least one value for power"),
        ({"power": [1, 2.0, 2]}, "expected every value of power once, got 2 again"),
        ({"side": [96]}, "side cannot be varied in a sweep"),
        ({"confidence": [0.5]}, "confidence cannot be varied"),
        ({"layers": [(0, 99)]}, r"has blocks 0 to \d, got layers \(0, 99\)"),
        ({"iterations": [1]}, "iterations changes nothing without a refiner"),
        ({"power": [1], "stage": "cam"}, "power changes nothing at stage cam"),
        ({"refiner": ["none", "crf"], "stage": "affinity"}, "refiner changes nothing at stage affinity"),
        ({"power": [1], "stage": "mask"}, "expected stage to be one of cam, affinity, refined"),
        ({"power": [1], "stage": "refined"}, "no stage refined without a refiner"),
        ({"power": [1], "refiner": "iron"}, "crf, pixel-adaptive, none"),
        ({"power": [1], "seeds": 7}, "expected seeds to be from 1 to 6"),
        ({"power": [1], "workers": 0}, "at least one worker"),
        ({"template": ["boat"]}, "exactly one {}"),
    ],
)
def test_what_cannot_be_varied_is_told(method, encoded, knobs, told):
    with pytest.raises(ValueError, match=told):
        sweep(method, encoded, **knobs)


def test_knobs_that_do_nothing_without_affinity(method, encoded):
    bare = ClipEs(method.clip, method.settings, affinity=False)
    with pytest.raises(SettingsError, match="box_threshold changes nothing without affinity"):
        sweep(bare, encoded, box_threshold=[0.1, 0.2])
    with pytest.raises(SettingsError, match="no stage affinity without affinity"):
        sweep(bare, encoded, stage="affinity", cam=["plain"])


def test_tokens_of_another_encoder_or_side_are_refused(method, encoded, samples):
    with pytest.raises(ValueError, match="encoded with side 64, the method has 96"):
        sweep(ClipEs(method.clip, method.settings, side=96), encoded, power=[1])
    with pytest.raises(ValueError, match=r"another Clip \(tiny\)"):
        sweep(ClipEs(Clip.load("tiny", device="cpu"), method.settings), encoded, power=[1])
    with pytest.raises(ValueError, match="at least one sample"):
        encode_all(method, [])
    with pytest.raises(ValueError, match="expected samples with truth"):
        encode_all(method, [replace(samples[0], truth=None)])


def test_every_knob_can_be_varied(method, encoded):
    """No knob of the list is a name that the settings do not have."""
    settings = ClipEs(method.clip, method.settings, refiner="pixel-adaptive", iterations=1).settings
    few = encode_part(encoded, (0, 1))
    for name in KNOBS:
        value = getattr(settings, name)
        knobs = {"refiner": "pixel-adaptive"} | {name: [value]}
        assert sweep(ClipEs(method.clip, settings), few, seeds=1, **knobs).rows[0].values == {name: value}


# the table


@pytest.fixture
def planted():
    """Two values, two draws, scores known; no image with two classes in the second draw."""

    def score(miou, several=math.nan):
        return StageScore(miou, {"background": miou, "cat": math.nan}, several)

    rows = tuple(
        SweepRow({"background": value}, "affinity", score(miou, 0.25), (score(miou - 0.1, 0.25), score(miou + 0.1)))
        for value, miou in ((("sky",), 0.5), ((), 0.625))
    )
    settings = ClipEs(Clip.load("tiny", device="cpu"), refiner="none").settings.to_dict()
    return Sweep({"background": (("sky",), ())}, rows, "val", 5, 2, (3, 2), ("background", "cat"), "tiny", settings)


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
        "refiner none",
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


def test_one_knob_is_a_curve_with_bars_and_two_are_a_map(method, encoded):
    axes = sweep(method, encoded, box_threshold=[0.2, 0.4, 0.9]).plot().axes[0]
    assert [line.get_text() for line in axes.get_legend().get_texts()] == ["all images", "two or more classes"]
    table = sweep(method, encoded, power=[1, 2], cam=["plain", "softmax", "similarity"])
    axes = table.plot().axes[0]
    assert [text.get_text() for text in axes.texts] == [f"{100 * row.miou:.1f}" for row in table.rows]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["plain", "softmax", "similarity"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("power", "cam")


# Words


TEMPLATES = ["a photo of a {}.", "a drawing of a {}.", "a sketch of the {}."]


def test_templates_have_the_mious_of_a_sweep_and_never_run_the_encoder(method, samples, encoded):
    calls, told = method.clip.calls, []
    table = template_table(method, encoded, TEMPLATES, lock=threading.Lock(), progress=told.append)
    assert method.clip.calls == calls and told == [*range(1, len(samples) + 1)] * len(TEMPLATES)
    for row, swept in zip(table.rows, sweep(method, encoded, template=TEMPLATES).rows, strict=True):
        assert row.template == swept.values["template"] and row.images == len(samples) and row.miou == swept.miou


def test_sharpness_and_class_score_are_those_of_a_loop_by_hand(method, samples, encoded):
    scores = []
    for sample, tokens in zip(samples, encoded.tokens, strict=True):
        text = method.clip.text(prompts(TEMPLATES[1], (*sample.names, *method.settings.background)))
        scores.append(cam.class_probabilities(tokens, text)[0, : len(sample.names)])
    row = template_table(method, encoded, TEMPLATES[1:2]).rows[0]
    assert row.sharpness == pytest.approx(sharpness(scores), rel=1e-4)
    assert row.class_score == pytest.approx(torch.cat(scores).mean().item(), rel=1e-4)


def test_rows_come_one_by_one_and_progress_can_end_them(method, encoded):
    class Stopped(Exception):
        pass

    def progress(count: int) -> None:
        told.append(count)
        if len(told) > len(encoded):
            raise Stopped

    told = []
    rows = template_rows(method, encoded, TEMPLATES, progress=progress)
    assert next(rows).template == TEMPLATES[0]
    with pytest.raises(Stopped):
        next(rows)


def test_the_rank_correlation_is_said_also_where_it_is_weak():
    def table(*mious: float) -> TemplateTable:
        return TemplateTable(
            tuple(TemplateRow(f"{number} {{}}", number / 10, 0.5, miou, 9) for number, miou in enumerate(mious)), "val", "tiny"
        )

    falling = table(*(0.9 - number / 20 for number in range(10)))
    assert falling.rank_correlation == pytest.approx(-1) and "as CLIP-ES says" in falling.verdict()
    rising = table(*(0.1 + number / 20 for number in range(10)))
    assert rising.rank_correlation == pytest.approx(1) and "wrong way round" in rising.verdict()
    muddled = table(0.5, 0.4, 0.6, 0.3, 0.55, 0.45)
    assert abs(muddled.rank_correlation) < 0.5 and "weak" in muddled.verdict() and "over 6 templates" in muddled.verdict()
    for few in (table(0.5, 0.4), table(0.5, 0.5, 0.5), table(0.5, math.nan, 0.4)):
        assert math.isnan(few.rank_correlation) and "No rank correlation" in few.verdict()
    head, first, *_ = str(rising).splitlines()
    assert head.split() == ["template", "sharpness", "class", "score", "mIoU"] and first.startswith("9 {}")  # the best first
    lines = list(csv.reader(io.StringIO(table(0.5, math.nan).to_csv())))
    assert lines[0] == ["template", "sharpness", "class_score", "miou", "images", "split", "model"] and lines[2][3] == ""


def test_templates_that_cannot_be_measured_are_refused_before_the_first_row(method, encoded, clip):
    for templates, says in (([], "at least one"), (["a {}.", "a {}."], "once"), (["a {}.", "a photo"], "exactly one"), ("a {}.", "list")):
        with pytest.raises(ValueError, match=says):
            template_rows(method, encoded, templates)
    with pytest.raises(ValueError, match="side"):
        template_rows(ClipEs(clip, side=96), encoded, TEMPLATES)


def test_rewording_is_segmenting_with_other_words(method, samples, encoded):
    sample, tokens = samples[0], encoded.tokens[0]
    changes = [{"template": "a {}."}, {"background": []}, {"synonyms": {sample.names[0]: "sea"}}]
    for change, result in zip(changes, reworded(method, sample, tokens, changes), strict=True):
        expected = ClipEs(method.clip, method.settings, refiner="none", **change).segment(sample, tokens=tokens)
        assert torch.equal(result.labels, expected.labels) and result.scores == expected.scores
    with pytest.raises(SettingsError, match="power"):
        next(reworded(method, sample, tokens, [{"power": 3}]))


def test_a_word_is_as_similar_as_its_prompt_is_to_the_image(method, samples, encoded):
    sample, tokens = samples[0], encoded.tokens[0]
    name = sample.names[0]
    rows = list(word_rows(method, sample, tokens, name, [name, "grass"]))
    assert [row.word for row in rows] == [name, "grass"]
    feature = torch.nn.functional.normalize(last_pass(tokens).feature @ tokens.block.projection, dim=-1)[0]
    for row in rows:
        assert row.similarity == pytest.approx(float(feature @ method.clip.text([method.settings.template.format(row.word)])[0]), abs=1e-5)
    assert rows[1].result.prompts[name] == method.settings.template.format("grass")
    with pytest.raises(SettingsError, match="unicorn"):
        next(word_rows(method, sample, tokens, "unicorn", ["horse"]))


def test_leaving_out_a_background_word_is_compared_with_all_of_them(method, samples, encoded):
    words = ("grass", "sky", "unheardof")
    sparse = ClipEs(method.clip, method.settings, background=words)
    rows = list(background_rows(sparse, samples[0], encoded.tokens[0]))
    assert [row.left_out for row in rows] == [(), words, ("grass",), ("sky",), ("unheardof",)]
    assert rows[0].changed == 0
    for row in rows:
        kept = [word for word in words if word not in row.left_out]
        labels = ClipEs(sparse.clip, sparse.settings, background=kept, refiner="none").segment(samples[0], tokens=encoded.tokens[0]).labels
        assert torch.equal(row.labels, labels)
        assert row.changed == pytest.approx((labels != rows[0].labels).double().mean().item())
    for few, expected in (((), [()]), (("sky",), [(), ("sky",)])):
        rows = background_rows(ClipEs(method.clip, method.settings, background=few), samples[0], encoded.tokens[0])
        assert [row.left_out for row in rows] == expected
