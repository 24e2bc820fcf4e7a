"""What the server keeps for its visitors while they are here: one model behind its lock, and a shelf bounded in bytes."""

import functools
import hashlib
import html
import inspect
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder

from kit.data import Sample, toy_samples
from kit.encode import Clip, ClipError, Tokens
from kit.fit import FitError
from kit.images import ImageError
from kit.learned import LearnedError
from kit.methods import ClipEs, ClipEsSettings, FmaWsss, Result
from kit.methods.settings import SettingsError
from kit.prompt import PromptError
from kit.propose import ProposalError, Sam
from kit.shapes import ShapeError
from kit.show import COLOUR_MAPS
from kit.sweep import EncodedSet, encode_all
from kit.words import COCO_CLASSES, COCO_PROMPTS, VOC_CLASSES

SHELF_BYTES = 1_000_000_000
SCENES_BYTES = 700_000_000  # of drawn scenes with their tokens, the same for every visitor
SCENES_PART = 5  # drawn and encoded together
SCENES_SIDES = (160, 224)  # of these scenes in pixels: for the tiny model, for any other
PRIVATE = MappingProxyType({"api_visibility": "private"})  # of events: not for programs
QUIET = MappingProxyType({**PRIVATE, "show_progress": "hidden"})
logger = logging.getLogger("kit.ui")


class Refused(ValueError):
    """Something a visitor asked for that cannot be done, told in one sentence."""


OURS = (Refused, SettingsError, PromptError, ClipError, ImageError, ShapeError, FitError, LearnedError, ProposalError)


def friendly(function: Callable) -> Callable:
    """An event whose mistakes are told in one sentence: ours as they are, anything else as an id that the log explains."""

    def told(error: Exception) -> gr.Error:
        if isinstance(error, gr.Error):
            return error
        if isinstance(error, OURS):
            return gr.Error(html.escape(str(error), quote=False), title="That does not work", print_exception=False)
        mark = secrets.token_hex(4)
        logger.error("id %s in %s", mark, function.__name__, exc_info=error)
        return gr.Error(f"Something went wrong on our side (id {mark}).", title="Sorry", print_exception=False)

    @functools.wraps(function)
    def plain(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise told(error) from error

    @functools.wraps(function)
    def stream(*args, **kwargs):
        try:
            yield from function(*args, **kwargs)
        except Exception as error:
            raise told(error) from error

    return stream if inspect.isgeneratorfunction(function) else plain


def results_folder() -> Path:
    """A new folder in Gradio's own cache, which it empties by age."""
    folder = Path(get_upload_folder()) / "results" / secrets.token_hex(16)
    folder.mkdir(parents=True)
    return folder


class Shelf:
    """Things by visitor and name; beyond `limit` bytes those go first that were not used for longest, but never the newest."""

    def __init__(self, limit: int = SHELF_BYTES):
        self.limit = limit
        self._things: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, visitor: str, name: str, thing: Any, size: int) -> None:
        with self._lock:
            self._things[visitor, name] = (thing, size)
            self._things.move_to_end((visitor, name))
            while len(self._things) > 1 and self._total() > self.limit:
                self._things.popitem(last=False)

    def get(self, visitor: str, name: str) -> Any | None:
        with self._lock:
            if (visitor, name) not in self._things:
                return None
            self._things.move_to_end((visitor, name))
            return self._things[visitor, name][0]

    def forget(self, visitor: str) -> None:
        with self._lock:
            for key in [key for key in self._things if key[0] == visitor]:
                del self._things[key]

    @property
    def total(self) -> int:
        """Bytes on the shelf."""
        with self._lock:
            return self._total()

    def _total(self) -> int:
        return sum(size for _, size in self._things.values())


@dataclass(frozen=True)
class Look:
    """How a view is shown; none of it changes the answer."""

    opacity: float = 0.6
    colour_map: str = "turbo"
    shown: str = ""  # the class whose heat the strip shows; any other word: the first class

    def __post_init__(self) -> None:
        if isinstance(self.opacity, bool) or not (
            isinstance(self.opacity, int | float) and 0 <= self.opacity <= 1
        ):  # so written that nan fails too
            raise Refused(f"expected an opacity from 0 to 1, got {self.opacity!r}")
        if self.colour_map not in COLOUR_MAPS:
            raise Refused(f"expected a colour map out of {', '.join(COLOUR_MAPS)}, got {self.colour_map!r}")


@dataclass(frozen=True, eq=False)
class View:
    """What a visitor looks at: a picture with the classes asked for, how far the answer is, and how it is shown."""

    sample: Sample
    method: ClipEs | FmaWsss
    tokens: Tokens
    result: Result
    look: Look
    done: bool
    urls: dict[str, str] = field(default_factory=dict)  # pictures of this view that are already packed

    def same_question(self, sample: Sample, settings: ClipEsSettings) -> bool:
        """Whether only how it is shown has changed: the confidence is applied to a finished result."""
        same_picture = self.sample.image is sample.image and self.sample.names == sample.names
        return same_picture and replace(self.method.settings, confidence=settings.confidence) == settings

    def still_packed(self, sample: Sample, look: Look) -> dict[str, str]:
        """What a next view of the same picture need not pack again."""
        kept = {"Picture", "Truth"} if look.opacity == self.look.opacity else {"Picture"}
        return {title: url for title, url in self.urls.items() if title in kept and self.sample.image is sample.image}


