"""From what a page or a program sends to checked values: every limit is enforced here, whatever the sliders allow."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kit.cam import class_probabilities
from kit.data import Sample
from kit.encode import Clip, Tokens
from kit.files import from_json
from kit.images import load_image
from kit.method import Pipeline
from kit.methods import METHODS
from kit.prompt import filled, prompts
from kit.toy import PLACES, Scene, draw
from kit.toy.captions import known_templates
from kit.ui.session import Refused, Studio
from kit.words import IMAGENET_TEMPLATES, VOC_CLASSES, check_class, class_name

MAX_CLASSES = 20
MAX_TEMPLATES = 100  # measured in one go
PAGE_SIDE = 640  # longer side of what a page works on; programs get their own size
SCENE_SIDE = 320
MAX_PIXELS = 16_000_000  # of a program's picture: every class has a map of that size
FILE_BYTES = 1_000_000  # of a settings file
PHOTO_BYTES = 20_000_000  # of a picture file
SUGGESTED, SURE_ENOUGH = 5, 0.15  # names that may be suggested, and the probability from which one is


def asked_classes(names) -> tuple[str, ...]:
    """Class names as their data sets spell them, without blanks and repetitions, at least one and not too many."""
    kept = tuple(dict.fromkeys(class_name(name) for name in texts(names, "classes") if name.strip()))
    if not kept:
        raise Refused("choose at least one class, or write your own")
    if len(kept) > MAX_CLASSES:
        raise Refused(f"expected at most {MAX_CLASSES} classes, got {len(kept)}")
    try:
        return tuple(map(check_class, kept))
    except ValueError as error:
        raise Refused(str(error)) from error


def texts(values, what: str) -> list[str]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise Refused(f"expected {what} as a list of words, got {values!r}"[:200])
    return list(values)


def templates_for(clip: Clip) -> list[str]:
    """The templates to choose from: for the tiny model those first that it knows."""
    known = known_templates() if clip.is_tiny else ()
    own = [method.preset("voc").template for method in METHODS.values()]
    return list(dict.fromkeys([*known, *own, *IMAGENET_TEMPLATES]))


def asked_templates(values) -> list[str]:
    """Templates without blanks and repetitions, at least one and not too many, each with its one slot."""
    kept = list(dict.fromkeys(value.strip() for value in texts(values, "templates") if value.strip()))
    if not 1 <= len(kept) <= MAX_TEMPLATES:
        raise Refused(f"expected 1 to {MAX_TEMPLATES} templates, got {len(kept)}")
    for template in kept:
        filled(template, "word")
    return kept


def suggested(studio: Studio, tokens: Tokens, template: str) -> tuple[tuple[str, ...], dict[str, float]]:
    """The vocabulary's names that CLIP finds likeliest, and the probabilities of all, the highest first; the lock is the caller's."""
    text = studio.clip.text(prompts(template, studio.vocabulary))
    found = zip(studio.vocabulary, class_probabilities(tokens, text)[0].tolist(), strict=True)
    shares = dict(sorted(found, key=lambda item: -item[1]))
    first, *others = list(shares)[:SUGGESTED]
    return (first, *(name for name in others if shares[name] >= SURE_ENOUGH)), shares


def whole_number(value, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value != int(value):
        raise Refused(f"expected {what} as a whole number from {low} to {high}, got {value!r}"[:200])
    return int(value)


def asked(
    studio: Studio, image: str, classes: Sequence[str], settings: Mapping | None, method: str = "", visitor: str = ""
) -> tuple[Pipeline, Sample]:
    """A program's request for a picture: the method (without: the first) as it was set, and the sample."""
    if not image:
        raise Refused("expected a picture, got none")
    pipeline = studio.pipeline(visitor, method or studio.default, settings)
    return pipeline, Sample(photo(image, MAX_PIXELS), asked_classes(classes or []))


def pictured(studio: Studio, *request) -> tuple[Pipeline, Sample, Tokens]:
    """The same, with what CLIP saw in the picture."""
    pipeline, sample = asked(studio, *request)
    with studio.lock:
        return pipeline, sample, pipeline.encode(sample.image)


def settings_file(path: str) -> dict:
    """What a settings file holds, still unchecked."""
    if Path(path).stat().st_size > FILE_BYTES:
        raise Refused("the settings file is larger than a megabyte: this is no settings file of ours")
    try:
        values = from_json(Path(path).read_bytes())
    except ValueError as error:
        raise Refused("the settings file is not JSON: choose one that was saved here") from error
    if not isinstance(values, dict):
        raise Refused("the settings file holds no settings: choose one that was saved here")
    return values


def words_to_synonyms(words: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Entries such as "boat = ship" -> class name -> its words, several fused; those of a class that is not chosen wait."""
    synonyms: dict[str, list[str]] = {}
    for entry in texts(words, "words"):
        name, equals, word = (part.strip() for part in entry.partition("="))
        if not (name and equals and word):
            raise Refused(f"write a class's words as 'boat = ship', got {entry[:60]!r}")
        synonyms.setdefault(class_name(name), []).append(word)
    return {name: ",".join(synonyms[name]) for name in names if name in synonyms}


def scene(objects: Sequence[str] | None, place: str | None, seed: float) -> Scene:
    """A drawn scene with these objects (none: whatever the place has) in this place (none: where they belong)."""
    names = [class_name(name) for name in texts(objects or [], "objects")]
    if any(name not in VOC_CLASSES for name in names) or len(names) > 4:
        raise Refused(f"expected up to four objects out of {', '.join(VOC_CLASSES)}, got {', '.join(names)}"[:400])
    if place and place not in PLACES:
        raise Refused(f"expected a place out of {', '.join(PLACES)}, got {place!r}"[:400])
    if isinstance(seed, bool) or not isinstance(seed, int | float) or not 0 <= seed < 2**53 or seed != int(seed):
        raise Refused(f"expected a seed as a whole number from 0 up, got {seed!r}")
    return draw(int(seed), size=SCENE_SIDE, classes=names or None, place=place or None)


def scene_sample(drawn: Scene) -> Sample:
    there = {name for name, _ in drawn.objects}
    return Sample(drawn.image, tuple(name for name in VOC_CLASSES if name in there), drawn.truth, drawn.stuff, f"seed {drawn.seed}")


def photo(path: str, max_pixels: int = 50_000_000) -> np.ndarray:
    """A visitor's picture, read as an open file so that no message tells where the server put it."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > PHOTO_BYTES:
            raise Refused(f"the picture's file is larger than {PHOTO_BYTES // 1_000_000} MB: save it smaller")
        return load_image(file, max_pixels=max_pixels)


def page_sized(image: np.ndarray) -> np.ndarray:
    """A photo at the size a page works on: at most 640 pixels long."""
    longest = max(image.shape[:2])
    if longest <= PAGE_SIDE:
        return image
    rows, columns = (max(1, round(length * PAGE_SIDE / longest)) for length in image.shape[:2])
    return np.array(Image.fromarray(image).resize((columns, rows), Image.Resampling.LANCZOS))
