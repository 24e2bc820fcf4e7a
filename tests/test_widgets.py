"""Explorers operated as a visitor's mouse would: by their controls' values."""

import asyncio
import io
import threading

import numpy as np
import pytest
from PIL import Image

import kit
from kit import cam, refine, show, widgets
from kit.data import Sample, toy_samples
from kit.methods import METHODS, ClipEs
from kit.prompt import prompts
from kit.toy.scene import draw

CORE = (  # of 7.7 and of 8
    "BoundedFloatText", "BoundedIntText", "Checkbox", "Dropdown", "FloatSlider", "HBox", "HTML", "Image", "IntSlider", "SelectMultiple",
    "Text", "Textarea", "VBox",
)  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    return kit.load("tiny")


@pytest.fixture(scope="module")
def small(clip):
    return ClipEs(clip, side=96, iterations=2)


@pytest.fixture(scope="module")
def scenes():
    return list(toy_samples("val", 2, size=96, start=22))  # dog and sofa; bottle, cat and dog


EXPLORERS = {
    "stages": widgets.stage_explorer,
    "prompts": lambda pipeline, *scenes: widgets.prompt_comparer(pipeline, scenes[0]),
    "patch": lambda pipeline, *scenes: widgets.patch_affinity_explorer(pipeline, scenes[0]),
}


@pytest.fixture
def opened(small, scenes):
    return lambda name: EXPLORERS[name](small, *scenes)


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


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_any_method_brings_its_own_controls_and_stages(method, clip, scenes):
    pipeline = method(clip, side=96)
    panel, calls = widgets.stage_explorer(pipeline, *scenes), clip.calls
    described = method.Settings.described()
    knobs = [name for name in panel.controls if name not in ("number", "classes")]
    assert {"background_power", "confidence"} < set(knobs) <= set(described) and not {"side", "side_limit"} & set(knobs)
    for name in knobs:
        assert panel.controls[name].description.endswith(described[name].title)
    if pipeline.learned is not None:
        assert not set(method.belongs) & set(knobs)  # what was learned cannot be asked without them
    flag = next(name for name in knobs if described[name].kind == "flag" and "affinity" in name)
    panel.controls[flag].value = not panel.controls[flag].value
    assert panel.redraws == 2 and clip.calls == calls and "expected" not in panel.message.value


def test_knobs_may_be_chosen_and_functions_of_ones_own_stay(clip, scenes):
    def rollout(tokens, text, classes, *, done=None):
        return cam.similarity_cam(tokens, text, classes)

    panel = widgets.stage_explorer(ClipEs(clip, side=96, cam=rollout, refiner="none"), scenes[0], knobs=("cam", "power"))
    assert list(panel.controls) == ["number", "classes", "cam", "power"]
    assert panel.controls["cam"].value is rollout and [title for title, _ in panel.controls["cam"].options][-1] == "rollout"
    before = panel.picture.value
    panel.controls["cam"].value = "softmax"
    assert panel.picture.value != before
    with pytest.raises(ValueError, match="did you mean power"):
        widgets.stage_explorer(ClipEs(clip, side=96), scenes[0], knobs=("powre",))


def test_another_picture_is_encoded_once(clip, scenes):
    calls = clip.calls
    panel = widgets.stage_explorer(ClipEs(clip, side=96, refiner="none"), *scenes)
    assert clip.calls == calls + 1
    for number in (1, 0, 1):
        panel.controls["number"].value = number
    assert clip.calls == calls + 2 and panel.redraws == 4
    assert "bottle" in panel.message.value


def test_a_burst_gives_one_picture_and_leaves_no_thread(clip, scenes):
    async def drag():
        panel = widgets.stage_explorer(ClipEs(clip, side=96, refiner="none"), scenes[0])
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
    refiner = widgets.stage_explorer(ClipEs(clip, side=96, refiner="pixel-adaptive"), scenes[0]).controls["refiner"]
    assert refiner.value == "pixel-adaptive" and "crf" not in dict(refiner.options)


def test_only_core_widgets_are_used(opened):
    def kinds(widget):
        yield type(widget).__mro__[1].__name__ if isinstance(widget, widgets.Panel) else type(widget).__name__
        for child in getattr(widget, "children", ()):
            yield from kinds(child)

    for panel in map(opened, EXPLORERS):
        assert set(kinds(panel)) <= set(CORE)
        assert panel.get_state()["_model_name"] == "VBoxModel"  # no class of ours that a page would have to know


def test_rivals_are_said_in_the_words_of_the_prompt(small, clip, scenes, monkeypatch):
    panel = widgets.prompt_comparer(small, scenes[0])
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


def test_the_pictures_beside_the_explorers_show_the_same(small, scenes):
    for figure, panel in (
        (widgets.stage_picture(small, scenes[0]), widgets.stage_explorer(small, scenes[0])),
        (widgets.prompt_picture(small, scenes[0]), widgets.prompt_comparer(small, scenes[0])),
        (widgets.patch_affinity_picture(small, scenes[0], 6, 6), widgets.patch_affinity_explorer(small, scenes[0])),
    ):
        assert show.png(figure, dpi=widgets.DPI) == panel.picture.value


def test_what_cannot_be_shown_is_said(small, scenes):
    with pytest.raises(ValueError, match="at least one sample"):
        widgets.stage_explorer(small)
    with pytest.raises(ValueError, match="rows 1 to 12 and columns 1 to 12"):
        widgets.patch_affinity_picture(small, scenes[0], 0, 5)
    nothing = Sample(scenes[0].image, ())
    with pytest.raises(ValueError, match="names a class"):
        widgets.prompt_comparer(small, nothing)
    with pytest.raises(ValueError, match="choose at least one class"):
        widgets.stage_picture(small, nothing)
    assert "choose at least one class" in widgets.stage_explorer(small, nothing).message.value


def test_a_photo_without_truth_has_no_score(small, scenes):
    panel = widgets.stage_explorer(small, Sample(scenes[0].image, ("dog", "zeppelin")))
    assert "IoU" not in panel.message.value and "dog" in panel.message.value


def test_a_fused_name_is_one_name_among_its_rivals(small):
    """The sea beside "boat,vessel,watercraft" is no "sea,vessel,watercraft"."""
    scene, line = draw(2, classes=("boat", "bird"), place="sea", style="photo"), "a clean origami boat,vessel,watercraft."
    sample = Sample(scene.image, ("boat", "bird"), scene.truth, scene.stuff)
    text = small.clip.text([line, *prompts("a clean origami {}.", ["bird", *small.settings.background])])
    share = float(cam.class_probabilities(small.encode(sample.image), text)[0, 0])
    drawn = widgets.prompt_picture(small, sample, line)
    assert f"{share:.2f}" == drawn.axes[1].get_title().splitlines()[-1]