class Studio:
    """One model, one lock, and what each visitor has on the shelf."""

    def __init__(
        self,
        clip: Clip,
        shelf: Shelf | None = None,
        *,
        scenes: Shelf | None = None,
        learned: Any = None,
        sam: Sam | None = None,
    ):
        """learned: FMA-WSSS with the prompts that the app was started with, or what tells why there are none; sam: who makes the masks,
        if not superpixels.
        """
        self.clip, self.learned, self.sam = clip, learned, sam
        self.shelf = shelf or Shelf()
        self.scenes = scenes or Shelf(SCENES_BYTES)
        self.lock, self.masks_lock, self._scenes_lock = threading.Lock(), threading.Lock(), threading.Lock()
        self.preset = ClipEs(clip).settings
        self.vocabulary = VOC_CLASSES if clip.is_tiny else tuple(dict.fromkeys(VOC_CLASSES + COCO_CLASSES))
        self.prompt_words = {**({} if clip.is_tiny else COCO_PROMPTS), **self.preset.synonyms}

    def keep(self, visitor: str, sample: Sample) -> str:
        """Put a picture on the visitor's shelf -> its key, a hash of its pixels and labels."""
        planes = [plane for plane in (sample.image, sample.truth, sample.stuff) if plane is not None]
        mark = hashlib.sha256(repr([plane.shape for plane in planes]).encode())
        for plane in planes:
            mark.update(np.ascontiguousarray(plane))
        self.shelf.put(visitor, mark.hexdigest(), sample, sum(plane.nbytes for plane in planes))
        return mark.hexdigest()

    def sample(self, visitor: str, key: str) -> Sample:
        sample = self.shelf.get(visitor, key) if key else None
        if sample is None:
            raise Refused("the picture is no longer on the server's shelf: choose it again")
        return sample

    def tokens(self, visitor: str, key: str, method: ClipEs | FmaWsss, image: np.ndarray) -> tuple[Tokens, float]:
        """The picture as CLIP saw it, and the seconds that took: encoded when the picture is new, taken from the shelf ever after."""
        name = f"{key} {method.settings.side} {method.settings.side_limit}"
        kept = self.shelf.get(visitor, name)
        if kept is None:
            with self.lock:
                clock = time.perf_counter()
                tokens = method.encode(image)
            kept = tokens, time.perf_counter() - clock
            self.shelf.put(visitor, name, kept, tokens.last_input.nbytes + tokens.attention.nbytes)
        return kept

    def encoded(self, count: int) -> Iterator[EncodedSet]:
        """The first `count` scenes of the val split as CLIP sees them, a few more with each step; encoded once for all visitors."""
        parts: list[EncodedSet] = []
        for start in range(0, count, SCENES_PART):
            parts.append(self._encoded_part(start))
            needed = parts[0].nbytes * count / SCENES_PART
            if needed > self.scenes.limit:
                fitting = int(count * self.scenes.limit / needed)
                raise Refused(f"{count} scenes take more memory than there is for them with {self.clip.name}: choose at most {fitting}")
            samples, tokens = (sum((getattr(part, name) for part in parts), ())[:count] for name in ("samples", "tokens"))
            yield replace(parts[0], samples=samples, tokens=tokens)

    def _encoded_part(self, start: int) -> EncodedSet:
        with self._scenes_lock:
            kept = self.scenes.get("", str(start))
            if kept is None:
                side = SCENES_SIDES[0] if self.clip.is_tiny else SCENES_SIDES[1]
                samples = list(toy_samples("val", SCENES_PART, size=side, start=start))
                with self.lock:
                    kept = encode_all(ClipEs(self.clip, self.preset), samples, split="val", half=not self.clip.is_tiny)
                self.scenes.put("", str(start), kept, kept.nbytes)
            return kept

    def in_turn(self, steps: Iterator) -> Iterator:
        """Steps that ask the model, with the model locked for each and free between them."""
        while True:
            with self.lock:
                step = next(steps, None)
            if step is None:
                return
            yield step

    def view(self, visitor: str) -> View:
        view = self.shelf.get(visitor, "view")
        if view is None:
            raise Refused("there is no result yet: choose a picture first")
        return view

    def show(self, visitor: str, view: View) -> View:
        tensors = [*view.result.stages.values(), view.result.labels, view.result.confidence]
        self.shelf.put(visitor, "view", view, sum(tensor.nbytes for tensor in tensors))
        return view

    def claim(self, visitor: str, view: View) -> bool:
        """Whether this view still has to be refined and sent: true once for each."""
        new = self.shelf.get(visitor, "claimed") is not view
        self.shelf.put(visitor, "claimed", view, 0)  # its bytes are counted where it is shown
        return new

    def stepped(self, method: ClipEs, sample: Sample, tokens: Tokens) -> Iterator[Result]:
        """The method's steps, with the model locked for the first one, which is the only one that needs it."""
        steps = method.steps(sample, tokens=tokens)
        with self.lock:
            first = next(steps)
        yield first
        yield from steps
