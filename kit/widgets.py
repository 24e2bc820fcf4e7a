"""Explorers for notebooks, of ipywidgets' core widgets only: what a slider moves is computed from tokens that are there already.

Beside each explorer stands the function that draws its picture once, for a page that nobody can operate.
"""

import asyncio
import html
import textwrap
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import numpy as np
import torch

from kit import cam, refine, show
from kit.data import Sample
from kit.encode import Clip, Tokens
from kit.methods import ClipEs
from kit.methods.clip_es import REFINERS
from kit.prompt import filled, prompts
from kit.score import Confusion
from kit.words import VOC_CLASSES

DELAY = 0.15  # seconds without a further change before a picture is drawn
FIRST_LINES = ("a clean origami {}.", "a photo of a {}.", "a dark photo of the {}.")


class Panel(ipywidgets.VBox):
    """Controls, the picture they make, and a line that says what there is to say: many changes in a short time give one picture.

    draw: the controls' values by name -> a figure and a sentence. A ValueError is told in the line, and the last picture stays. The waiting
    is done by the notebook's own event loop; where none runs, as in a script, every change is drawn at once.
    """

    def __init__(self, controls: Mapping[str, ipywidgets.Widget], draw: Callable[..., tuple[show.Figure, str]]):
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
            figure, said = self._draw(**{name: control.value for name, control in self.controls.items()})
        except ValueError as error:
            self.message.value = f'<span style="color:#b00020">{html.escape(str(error))}</span>'
            return
        self.picture.value, self.message.value = show.png(figure), html.escape(said)


def stage_explorer(clip: Clip, *samples: Sample, **settings) -> Panel:
    """Every stage from picture to pseudo mask under every knob of CLIP-ES; a picture is encoded when it is first chosen.

    settings: where the knobs stand at first, the others for good; without, those that suit the model.   Raises ValueError without a sample.
    """
    if not samples:
        raise ValueError("expected at least one sample to explore, got none; toy_samples has some")
    start = ClipEs(clip, **{"refiner": _refiners()[0], **settings})
    seen: dict[int, Tokens] = {}

    def draw(number: int, classes: str, template: str, background: str, **knobs) -> tuple[show.Figure, str]:
        sample = samples[number]
        if number not in seen:
            seen[number] = start.encode(sample.image)
        wanted = _list_of_words(classes) or sample.names
        asked = Sample(sample.image, wanted, sample.truth, sample.stuff, sample.id)
        method = ClipEs(clip, start.settings, template=template, background=_list_of_words(background), **knobs)
        return _drawn_stages(method, asked, seen[number])

    now, titles = start.settings, [(f"{sample.id or number}: {', '.join(sample.names)}", number) for number, sample in enumerate(samples)]
    controls = {
        "number": _control(ipywidgets.Dropdown, "Picture", 0, options=titles),
        "classes": _typed(ipywidgets.Text, "Classes", "", placeholder="as the picture's labels say"),
        "template": _typed(ipywidgets.Text, "Template", now.template),
        "background": _typed(ipywidgets.Textarea, "Background", ", ".join(now.background), rows=3),
        "box_threshold": _slider("Box threshold", now.box_threshold, 0, 1, 0.05),
        "power": _slider("Affinity power", now.power, 1, 8),
        "background_power": _slider("Backgr. power", now.background_power, 0.2, 5, 0.1),
        "refiner": _control(ipywidgets.Dropdown, "Refiner", now.refiner, options=_refiners()),
        "confidence": _slider("Confidence", now.confidence, 0, 1, 0.01),
    }
    return Panel(controls, draw)


def stage_picture(clip: Clip, sample: Sample, **settings) -> show.Figure:
    """What `stage_explorer` shows first, of one sample."""
    method = ClipEs(clip, **{"refiner": _refiners()[0], **settings})
    return _drawn_stages(method, sample, method.encode(sample.image))[0]


