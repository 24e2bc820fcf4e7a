"""Explorers operated as a visitor's mouse would: by their controls' values."""

import asyncio
import io
import threading

import numpy as np
import pytest
from PIL import Image

from kit import refine, widgets
from kit.data import Sample, toy_samples
from kit.encode import Clip

CORE = ("Dropdown", "FloatSlider", "HBox", "HTML", "Image", "IntSlider", "SelectMultiple", "Text", "Textarea", "VBox")  # of 7.7 and of 8


@pytest.fixture(scope="module")
def clip():
    return Clip.load("tiny")


@pytest.fixture(scope="module")
def scenes():
    return list(toy_samples("val", 2, size=96, start=22))  # dog and sofa; bottle, cat and dog


EXPLORERS = {
    "stages": lambda clip, scenes: widgets.stage_explorer(clip, *scenes, side=96, iterations=2),
    "prompts": lambda clip, scenes: widgets.prompt_comparer(clip, scenes[0], side=96),
    "patch": lambda clip, scenes: widgets.patch_affinity_explorer(clip, scenes[0], side=96),
}


@pytest.fixture
def opened(clip, scenes):
    return lambda name: EXPLORERS[name](clip, scenes)


SLIDERS = [
    ("stages", "box_threshold", 0.6),
    ("stages", "power", 4),
    ("stages", "background_power", 3.0),
    ("stages", "confidence", 0.5),
    ("stages", "refiner", "none"),
    ("stages", "template", "a photo of a {}."),
    ("stages", "background", ""),
    ("stages", "classes", "sofa"),
    ("prompts", "rivals", 1),
    ("prompts", "name", "sofa"),
    ("prompts", "lines", "a photo of a puppy."),
    ("patch", "row", 2),
    ("patch", "column", 9),
    ("patch", "power", 5),
    ("patch", "sinkhorn", 0),
    ("patch", "layers", (3,)),
]


@pytest.mark.parametrize(("panel", "control", "value"), SLIDERS)
def test_a_control_changes_the_picture_and_never_runs_the_encoder(clip, opened, panel, control, value):
    panel = opened(panel)
    before, calls = panel.picture.value, clip.calls
    panel.controls[control].value = value
    assert panel.picture.value != before
    assert panel.redraws == 2 and clip.calls == calls
    assert np.array(Image.open(io.BytesIO(panel.picture.value))).std() > 10


def test_every_control_is_tried_but_the_choice_of_the_picture(opened):
    tried = {(panel, control) for panel, control, _ in SLIDERS}
    assert {(name, control) for name in EXPLORERS for control in opened(name).controls} - tried == {("stages", "number")}


def test_another_picture_is_encoded_once(clip, scenes):
    calls = clip.calls
    panel = widgets.stage_explorer(clip, *scenes, side=96, refiner="none")
    assert clip.calls == calls + 1
    for number in (1, 0, 1):
        panel.controls["number"].value = number
    assert clip.calls == calls + 2 and panel.redraws == 4
    assert "bottle" in panel.message.value


def test_a_burst_gives_one_picture_and_leaves_no_thread(clip, scenes):
    async def drag():
        panel = widgets.stage_explorer(clip, scenes[0], side=96, refiner="none")
        before, threads = panel.picture.value, set(threading.enumerate())
        for step in range(20):
            panel.controls["box_threshold"].value = step / 20
            await asyncio.sleep(0.002)
        assert panel.redraws == 1 and panel.picture.value == before  # still waiting
        for _ in range(100):
            await asyncio.sleep(widgets.DELAY / 5)
            if panel.redraws > 1:
                break
        await asyncio.sleep(2 * widgets.DELAY)
        assert panel.redraws == 2 and panel.picture.value != before
        assert not set(threading.enumerate()) - threads  # those of other tests may end meanwhile
        return panel

    panel = asyncio.run(drag())
    assert panel.controls["box_threshold"].value == 0.95


MISTAKES = [
    ("stages", "template", "a photo", "exactly one {}"),
    ("stages", "template", "<b>{}</b> {}", "exactly one {}"),
    ("stages", "background", "word " * 61, "does not fit"),
    ("prompts", "lines", "\n \n", "one to eight prompts"),
    ("prompts", "lines", "a {} on a {}", "exactly one {}"),
    ("prompts", "lines", "\n".join(f"a photo of {number}" for number in range(9)), "one to eight prompts"),
    ("patch", "layers", (), "at least one block"),
]


