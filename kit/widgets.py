"""Explorers for notebooks, of ipywidgets' core widgets only: what a slider moves is computed from tokens that are there already.

Beside each explorer stands the function that draws its picture once, for a page that nobody can operate.
"""

import asyncio
import html
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import numpy as np
import torch

from kit import cam, refine, show
from kit.data import Sample
from kit.encode import Clip, Tokens
from kit.method import Driver, Kept, Pipeline
from kit.prompt import filled, prompts
from kit.score import Confusion
from kit.settings import Setting, name_of
from kit.words import VOC_CLASSES

DPI = 150  # at which a panel is 300 pixels wide: to be read from the back row
DELAY = 0.15  # seconds without a further change before a picture is drawn
FIRST_LINES = ("a clean origami {}.", "a photo of a {}.", "a dark photo of the {}.")
BESIDE = ("background_power", "confidence")  # what every method's masks depend on, beside what its stages read


class Panel(ipywidgets.VBox):
    """Controls, the picture they make, and a line that says what there is to say: many changes in a short time give one picture.

    draw: the controls' values by name -> a figure and a sentence. A ValueError is told in the line, and the last picture stays. The waiting
    is done by the notebook's own event loop; where none runs, as in a script, every change is drawn at once.
    """

    def __init__(self, controls: Mapping[str, ipywidgets.Widget], draw: Callable[[dict], tuple[show.Figure, str]]):
        self.controls, self.redraws = dict(controls), 0
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%", object_fit="contain"))
        self.message = ipywidgets.HTML()
        self._draw, self._timer = draw, None
        rows, half = list(controls.values()), (len(controls) + 1) // 2
        columns = [ipywidgets.VBox(part) for part in (rows[:half], rows[half:])]
        super().__init__([ipywidgets.HBox(columns, layout=ipywidgets.Layout(flex_flow="row wrap")), self.picture, self.message])
        for control in rows:
            control.observe(self._wait, "value")
        self._redraw()

    def _wait(self, _change: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._redraw()
        else:
            self._timer = loop.call_later(DELAY, self._redraw)

    def _redraw(self) -> None:
        self._timer, self.redraws = None, self.redraws + 1
        try:
            figure, said = self._draw({name: control.value for name, control in self.controls.items()})
        except ValueError as error:
            self.message.value = f'<span style="color:#b00020">{html.escape(str(error))}</span>'
            return
        self.picture.value, self.message.value = show.png(figure, dpi=DPI), html.escape(said)


def stage_explorer(pipeline: Pipeline, *samples: Sample, knobs: Sequence[str] | None = None) -> Panel:
    """Every stage from picture to pseudo mask under the method's own knobs; a picture is encoded when it is first chosen.

    knobs: dotted names of the settings to turn; without, all those that the stages of the first sample read.
    Raises ValueError without a sample, SettingsError for a knob that the method does not have.
    """
    if not samples:
        raise ValueError("expected at least one sample to explore, got none; kit.toy has some")
    seen: dict[int, tuple[Tokens, Kept]] = {}

    def opened(number: int) -> tuple[Tokens, Kept]:
        if number not in seen:
            seen[number] = pipeline.encode(samples[number].image), Kept()
        return seen[number]

    def draw(values: dict) -> tuple[show.Figure, str]:
        number = values.pop("number")
        sample = samples[number]
        names = _list_of_words(values.pop("classes")) or sample.names
        changes = {name: _list_of_words(value) if settings[name].kind == "texts" else value for name, value in values.items()}
        asked = Sample(sample.image, names, sample.truth, sample.stuff, sample.id)
        return _drawn_stages(pipeline.changed(**changes), asked, *opened(number))

    read = _settings_read(pipeline, samples[0], *opened(0)) if knobs is None and samples[0].names else set(knobs or ())
    settings = {name: setting for name, setting in pipeline.settings.described().items() if name in read}
    for name in read - set(settings):
        pipeline.changed(**{name: None})  # says which settings there are
    titles = [(f"{sample.id or number}: {', '.join(sample.names)}", number) for number, sample in enumerate(samples)]
    controls = {
        "number": _control(ipywidgets.Dropdown, "Picture", 0, options=titles),
        "classes": _typed(ipywidgets.Text, "Classes", "", placeholder="as the picture's labels say"),
        **{name: control for name in settings if (control := _control_of(settings[name], pipeline.settings.value(name))) is not None},
    }
    return Panel(controls, draw)


def stage_picture(pipeline: Pipeline, sample: Sample) -> show.Figure:
    """What `stage_explorer` shows first, of one sample."""
    return _drawn_stages(pipeline, sample, pipeline.encode(sample.image), Kept())[0]


def prompt_comparer(pipeline: Pipeline, sample: Sample, *lines: str) -> Panel:
    """The map of one class under several prompts, each against the other classes and as many background words as a slider says.

    lines: templates, such as "a photo of a {}.", or whole prompts, such as "a photo of a boat."; without, a few templates. The rivals are
    said in the words that stand around the class's name; in the settings' template where a prompt does not have it.
    """
    tokens, words = _tokens_of(pipeline, sample), pipeline.settings.background

    def draw(values: dict) -> tuple[show.Figure, str]:
        return _drawn_prompts(pipeline, sample, tokens, values["name"], values["lines"].splitlines(), words[: values["rivals"]])

    controls = {
        "lines": _typed(ipywidgets.Textarea, "Prompts", "\n".join(lines or FIRST_LINES), rows=5),
        "name": _control(ipywidgets.Dropdown, "Map of", sample.names[0], options=sample.names),
        "rivals": _control(ipywidgets.IntSlider, "Backgr. words", len(words), min=0, max=len(words)),
    }
    return Panel(controls, draw)


def prompt_picture(pipeline: Pipeline, sample: Sample, *lines: str, name: str = "") -> show.Figure:
    """What `prompt_comparer` shows: the map of a class (the first one) under each prompt."""
    tokens, words = _tokens_of(pipeline, sample), pipeline.settings.background
    return _drawn_prompts(pipeline, sample, tokens, name or sample.names[0], lines or FIRST_LINES, words)[0]


def patch_affinity_explorer(pipeline: Pipeline, sample: Sample) -> Panel:
    """One patch, chosen by row and column: whom it attends to, and its row of the affinity that is made of that."""
    tokens, clip, start = _tokens_of(pipeline, sample), pipeline.clip, _affinity_of(pipeline)
    blocks = [(f"block {layer}", layer) for layer in range(clip.layer_count)]
    controls = {
        "row": _control(ipywidgets.IntSlider, "Row", (tokens.grid[0] + 1) // 2, min=1, max=tokens.grid[0]),
        "column": _control(ipywidgets.IntSlider, "Column", (tokens.grid[1] + 1) // 2, min=1, max=tokens.grid[1]),
        "layers": _control(ipywidgets.SelectMultiple, "Attention of", start["layers"], options=blocks, rows=min(4, len(blocks))),
        "sinkhorn": _control(ipywidgets.IntSlider, "Sinkhorn", start["sinkhorn"], min=0, max=10),
        "power": _control(ipywidgets.IntSlider, "Affinity power", start["power"], min=1, max=8),
    }
    return Panel(controls, lambda values: _drawn_patch(sample, tokens, **values))


def patch_affinity_picture(pipeline: Pipeline, sample: Sample, row: int, column: int) -> show.Figure:
    """What `patch_affinity_explorer` shows for one patch; rows and columns of patches are counted from 1, from the upper left corner."""
    return _drawn_patch(sample, _tokens_of(pipeline, sample), row, column, **_affinity_of(pipeline))[0]


def _settings_read(pipeline: Pipeline, sample: Sample, tokens: Tokens, kept: Kept) -> set[str]:
    """Dotted names of the settings that a picture's stages look at and that may be changed."""
    driver = Driver(pipeline.method.stages, pipeline.scene(sample, tokens, kept), kept=kept)
    for _ in driver.steps():
        pass
    return (driver.read | set(BESIDE)) - set(pipeline.method.belongs if pipeline.learned else ())


def _control_of(setting: Setting, value: object) -> ipywidgets.Widget | None:
    """The control that a setting's type asks for; None where there is none, as for tables of words."""
    group, _, _ = setting.name.rpartition(".")
    title = f"{group}: {setting.title}" if group else setting.title
    if setting.kind == "flag":
        return _control(ipywidgets.Checkbox, title, value)
    if setting.kind == "choice":
        options = {name: name for name in setting.choices if name != "crf" or refine.has_dense_crf()}
        if callable(value):
            options[name_of(value)] = value
        return _control(
            ipywidgets.Dropdown, title, value if value in options.values() else next(iter(options)), options=list(options.items())
        )
    if setting.kind == "text":
        return _typed(ipywidgets.Text, title, value)
    if setting.kind == "texts":
        return _typed(ipywidgets.Textarea, title, ", ".join(value), rows=3)
    if setting.kind not in ("whole", "number") or None in (value, setting.low, setting.high):
        return None
    is_whole, width = setting.kind == "whole", setting.high - setting.low
    bounds = {"min": setting.low, "max": setting.high, "step": 1 if is_whole else 0.05 if width <= 1 else 0.1}
    if width > 50:
        return _typed(ipywidgets.BoundedIntText if is_whole else ipywidgets.BoundedFloatText, title, value, **bounds)
    return _control(ipywidgets.IntSlider if is_whole else ipywidgets.FloatSlider, title, value, **bounds)


def _drawn_stages(pipeline: Pipeline, sample: Sample, tokens: Tokens, kept: Kept) -> tuple[show.Figure, str]:
    *_, result = pipeline.steps(sample, tokens=tokens, kept=kept)
    image, titles, pictures = sample.image, pipeline.titles, {"picture": sample.image}
    for stage, maps in result.stages.items():
        title = titles[stage] + f" ({stage})" * (titles[stage] in pictures)
        if stage in result.votes:
            pictures[title] = show.mask_overlay(image, show.in_voc_colours(result.labels_of(stage), result.names))
        else:
            first = maps[-len(result.names)]  # of the classes; the background's plane, if there is one, stands before them
            pictures[title] = show.heat_overlay(image, refine.upsampled(first[None, None], image.shape[:2])[0, 0].clamp(0, 1))
    labels = show.in_voc_colours(result.labels, result.names)
    unsure = (result.confidence < pipeline.settings.confidence).cpu().numpy()
    score = _scene_iou(sample, labels)
    pictures["mask, unsure hatched"] = show.hatch(show.mask_overlay(image, labels), unsure)
    if sample.truth is not None:
        pictures["ground truth"] = show.mask_overlay(image, sample.truth)
    asked = [*result.prompts.values(), *pipeline.settings.background] if pipeline.learned is None else []
    said = [
        f"Heat of {result.names[0]}.",
        "Scores: " + ", ".join(f"{name} {value:.2f}" for name, value in result.scores.items()) + "." if result.scores else "",
        f"IoU of this scene {100 * score:.0f} %." if score is not None else "",
        f"{100 * unsure.mean():.0f} % of the pixels are unsure.",
        *(note + "." for note in result.notes),
        _unknown(pipeline.clip, asked),
    ]
    wrapped = {textwrap.fill(title, 28): picture for title, picture in pictures.items()}
    return show.strip(wrapped, columns=4), " ".join(filter(None, said))


def _drawn_prompts(
    pipeline: Pipeline, sample: Sample, tokens: Tokens, name: str, lines: Sequence[str], background: Sequence[str]
) -> tuple[show.Figure, str]:
    lines = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not lines or len(lines) > 8:
        raise ValueError(f"expected one to eight prompts, one on each line, got {len(lines)}")
    others = [other for other in sample.names if other != name]
    size, pictures = sample.image.shape[:2], {"picture": sample.image}
    for line in lines:
        around = line if "{}" in line else re.sub(rf"(?:\w+,)*{re.escape(name)}(?:,\w+)*", "{}", line)  # a fused name is one name
        template = around if around.count("{}") == 1 else pipeline.settings.template
        line = filled(line, name) if "{}" in line else line
        text = pipeline.clip.text([line, *prompts(template, [*others, *background], pipeline.settings.synonyms)])
        heat = refine.upsampled(cam.normalised_cam(cam.softmax_grad_cam(tokens, text, [0])), size)[0, 0]
        share = cam.class_probabilities(tokens, text)[0, 0]
        pictures[f"{textwrap.fill(line, 26)}\n{share:.2f}"] = show.heat_overlay(sample.image, heat)
    said = f"Below each prompt its probability against {len(others)} other classes and {len(background)} background words, said alike."
    return show.strip(pictures, columns=4), " ".join(
        filter(None, [said, _unknown(pipeline.clip, [line.replace("{}", name) for line in lines])])
    )


def _affinity_of(pipeline: Pipeline) -> dict:
    """How the settings make an affinity, or as it comes where they say nothing of it."""
    settings = pipeline.settings
    layers = tuple(pipeline.layers) or tuple(range(pipeline.clip.layer_count))
    return {"layers": layers, "sinkhorn": getattr(settings, "sinkhorn", 3), "power": getattr(settings, "power", 2)}


def _drawn_patch(
    sample: Sample, tokens: Tokens, row: int, column: int, layers: tuple[int, ...], sinkhorn: int, power: int
) -> tuple[show.Figure, str]:
    height, width = tokens.grid
    if not layers:
        raise ValueError("expected at least one block whose attention to read, got none; choose one (several with Ctrl)")
    if not (1 <= row <= height and 1 <= column <= width):
        raise ValueError(f"expected a patch in rows 1 to {height} and columns 1 to {width}, got {row}, {column}")
    patch, attention = (row - 1) * width + column - 1, tokens.attention_of(list(layers)).float()
    steps = {
        "attention, mean of blocks": attention.mean(1)[0, 1:, 1:],
        f"Sinkhorn {sinkhorn}, symmetric": refine.attention_affinity(attention, sinkhorn=sinkhorn, power=1)[0],
        f"power {power}": refine.attention_affinity(attention, sinkhorn=sinkhorn, power=power)[0],
    }
    pictures = {"the patch": show.framed_patch(sample.image, tokens.grid, row - 1, column - 1)}
    for title, matrix in steps.items():
        heat = cam.stretched(matrix[patch].view(1, 1, height, width))
        enlarged = torch.nn.functional.interpolate(heat, size=sample.image.shape[:2], mode="nearest")[0, 0]
        pictures[title] = show.framed_patch(show.heat_overlay(sample.image, enlarged), tokens.grid, row - 1, column - 1)
    reached = (steps[f"power {power}"][patch] > 0).sum()
    said = f"Patch in row {row} of {height}, column {column} of {width}: its row reaches {reached} of {height * width} patches."
    return show.strip(pictures), said


def _tokens_of(pipeline: Pipeline, sample: Sample) -> Tokens:
    if not sample.names:
        raise ValueError("expected a sample that names a class, got one without; choose another scene")
    return pipeline.encode(sample.image)


def _scene_iou(sample: Sample, labels: np.ndarray) -> float | None:
    """Mean IoU over what this scene shows, 0..1; None without truth, or where other than VOC's classes are asked for."""
    if sample.truth is None or labels.max() > len(VOC_CLASSES):
        return None
    confusion = Confusion(("background", *VOC_CLASSES))
    confusion.add(sample.truth, labels)
    return confusion.miou()


def _unknown(clip: Clip, texts: Sequence[str]) -> str:
    strange = dict.fromkeys(word for text in texts for word in clip.unknown_words(text))
    return f"Never seen by the tiny model: {', '.join(strange)}." if strange else ""


def _list_of_words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _control(kind: type[ipywidgets.Widget], title: str, value: object, **more) -> ipywidgets.Widget:
    return kind(value=value, description=title, style={"description_width": "150px"}, layout=ipywidgets.Layout(width="420px"), **more)


def _typed(kind: type[ipywidgets.Widget], title: str, value: object, **more) -> ipywidgets.Widget:
    """What counts when the visitor leaves the field, not letter by letter."""
    return _control(kind, title, value, continuous_update=False, **more)