def prompt_comparer(clip: Clip, sample: Sample, *lines: str, **settings) -> Panel:
    """The map of one class under several prompts, each against the other classes and as many background words as a slider says.

    lines: templates, such as "a photo of a {}.", or whole prompts, such as "a photo of a boat."; without, a few templates. The rivals are
    said in the words that stand around the class's name; in the settings' template where a prompt does not have it.
    """
    method, tokens = _method_and_tokens(clip, sample, settings)
    words = method.settings.background

    def draw(name: str, lines: str, rivals: int) -> tuple[show.Figure, str]:
        return _drawn_prompts(method, sample, tokens, name, lines.splitlines(), words[:rivals])

    controls = {
        "lines": _typed(ipywidgets.Textarea, "Prompts", "\n".join(lines or FIRST_LINES), rows=5),
        "name": _control(ipywidgets.Dropdown, "Map of", sample.names[0], options=sample.names),
        "rivals": _slider("Backgr. words", len(words), 0, len(words)),
    }
    return Panel(controls, draw)


def prompt_picture(clip: Clip, sample: Sample, *lines: str, name: str = "", **settings) -> show.Figure:
    """What `prompt_comparer` shows: the map of a class (the first one) under each prompt."""
    method, tokens = _method_and_tokens(clip, sample, settings)
    return _drawn_prompts(method, sample, tokens, name or sample.names[0], lines or FIRST_LINES, method.settings.background)[0]


