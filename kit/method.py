"""The contract of a method, and the driver that every door is a loop around.

A Method is a value: settings, stages in a row, what it is compared with, what can be learned. Called with a CLIP it becomes a Pipeline,
which turns a picture into a Result. A stage reads its Scene and the outputs of earlier stages; the driver listens to what it reads, and
repeats it only where one of these things has changed: sliders, sweeps and evaluations live on that.
"""

import dataclasses
import functools
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kit import mask, refine
from kit.data.sample import Picture, Sample, sample_of
from kit.encode import Clip, Tokens
from kit.fingerprint import is_of_the_kit, source_fingerprint
from kit.images import image_within, size_within
from kit.last_block import LastPass, last_pass
from kit.learned import Learned
from kit.prompt import PromptError
from kit.propose import Proposals
from kit.settings import Group, Settings, SettingsError, name_of
from kit.vote import Vote, painted_scores
from kit.words import COCO_CLASSES, VOC_CLASSES, near_miss

MAX_CLASSES = 100  # of one picture
SHOWS = ("", "maps", "votes", "words", "masks")  # what a door draws of a stage's output
SHIPPED = "shipped"  # what was learned with the kit's own CLIP, where the kit brings it


@dataclass(frozen=True, eq=False)
class Scene:
    """All that a stage may read.

    names: the C classes looked for; image uint8 (H, W, 3) at working size; tokens: a batch of one; learned: what `Method.open` made of the
    learned tensors, or None; last: the pass through the last block, made once.
    In another process there are neither clip nor tokens.
    """

    clip: Clip | None
    settings: Settings
    names: tuple[str, ...]
    image: np.ndarray
    tokens: Tokens | None
    learned: Any = None

    @functools.cached_property
    def last(self) -> LastPass:
        return last_pass(self.tokens)


Done = Mapping[str, Any]  # the outputs of the stages before, by name; "scores": the last shown ones with background, (1 + C, H, W)


@dataclass(frozen=True, eq=False)
class Words:
    """What the classes are asked with: the output of a stage that shows words.

    prompts: one a class; scores (C,): the classes' probabilities in [0, 1]; text (T, D): unit vectors, the classes' rows first, then what
    competes; candidates: class -> word -> its score, where a stage chose among words.
    """

    prompts: tuple[str, ...]
    scores: Tensor
    text: Tensor | None = None
    candidates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a method.

    name: its key in results and tables; title: how a door calls it, or a function of the settings; run(scene, done) -> its output, or an
    iterator of better and better outputs; shows: "maps" (C, H, W), or (1 + C, H, W) with background; "votes" (a Vote); "words" (Words);
    "masks" (Proposals); "" nothing; in_worker: whether it needs neither CLIP nor tokens, so that another process can do it (or a function
    of the scene that says so); when: whether it runs at all, by scene.settings and scene.learned; notes(scene, done) -> sentences that a
    reader of the result should know; about: two sentences for those who meet it the first time.
    """

    name: str
    title: str | Callable[[Settings], str]
    run: Callable[[Scene, Done], Any]
    shows: str = ""
    in_worker: bool | Callable[[Scene], bool] = False
    when: Callable[[Scene], bool] | None = None
    notes: Callable[[Scene, Done], Iterable[str]] | None = None
    about: str = ""

    def __post_init__(self) -> None:
        if self.shows not in SHOWS:
            raise ValueError(f"expected stage {self.name} to show one of {', '.join(map(repr, SHOWS))}, got {self.shows!r}")

    @property
    def is_shown(self) -> bool:
        """Whether it leaves scores of which a label map can be made."""
        return self.shows in ("maps", "votes")

    def is_left(self, scene: Scene) -> bool:
        """Whether another process may do it."""
        return self.in_worker(scene) if callable(self.in_worker) else self.in_worker

    def runs(self, scene: Scene) -> bool:
        return self.when is None or self.when(scene)

    def title_for(self, settings: Settings) -> str:
        return self.title(settings) if callable(self.title) else self.title


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a method is to be measured against: a baseline, or a control that must do worse; its last stage counts."""

    title: str
    pipeline: "Pipeline"
    control: bool = False


