"""The page's pictures: a view's stages as arrays, each by what it shows, and arrays as HTML figures with captions, nothing lossy."""

import base64
import functools
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kit import mask, refine, show
from kit.images import PALETTE
from kit.propose import LEVELS, SUPERPIXELS
from kit.score import Confusion
from kit.ui import story
from kit.ui.session import View
from kit.words import VOC_CLASSES, label_numbers

PHOTO_NOTE = (
    "The tiny model only knows the drawn world, and its masks of photographs mean little: "
    "for photos start the app with real CLIP, python app.py --model ViT-B-16-quickgelu:openai."
)
READ_SIDE = 128  # pixels of a map that is read under the pointer
ABOUT_MASK = (
    "Every pixel takes the class with the highest score, or background; hatched pixels are less sure than the confidence asks for, and "
    "training on the mask leaves them out. A stage finds a share of the object and spills a share of its own mask on other things. IoU: "
    "the pixels that mask and truth share, divided by those that either has; the mean over background and this scene's classes."
)
PICTURE, MASK, TRUTH = "Picture", "Pseudo mask", "Truth"  # what a view shows beside its method's stages
STAND_IN = "superpixels, the offline stand-in for SAM"


def hex_colour(name: str, names: Sequence[str]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*PALETTE[label_numbers(tuple(names))[name]])


def chip(name: str, names: Sequence[str], said: str = "") -> str:
    """A class in its mask's colour, white or black on it, whichever is easier to read; plain where it is none of `names`."""
    style = ""
    if name in names:
        colour = hex_colour(name, names)
        style = f' style="background: {colour}; color: {text_colour(colour)}"'
    return f'<span class="kit-tag"{style}>{html.escape(name)}{html.escape(said)}</span>'


