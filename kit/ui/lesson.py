"""A lesson: what can be learned from drawn scenes here, an order for it that is checked, the way through it, and what it was worth."""

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from kit import show
from kit.data import DataSet, Entry, Sample, toy_samples
from kit.encode import Clip
from kit.fit import FitStep, fit_steps
from kit.learned import Learned
from kit.method import Kept, Method, Pipeline
from kit.prompt import nearest_words
from kit.score import Confusion
from kit.ui import ask
from kit.ui.session import SCENES_SIDES, Refused, Studio
from kit.words import VOC_CLASSES

DRAWING = "drawing"  # what the steps are called in which scenes are drawn
TOLD = {DRAWING: "Drawing scenes", "encoding": "CLIP looks at the scenes"}
ALL = "all, one after the other"
WORDS = 3  # nearest to each learned vector
BY_HAND, BEFORE, LEARNED = "hand-crafted prompts", "prompts before learning", "learned prompts"  # who is judged
RESAMPLINGS = 1000
CLASSES = ("background", *VOC_CLASSES)


@dataclass(frozen=True)
class Limits:
    """The lowest, highest and first value of every number of an order."""

    scenes: tuple[int, int, int]
    steps: tuple[int, int, int]
    judged: tuple[int, int, int]
    rate: tuple[float, float] = (1e-6, 10.0)
    seed: tuple[int, int] = (0, 2**31 - 1)


def limits(clip: Clip) -> Limits:
    """What this machine can do while somebody waits: a step asks the text side of the model for every class, forth and back."""
    if clip.is_tiny or clip.device.type != "cpu":
        return Limits((8, 300, 48), (2, 1000, 60), (4, 60, 16))
    return Limits((8, 60, 24), (2, 60, 20), (4, 20, 8))


@dataclass(frozen=True, eq=False)
class Subject:
    """Something that can be learned: lessons of a method, in their order."""

    method: Method
    lessons: tuple[str, ...]

    @property
    def title(self) -> str:
        own = self.method.lessons[self.lessons[0]].title.lower() if len(self.lessons) == 1 else ALL
        return f"{self.method.title}: {own}"

    @property
    def told(self) -> str:
        return " Then: ".join(self.method.lessons[name].about for name in self.lessons)

    @property
    def parts(self) -> tuple[str, ...]:
        """What its steps are called, in order."""
        return tuple(dict.fromkeys((DRAWING, *(part for name in self.lessons for part in self.method.lessons[name].parts))))

    @property
    def needs(self) -> tuple[str, ...]:
        """What must have been learned before."""
        return tuple(need for name in self.lessons for need in self.method.lessons[name].needs if need not in self.lessons)

    def rate(self, studio: Studio) -> float:
        """The learning rate to begin with."""
        return studio.start(self.method.name).settings.value(self.method.lessons[self.lessons[0]].learning).rate


def subjects(methods: Mapping[str, Method]) -> dict[str, Subject]:
    """All that can be learned, by "method: lesson"."""
    found = {}
    for method in methods.values():
        found |= {f"{method.name}: {name}": Subject(method, (name,)) for name in method.lessons}
        if len(method.lessons) > 1:
            found[f"{method.name}: {ALL}"] = Subject(method, tuple(method.lessons))
    return found


def chosen(studio: Studio, name) -> Subject:
    known = subjects(studio.methods)
    if not isinstance(name, str) or name not in known:
        raise Refused(f"expected something to learn out of {'; '.join(known)}, got {name!r}"[:400])
    return known[name]


@dataclass(frozen=True)
class Order:
    """What is to be learned, from how many scenes of the train split, in how many steps; judged: scenes of the val split."""

    subject: Subject
    scenes: int
    steps: int
    rate: float
    seed: int
    judged: int