@dataclass(frozen=True)
class Preset:
    """Changed settings for a world (voc, coco, toy), and the (data set, split) pairs on whose truth they were chosen."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    chosen_on: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Lesson:
    """Something that a method can learn.

    title, about: for a page; losses: the names of its losses; learning: the group of settings with its steps and rates (see
    settings.Learning); prepare(study) -> a generator of steps that returns a fit.Task; parts: what these steps are called; needs: lessons
    whose tensors it builds on; start(pipeline) -> the tensors learning begins with, where a method can be asked with them;
    vectors(pipeline, name) -> learned vectors (M, E) of a class in the space of words, for those who want to read them.
    """

    title: str
    about: str
    learning: str
    prepare: Callable[[Any], Iterator[Any]]
    losses: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    start: Callable[["Pipeline", Sequence[str]], Mapping[str, Tensor]] | None = None
    vectors: Callable[["Pipeline", str], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Method:
    """A paper, or a method of one's own, as every door reads it.

    name, title: in tables and on the page; Settings: its settings' class; stages: in order; presets: world -> Preset; compared(pipeline,
    classes) -> baselines and controls by name; lessons: what can be learned, by the name of its tensor; open(clip, settings, learned) ->
    what stages find in scene.learned; belongs: settings that what was learned cannot be asked without; shipped: the file learned with the
    tiny CLIP; source: the paper; notebook: the file in notebooks/ that builds it by hand; knobs: the settings to try first, which a page
    shows open; takes(pipeline) -> sentences on the memory and the disk it takes besides CLIP's, for who starts a long run.

    >>> ClipEs(kit.load("tiny"), box_threshold=0.4).segment("dog.jpg", names=("dog",))                  # doctest: +SKIP
    """

    name: str
    title: str
    Settings: type[Settings]
    stages: tuple[Stage, ...]
    presets: Mapping[str, Preset] = field(default_factory=dict)
    compared: Callable[["Pipeline", Sequence[str]], Mapping[str, Comparison]] | None = None
    lessons: Mapping[str, Lesson] = field(default_factory=dict)
    open: Callable[[Clip, Settings, Learned], Any] | None = None
    belongs: tuple[str, ...] = ()
    shipped: Path | None = None
    source: str = ""
    notebook: str = ""
    knobs: tuple[str, ...] = ()
    takes: Callable[["Pipeline"], Iterable[str]] | None = None

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names) or "scores" in names or not any(stage.is_shown for stage in self.stages):
            raise ValueError(
                f"expected stages with different names, none called scores, at least one of maps or votes, got {', '.join(names)}"
            )
        object.__setattr__(self, "stages", tuple(self.stages))

    def __call__(
        self, clip: Clip, settings: Settings | None = None, *, learned: Learned | str | None = SHIPPED, world: str = "", **changes: Any
    ) -> "Pipeline":
        """The method ready for use.

        settings: a value, else those of what was learned, else the preset of `world` (without: toy for the tiny CLIP, voc for any other);
        changes: settings by name; learned: what `fit` gave (`Learned`, or the path of its file), None for hand-crafted prompts; without,
        what the kit brings for the tiny CLIP.   Raises SettingsError, LearnedError.
        """
        if learned == SHIPPED:
            learned = self.shipped if clip.is_tiny and self.shipped is not None and self.shipped.is_file() else None
        if isinstance(learned, str | Path):
            learned = Learned.load(learned, method=self.name, clip=clip)
        made_with = None if learned is None else self.settings_of(learned.about["settings"])
        base = settings or (self.preset(world) if world else made_with or self.preset(world_of(clip)))
        if not isinstance(base, self.Settings):
            raise SettingsError(f"expected {self.Settings.__name__}, got {type(base).__name__}: make them with preset or settings_of")
        chosen = base.changed(**changes)
        if learned is not None:
            for name in self.belongs:
                if chosen.value(name) != made_with.value(name):
                    raise SettingsError(
                        f"{name} belongs to what was learned and cannot be changed: ask without it (learned=None, --weights none), "
                        "or learn anew (kit.fit, python -m kit fit)",
                        name,
                    )
        return Pipeline(self, clip, chosen, learned)

    def preset(self, world: str, **changes: Any) -> Settings:
        """The settings for a world (voc, coco, toy), with changes."""
        known = {"voc": Preset(), **self.presets}
        if world not in ("voc", "coco", "toy"):
            raise SettingsError(f"expected a preset out of voc, coco, toy, got {world!r}")
        return self.Settings().changed(**known.get(world, known["voc"]).changes).changed(**changes)

    def settings_of(self, values: Mapping) -> Settings:
        """Settings from plain values, a result's too.   Raises SettingsError for those of another method."""
        if isinstance(values, Mapping) and values.get("method", self.name) != self.name:
            raise SettingsError(f"expected settings of {self.name}, got those of {values['method']!r}")
        return self.Settings.from_dict(values)

    def replace(self, **changes: Any) -> "Method":
        """The same with changes; it needs a name of its own, since it is another method."""
        if changes.get("name", self.name) == self.name:
            raise ValueError(f'a changed {self.name} is another method: give it a name, replace(name="my-{self.name}", ...)')
        return dataclasses.replace(self, **changes)

    def with_stage(self, stage: Stage, *, name: str = "", after: str = "") -> "Method":
        """Another method with this stage in the place of that of its name, or behind the stage `after` (at the end).

        name: what the new method is called (without: this one's name + the stage's).
        """
        names = [known.name for known in self.stages]
        if after and after not in names:
            raise ValueError(f"expected after to be one of {', '.join(names)}, got {after!r}")
        stages = [stage if known.name == stage.name else known for known in self.stages]
        if stage.name not in names:
            stages.insert(names.index(after) + 1 if after else len(stages), stage)
        return self.replace(name=name or f"{self.name}+{stage.name}", stages=tuple(stages))

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)


