"""Settings: one declaration says kind, range and help to every door, and refuses what is neither; files of earlier versions still load."""

import json
import re

import pytest
from pydantic import Field

from kit.methods import METHODS, ClipEs, ClipEsSettings, FmaWsss, FmaWsssSettings
from kit.settings import Blocks, Functions, Group, Learning, Settings, SettingsError, function, name_of, number, shortened, whole

CLASSES = {name: method.Settings for name, method in METHODS.items()}
WORLDS = ("voc", "coco", "toy")
SETTINGS = [(kind, name) for kind in CLASSES.values() for name in kind.described()]
TOGETHER = ("warm_up", "steps", "horizon")  # they have to agree with each other
BAD = {
    "number": [float("nan"), float("inf"), -float("inf"), True, "0.5", "", [1], {}, 1j, 10**400],
    "whole": [float("nan"), float("inf"), True, "3", "", [1], {}, 1j, 0.5],
    "flag": ["false", 1, 0, None],
    "choice": ["grad", None, ["softmax"], 3],
    "text": [None, 3, ["a"]],
    "texts": ["sky", None, ("sky", 3)],
    "pairs": [None, "boat", ["cat"], {"boat": None}, {"boat": ("boat", "ship")}],
    "weights": [None, 3, {"foreground": "much"}, {"foreground": True}],
    "numbers": [None, "3", (), (1, 2.5, 3)],
    "blocks": [0, -2, True, None, "8", 1.5, (), (0, 1.5), [True]],
}


def halved(value):
    return value / 2


def doubled(value, *, strength=2):
    return value * strength


class Inner(Group):
    """An inner group."""

    depth: whole(1, 9) = Field(3, title="Depth", description="how deep")
    share: number(0, 1) = 0.5


class Own(Settings):
    """Settings of the test's own."""

    halving: function({"half": halved}) = Field("half", title="Halving", description="a function")
    inner: Inner = Inner(depth=4)
    blocks: Blocks = 2


def test_described_tells_every_setting_by_its_dotted_name():
    described = Own.described()
    assert list(described)[: len(Settings.model_fields)] == list(Settings.described())
    depth = described["inner.depth"]
    assert (depth.name, depth.kind, depth.default, depth.title, depth.help) == ("inner.depth", "whole", 4, "Depth", "how deep")
    assert (depth.low, depth.high, depth.wanted) == (1, 9, "a whole number from 1 to 9")
    assert described["halving"].choices == ("half",) and described["halving"].functions
    assert described["side"].optional and described["side"].wanted == "a whole number from 16 to 2,048 or none"
    assert described["blocks"].kind == "blocks" and described["synonyms"].kind == "pairs"


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_setting_of_every_method_has_a_kind_a_title_and_its_help(kind):
    settings, help_text = kind(), kind.__doc__
    for name, setting in kind.described().items():
        assert setting.kind in BAD and setting.title, name
        assert settings.value(name) == setting.default, name
        assert f"    {name}: " in help_text and setting.wanted in help_text, name
        if setting.kind == "choice":
            assert setting.default in setting.choices, name


def test_the_help_says_meaning_range_and_default():
    assert re.search(r"box_threshold: Box threshold \(.*\); a number from 0 to 1, default 0\.4\.", ClipEsSettings.__doc__)
    assert "in pixels" in ClipEsSettings.__doc__ and "fine.vote_power" in FmaWsssSettings.__doc__
    assert Own.__doc__.startswith("Settings of the test's own.") and "inner.depth: Depth (how deep)" in Own.__doc__


@pytest.mark.parametrize(("kind", "name"), SETTINGS)
def test_what_a_setting_cannot_be_is_refused(kind, name):
    setting = kind.described()[name]
    for value in BAD[setting.kind]:
        with pytest.raises(SettingsError) as told:
            kind().changed(**{name: value})
        assert name in str(told.value) and told.value.name == name, value
        if setting.kind in ("whole", "number", "flag", "choice"):
            assert setting.wanted in str(told.value), value
    if not setting.optional:
        with pytest.raises(SettingsError, match=re.escape(name)):
            kind().changed(**{name: None})