def checked_order(studio: Studio, subject, scenes, steps, rate, seed, judged) -> Order:
    """An order from what a page or a program sends.   Raises Refused for anything out of its limits."""
    clip, subject = studio.clip, chosen(studio, subject)
    within = limits(clip)
    low, high = within.rate
    if isinstance(rate, bool) or not (isinstance(rate, int | float) and low <= rate <= high):  # so written that nan fails too
        raise Refused(f"expected a rate from {low:g} to {high:g}, got {rate!r}"[:200])
    return Order(
        subject,
        ask.whole_number(scenes, "scenes", *within.scenes[:2]),
        ask.whole_number(steps, "steps", *within.steps[:2]),
        float(rate),
        ask.whole_number(seed, "the seed", *within.seed),
        ask.whole_number(judged, "scenes to judge by", *within.judged[:2]),
    )


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the masks of scenes that were not learned from are worth.

    tables: "who: stage" -> a confusion matrix a scene, int64 (scenes, C, C); before, after: which two learning lies between.
    """

    tables: Mapping[str, np.ndarray]
    before: str
    after: str

    @property
    def scenes(self) -> int:
        return len(self.tables[self.after])

    @functools.cached_property
    def scores(self) -> dict[str, float]:
        """The mIoU of each over all scenes, 0..1."""
        return {title: float(mean_iou(tables.sum(0))) for title, tables in self.tables.items()}

    def points(self, title: str) -> float:
        """The mIoU in percent as it is told, with one decimal."""
        return round(100 * self.scores[title], 1)

    def gain(self, title: str) -> tuple[float, float, float]:
        """The points by which `after` is above this one, and between which they lie in 95 % of resamplings of the scenes."""
        many = np.random.default_rng(0).multinomial(self.scenes, np.full(self.scenes, 1 / self.scenes), RESAMPLINGS)  # (R, scenes)
        after, other = (mean_iou(np.tensordot(many, self.tables[name], 1)) for name in (self.after, title))
        low, high = np.quantile(100 * (after - other), (0.025, 0.975))
        return self.points(self.after) - self.points(title), float(low), float(high)


def mean_iou(tables: np.ndarray) -> np.ndarray:
    """The mean over the classes that the truth shows, as `score.Confusion` has it.   (..., C, C), truth in rows -> (...), 0..1."""
    hits, shown, claimed = np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(-1), tables.sum(-2)
    there = shown > 0
    return np.where(there, hits / np.maximum(shown + claimed - hits, 1), 0).sum(-1) / there.sum(-1)


class Course:
    """An order on its way: a step further with each of `steps`, the model locked only while it is asked; it may be left at any time."""

    def __init__(self, studio: Studio, order: Order, known: Learned | None):
        """known: what was learned of this method before, where the subject builds on it."""
        self.studio, self.order, self.subject = studio, order, order.subject
        needs, method = self.subject.needs, self.subject.method
        if needs and (known is None or any(need not in known.tensors for need in needs)):
            raise Refused(f"this builds on {' and '.join(needs)}: learn these first, or all of them")
        samples = [_Drawn(number, self.side) for number in range(order.scenes)]
        self.samples = samples
        self.data = DataSet("toy", "train", VOC_CLASSES, "what is drawn", tuple(drawn.entry() for drawn in samples))
        pipeline = method(studio.clip, learned=known.only(*needs) if needs else None, **studio.own_changes(method))
        described = method.Settings.described()
        changes = {name: value for name, value in (("seed", order.seed), ("views", "cached")) if name in described}
        changes |= {f"{method.lessons[name].learning}.parts": 1 for name in self.subject.lessons}
        with studio.lock:
            self.fit = fit_steps(pipeline, self.data, lessons=self.subject.lessons, steps=order.steps, rate=order.rate, **changes)
            self.before = _before(self.fit.pipeline, self.subject)
        self.parts = self.subject.parts
        self.made: dict[str, int] = {}  # part -> steps made

    def steps(self) -> Iterator[FitStep]:
        for number, drawn in enumerate(self.samples, start=1):
            clock = time.perf_counter()
            drawn.draw()
            yield FitStep(number, len(self.samples), {}, 0.0, time.perf_counter() - clock, DRAWING)
        with closing(iter(self.fit)) as steps:
            for step in self.studio.in_turn(steps):
                self.made[step.task] = step.step
                yield step

    @property
    def side(self) -> int:
        """Of the drawn scenes, in pixels."""
        return SCENES_SIDES[0] if self.studio.clip.is_tiny else SCENES_SIDES[1]

    def title(self, part: str) -> str:
        """What a part of learning is called: a lesson by its title."""
        lesson = self.subject.method.lessons.get(part)
        return lesson.title.lower() if lesson else part

    def doing(self, part: str) -> str:
        """What happens in a part, as a sentence begins."""
        return f"Learning {self.title(part)}" if part in self.subject.lessons else TOLD.get(part, part.capitalize())

    def so_far(self) -> Pipeline | None:
        """A method with what is learned by now; None before there is anything."""
        if not any(self.made.get(name) for name in self.subject.lessons):
            return None
        with self.studio.lock:
            pipeline = self.fit.so_far()
        learned = replace(pipeline.learned, about={**pipeline.learned.about, "steps made": self.made_of_lessons}, _made={})
        return replace(pipeline, learned=learned)

    def words(self, pipeline: Pipeline, name: str) -> list[list[tuple[str, float]]]:
        """What each learned vector of a class comes closest to saying; empty where the lesson does not learn in the space of words."""
        last = [lesson for lesson in pipeline.method.lessons if lesson in pipeline.learned.tensors][-1]
        vectors = pipeline.method.lessons[last].vectors
        return [] if vectors is None else nearest_words(self.studio.clip, vectors(pipeline, name), count=WORDS)

    @property
    def made_of_lessons(self) -> dict[str, int]:
        """Steps made of each lesson that was begun."""
        return {name: self.made[name] for name in self.subject.lessons if name in self.made}

    def made_told(self) -> str:
        return " and ".join(f"{made} steps of {self.title(name)}" for name, made in self.made_of_lessons.items())

    def judged(self, after: Pipeline) -> Iterator[Judgement]:
        """By the first scenes of the val split, one more with each step: hand-crafted prompts, before, after."""
        pipelines = {BY_HAND: after.changed(learned=None), BEFORE: self.before, LEARNED: after}
        tables: dict[str, list[np.ndarray]] = {}
        for sample in toy_samples("val", self.order.judged, size=self.side):
            kept = Kept()
            with self.studio.lock:
                tokens = after.encode(sample.image)
            for title, pipeline in pipelines.items():
                if pipeline is self.before and (self.subject.needs or pipeline.learned is None):
                    continue  # its answers are among those of the others
                with self.studio.lock:
                    *_, result = pipeline.steps(sample, tokens=tokens, kept=kept)
                for stage in result.votes or [list(result.stages)[-1]]:
                    table = Confusion(CLASSES)
                    table.add(sample.truth, show.in_voc_colours(result.labels_of(stage), sample.names))
                    tables.setdefault(f"{title}: {stage}", []).append(table.matrix.numpy())
            yield Judgement({title: np.stack(own) for title, own in tables.items()}, self._title_before(list(tables)), list(tables)[-1])

    def _title_before(self, titles: list[str]) -> str:
        """Which of these is the answer that learning began with."""
        whose = LEARNED if self.subject.needs else BY_HAND if self.before.learned is None else BEFORE
        return [title for title in titles if title in {f"{whose}: {stage}" for stage in self.before.titles}][-1]

    def verdict(self, judgement: Judgement) -> list[str]:
        """What learning brought here and what it did not, in sentences."""
        before, after = judgement.points(judgement.before), judgement.points(judgement.after)
        gain, low, high = judgement.gain(judgement.before)
        told = (
            f"After {self.made_told()} on {self.order.scenes} drawn scenes, the masks of {judgement.scenes} other scenes "
            f"{f'went from {before:.1f} to' if before != after else 'stayed at'} {after:.1f} % mIoU: "
        )
        if low > 0 and gain > 0:
            told += f"learning brought {gain:.1f} points here."
        elif high < 0 and gain < 0:
            told += f"learning made them {-gain:.1f} points worse here."
        else:
            told += f"{gain:+.1f} points, which may be chance."
        sentences = [told, f"In 95 of 100 resamplings of these scenes the difference lies between {low:+.1f} and {high:+.1f} points."]
        by_hand = [title for title in judgement.scores if title.startswith(BY_HAND)][-1]
        if by_hand != judgement.before:
            gain, low, high = judgement.gain(by_hand)
            how = f"{abs(gain):.1f} points {'less' if gain > 0 else 'more'}" if gain else "as much"
            chance = ", which may be chance" if gain and low <= 0 <= high else ""
            sentences.append(f"Hand-crafted prompts, which nobody has to learn, reach {judgement.points(by_hand):.1f} %: {how}{chance}.")
        clip = self.studio.clip
        if clip.is_untrained:
            return [*sentences, "The weights are untrained: these numbers mean nothing."]
        world = "the drawn world and the tiny model" if clip.is_tiny else "and the drawn world"
        return [*sentences, f"One seed{',' if clip.is_tiny else ''} {world}: this says nothing of photographs."]


class _Drawn:
    """A scene of the train split, drawn when it is first asked for."""

    def __init__(self, number: int, side: int):
        self.number, self.side, self._sample = number, side, None

    def draw(self) -> Sample:
        if self._sample is None:
            self._sample = next(toy_samples("train", 1, size=self.side, start=self.number))
        return self._sample

    def entry(self) -> Entry:
        return Entry(
            f"train-{self.number:06d}", lambda: self.draw().names, lambda: (self.side, self.side), lambda: self.draw().image,
            lambda: self.draw().truth,
        )  # fmt: skip


def _before(pipeline: Pipeline, subject: Subject) -> Pipeline:
    """The method as it asks before learning."""
    start = pipeline.method.lessons[subject.lessons[0]].start
    if subject.needs or start is None:
        return pipeline
    about = {"classes": list(VOC_CLASSES), "settings": pipeline.settings.to_dict()}
    return replace(pipeline, learned=Learned(start(pipeline, VOC_CLASSES), about))