def world_of(clip: Clip, classes: Sequence[str] = ()) -> str:
    """Which preset suits: toy for the tiny CLIP, coco where the classes are COCO's, else voc."""
    return "toy" if clip.is_tiny else "coco" if set(COCO_CLASSES) <= set(classes) else "voc"


@dataclass(frozen=True, eq=False)
class Result:
    """One image's way from prompt to mask.

    names: the C classes looked for; prompts: name -> its prompt; scores: name -> probability in [0, 1]; stages in order, each (C, H, W) or,
    once background has a plane, (1 + C, H, W), at working size; planes (1 + C, H, W): the last stage with background; size: (H, W) of the
    picture; settings: a value; about: plain values that say what produced it; seconds: stage -> time; notes: what a reader should know;
    votes: stage -> what the masks decided there, and proposals: these masks (where a method has any); words: what the classes were asked
    with; follows: stage -> the shown stage that it goes on from, "" for one that begins anew.
    """

    names: tuple[str, ...]
    stages: dict[str, Tensor]
    planes: Tensor
    size: tuple[int, int]
    pipeline: "Pipeline"
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    votes: dict[str, Vote] = field(default_factory=dict)
    proposals: Proposals | None = None
    words: Words | None = None
    follows: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for stage, maps in self.stages.items():
            if maps.ndim != 3 or maps.shape[0] not in (len(self.names), 1 + len(self.names)):
                raise ValueError(
                    f"expected stage {stage} to have {len(self.names)} or {1 + len(self.names)} planes, got {tuple(maps.shape)}"
                )

    @functools.cached_property
    def _full(self) -> Tensor:
        return self.planes[None] if self.planes.shape[1:] == self.size else refine.upsampled(self.planes[None], self.size)

    @functools.cached_property
    def labels(self) -> Tensor:
        """int64 (H, W) in 0..C, 0 = background."""
        return mask.label_map(self._full)[0]

    @functools.cached_property
    def confidence(self) -> Tensor:
        """(H, W) in [0, 1]."""
        return mask.confidence(self._full)[0]

    @property
    def pseudo_mask(self) -> Tensor:
        """The label map with pixels less sure than the settings ask for set to 255.   -> int64 (H, W)."""
        return mask.without_uncertain(self.labels, self.confidence, threshold=self.pipeline.settings.confidence)

    @property
    def prompts(self) -> dict[str, str]:
        return {} if self.words is None else dict(zip(self.names, self.words.prompts, strict=True))

    @property
    def scores(self) -> dict[str, float]:
        return {} if self.words is None else dict(zip(self.names, self.words.scores.tolist(), strict=True))

    @property
    def settings(self) -> dict:
        """Plain values: the method, the model, what was learned, and every setting."""
        return self.pipeline.about()

    def scores_of(self, stage: str) -> Tensor:
        """A stage with its background plane, ready for a label map, at working size.   -> (1 + C, h, w)."""
        return scores_with_background(self.stages[stage], len(self.names), self.pipeline.settings.background_power)

    def labels_of(self, stage: str) -> np.ndarray:
        """A stage's label map at the picture's size.   -> uint8 (H, W) in 0..C."""
        return labels_of_size(self.scores_of(stage), self.size)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A method with a CLIP, its settings, and what was learned for it: from a picture to a result."""

    method: Method
    clip: Clip
    settings: Settings
    learned: Learned | None = None

    def segment(self, picture: "Picture", names: Sequence[str] | None = None, *, tokens: Tokens | None = None) -> Result:
        """The pseudo mask of a picture's classes, with every stage on the way.

        picture: a Sample, or a path, a PIL image or an array uint8 (H, W, 3) with the `names` of what it shows; `tokens` from `encode` save
        the encoder's pass.   Raises SettingsError, PromptError or what a stage raises for what cannot be asked.
        """
        *_, last = self.steps(picture, names, tokens=tokens)
        return last

    def steps(
        self, picture: "Picture", names: Sequence[str] | None = None, *, tokens: Tokens | None = None, kept: "Kept | None" = None,
        lock: AbstractContextManager | None = None, worker: bool = True,
    ) -> Iterator[Result]:  # fmt: skip
        """The same a step at a time: a result after each stage that shows maps or votes, and after each iteration of one that iterates.

        kept: remembers this picture's stages for the next time; lock: held while a stage that needs the model runs; worker: whether the
        stages that another process could do are run too.
        """
        sample = sample_of(picture, names)
        check_classes(sample.names)  # before the encoder's pass
        seconds: dict[str, float] = {}
        if tokens is None:
            clock = time.perf_counter()
            with lock or nullcontext():
                tokens = self.encode(sample.image)
            seconds["encode"] = time.perf_counter() - clock
        driver = self.driver(sample, tokens, kept=kept, lock=lock, seconds=seconds)
        for stage in driver.steps(worker=worker):
            if stage.is_shown:
                yield driver.result(self, sample.image.shape[:2])

    def driver(self, sample: Sample, tokens: Tokens, *, until: str | None = None, kept: "Kept | None" = None, **options: Any) -> "Driver":
        """The low level of `steps`, stage by stage, up to the one called `until`."""
        stages = self.method.stages
        if until is not None:
            stages = stages[: 1 + [stage.name for stage in stages].index(until)]
        return Driver(stages, self.scene(sample, tokens, kept), kept=kept, **options)

    def encode(self, image: np.ndarray) -> Tokens:
        """The image side, once: everything else can be repeated from it.

        image uint8 (H, W, 3) -> Tokens, with the attention of every block.
        """
        return self.clip.encode(self.prepared(image)[None])

    def prepared(self, image: np.ndarray) -> Tensor:
        """The picture as the encoder wants it.   uint8 (H, W, 3) -> (3, h*patch, w*patch)."""
        return self.clip.prepare(image_within(image, self.settings.side_limit), side=self.settings.side)

    def scene(self, sample: Sample, tokens: Tokens | None, kept: "Kept | None" = None) -> Scene:
        make = functools.partial(image_within, sample.image, self.settings.side_limit)
        image = kept.once((id(sample.image), self.settings.side_limit), sample.image, make) if kept is not None else make()
        scene = Scene(self.clip, self.settings, sample.names, image, tokens, self.opened)
        if kept is not None and tokens is not None:
            scene.__dict__["last"] = kept.once(("last", id(tokens)), tokens, lambda: last_pass(tokens))
        return scene

    @functools.cached_property
    def opened(self) -> Any:
        """What the stages read of what was learned."""
        if self.learned is None or self.method.open is None:
            return self.learned
        return self.learned.once((self.method.open, self.clip), lambda: self.method.open(self.clip, self.settings, self.learned))

    def changed(self, *, learned: Learned | str | None = "same", **changes: Any) -> "Pipeline":
        """The same with changed settings; learned=None for hand-crafted prompts."""
        kept = self.learned if learned == "same" else learned
        return self.method(self.clip, self.settings, learned=kept, **changes)

    def compared(self, classes: Sequence[str]) -> dict[str, Comparison]:
        """Baselines and controls by name; they keep this pipeline's own functions."""
        return dict(self.method.compared(self, classes)) if self.method.compared else {}

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that run with these settings."""
        return tuple(stage for stage in self.method.stages if stage.runs(self._empty))

    @functools.cached_property
    def left(self) -> tuple[Stage, ...]:
        """Those of them that another process may do."""
        return tuple(stage for stage in self.stages if stage.is_left(self._empty))

    @property
    def _empty(self) -> Scene:
        return Scene(self.clip, self.settings, (), np.zeros((0, 0, 3), np.uint8), None, self.opened)

    @property
    def titles(self) -> dict[str, str]:
        """How the stages that are shown are called in a table."""
        return {stage.name: stage.title_for(self.settings) for stage in self.stages if stage.is_shown}

    @property
    def layers(self) -> list[int]:
        """The blocks whose attention the settings ask for, counted from 0.   Raises ClipError for blocks that are not there."""
        return self.clip.chosen_blocks(self.settings.layers) if "layers" in type(self.settings).model_fields else []

    @property
    def key(self) -> tuple:
        """Pipelines of one CLIP with the same key see the same tokens."""
        return self.settings.side, self.settings.side_limit

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size at which a picture is worked on.   (H, W) -> (H, W)."""
        return size_within(size, self.settings.side_limit)

    @property
    def name(self) -> str:
        """The method's, with the functions that are one's own: "clip-es (cam=rollout)"."""
        own = [f"{name}={name_of(value)}" for name, value in own_functions(self.settings).items()]
        return f"{self.method.name} ({', '.join(own)})" if own else self.method.name

    @functools.cached_property
    def code(self) -> dict[str, str]:
        """What is not the kit's own code: setting, stage or part of the method -> the name and fingerprint of its source."""
        parts: dict[str, Callable] = dict(own_functions(self.settings))
        for stage in self.method.stages:
            parts |= {f"stage {stage.name}": stage.run} | ({f"stage {stage.name}, when": stage.when} if stage.when else {})
        parts |= {"open": self.method.open} if self.method.open else {}
        return {name: f"{name_of(part)} {source_fingerprint(part)}" for name, part in parts.items() if not is_of_the_kit(part)}

    def about(self) -> dict:
        """Plain values that say what this is: method, model, what was learned, every setting, and foreign code."""
        learned = {} if self.learned is None else {"learned": self.learned.fingerprint}
        code = {"code": self.code} if self.code else {}
        return {"method": self.method.name, "model": self.clip.name, **learned, **code, **self.settings.to_dict()}

    def unlike_the_paper(self, classes: Sequence[str] = VOC_CLASSES) -> dict[str, Any]:
        """Those settings that are not the paper's, by dotted name; the paper's for COCO where the classes are COCO's."""
        paper = self.method.preset("coco" if set(COCO_CLASSES) <= set(classes) else "voc")
        return self.settings.unlike(paper)

    def unknown_told(self, names: Sequence[str]) -> tuple[str, ...]:
        """The words in the prompts for these classes that the model has never seen, a sentence each.   See Clip.unknown_words."""
        said = [self.settings.template.replace("{}", " ")] if self.learned is None else []
        said += [self.settings.synonyms.get(name, name).replace(",", " ") for name in names]
        unknown = dict.fromkeys(word for text in (*said, *self.settings.background) for word in self.clip.unknown_words(text))
        return tuple(f"'{word}' is unknown to the tiny model" for word in unknown)

    def prompts_told(self) -> str:
        """Which prompts are asked, in a sentence; "" for a method that learns nothing."""
        if self.learned is not None:
            return self.learned.told()
        return "The prompts are hand-crafted: nothing was learned." if self.method.lessons else ""

    def was_chosen_on(self, data: str, split: str) -> bool:
        """Whether the settings' preset was chosen by the truth of these very pictures."""
        preset = self.method.presets.get(world_of(self.clip))
        return preset is not None and (data, split) in preset.chosen_on

    def save(self, path: str | Path) -> None:
        """Write what was learned.   Raises ValueError if nothing was, LearnedError if the file cannot be written."""
        if self.learned is None:
            raise ValueError("nothing was learned that could be saved: run kit.fit first")
        self.learned.save(path)