def patch_affinity_explorer(clip: Clip, sample: Sample, **settings) -> Panel:
    """One patch, chosen by row and column: whom it attends to, and its row of the affinity that CLIP-ES makes of that."""
    method, tokens = _method_and_tokens(clip, sample, settings)
    now, (height, width) = method.settings, tokens.grid

    def draw(row: int, column: int, layers: tuple[int, ...], sinkhorn: int, power: int) -> tuple[show.Figure, str]:
        if not layers:
            raise ValueError("expected at least one block whose attention to read, got none; choose one (several with Ctrl)")
        chosen = ClipEs(clip, now, layers=tuple(layers), sinkhorn=sinkhorn, power=power)
        return _drawn_patch(chosen, sample, tokens, row - 1, column - 1)

    blocks = [(f"block {layer}", layer) for layer in range(clip.layer_count)]
    controls = {
        "row": _slider("Row", (height + 1) // 2, 1, height),
        "column": _slider("Column", (width + 1) // 2, 1, width),
        "layers": _control(ipywidgets.SelectMultiple, "Attention of", tuple(method.blocks()), options=blocks, rows=min(4, len(blocks))),
        "sinkhorn": _slider("Sinkhorn", now.sinkhorn, 0, 10),
        "power": _slider("Affinity power", now.power, 1, 8),
    }
    return Panel(controls, draw)


def patch_affinity_picture(clip: Clip, sample: Sample, row: int, column: int, **settings) -> show.Figure:
    """What `patch_affinity_explorer` shows for one patch; rows and columns of patches are counted from 1, from the upper left corner."""
    method, tokens = _method_and_tokens(clip, sample, settings)
    return _drawn_patch(method, sample, tokens, row - 1, column - 1)[0]


def _drawn_stages(method: ClipEs, sample: Sample, tokens: Tokens) -> tuple[show.Figure, str]:
    result, image = method.segment(sample, tokens=tokens), sample.image
    titles = {"cam": "map", "affinity": "after affinity", "refined": f"after {method.settings.refiner}"}
    pictures = {"picture": image}
    for stage, maps in result.stages.items():
        first = maps[-len(result.names)]  # of the classes; the background's plane, if there is one, stands before them
        pictures[titles[stage]] = show.heat_overlay(image, refine.upsampled(first[None, None], image.shape[:2])[0, 0])
    labels = show.in_voc_colours(result.labels, result.names)
    unsure = (result.confidence < method.settings.confidence).cpu().numpy()
    score = _scene_iou(sample, labels)
    pictures["mask, unsure hatched"] = show.hatch(show.mask_overlay(image, labels), unsure)
    if sample.truth is not None:
        pictures["truth"] = show.mask_overlay(image, sample.truth)
    said = [
        f"Heat of {result.names[0]}.",
        "Scores: " + ", ".join(f"{name} {value:.2f}" for name, value in result.scores.items()) + ".",
        f"IoU of this scene {100 * score:.0f} %." if score is not None else "",
        f"{100 * unsure.mean():.0f} % of the pixels are unsure.",
        *(note + "." for note in result.notes),
        _unknown(method.clip, [*result.prompts.values(), *method.settings.background]),
    ]
    return show.strip(pictures), " ".join(filter(None, said))


def _drawn_prompts(
    method: ClipEs, sample: Sample, tokens: Tokens, name: str, lines: Sequence[str], background: Sequence[str]
) -> tuple[show.Figure, str]:
    lines = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not lines or len(lines) > 8:
        raise ValueError(f"expected one to eight prompts, one on each line, got {len(lines)}")
    others = [other for other in sample.names if other != name]
    size, pictures = sample.image.shape[:2], {"picture": sample.image}
    for line in lines:
        template = line if "{}" in line else line.replace(name, "{}") if line.count(name) == 1 else method.settings.template
        line = filled(line, name) if "{}" in line else line
        text = method.clip.text([line, *prompts(template, [*others, *background], method.settings.synonyms)])
        heat = refine.upsampled(cam.normalised_cam(cam.softmax_grad_cam(tokens, text, [0])), size)[0, 0]
        share = cam.class_probabilities(tokens, text)[0, 0]
        pictures[f"{textwrap.fill(line, 26)}\n{share:.2f}"] = show.heat_overlay(sample.image, heat)
    said = f"Below each prompt its probability against {len(others)} other classes and {len(background)} background words, said alike."
    return show.strip(pictures, columns=5), " ".join(filter(None, [said, _unknown(method.clip, lines)]))


def _drawn_patch(method: ClipEs, sample: Sample, tokens: Tokens, row: int, column: int) -> tuple[show.Figure, str]:
    height, width = tokens.grid
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"expected a patch in rows 1 to {height} and columns 1 to {width}, got {row + 1}, {column + 1}")
    patch, settings = row * width + column, method.settings
    blocks = [tokens.layers.index(block) for block in method.blocks()]
    steps = {
        "attention, mean of blocks": tokens.attention[:, blocks].mean(1)[0, 1:, 1:],
        f"Sinkhorn {settings.sinkhorn}, symmetric": ClipEs(method.clip, settings, power=1).affinity(tokens)[0],
        f"power {settings.power}": method.affinity(tokens)[0],
    }
    size = sample.image.shape[:2]
    pictures = {"the patch": show.framed_patch(sample.image, tokens.grid, row, column)}
    for title, matrix in steps.items():
        heat = cam.stretched(matrix[patch].view(1, 1, height, width))
        enlarged = torch.nn.functional.interpolate(heat, size=size, mode="nearest")[0, 0]
        pictures[title] = show.framed_patch(show.heat_overlay(sample.image, enlarged), tokens.grid, row, column)
    reached = (steps[f"power {settings.power}"][patch] > 0).sum()
    said = f"Patch in row {row + 1} of {height}, column {column + 1} of {width}: its row reaches {reached} of {height * width} patches."
    return show.strip(pictures), said


def _method_and_tokens(clip: Clip, sample: Sample, settings: Mapping) -> tuple[ClipEs, Tokens]:
    if not sample.names:
        raise ValueError("expected a sample that names a class, got one without; choose another scene")
    method = ClipEs(clip, **settings)
    return method, method.encode(sample.image)


def _refiners() -> list[str]:
    """Those that are installed, the paper's first."""
    return [name for name in REFINERS if name != "crf" or refine.has_dense_crf()]


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
    return kind(value=value, description=title, style={"description_width": "110px"}, layout=ipywidgets.Layout(width="400px"), **more)


def _typed(kind: type[ipywidgets.Widget], title: str, value: str, **more) -> ipywidgets.Widget:
    """Text that counts when the visitor leaves the field, not letter by letter."""
    return _control(kind, title, value, continuous_update=False, **more)


def _slider(title: str, value: float, low: float, high: float, step: float | None = None) -> ipywidgets.Widget:
    kind = ipywidgets.IntSlider if step is None else ipywidgets.FloatSlider
    return _control(kind, title, value, min=low, max=high, step=step or 1)