@pytest.mark.parametrize(("panel", "control", "value", "sentence"), MISTAKES)
def test_a_mistake_is_told_inside_and_mended(opened, panel, control, value, sentence):
    panel = opened(panel)
    before, right = panel.picture.value, panel.controls[control].value
    panel.controls[control].value = value
    assert sentence in panel.message.value and "<b>" not in panel.message.value
    assert panel.picture.value == before  # the last good one stays
    panel.controls[control].value = right
    assert sentence not in panel.message.value


def test_a_word_never_seen_is_named(opened):
    stages, comparer = opened("stages"), opened("prompts")
    stages.controls["classes"].value = "dog, zeppelin"
    assert "Never seen by the tiny model: zeppelin" in stages.message.value
    comparer.controls["lines"].value = "a photo of a zeppelin."
    assert "Never seen by the tiny model: zeppelin" in comparer.message.value


def test_without_the_crf_package_the_others_are_offered(clip, scenes, monkeypatch):
    monkeypatch.setattr(refine, "has_dense_crf", lambda: False)
    refiner = widgets.stage_explorer(clip, scenes[0], side=96, iterations=2).controls["refiner"]
    assert refiner.value == "pixel-adaptive" and "crf" not in refiner.options


def test_only_core_widgets_are_used(opened):
    def kinds(widget):
        yield type(widget).__mro__[1].__name__ if isinstance(widget, widgets.Panel) else type(widget).__name__
        for child in getattr(widget, "children", ()):
            yield from kinds(child)

    for panel in map(opened, EXPLORERS):
        assert set(kinds(panel)) <= set(CORE)
        assert panel.get_state()["_model_name"] == "VBoxModel"  # no class of ours that a page would have to know


def test_rivals_are_said_in_the_words_of_the_prompt(clip, scenes, monkeypatch):
    panel = widgets.prompt_comparer(clip, scenes[0], side=96)
    asked = []
    encode = clip.text
    monkeypatch.setattr(clip, "text", lambda texts: asked.append(texts) or encode(texts))
    panel.controls["lines"].value = "a dark photo of the dog."
    assert asked[-1][:2] == ["a dark photo of the dog.", "a dark photo of the sofa."]
    panel.controls["lines"].value = "a photo of a puppy."
    assert asked[-1][:2] == ["a photo of a puppy.", "a clean origami sofa."]
    panel.controls["lines"].value = "a photo of the {}."
    panel.controls["name"].value = "sofa"
    assert asked[-1][:2] == ["a photo of the sofa.", "a photo of the dog."]


def test_the_pictures_beside_the_explorers_show_the_same(clip, scenes):
    from kit import show

    dog = scenes[0]
    pairs = (
        (widgets.stage_picture(clip, dog, side=96), widgets.stage_explorer(clip, dog, side=96)),
        (widgets.prompt_picture(clip, dog, side=96), widgets.prompt_comparer(clip, dog, side=96)),
        (widgets.patch_affinity_picture(clip, dog, 6, 6, side=96), widgets.patch_affinity_explorer(clip, dog, side=96)),
    )
    for figure, panel in pairs:
        assert show.png(figure) == panel.picture.value


def test_what_cannot_be_shown_is_said(clip, scenes):
    with pytest.raises(ValueError, match="at least one sample"):
        widgets.stage_explorer(clip)
    with pytest.raises(ValueError, match="rows 1 to 12 and columns 1 to 12"):
        widgets.patch_affinity_picture(clip, scenes[0], 0, 5, side=96)
    nothing = Sample(scenes[0].image, ())
    with pytest.raises(ValueError, match="names a class"):
        widgets.prompt_comparer(clip, nothing)
    with pytest.raises(ValueError, match="choose at least one class"):
        widgets.stage_picture(clip, nothing)
    assert "choose at least one class" in widgets.stage_explorer(clip, nothing).message.value


def test_a_photo_without_truth_has_no_score(clip, scenes):
    photo = Sample(scenes[0].image, ("dog", "zeppelin"))
    panel = widgets.stage_explorer(clip, photo, side=96, iterations=2)
    assert "IoU" not in panel.message.value and "dog" in panel.message.value
