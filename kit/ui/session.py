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
from collections.abc import Callable, Iterator, Mapping
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
from kit.learned import Learned, LearnedError
from kit.method import Kept, Method, Pipeline, Result, own_functions
from kit.methods import METHODS
from kit.prompt import PromptError
from kit.propose import ProposalError
from kit.settings import NOT_SETTINGS, Settings, SettingsError, name_of
from kit.shapes import ShapeError
from kit.show import COLOUR_MAPS
from kit.sweep import EncodedSet, encode_all
from kit.words import COCO_CLASSES, COCO_PROMPTS, VOC_CLASSES

SHELF_BYTES = 1_000_000_000
SCENES_BYTES = 700_000_000  # of drawn scenes with their tokens, the same for every visitor
SCENES_PART = 5  # drawn and encoded together
SCENES_SIDES = (160, 224)  # of these scenes in pixels: for the tiny model, for any other
KEPT_OUTPUTS = 6  # of each stage of a picture
MAX_WORDS = 100  # in a list of words
PROMPTS_FROM = "prompts from"  # beside the settings of a page: one of these
STARTED, HERE, BY_HAND = "started", "here", "by hand"
PRIVATE = MappingProxyType({"api_visibility": "private"})  # of events: not for programs
QUIET = MappingProxyType({**PRIVATE, "show_progress": "hidden"})
# of events with numbers: what was typed comes as it is. Gradio's own check says it in other words, and an emptied field with a traceback
AS_TYPED = MappingProxyType({"preprocess": False})
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
            return gr.Error(html.escape(str(error), quote=False), print_exception=False)
        mark = secrets.token_hex(4)
        logger.error("id %s in %s", mark, function.__name__, exc_info=error)
        return gr.Error(f"Sorry, something went wrong on our side (id {mark}).", print_exception=False)

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


def warn(sentence: str) -> None:
    """Tell the visitor something that did not stop what was asked."""
    gr.Warning(html.escape(sentence, quote=False))


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
    colour_map: str = COLOUR_MAPS[0]
    shown: str = ""  # the class whose heat the strip shows; any other word: the first class

    def __post_init__(self) -> None:
        # so written that nan fails too
        if isinstance(self.opacity, bool) or not (isinstance(self.opacity, int | float) and 0 <= self.opacity <= 1):
            raise Refused(f"expected an opacity from 0 to 1, got {self.opacity!r}")
        if self.colour_map not in COLOUR_MAPS:
            raise Refused(f"expected a colour map out of {', '.join(COLOUR_MAPS)}, got {self.colour_map!r}")


@dataclass(frozen=True, eq=False)
class View:
    """What a visitor looks at: a picture with the classes asked for, how far the answer is, and how it is shown."""

    sample: Sample
    pipeline: Pipeline
    tokens: Tokens | None  # None for a program's, which nobody looks closer at
    result: Result
    look: Look
    done: bool
    urls: dict[str, str] = field(default_factory=dict)  # pictures of this view that are already packed

    def same_question(self, sample: Sample, pipeline: Pipeline) -> bool:
        """Whether only how it is shown has changed: the confidence is applied to a finished result."""
        mine = self.pipeline
        same_picture = self.sample.image is sample.image and self.sample.names == sample.names
        same_method = mine.method is pipeline.method and mine.learned is pipeline.learned
        return same_picture and same_method and mine.settings.changed(confidence=pipeline.settings.confidence) == pipeline.settings

    def still_packed(self, sample: Sample, look: Look) -> dict[str, str]:
        """What a next view of the same picture need not pack again."""
        kept = {"Picture", "Truth"} if look.opacity == self.look.opacity else {"Picture"}
        return {title: url for title, url in self.urls.items() if title in kept and self.sample.image is sample.image}


