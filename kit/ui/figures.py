"""The page's pictures: a view's stages as arrays, and arrays as HTML figures with captions (PNG inside the page: nothing lossy)."""

import base64
import functools
import html
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kit import mask, refine, show
from kit.images import PALETTE
from kit.score import Confusion
from kit.ui.session import View
from kit.words import VOC_CLASSES

REFINER_NAMES = {"crf": "CRF", "pixel-adaptive": "pixel-adaptive refiner", "none": "refiner"}
PHOTO_NOTE = (
    "The tiny model only knows the drawn world, and its masks of photographs mean little: "
    "for photos start the app with real CLIP, python app.py --model ViT-B-16-quickgelu:openai."
)
FIRST_FREE = len(VOC_CLASSES) + 1  # palette entries of classes that VOC does not have


def palette_ids(names: Sequence[str]) -> dict[str, int]:
    """Each class's number in a saved mask: VOC's for VOC's classes, 21 and up for others."""
    others = [name for name in names if name not in VOC_CLASSES]
    return {name: VOC_CLASSES.index(name) + 1 if name in VOC_CLASSES else FIRST_FREE + others.index(name) for name in names}


def hex_colour(name: str, names: Sequence[str]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*PALETTE[palette_ids(names)[name]])


def stage_maps(view: View, stage: str) -> Tensor:
    """A stage's scores with background, at the picture's size.   -> (1 + C, H, W)."""
    scores = view.method.scores_of(view.result, stage)
    size = view.sample.image.shape[:2]
    return scores if scores.shape[1:] == size else refine.upsampled(scores[None], size)[0]


def scene_iou(view: View, labels: Tensor) -> float | None:
    """The mean IoU over background and the classes that this one scene shows, 0..1; None where no truth is known."""
    truth = view.sample.truth
    if truth is None:
        return None
    asked = show.in_voc_colours(labels, view.sample.names)
    there = {VOC_CLASSES[number - 1] for number in np.unique(truth) if 0 < number <= len(VOC_CLASSES)}
    names = ("background", *sorted({*there, *view.sample.names}))
    table = np.zeros(256, np.uint8)
    for name, number in palette_ids([*view.sample.names, *sorted(there - set(view.sample.names))]).items():
        table[number] = names.index(name)
    table[mask.IGNORE] = mask.IGNORE
    confusion = Confusion(names)
    confusion.add(table[truth], table[asked])
    return confusion.miou()


def leakage(view: View) -> list[str]:
    """On what each class's mask lies, where the drawn world knows it: one line a class."""
    from kit.toy.places import STUFF

    sample = view.sample
    if sample.truth is None or sample.stuff is None:
        return []
    labels, lines = show.in_voc_colours(view.result.labels, sample.names), []
    for name in sample.names:
        where = labels == palette_ids(sample.names)[name]
        if not where.any():
            lines.append(f"The mask has no {name}.")
            continue
        on = {
            VOC_CLASSES[number - 1]: (sample.truth[where] == number).mean()
            for number in np.unique(sample.truth[where])
            if 0 < number <= len(VOC_CLASSES)
        }
        on |= {STUFF[number]: (sample.stuff[where] == number).mean() for number in np.unique(sample.stuff[where]) if number}
        parts = sorted(on.items(), key=lambda part: (part[0] != name, -part[1]))
        told = ", ".join(f"{100 * share:.0f} % on the {word}" for word, share in parts[:5] if share >= 0.005)
        lines.append(f"Of the mask of {name} lie {told}.")
    return lines


def heat(view: View, stage: str, name: str) -> np.ndarray:
    """A class's map at a stage, over the picture."""
    plane = stage_maps(view, stage)[1 + view.sample.names.index(name)]
    return show.heat_overlay(view.sample.image, plane, opacity=view.look.opacity, colour_map=view.look.colour_map)


def shown_class(view: View) -> str:
    return view.look.shown if view.look.shown in view.sample.names else view.sample.names[0]


def stage_pictures(view: View) -> dict[str, Callable[[], np.ndarray]]:
    """Everything that two of can be compared: title -> a function that draws it, uint8 (H, W, 3)."""
    image, shown = view.sample.image, shown_class(view)
    pictures = {"Picture": lambda: image}
    pictures |= {title: functools.partial(heat, view, stage, shown) for stage, title in stage_titles(view).items()}
    pictures["Pseudo mask"] = functools.partial(mask_picture, view, hatched=view.done)
    if view.sample.truth is not None:
        pictures["Truth"] = lambda: show.mask_overlay(image, view.sample.truth, opacity=view.look.opacity)
    return pictures