def text_colour(background: str) -> str:
    """White or black, whichever has the higher contrast on a colour such as #c08000 by WCAG's formula: never below 4.5."""
    channels = [int(background[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#ffffff"


def stage_maps(view: View, stage: str) -> Tensor:
    """A stage's scores with background, at the picture's size.   -> (1 + C, H, W)."""
    scores, size = view.result.scores_of(stage), view.sample.image.shape[:2]
    return scores if scores.shape[1:] == size else refine.upsampled(scores[None], size)[0]


def scene_iou(view: View, labels: Tensor | np.ndarray) -> float | None:
    """The mean IoU over background and the classes that this one scene shows, 0..1; None where no truth is known.

    labels: a tensor as the method numbers them, or an array as VOC does.
    """
    truth = view.sample.truth
    if truth is None:
        return None
    asked = show.in_voc_colours(labels, view.sample.names) if isinstance(labels, Tensor) else labels
    there = {VOC_CLASSES[number - 1] for number in np.unique(truth) if 0 < number <= len(VOC_CLASSES)}
    names = ("background", *sorted({*there, *view.sample.names}))
    table = np.zeros(256, np.uint8)
    for name, number in label_numbers((*view.sample.names, *sorted(there - set(view.sample.names)))).items():
        table[number] = names.index(name)
    table[mask.IGNORE] = mask.IGNORE
    confusion = Confusion(names)
    confusion.add(table[truth], table[asked])
    return confusion.miou()


def voc_labels(view: View, stage: str) -> np.ndarray:
    """A stage's label map, or that of the pseudo mask, as VOC numbers it.   -> uint8 (H, W)."""
    last = stage in (MASK, next(reversed(view.result.stages)))
    return show.in_voc_colours(view.result.labels if last else view.result.labels_of(stage), view.sample.names)


def leakage(view: View) -> list[str]:
    """On what each class's mask lies, where the drawn world knows it: one line a class."""
    sample = view.sample
    if sample.truth is None or sample.stuff is None:
        return []
    labels = voc_labels(view, MASK)
    return [story.lies_on(name, story.tally(sample, labels, name)) for name in sample.names]


def heat(view: View, stage: str, name: str) -> np.ndarray:
    """A class's map at a stage, over the picture."""
    plane = stage_maps(view, stage)[1 + view.sample.names.index(name)]
    return show.heat_overlay(view.sample.image, plane, opacity=view.look.opacity, colour_map=view.look.colour_map)


def shown_class(view: View) -> str:
    return view.look.shown if view.look.shown in view.sample.names else view.sample.names[0]


def stage_pictures(view: View) -> dict[str, Callable[[], np.ndarray]]:
    """What can be compared: a stage's name, Picture, Pseudo mask or Truth -> a function that draws it, uint8 (H, W, 3)."""
    image, shown = view.sample.image, shown_class(view)
    pictures = {PICTURE: lambda: image}
    for stage in view.result.stages:
        votes = stage in view.result.votes
        pictures[stage] = functools.partial(seeds, view, stage) if votes else functools.partial(heat, view, stage, shown)
    pictures[MASK] = functools.partial(mask_picture, view, hatched=view.done)
    if view.sample.truth is not None:
        pictures[TRUTH] = lambda: show.mask_overlay(image, view.sample.truth, opacity=view.look.opacity)
    return pictures


def seeds(view: View, stage: str) -> np.ndarray:
    return plain_mask(view, view.result.labels_of(stage))


def mask_picture(view: View, *, hatched: bool = True) -> np.ndarray:
    picture = plain_mask(view, view.result.labels)
    return show.hatch(picture, unsure(view)) if hatched else picture


def unsure(view: View) -> np.ndarray:
    return (view.result.confidence < view.pipeline.settings.confidence).cpu().numpy()


def strip(view: View, address: str = "") -> str:
    """The stages beside each other, from the picture to the truth, each with what it did; and what the colours mean.

    address: where the page can be opened as it is now, with its question mark.
    """
    height, width = view.sample.image.shape[:2]
    name, known = shown_class(view), view.sample.truth is not None
    drawn, stages = stage_pictures(view), {stage.name: stage for stage in view.pipeline.stages}
    colours = {own: hex_colour(own, view.sample.names) for own in view.sample.names}

    def figure(key: str, caption: str, title: str = "", **named) -> str:
        return framed(packed(view, key, drawn[key]), html.escape(title or key), caption, stage=key, **named)

    parts, tallies, iou = [figure(PICTURE, f"{width} × {height} pixels")], {}, ""
    for stage, title in view.pipeline.titles.items():
        if stage not in view.result.stages:
            parts.append(placeholder(html.escape(title), "refining…"))
            continue
        labels = voc_labels(view, stage)
        now = tallies[stage] = story.tally(view.sample, labels, name)
        iou, before = iou_text(scene_iou(view, labels)), tallies.get(view.result.follows.get(stage, ""))
        votes = stage in view.result.votes
        parts.append(figure(
            stage, iou, title, alt=html.escape(title if votes else f"{title}: heat of {name}"),
            about=about_stage(stages[stage].about, view.pipeline.method.notebook),
            told=html.escape(story.told(name, now, before, known=known)), read=None if votes else heat_levels(view, stage, name),
            labels=labels if votes else None,
        ))  # fmt: skip
    state = f"{100 * unsure(view).mean():.0f}&nbsp;% unsure" if view.done else "refining…"
    labels = np.where(unsure(view), mask.IGNORE, voc_labels(view, MASK)) if view.done else voc_labels(view, MASK)
    parts.append(figure(MASK, " · ".join(filter(None, (iou, state))), busy=not view.done, about=ABOUT_MASK, labels=labels))
    parts.append(
        figure(TRUTH, "only for judging", labels=view.sample.truth) if known else placeholder(TRUTH, "Nobody knows it for a photo")
    )
    told = {0: "background", mask.IGNORE: "unsure"} | {number: own for own, number in label_numbers(view.sample.names).items()}
    told |= {number: own for number, own in enumerate(VOC_CLASSES, start=1) if known and (view.sample.truth == number).any()}
    many = " kit-many" if len(parts) > 6 else ""
    meant = story.legend(view.sample.names, colours, name, view.look.colour_map, view.pipeline.settings.confidence)
    names = html.escape(json.dumps({"numbers": told, "heat": name}))
    return f'{meant}<div class="kit-strip{many}" data-names="{names}" data-address="{html.escape(address)}">{"".join(parts)}</div>'


def about_stage(about: str, notebook: str) -> str:
    """Two sentences for those who meet a stage the first time, with the way into the lesson where the app has it beside it."""
    path = f"notebooks/{notebook}"
    if not about or not notebook:
        return html.escape(about)
    lesson = f'<a href="gradio_api/file={path}" download>{path}</a>' if Path(path).is_file() else path
    return f"{html.escape(about)} Build it by hand: {lesson}"


def heat_levels(view: View, stage: str, name: str) -> np.ndarray:
    """A class's map to be read under the pointer.   -> uint8, 0..255 for 0..1, at most READ_SIDE pixels long."""
    plane = stage_maps(view, stage)[1 + view.sample.names.index(name)]
    step = -(-max(plane.shape) // READ_SIDE)
    return (plane[::step, ::step].clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()


def class_heats(view: View) -> str:
    """One figure a class: its first map, its raw score and its prompt. A stretched map of an absent class looks hot: the score tells."""
    parts, result, stage = [], view.result, next(iter(view.result.stages))
    for name in view.sample.names:
        drawn = functools.partial(heat, view, stage, name)
        url = packed(view, stage if name == shown_class(view) and stage not in result.votes else f"{stage} of {name}", drawn)
        prompt, told = html.escape(result.prompts.get(name, name)), html.escape(name)
        said = f"“{prompt}”"
        if name in result.scores:
            score, rivals = result.scores[name], len(result.words.text) - len(view.sample.names) if result.words.text is not None else 0
            meter = f'<meter min="0" max="1" value="{score:.4f}" aria-label="score of {told}"></meter>'
            among = f"{len(view.sample.names)} + {rivals} words" if rivals else f"{len(view.sample.names)} classes"
            said = f"{meter} score {score:.2f}: share of <i>{told}</i> among {among}. {said}"
        parts.append(framed(url, told, said, alt=f"heat of {told}"))
        if result.words is not None and name in result.words.candidates:
            parts.append(f"<figure>{bars(result.words.candidates[name])}</figure>")
    looks = "A map is stretched from its lowest to its highest value and looks hot whatever the score: the score tells whether it is there."
    return f'<p class="kit-fine">{looks}</p><div class="kit-heats">{"".join(parts)}</div>'


def notes(view: View) -> str:
    """What a reader should know: words the model never saw, who made the masks, on what the mask lies, the result's notes, the seconds."""
    result = view.result
    said = [warning(sentence) for sentence in photo_notes(view)]
    if result.proposals is not None:
        counts = (f"{int((result.proposals.levels == level).sum())} {name}" for level, name in reversed(list(enumerate(LEVELS))))
        said.append(f"<p>Masks by {html.escape(source_told(result.proposals.source))}: {', '.join(counts)}.</p>")
    if told := view.pipeline.prompts_told():
        said.append(f"<p>{html.escape(told)}</p>")
    lines = [f"<li>{html.escape(line)}</li>" for line in (*leakage(view), *result.notes)]
    seconds = " · ".join(f"{html.escape(stage)} {1000 * spent:.0f} ms" for stage, spent in result.seconds.items())
    return "".join(said) + "<ul>" + "".join(lines) + f'</ul><p class="kit-seconds">{seconds} (a picture is encoded once)</p>'


def warning(sentence: str) -> str:
    return f'<p class="kit-warn">{html.escape(sentence)}</p>'


def source_told(source: str) -> str:
    """Who made the masks, so that superpixels are never taken for SAM's."""
    return STAND_IN if source == SUPERPIXELS else f"SAM ({source})"


def photo_notes(view: View) -> list[str]:
    """What to say when the tiny model is asked about a picture that somebody brought."""
    return [PHOTO_NOTE] if view.pipeline.clip.is_tiny and view.sample.stuff is None else []


def iou_text(iou: float | None, digits: int = 0) -> str:
    return "" if iou is None else f"IoU {100 * iou:.{digits}f}&nbsp;%"


def framed(
    url: str, title: str, caption: str, *, alt: str = "", busy: bool = False, about: str = "", stage: str = "", told: str = "",
    read: np.ndarray | None = None, labels: np.ndarray | None = None,
) -> str:  # fmt: skip
    """A picture with its title and caption.

    about: HTML behind a question mark; told: a sentence below; stage: the picture can be enlarged under this name, and is read under the
    pointer as heat (`read`, levels 0..255) or as classes (`labels`, VOC's numbers), uint8 (H, W) both.
    """
    image, alt = f'<img src="{url}" alt="{alt or title}">', alt or title
    attributes = ' class="kit-busy"' if busy else ""
    if stage:
        image = f'<button class="kit-enlarge" aria-expanded="false" aria-label="enlarge {alt}">{image}</button>'
        levels = [(key, plane) for key, plane in (("read", read), ("labels", labels)) if plane is not None]
        attributes += f' data-stage="{html.escape(stage)}" data-title="{title}"'
        attributes += "".join(f' data-{key}="{picture_url(plane)}"' for key, plane in levels)
    why = f'<details class="kit-why"><summary aria-label="what is {title}?">?</summary><p>{about}</p></details>' if about else ""
    said = f'<p class="kit-story">{told}</p>' if told else ""
    return f"<figure{attributes}>{image}<figcaption><b>{title}</b>{why}<span>{caption}</span>{said}</figcaption></figure>"


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
    url = packed(view, PICTURE, lambda: view.sample.image)
    sentence = (
        f"Open in Explore: {names}. The settings of {html.escape(view.pipeline.method.title)} there hold here too; "
        "nothing encodes the picture again."
    )
    picture = f'<img src="{url}" alt="the picture open in Explore: {names}">'
    warned = "".join(map(warning, photo_notes(view)))
    return f'<div class="kit-told">{picture}<span>{sentence}</span></div><div class="kit-notes">{warned}</div>'


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


def packed(view: View, key: str, drawn: Callable[[], np.ndarray]) -> str:
    """A view's picture, packed once; the mask changes when the refiner is done."""
    if key not in view.urls or key == MASK:
        view.urls[key] = picture_url(drawn())
    return view.urls[key]


def picture_url(pixels: np.ndarray) -> str:
    """A picture inside the page, nothing lost: uint8 (H, W, 3) as WebP, a third of PNG's time; one plane (H, W) as PNG."""
    with io.BytesIO() as file:
        if pixels.ndim == 3:
            Image.fromarray(pixels).save(file, "WEBP", lossless=True, quality=0, method=0)
        else:
            Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        kind = "webp" if pixels.ndim == 3 else "png"
        return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()


def thumbnail_url(rgb: np.ndarray) -> str:
    """A small picture inside the page, where it may lose a little: nobody reads its pixels."""
    with io.BytesIO() as file:
        Image.fromarray(rgb).save(file, "WEBP", quality=80)
        return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


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