class Studio:
    """One model, one lock, the methods, and what each visitor has on the shelf."""

    def __init__(
        self, clip: Clip, methods: Mapping[str, Method] | None = None, *, learned: Mapping[str, Learned | str | None] | None = None,
        changes: Mapping[str, Any] | None = None, shelf: Shelf | None = None, scenes: Shelf | None = None,
    ):  # fmt: skip
        """learned: method -> what the app was started with, None for nothing, or a sentence that says why it cannot be used (without: what
        the kit brings); changes: settings of this app, for the methods that have them, which no visitor can change.
        """
        self.clip, self.methods = clip, dict(METHODS if methods is None else methods)
        self.learned, self.changes = dict(learned or {}), dict(changes or {})
        self.shelf, self.scenes = shelf or Shelf(), scenes or Shelf(SCENES_BYTES)
        self.lock, self._scenes_lock, self._turns_lock = threading.Lock(), threading.Lock(), threading.Lock()
        self.default = next(iter(self.methods))
        self.vocabulary = VOC_CLASSES if clip.is_tiny else tuple(dict.fromkeys(VOC_CLASSES + COCO_CLASSES))
        self.prompt_words = {} if clip.is_tiny else dict(COCO_PROMPTS)

    def method(self, name: str) -> Method:
        if not isinstance(name, str) or name not in self.methods:
            raise Refused(f"expected a method out of {', '.join(self.methods)}, got {name!r}"[:300])
        return self.methods[name]

    def own_changes(self, method: Method) -> dict[str, Any]:
        """The app's own settings that this method has."""
        return {name: value for name, value in self.changes.items() if name in method.Settings.described()}

    @functools.lru_cache(maxsize=64)  # noqa: B019  as long as the app
    def start(self, name: str) -> Pipeline:
        """The method as a visitor finds it; hand-crafted prompts where the app's learned ones cannot be used."""
        method = self.method(name)
        brought = self.learned.get(name, "")
        learned = {} if name not in self.learned else {"learned": None if isinstance(brought, str) else brought}
        return method(self.clip, **learned, **self.own_changes(method))

    def pipeline(self, visitor: str, name: str, values: Mapping | None = None) -> Pipeline:
        """The method with changed settings, plain values by (dotted) name; with what the visitor learned here, if these say so.

        Raises Refused, SettingsError, ClipError for what cannot be asked.
        """
        if not isinstance(values or {}, Mapping):
            raise Refused(f"expected settings as a JSON object of names and values, got {type(values).__name__}")
        values, method = dict(values or {}), self.method(name)
        pipeline = self._asked_with(visitor, name, values.pop(PROMPTS_FROM, STARTED))
        if values.get("method", name) != name:
            raise SettingsError(f"expected settings of {name}, got those of {values['method']!r}"[:300])
        renamed = {method.Settings.renamed.get(name, name): value for name, value in values.items() if name not in NOT_SETTINGS}
        mine = {name: name_of(own) for name, own in own_functions(pipeline.settings).items()}  # JSON has their names
        pipeline = pipeline.changed(**{name: value for name, value in renamed.items() if name not in mine or mine[name] != value})
        for own, value in self.own_changes(method).items():
            if pipeline.settings.value(own) != value:
                raise Refused(f"{own} is {value} in this app and cannot be changed: it is an option of the app's start")
        self._check_words(pipeline.settings)
        _ = pipeline.layers  # refuses blocks that this model does not have
        return pipeline

    def _asked_with(self, visitor: str, name: str, source: str) -> Pipeline:
        if source not in (STARTED, HERE, BY_HAND):
            raise Refused(f"expected prompts from {STARTED}, {HERE} or {BY_HAND}, got {source!r}"[:200])
        method, learned = self.method(name), None
        if source == STARTED:
            if isinstance(self.learned.get(name), str):
                raise Refused(self.learned[name])
            return self.start(name)
        if source == HERE and (learned := self.learned_here(visitor, name)) is None:
            raise Refused("nothing was learned here yet: learn prompts on the Learn page, and press Use in Explore there")
        return method(self.clip, learned=learned, **self.own_changes(method))

    def _check_words(self, settings: Settings) -> None:
        for name, setting in type(settings).described().items():
            if setting.kind == "texts" and len(words := settings.value(name)) > MAX_WORDS:
                raise Refused(f"expected at most {MAX_WORDS} words in {name}, got {len(words)}")

    def keep_learned(self, visitor: str, name: str, learned: Learned) -> None:
        self.shelf.put(visitor, f"learned {name}", learned, learned.nbytes)

    def learned_here(self, visitor: str, name: str) -> Learned | None:
        return self.shelf.get(visitor, f"learned {name}")

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

    def tokens(self, visitor: str, key: str, pipeline: Pipeline, image: np.ndarray) -> tuple[Tokens, float]:
        """The picture as CLIP saw it, and the seconds that took: encoded when the picture is new, taken from the shelf ever after."""
        name = f"{key} {pipeline.key}"
        found = self.shelf.get(visitor, name)
        if found is None:
            with self.lock:
                clock = time.perf_counter()
                tokens = pipeline.encode(image)
            found = tokens, time.perf_counter() - clock
            self.shelf.put(visitor, name, found, tokens.last_input.nbytes + tokens.attention.nbytes)
        return found

    def kept(self, visitor: str, key: str) -> Kept:
        """The stages of a visitor's picture, for the next time."""
        kept = self.shelf.get(visitor, f"{key} kept") or Kept(KEPT_OUTPUTS)
        self.shelf.put(visitor, f"{key} kept", kept, kept.nbytes)
        return kept

    def encoded(self, count: int, pipeline: Pipeline | None = None) -> Iterator[EncodedSet]:
        """The first `count` scenes of the val split as CLIP sees them, a few more with each step; encoded once for all visitors."""
        pipeline = pipeline or self.start(self.default)
        parts: list[EncodedSet] = []
        for start in range(0, count, SCENES_PART):
            parts.append(self._encoded_part(start, pipeline))
            needed = parts[0].nbytes * count / SCENES_PART
            if needed > self.scenes.limit:
                fitting = int(count * self.scenes.limit / needed)
                raise Refused(f"{count} scenes take more memory than there is for them with {self.clip.name}: choose at most {fitting}")
            samples, tokens = (sum((getattr(part, name) for part in parts), ())[:count] for name in ("samples", "tokens"))
            yield replace(parts[0], samples=samples, tokens=tokens)

    def _encoded_part(self, start: int, pipeline: Pipeline) -> EncodedSet:
        with self._scenes_lock:
            name = f"{start} {pipeline.key}"
            found = self.scenes.get("", name)
            if found is None:
                side = SCENES_SIDES[0] if self.clip.is_tiny else SCENES_SIDES[1]
                samples = list(toy_samples("val", SCENES_PART, size=side, start=start))
                with self.lock:
                    found = encode_all(pipeline, samples, split="val", half=not self.clip.is_tiny)
                self.scenes.put("", name, found, found.nbytes)
            return found

    def in_turn(self, steps: Iterator) -> Iterator:
        """Steps that ask the model, with the model locked for each and free between them."""
        while True:
            with self.lock:
                step = next(steps, None)
            if step is None:
                return
            yield step

    def turn(self, visitor: str) -> threading.Lock:
        """Held while a visitor's answer is made, so that two events that ask the same make it once."""
        with self._turns_lock:
            turn = self.shelf.get(visitor, "turn") or threading.Lock()
            self.shelf.put(visitor, "turn", turn, 100)
            return turn

    def view(self, visitor: str) -> View:
        view = self.shelf.get(visitor, "view")
        if view is None:
            raise Refused("there is no result yet: choose a picture first")
        return view

    def show(self, visitor: str, view: View) -> View:
        tensors = [*view.result.stages.values(), view.result.planes]
        self.shelf.put(visitor, "view", view, sum(tensor.nbytes for tensor in tensors))
        return view

    def claim(self, visitor: str, view: View) -> bool:
        """Whether this view still has to be finished and sent: true once for each."""
        new = self.shelf.get(visitor, "claimed") is not view
        self.shelf.put(visitor, "claimed", view, 0)  # its bytes are counted where it is shown
        return new