def with_settings(function: Callable, settings: Settings) -> Callable:
    """A function with those of its keywords filled that are called like a setting."""
    own = settings._of if isinstance(settings, _Heard) else settings
    known = type(own).model_fields.keys() & {
        name for name, keyword in inspect.signature(function).parameters.items() if keyword.kind is keyword.KEYWORD_ONLY
    }
    return functools.partial(function, **{name: getattr(settings, name) for name in sorted(known)})


def check_classes(names: Sequence[str]) -> None:
    if not 1 <= len(names) <= MAX_CLASSES:
        raise PromptError(f"expected 1 to {MAX_CLASSES} classes, got {len(names)}" + ("" if names else ": choose at least one class"))


def scores_with_background(maps: Tensor, count: int, power: float) -> Tensor:
    """Maps (C, H, W) with a background plane in front, or scores (1 + C, H, W) as they are.   -> (1 + C, H, W)."""
    if len(maps) > count:
        return maps
    return mask.with_background(maps[None], background=functools.partial(mask.leftover_background, power=power))[0]


def labels_of_size(scores: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The label map of scores, at another size.   (1 + C, h, w) -> uint8 (H, W) in 0..C."""
    scores = scores[None] if tuple(scores.shape[1:]) == tuple(size) else refine.upsampled(scores[None], size)
    return mask.label_map(scores)[0].to(torch.uint8).cpu().numpy()


class Kept:
    """What was made of one picture, with what was read for it; `limit`: outputs of a stage that are remembered."""

    def __init__(self, limit: int = 128):
        self.limit = limit
        self._entries: dict[Stage, deque] = {}
        self._once: dict[Any, tuple[Any, Any]] = {}
        self._lock = threading.Lock()  # a page draws in one thread and refines in another

    def once(self, key: Any, owner: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once; `owner` is whose identity stands in the key, and lives as long."""
        found = self._once.get(key) or (owner, make())
        with self._lock:
            self._once.pop(key, None)
            self._once[key] = found  # the last one used is the last one to go
            while len(self._once) > 8 * self.limit:
                del self._once[next(iter(self._once))]
        return found[1]

    def find(self, stage: Stage, driver: "Driver") -> "_Entry | None":
        return next((entry for entry in tuple(self._entries.get(stage, ())) if driver.agrees_with(entry.read)), None)

    def has(self, stage: Stage) -> bool:
        return stage in self._entries

    def put(self, stage: Stage, entry: "_Entry") -> None:
        self._entries.setdefault(stage, deque(maxlen=self.limit)).appendleft(entry)

    @property
    def nbytes(self) -> int:
        """Of the tensors among the outputs, roughly."""
        outputs = [entry.output for entries in tuple(self._entries.values()) for entry in tuple(entries)]
        outputs += [made for _, made in tuple(self._once.values())]
        return sum(output.nbytes for output in outputs if isinstance(output, Tensor))


@dataclass(frozen=True, eq=False)
class _Entry:
    read: dict[tuple[str, ...], Any]
    output: Any
    notes: tuple[str, ...]


_ABSENT = object()


def _same(one: Any, other: Any) -> bool:
    plain = (str, int, float, tuple, dict, type(None))
    return one is other or (isinstance(one, plain) and type(one) is type(other) and one == other)


class _Heard:
    """A scene, or its settings, that notes which of its values are looked at; a method of theirs may read them all."""

    def __init__(self, of: Any, path: tuple[str, ...], read: dict):
        self.__dict__.update(_of=of, _path=path, _read=read)

    def __getattr__(self, name: str) -> Any:
        value, path = getattr(self._of, name), (*self._path, name)
        if isinstance(value, Group):
            return _Heard(value, path, self._read)
        if isinstance(self._of, Group) and name not in type(self._of).model_fields:
            self._read[self._path] = self._of
            return value
        if name == "last":  # made of the tokens alone
            path = (*self._path, "tokens")
            self._read[path] = self._of.tokens
            return value
        self._read[path] = value
        return value


class _HeardOutputs(Mapping):
    """The outputs so far; notes which are looked at, and which were missed."""

    def __init__(self, outputs: dict[str, Any], read: dict):
        self._outputs, self._read = outputs, read

    def __getitem__(self, name: str) -> Any:
        self._read["done", name] = self._outputs.get(name, _ABSENT)
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        for name in self._outputs:
            self._read["done", name] = self._outputs[name]
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


class Driver:
    """One picture on its way through the stages."""

    def __init__(
        self, stages: Sequence[Stage], scene: Scene, *, kept: Kept | None = None, lock: AbstractContextManager | None = None,
        seconds: dict[str, float] | None = None,
    ):  # fmt: skip
        self.stages, self.scene, self.kept, self.lock = stages, scene, kept, lock or nullcontext()
        self.outputs: dict[str, Any] = {}
        self.seconds = {} if seconds is None else seconds
        self.notes: dict[str, tuple[str, ...]] = {}
        self.read: set[str] = set()  # dotted names of the settings that the stages looked at
        self.ran: list[Stage] = []
        self._reads: dict[str, Mapping[tuple[str, ...], Any]] = {}  # by stage
        self._skipped: set[str] = set()  # dotted names of the settings because of which stages did not run

    def steps(self, *, worker: bool = True) -> Iterator[Stage]:
        """Each stage once its output is there, an iterating one after each iteration; worker: with those another process could do."""
        for stage in self.stages:
            if not worker and stage.is_left(self.scene):
                continue
            when: dict = {}
            if not stage.runs(_Heard(self.scene, (), when)):
                self._skipped |= _setting_names(when)
                self.read |= self._skipped
                continue
            self.ran.append(stage)
            for _ in self._outputs_of(stage, when):
                if stage.is_shown:
                    self._add_scores(stage)
                yield stage

    def result(self, pipeline: Pipeline, size: tuple[int, int]) -> Result:
        """What there is by now."""
        shown = {stage.name: stage for stage in self.ran if stage.is_shown}
        votes = {name: self.outputs[name] for name, stage in shown.items() if stage.shows == "votes"}
        proposals = [self.outputs[stage.name] for stage in self.ran if stage.shows == "masks"]
        words = [self.outputs[stage.name] for stage in self.ran if stage.shows == "words" and stage.name in self.outputs]
        stages = {name: self._maps_of(stage) for name, stage in shown.items()}
        asked = tuple(filter(None, map(near_miss, self.scene.names))) + self._doubts(pipeline)
        notes = asked + tuple(note for notes in self.notes.values() for note in notes)
        return Result(
            names=self.scene.names, stages=stages, planes=self.outputs["scores"], size=tuple(size), pipeline=pipeline,
            seconds=dict(self.seconds), notes=notes, votes=votes,
            proposals=proposals[-1] if proposals else None, words=words[-1] if words else None,
            follows={name: self._followed(name, tuple(shown)) for name in shown},
        )  # fmt: skip

    def _doubts(self, pipeline: Pipeline) -> tuple[str, ...]:
        """What may not be meant: words that were never learned, and one block of attention."""
        unknown = pipeline.unknown_told(self.scene.names)
        if "layers" in self.read and getattr(pipeline.settings, "layers", None) == 1:
            return (*unknown, f"layers=1 is the last block alone ({pipeline.layers[0]}, counted from 0): block 1 alone is layers=(1,)")
        return unknown

    def _followed(self, name: str, shown: Sequence[str]) -> str:
        """The last shown stage before this one that was made of something it was made of too; "" where there is none."""
        earlier, origins = shown[: shown.index(name)], self._origins(name)
        goes_on = [stage for stage in earlier if origins & self._origins(stage) or ("done", "scores") in self._reads.get(name, {})]
        return goes_on[-1] if goes_on else ""

    def _origins(self, name: str) -> set[str]:
        """A stage and all whose outputs it has read, through others too."""
        waiting, seen = [name], {name}
        while waiting:
            read = {path[1] for path in self._reads.get(waiting.pop(), {}) if path[0] == "done"} - {"scores"}
            waiting += read - seen
            seen |= read
        return seen

    def agrees_with(self, read: Mapping[tuple[str, ...], Any]) -> bool:
        """Whether all that was read then is the same now."""
        return all(_same(self._value(path), value) for path, value in read.items())

    def _value(self, path: tuple[str, ...]) -> Any:
        return self.outputs.get(path[1], _ABSENT) if path[:1] == ("done",) else functools.reduce(getattr, path, self.scene)

    def _outputs_of(self, stage: Stage, when: dict) -> Iterator[None]:
        entry = self.kept.find(stage, self) if self.kept is not None else None
        if entry is None:
            read: dict = dict(when)
            self._reads[stage.name] = read  # for those who look at what there is by now
            scene, done = _Heard(self.scene, (), read), _HeardOutputs(self.outputs, read)
            for output in self._timed(stage, scene, done):
                self.outputs[stage.name] = output
                self.notes[stage.name] = tuple(stage.notes(scene, _HeardOutputs(self.outputs, {})) if stage.notes else ())
                yield
            if stage.name not in self.outputs:
                raise ValueError(f"stage {stage.name} gave nothing: expected an output, or an iterator with at least one")
            entry = _Entry(read, self.outputs[stage.name], self.notes[stage.name])
            if self.kept is not None:
                self.kept.put(stage, entry)
            self._note(stage, entry)
            return
        self.outputs[stage.name] = entry.output
        self._note(stage, entry)
        yield

    def _timed(self, stage: Stage, scene: Any, done: Done) -> Iterator[Any]:
        """The stage's outputs, the model locked while it needs it."""
        clock = time.perf_counter()
        free = self.scene.tokens is None or stage.is_left(self.scene)
        with nullcontext() if free else self.lock:
            output = stage.run(scene, done)
            outputs = [*output] if isinstance(output, Iterator) and not free else output
        self.seconds[stage.name] = time.perf_counter() - clock
        for output in outputs if isinstance(outputs, Iterator | list) else (outputs,):
            self.seconds[stage.name] = time.perf_counter() - clock
            yield output

    def _maps_of(self, stage: Stage) -> Tensor:
        output = self.outputs[stage.name]
        if stage.shows != "votes":
            return output
        return self.kept.once(("painted", id(output)), output, lambda: painted_scores(output)) if self.kept else painted_scores(output)

    def _add_scores(self, stage: Stage) -> None:
        """The stage's maps with background, for those who refine or label them: the same object for the same maps."""
        maps, power, count = self._maps_of(stage), self.scene.settings.background_power, len(self.scene.names)
        if maps.ndim != 3 or len(maps) not in (count, count + 1):
            raise ValueError(f"expected stage {stage.name} to give {count} or {count + 1} planes (H, W), got {tuple(maps.shape)}")
        if not maps.isfinite().all():
            raise ValueError(
                f"stage {stage.name} gave numbers that are none (NaN or infinite): the model's weights or what was learned are damaged, or "
                "a function of one's own divides by 0"
            )
        make = functools.partial(scores_with_background, maps, count, power)
        self.outputs["scores"] = make() if self.kept is None else self.kept.once(("scores", id(maps), power), maps, make)

    def _note(self, stage: Stage, entry: _Entry) -> None:
        read, before = dict(entry.read), [shown for shown in self.ran if shown.is_shown and shown is not stage]
        if ("done", "scores") in read and before:
            read |= {("done", before[-1].name): None} | self._power_of(before[-1])
        self._reads[stage.name], self.notes[stage.name] = read, entry.notes
        self.read |= _setting_names(read)

    def _power_of(self, stage: Stage) -> dict[tuple[str, ...], Any]:
        """That scores of this stage need a background, if they do."""
        return {("settings", "background_power"): None} if len(self._maps_of(stage)) == len(self.scene.names) else {}

    def behind(self, name: str) -> set[str]:
        """The dotted names of those settings that the labels of a stage depend on, through earlier stages too."""
        waiting, seen = [name], set()
        shown = next((stage for stage in self.ran if stage.name == name and stage.is_shown), None)
        found = self._skipped | _setting_names(self._power_of(shown) if shown else {})
        while waiting:
            stage = waiting.pop()
            read = self._reads.get(stage, {}) if stage not in seen else {}
            seen.add(stage)
            found |= _setting_names(read)
            waiting += [path[1] for path in read if path[0] == "done"]
        return found


def _setting_names(read: Mapping[tuple[str, ...], Any]) -> set[str]:
    """The dotted names of the settings among what was read."""
    found: set[str] = set()
    for path, value in read.items():
        if path[0] == "settings":
            name = ".".join(path[1:])
            found |= {f"{name}.{inner}".lstrip(".") for inner in value.described()} if isinstance(value, Group) else {name}
    return found


@dataclass(frozen=True, eq=False)
class WorkerJob:
    """What is left to do of a picture without a model: the stages that another process can do.

    image uint8 (h, w, 3) and scores (1 + C, h, w) at working size. Arrays, not tensors: torch would send these through shared memory, which
    containers keep small.
    """

    stages: tuple[Stage, ...]
    settings: Settings
    names: tuple[str, ...]
    image: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, result: Result, image: np.ndarray) -> "WorkerJob | None":
        """What is left after the stages that need the model; None if nothing is."""
        stages, settings = result.pipeline.left, result.pipeline.settings
        if not stages:
            return None
        return cls(stages, settings, result.names, image_within(image, settings.side_limit), result.planes.cpu().numpy())

    def done(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The maps of these stages, by name, the last one's last, and the seconds they took."""
        driver = Driver(self.stages, Scene(None, self.settings, self.names, self.image, None))
        driver.outputs["scores"] = torch.from_numpy(self.scores)
        for _ in driver.steps():
            pass
        return {stage.name: driver.outputs[stage.name] for stage in driver.ran}, driver.seconds


def own_functions(settings: Group, prefix: str = "") -> dict[str, Callable]:
    """The settings, by dotted name, in whose place a function stands."""
    found: dict[str, Callable] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Group):
            found |= own_functions(value, f"{prefix}{name}.")
        elif callable(value):
            found[f"{prefix}{name}"] = value
    return found