@pytest.mark.parametrize(("kind", "name"), SETTINGS)
def test_ranges_end_where_they_say(kind, name):
    setting = kind.described()[name]
    step = 1 if setting.kind == "whole" else 1e-3
    for value, beyond in ((setting.low, -step), (setting.high, step)):
        if value is None or name.split(".")[-1] in TOGETHER:
            continue
        assert kind().changed(**{name: value}).value(name) == value
        with pytest.raises(SettingsError, match=re.escape(f"expected {name} to be {setting.wanted}")):
            kind().changed(**{name: value + beyond})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cam": "grad"}, "expected cam to be one of softmax, plain, similarity, or a function with their signature, got 'grad'"),
        ({"background": "sky"}, "expected background to be a list of words, got 'sky'"),
        ({"layers": 0}, "expected layers to be how many of the last blocks, at least 1, or a list of blocks"),
        ({"colour": 3}, "unknown setting colour: "),
        ({"box_treshold": 0.3}, "unknown setting box_treshold: did you mean box_threshold"),
    ],
)
def test_refusals_are_sentences(changes, message):
    for make in (ClipEs.preset, lambda _, **changes: ClipEsSettings(**changes), lambda _, **changes: ClipEs.settings_of(changes)):
        with pytest.raises(SettingsError, match=re.escape(message)):
            make("voc", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proposals": " "}, "expected proposals to be 'superpixels' or a SAM's name or folder"),
        ({"regions": (30, 80, 250)}, "expected regions to be falling numbers"),
        ({"regions": (80, 30)}, "regions"),
        ({"scale": (480, 288)}, "expected scale to be rising numbers"),
        ({"fine__per_class": False}, "backgrounds without a word need contexts of their own"),
        ({"coarse__warm_up": 1800}, "expected warm_up to be less than coarse.steps"),
        ({"fine__horizon": 16999}, "horizon at least steps or none"),
        ({"fine__labels": "truth"}, "expected fine.labels to be one of seed, image, got 'truth'"),
        ({"coarse": {"depth": 3}}, "unknown setting coarse.depth"),
        ({"coarse": 3}, "expected coarse to be settings such as"),
        ({"fine__vote_power": 0}, "expected fine.vote_power to be a number from 0.05 to 20, got 0"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(changes, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        FmaWsss.preset("voc", **changes)


def test_changes_reach_into_groups_in_three_spellings():
    settings = FmaWsssSettings()
    spelled = [settings.changed(coarse__box_threshold=0.3), settings.changed(**{"coarse.box_threshold": 0.3})]
    spelled.append(settings.changed(coarse={"box_threshold": 0.3}))
    assert spelled[0] == spelled[1] == spelled[2] and spelled[0].unlike(settings) == {"coarse.box_threshold": 0.3}
    assert settings.coarse.box_threshold == 0.4 and spelled[0].value("coarse__box_threshold") == 0.3
    assert FmaWsssSettings(coarse={"box_threshold": 0.3}).coarse.steps == 1800  # what is not named stays the default
    both = settings.changed(fine__rate=0.5, fine__losses={"foreground": 4.0}, sinkhorn=2)
    assert both.unlike(settings) == {"sinkhorn": 2, "fine.rate": 0.5, "fine.losses": {"foreground": 4.0}}


def test_settings_cannot_be_changed_behind_their_back():
    synonyms = {"boat": "ship"}
    settings = ClipEsSettings(synonyms=synonyms, background=["sky"])
    synonyms["boat"] = ""
    assert settings.synonyms == {"boat": "ship"} and settings.background == ("sky",)
    with pytest.raises(ValueError, match="frozen"):
        settings.power = 3


def test_numbers_of_json_and_numpy_are_taken():
    import numpy as np

    settings = ClipEsSettings.from_dict({"sinkhorn": 3.0, "power": 2.0, "iterations": 10.0, "side": 160.0})
    assert [type(value) for value in (settings.sinkhorn, settings.power, settings.iterations, settings.side)] == [int] * 4
    assert ClipEsSettings(power=np.int64(3), box_threshold=np.float64(0.25)) == ClipEsSettings(power=3, box_threshold=0.25)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_preset_travels_through_json(method, world):
    settings = method.preset(world)
    values = json.loads(json.dumps(settings.to_dict()))
    assert method.settings_of(values) == settings and method.Settings.from_dict(settings.flat()) == settings
    assert method.settings_of({"method": method.name, "model": "tiny", "learned": "abc", "code": {"cam": "x"}, **values}) == settings


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_worlds_and_methods_that_are_not_there_are_refused(method):
    with pytest.raises(SettingsError, match="expected a preset out of voc, coco, toy, got 'imagenet'"):
        method.preset("imagenet")
    with pytest.raises(SettingsError, match=f"expected settings of {method.name}, got those of 'another'"):
        method.settings_of({"method": "another"})
    for values in (None, [1], "power"):
        with pytest.raises(SettingsError, match="expected settings as names with values"):
            method.settings_of(values)


OLD_FMA = {
    "method": "fma-wsss", "model": "tiny", "template": "a clean origami {}.", "context": 4, "position": "middle", "fine_position": "end",
    "per_class": False, "std": 0.02, "fine_std": 0.03, "box_threshold": 0.2, "fine_box_threshold": 0.25, "spread": "raw",
    "fine_spread": "score", "vote_power": 1.0, "fine_vote_power": 1.5, "affinity": False, "fine_affinity": True, "batch": 8,
    "fine_batch": 4, "rate": 0.01, "fine_rate": 3.0, "steps": 200, "warm_up": 10, "horizon": None, "fine_steps": 100, "fine_warm_up": 0,
    "fine_horizon": 120, "parts": 2, "fine_parts": 3, "fine_background": "words", "fine_labels": "image", "fine_per_class": True,
    "fine_foreground": 4.0, "regions": [90, 40, 9], "scale": [60, 90], "crop": 48, "views": "cached", "seed": 3, "layers": [0, 1],
}  # fmt: skip


def test_files_of_earlier_versions_load():
    """Before there were groups: coarse settings under their bare names, fine ones behind fine_."""
    settings = FmaWsss.settings_of(json.loads(json.dumps(OLD_FMA)))
    assert (settings.coarse.position, settings.fine.position, settings.coarse.std, settings.fine.std) == ("middle", "end", 0.02, 0.03)
    assert (settings.coarse.box_threshold, settings.fine.box_threshold, settings.fine.horizon) == (0.2, 0.25, 120)
    assert (settings.coarse.spread, settings.fine.spread, settings.coarse.affinity, settings.fine.affinity) == ("raw", "score", False, True)
    assert (settings.coarse.steps, settings.fine.steps, settings.coarse.parts, settings.fine.parts) == (200, 100, 2, 3)
    assert settings.fine.losses == {"foreground": 4.0} and settings.coarse.losses == {}
    assert (settings.context, settings.regions, settings.layers) == (4, (90, 40, 9), (0, 1))
    assert FmaWsss.settings_of(settings.to_dict()) == settings
    assert FmaWsss.settings_of({**OLD_FMA, "fine_foreground": 1.0}).fine.losses == {}  # what it is where it is not named
    flat = {"method": "clip-es", "model": "tiny", **ClipEs.preset("toy").to_dict(), "power": 3}
    assert ClipEs.settings_of(flat) == ClipEs.preset("toy", power=3)
    with pytest.raises(SettingsError, match="unknown setting"):
        FmaWsss.preset("voc", box_threshold=0.3)  # old names are for files only


def test_functions_of_ones_own_go_by_their_names():
    import functools

    settings = Own(halving=doubled)
    assert settings.to_dict()["halving"] == "doubled" and json.dumps(settings.to_dict())
    assert settings.unlike(Own()) == {"halving": "doubled"}
    assert name_of(functools.partial(doubled, strength=3)) == "doubled" and name_of(Functions({})) == "Functions"
    assert Functions({"half": halved})["half"](4) == 2 and Functions({"half": halved})[doubled](4) == 8
    with pytest.raises(SettingsError, match="expected halving to be one of half, or a function with their signature, got 'third'"):
        Own(halving="third")


def test_values_are_told_in_a_few_words():
    assert [shortened(value) for value in ({}, None, [], ("a",) * 9, 0.5, halved)] == ["none", "none", "none", "9 words", "0.5", "halved"]


def test_learning_that_lasts_so_many_steps():
    learning = Learning(steps=100, warm_up=30, horizon=400)
    assert learning.lasting(20) == Learning(steps=20, warm_up=2) and learning.lasting(1000).warm_up == 30


def test_steps_that_are_fewer_than_the_warm_up_are_told_how():
    with pytest.raises(SettingsError, match=r"got warm_up 10, steps 5, horizon None: change them together, such as steps=5, warm_up=0"):
        FmaWsss.preset("toy").changed(**{"coarse.steps": 5})
    assert FmaWsss.preset("toy").changed(**{"coarse.steps": 5, "coarse.warm_up": 0}).coarse.steps == 5
