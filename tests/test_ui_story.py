"""The sentences under the stages, with numbers that were counted by hand; and the page's address."""

from types import SimpleNamespace
from urllib.parse import parse_qsl

import numpy as np
import pytest

from kit.data import Sample
from kit.methods import METHODS, ClipEs
from kit.settings import SettingsError
from kit.ui import address, story
from kit.ui.session import Refused
from kit.words import VOC_CLASSES

BOAT = 1 + VOC_CLASSES.index("boat")
LAKE, GRASS = 8, 3


@pytest.fixture
def sample(monkeypatch):
    """Ten rows of ten pixels: the upper half a boat, below it two rows of lake, three of grass."""
    monkeypatch.setattr("kit.toy.places.STUFF", {LAKE: "lake", GRASS: "grass"})
    truth, stuff = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    truth[:5] = BOAT
    stuff[5:7], stuff[7:] = LAKE, GRASS
    return Sample(np.zeros((10, 10, 3), np.uint8), ("boat",), truth, stuff)


def labels(*rows) -> np.ndarray:
    mask = np.zeros((10, 10), np.uint8)
    mask[list(rows)] = BOAT
    return mask


def test_a_tally_counts_what_is_found_and_what_lies_elsewhere(sample):
    found = story.tally(sample, labels(2, 3, 4, 5, 6, 7), "boat")  # three of the five rows of boat, two of lake, one of grass
    assert found.found == pytest.approx(3 / 5) and found.elsewhere == pytest.approx(3 / 6) and found.covered == pytest.approx(0.6)
    assert found.on == (("lake", pytest.approx(2 / 6)), ("grass", pytest.approx(1 / 6)))
    assert story.lies_on("boat", found) == "Of the mask of boat lie 50 % on the boat, 33 % on the lake, 17 % on the grass."
    sample.truth[2] = 255  # nobody knows: counts neither way
    assert story.tally(sample, labels(2, 3, 4, 5), "boat").elsewhere == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        ((4,), (3, 4, 5), "fills and leaks: finds 40 % of the boat (+20), spills 33 %, most on the lake"),
        ((3, 4, 5, 6), (3, 4, 5), "trims: finds 40 % of the boat (+0), spills 33 %, most on the lake"),
        ((3, 4, 5), (2, 3, 4), "fills and trims: finds 60 % of the boat (+20), spills 0 %"),
        ((3, 4), (4, 8), "loses and leaks: finds 20 % of the boat (-20), spills 50 %, most on the grass"),
        ((3, 4), (3, 4), "changes little: finds 40 % of the boat (+0), spills 0 %"),
        ((3,), (), "finds nothing of the boat"),
    ],
)
def test_a_stage_is_told_beside_the_one_before(sample, before, now, says):
    assert story.told("boat", *(story.tally(sample, labels(*rows), "boat") for rows in (now, before))) == says


def test_what_is_not_there_and_what_nobody_knows(sample):
    cow = Sample(sample.image, ("cow",), sample.truth, sample.stuff)
    mask = np.where(labels(5, 6, 7) == BOAT, 10, 0)
    assert story.told("cow", story.tally(cow, mask, "cow")) == "finds a cow where none is, most on the lake"
    assert story.told("cow", story.tally(cow, 0 * mask, "cow")) == "rightly finds no cow: none is here"
    photo = Sample(sample.image, ("boat",))
    first, second = (story.tally(photo, labels(*rows), "boat") for rows in ((1,), (1, 2, 3)))
    assert story.told("boat", second, first, known=False) == "covers 30 % of the picture (+20)"


def test_the_sentence_escapes_what_was_typed():
    said = story.sentence("a <b>{}</b>.", ("<i>",), {}, {"<i>": "#000"}, "<i>", rivals=1)
    assert (
        said.endswith("against 1 background word</span></p>")
        and "<b>" not in said
        and "&lt;i&gt;" in said
        and 'aria-pressed="true"' in said
    )


def test_an_address_is_read_into_a_picture_and_plain_values():
    asked = address.read({"scene": "32", "class": "boat, cow", "box_threshold": "0.6", "__theme": "dark", "view": "api"})
    assert asked.picture == {"scene": "32"} and asked.values == {"class": "boat, cow", "box_threshold": "0.6"}
    described = ClipEs.Settings.described()
    texts = {
        "box_threshold": "0.6",
        "layers": "[0,1]",
        "affinity": "false",
        "background": "sea, sky",
        "template": "a 3 {}",
        "refiner": "none",
    }
    values = {name: address.value(described[name], text) for name, text in texts.items()}
    assert values == {
        "box_threshold": 0.6, "layers": [0, 1], "affinity": False, "background": ["sea", "sky"], "template": "a 3 {}", "refiner": "none",
    }  # fmt: skip
    with pytest.raises(Refused, match="whole number, got 'x'"):
        address.whole("x", "scene")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_every_setting_comes_back_from_an_address(method):
    """Written as the page writes it and read as the page reads it."""
    preset, tried = method.preset("toy"), 0
    for name, setting in type(preset).described().items():
        if setting.kind not in ("flag", "number", "choice", "texts", "blocks"):
            continue
        other = {
            "flag": not preset.value(name),
            "number": setting.low or setting.high,
            "choice": next((choice for choice in setting.choices if choice != preset.value(name)), ""),
            "texts": ["mud", "sky"],
            "blocks": [0, 3],
        }[setting.kind]
        try:
            changed = preset.changed(**{name: other})
        except SettingsError:
            continue  # it does not go with the preset's others
        tried += 1
        view = SimpleNamespace(pipeline=SimpleNamespace(method=method, settings=changed), sample=SimpleNamespace(names=("boat",)))
        text = address.written({"scene": "3"}, view, preset, "another")
        asked = address.read(dict(parse_qsl(text.removeprefix("?"), keep_blank_values=True)))
        assert asked.picture == {"scene": "3"} and asked.values.pop("method") == method.name and asked.values.pop("class") == "boat"
        assert {key: address.value(type(preset).described()[key], said) for key, said in asked.values.items()} == changed.unlike(preset)
    assert tried > 15