def stage_titles(view: View) -> dict[str, str]:
    titles = {"cam": "CAM", "affinity": "After affinity", "refined": f"After {REFINER_NAMES[view.method.settings.refiner]}"}
    return {stage: titles[stage] for stage in view.result.stages}


def mask_picture(view: View, *, hatched: bool = True) -> np.ndarray:
    picture = plain_mask(view, view.result.labels)
    return show.hatch(picture, unsure(view)) if hatched else picture


def unsure(view: View) -> np.ndarray:
    return (view.result.confidence < view.method.settings.confidence).cpu().numpy()


def strip(view: View) -> str:
    """The stages beside each other, from the picture to the truth."""
    titles, refiner = stage_titles(view), f"After {REFINER_NAMES[view.method.settings.refiner]}"
    height, width = view.sample.image.shape[:2]
    shown = html.escape(shown_class(view))
    score = iou_text(scene_iou(view, view.result.labels))
    parts = [figure(view, "Picture", f"{width} × {height} pixels")]
    for stage, title, absent in (
        ("cam", "CAM", ""),
        ("affinity", "After affinity", "Affinity is off"),
        ("refined", refiner, "No refiner" if view.done else "refining…"),
    ):
        if stage not in titles:
            parts.append(placeholder(title, absent))
            continue
        own = score if stage == "refined" else iou_text(scene_iou(view, stage_maps(view, stage).max(0).indices))
        parts.append(figure(view, title, own or f"heat of {shown}", alt=f"{title}: heat of {shown}"))
    state = f"{100 * unsure(view).mean():.0f}&nbsp;% unsure" if view.done else "refining…"
    parts.append(figure(view, "Pseudo mask", " · ".join(filter(None, (score, state))), busy=not view.done))
    parts.append(
        figure(view, "Truth", "only for judging") if view.sample.truth is not None else placeholder("Truth", "Nobody knows it for a photo")
    )
    return f'<div class="kit-strip">{"".join(parts)}</div>'


def class_heats(view: View) -> str:
    """One figure a class: its CAM, its raw score and its prompt. A stretched map of an absent class looks hot: the score tells."""
    parts = []
    for name in view.sample.names:
        url = packed(view, "CAM" if name == shown_class(view) else f"CAM of {name}", functools.partial(heat, view, "cam", name))
        score, prompt, told = view.result.scores[name], html.escape(view.result.prompts[name]), html.escape(name)
        bar = f'<meter min="0" max="1" value="{score:.4f}" aria-label="score of {told}"></meter>'
        parts.append(framed(url, told, f"{bar} score {score:.2f} “{prompt}”", alt=f"heat of {told}"))
    return f'<div class="kit-heats">{"".join(parts)}</div>'


def notes(view: View) -> str:
    """What a reader should know: words the model never saw, on what the mask lies, the result's own notes, and the seconds."""
    lines = [f'<p class="kit-warn">{html.escape(warning)}</p>' for warning in (*photo_notes(view), *unknown_notes(view))]
    lines += [f"<li>{html.escape(line)}</li>" for line in (*leakage(view), *view.result.notes)]
    seconds = " · ".join(f"{stage} {1000 * spent:.0f} ms" for stage, spent in view.result.seconds.items())
    return "<ul>" + "".join(lines) + f'</ul><p class="kit-seconds">{seconds} (a picture is encoded once)</p>'


def photo_notes(view: View) -> list[str]:
    """What to say when the tiny model is asked about a picture that somebody brought."""
    return [PHOTO_NOTE] if view.method.clip.is_tiny and view.sample.stuff is None else []


def unknown_notes(view: View) -> list[str]:
    """The words that the tiny model has never seen, one sentence each."""
    settings, clip = view.method.settings, view.method.clip
    said = [
        settings.template.replace("{}", " "),
        *(settings.synonyms.get(name, name).replace(",", " ") for name in view.sample.names),
        *settings.background,
    ]
    strange = dict.fromkeys(word for text in said for word in clip.unknown_words(text))
    return [f"'{word}' is unknown to the tiny model" for word in strange]


def iou_text(iou: float | None) -> str:
    return "" if iou is None else f"IoU of this scene {100 * iou:.0f}&nbsp;%"


def figure(view: View, title: str, caption: str, *, alt: str = "", busy: bool = False) -> str:
    return framed(packed(view, title, stage_pictures(view)[title]), title, caption, alt=alt, busy=busy)


