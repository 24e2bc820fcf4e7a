"""Words tried: templates over samples, words in a class's place, background words left out."""

import csv
import io
import math
import threading

import pytest
import torch

from kit import cam
from kit.data import toy_samples
from kit.last_block import last_pass
from kit.methods import ClipEs, FmaWsss
from kit.prompt import prompts, sharpness
from kit.settings import SettingsError
from kit.sweep import encode_all, sweep
from kit.words_tried import TemplateRow, TemplateTable, background_rows, reworded, template_rows, template_table, word_rows


@pytest.fixture(scope="module")
def method(clip):
    return ClipEs(clip, side=64, refiner="none")


@pytest.fixture(scope="module")
def samples():
    return list(toy_samples("val", 6, size=64))


@pytest.fixture(scope="module")
def encoded(method, samples):
    return encode_all(method, samples, split="val")


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
    assert falling.rank_correlation == pytest.approx(-1) and "as its paper says" in falling.verdict()
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


def test_templates_that_cannot_be_measured_are_refused_before_the_first_row(method, encoded):
    for templates, says in (([], "at least one"), (["a {}.", "a {}."], "once"), (["a {}.", "a photo"], "exactly one"), ("a {}.", "list")):
        with pytest.raises(ValueError, match=says):
            template_rows(method, encoded, templates)
    with pytest.raises(ValueError, match="side"):
        template_rows(method.changed(side=96), encoded, TEMPLATES)


def test_rewording_is_segmenting_with_other_words(method, samples, encoded):
    sample, tokens = samples[0], encoded.tokens[0]
    changes = [{"template": "a {}."}, {"background": []}, {"synonyms": {sample.names[0]: "sea"}}]
    for change, result in zip(changes, reworded(method, sample, tokens, changes), strict=True):
        expected = method.changed(**change).segment(sample, tokens=tokens)
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
    sparse = method.changed(background=words)
    rows = list(background_rows(sparse, samples[0], encoded.tokens[0]))
    assert [row.left_out for row in rows] == [(), words, ("grass",), ("sky",), ("unheardof",)]
    assert rows[0].changed == 0
    for row in rows:
        kept = [word for word in words if word not in row.left_out]
        labels = sparse.changed(background=kept).segment(samples[0], tokens=encoded.tokens[0]).labels
        assert torch.equal(row.labels, labels)
        assert row.changed == pytest.approx((labels != rows[0].labels).double().mean().item())
    for few, expected in (((), [()]), (("sky",), [(), ("sky",)])):
        rows = background_rows(method.changed(background=few), samples[0], encoded.tokens[0])
        assert [row.left_out for row in rows] == expected


def test_words_that_a_method_does_not_ask_with_are_refused(clip, samples, own, encoded):
    sample, tokens = samples[0], encoded.tokens[0]
    learned = FmaWsss(clip, side=64)
    with pytest.raises(SettingsError, match="template changes nothing here: Prompts .* learned from 300 images"):
        next(template_rows(learned, encoded, TEMPLATES))
    by_hand = learned.changed(learned=None)
    assert len(list(word_rows(by_hand, sample, tokens, sample.names[0], ["grass", "boat"]))) == 2
    assert [row.left_out for row in background_rows(own(clip, side=64, background=("sky",)), sample, tokens)] == [(), ("sky",)]