def framed(url: str, title: str, caption: str, *, alt: str = "", busy: bool = False) -> str:
    name = ' class="kit-busy"' if busy else ""
    return f'<figure{name}><img src="{url}" alt="{alt or title}"><figcaption><b>{title}</b><span>{caption}</span></figcaption></figure>'


def placeholder(title: str, text: str) -> str:
    return f'<figure><div class="kit-empty">{text}</div><figcaption><b>{title}</b><span>&nbsp;</span></figcaption></figure>'


def bars(shares: Mapping[str, float], *, top: int = 5) -> str:
    """The largest few as words, bars and numbers."""
    rows = sorted(shares.items(), key=lambda item: -item[1])[:top]
    cells = "".join(
        f'<li><span>{html.escape(word)}</span><meter min="0" max="1" value="{max(0, share):.4f}"></meter><span>{share:.2f}</span></li>'
        for word, share in rows
    )
    return f'<ul class="kit-bars">{cells}</ul>'


def told(sentence: str, *, done: int = 0, of: int = 0) -> str:
    """What a measurement is doing, or has done; with a bar while there is something left."""
    bar = f'<progress max="{of}" value="{done}" aria-label="measured so far"></progress>' if done < of else ""
    return f'<div class="kit-told" role="status">{bar}<span>{html.escape(sentence)}</span></div>'


def opened(view: View) -> str:
    """Which picture the Prompts page is about."""
    names = html.escape(", ".join(view.sample.names))
    url = packed(view, "Picture", lambda: view.sample.image)
    sentence = (
        f"Open in Explore: {names}. The settings of CLIP-ES there hold here too, without the refiner; nothing encodes the picture again."
    )
    warned = "".join(f'<p class="kit-warn">{html.escape(note)}</p>' for note in photo_notes(view))
    picture = f'<img src="{url}" alt="the picture open in Explore: {names}">'
    return f'<div class="kit-told">{picture}<span>{sentence}</span></div><div class="kit-notes">{warned}</div>'


def scatter(points: Mapping[str, tuple[float, float]], *, x_title: str, y_title: str, summary: str) -> str:
    """Named points in a plane, drawn in the page's own colours; a point tells its name when it is pointed at."""
    width, height, left, bottom, edge = 560, 300, 52, 40, 14
    sides = list(zip(*points.values(), strict=True))
    lows, highs = ([limit(side) for side in sides] for limit in (min, max))
    rooms = [0.06 * (high - low) or 0.05 for low, high in zip(lows, highs, strict=True)]

    def place(x: float, y: float) -> tuple[float, float]:
        shares = [(value - low + room) / (high - low + 2 * room) for value, low, high, room in zip((x, y), lows, highs, rooms, strict=True)]
        return left + shares[0] * (width - left - edge), height - bottom - shares[1] * (height - bottom - edge)

    parts = []
    for x, y in zip(*(np.linspace(low, high, 4) for low, high in zip(lows, highs, strict=True)), strict=True):
        across, down = place(x, y)
        parts.append(f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{edge}" y2="{height - bottom}"/>')
        parts.append(f'<line x1="{left}" x2="{width - edge}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(f'<text x="{across:.1f}" y="{height - bottom + 15}" text-anchor="middle">{x:.3f}</text>')
        parts.append(f'<text x="{left - 6}" y="{down + 4:.1f}" text-anchor="end">{y:.1f}</text>')
    for name, (x, y) in points.items():
        across, down = place(x, y)
        title = html.escape(f"{name}: {x_title.partition(' (')[0]} {x:.4f}, {y_title} {y:.1f}")
        parts.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="5"><title>{title}</title></circle>')
    middle = (height - bottom + edge) / 2
    parts.append(f'<text x="{(width + left) / 2}" y="{height - 6}" text-anchor="middle">{html.escape(x_title)}</text>')
    parts.append(f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{html.escape(y_title)}</text>')
    return f'<svg class="kit-scatter" viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(summary)}">{"".join(parts)}</svg>'


def curve(values: Sequence[float], *, steps: int, title: str) -> str:
    """A loss over its steps, as it falls: each value thin, the mean of the last tenth bold; the axis runs to the last step.

    values: those of steps 1, 2, ...; steps: how many there will be.
    """
    width, height, left, bottom, edge = 560, 220, 58, 36, 12
    window = max(1, len(values) // 10)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    smooth = (sums[ends] - sums[np.maximum(ends - window, 0)]) / np.minimum(ends, window)
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        up = (value - low + room) / (high - low + 2 * room)
        return left + (step - 1) / max(1, steps - 1) * (width - left - edge), height - bottom - up * (height - bottom - edge)

    def line(points: Sequence[float], name: str) -> str:
        kept = sorted({*range(0, len(points), max(1, len(points) // 300)), len(points) - 1})
        placed = " ".join("{:.1f},{:.1f}".format(*place(index + 1, points[index])) for index in kept)
        return f'<polyline class="{name}" points="{placed}"/>'

    parts = []
    for value in np.linspace(low, high, 4):
        down = place(1, value)[1]
        parts.append(f'<line x1="{left}" x2="{width - edge}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{down + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step in dict.fromkeys((1, max(1, steps // 2), steps)):
        parts.append(f'<text x="{place(step, low)[0]:.1f}" y="{height - bottom + 15}" text-anchor="middle">{step}</text>')
    across, down = place(len(values), smooth[-1])
    parts += [line(values, "kit-each"), line(smooth, "kit-mean"), f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4"/>']
    parts.append(f'<text x="{(width + left) / 2}" y="{height - 4}" text-anchor="middle">step</text>')
    summary = html.escape(f"{title}: {values[0]:.3g} at step 1, {smooth[-1]:.3g} at step {len(values)} of {steps}")
    return (
        f'<figure class="kit-curve"><svg class="kit-scatter" viewBox="0 0 {width} {height}" role="img" aria-label="{summary}">'
        f"{''.join(parts)}</svg><figcaption><b>{html.escape(title)}</b><span>{smooth[-1]:.3g}</span></figcaption></figure>"
    )


def word_bars(similarities: Mapping[str, float], marks: Mapping[str, str]) -> str:
    """Cosines as bars from the lowest to the highest of these words, the highest first, each with what is to be said of it."""
    low, high = min(similarities.values()), max(similarities.values())
    rows = []
    for word, value in sorted(similarities.items(), key=lambda item: -item[1]):
        share = 0.04 + 0.96 * ((value - low) / (high - low) if high > low else 1)  # the lowest keeps a stub to be seen
        bar = f'<meter min="0" max="1" value="{share:.4f}" aria-label="similarity of {html.escape(word)}"></meter>'
        mark = f'<span class="kit-mark">{html.escape(marks.get(word, ""))}</span>'
        rows.append(f"<li><span>{html.escape(word)}</span>{bar}<span>{value:+.3f}</span>{mark}</li>")
    return f'<ul class="kit-bars kit-words">{"".join(rows)}</ul>'


def plain_mask(view: View, labels: Tensor) -> np.ndarray:
    """A label map over the view's picture, nothing hatched."""
    return show.mask_overlay(view.sample.image, show.in_voc_colours(labels, view.sample.names), opacity=view.look.opacity)


def packed(view: View, title: str, drawn: Callable[[], np.ndarray]) -> str:
    """A view's picture, packed once; the mask changes when the refiner is done."""
    if title not in view.urls or title == "Pseudo mask":
        view.urls[title] = png_url(drawn())
    return view.urls[title]


def png_url(rgb: np.ndarray) -> str:
    """A picture inside the page; run lengths only (3), because that takes a third of the time and is no larger for grainy pictures."""
    with io.BytesIO() as file:
        Image.fromarray(rgb).save(file, "PNG", compress_level=1, compress_type=3)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def marked_patch(view: View, heat: Tensor, row: int, column: int) -> np.ndarray:
    """A patch's attention as heat over the picture, the patch itself in a white frame.   heat (h, w) in [0, 1]."""
    height, width = view.sample.image.shape[:2]
    picture = show.heat_overlay(
        view.sample.image,
        refine.upsampled(heat[None, None], (height, width))[0, 0],
        opacity=view.look.opacity,
        colour_map=view.look.colour_map,
    )
    top, bottom = (round(edge * height / heat.shape[0]) for edge in (row, row + 1))
    left, right = (round(edge * width / heat.shape[1]) for edge in (column, column + 1))
    inside = picture[top + 2 : bottom - 2, left + 2 : right - 2].copy()
    picture[top:bottom, left:right] = 255
    picture[top + 2 : bottom - 2, left + 2 : right - 2] = inside
    return picture


def class_shares(names: Sequence[str], probabilities: Tensor) -> dict[str, float]:
    return dict(zip(names, torch.as_tensor(probabilities).tolist(), strict=True))
