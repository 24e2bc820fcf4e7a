"""A lesson: what can be learned from drawn scenes here, an order for it that is checked, the way through it, and what it was worth."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from torch import Tensor

from kit import show
from kit.data import DataSet, Entry, Sample, toy_samples
from kit.encode import Clip
from kit.fit import FitStep
from kit.methods import FmaWsss
from kit.methods.fma_wsss import TASKS, LearnedPrompts, prompt_context
from kit.prompt import nearest_words
from kit.propose import SUPERPIXELS
from kit.score import Confusion
from kit.ui import ask, figures
from kit.ui.session import SCENES_SIDES, Look, Refused, Studio, View
from kit.words import VOC_CLASSES

DRAWING = "drawing"  # what the steps are called in which scenes are drawn
TOLD = {
    DRAWING: "Drawing scenes",
    "encoding": "CLIP looks at the scenes",
    "classification": "Learning classification prompts",
    "coarse seeds": "Coarse seeds of the scenes",
    "segmentation": "Learning segmentation prompts",
}
WORDS = 3  # nearest to each learned vector


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


@dataclass(frozen=True)
class Subject:
    """Something that can be learned. parts: the tasks of its `fit`; needs: whether it builds on prompts that are there already.

    rate(clip, subject) -> the learning rate to begin with;
    begin(clip, order, known) -> a method that has `fit`, `so_far`, `save` and `segment`; vectors(method, name) -> what was learned of a
    class, (M, E); start(method) -> the method as it asks before the first step.
    """

    told: str
    parts: tuple[str, ...]
    begin: Callable[[Clip, "Order", FmaWsss | None], FmaWsss]
    start: Callable[[FmaWsss], FmaWsss]
    vectors: Callable[[FmaWsss, str], Tensor]
    rate: Callable[[Clip, str], float]
    needs: bool = False


@dataclass(frozen=True)
class Order:
    """What is to be learned, from how many scenes of the train split, in how many steps; judged: scenes of the val split."""

    subject: str
    scenes: int
    steps: int
    rate: float
    seed: int
    judged: int


def checked_order(clip: Clip, subject, scenes, steps, rate, seed, judged) -> Order:
    """An order from what a page or a program sends.   Raises Refused for anything out of its limits."""
    if subject not in SUBJECTS:
        raise Refused(f"expected something to learn out of {'; '.join(SUBJECTS)}, got {subject!r}"[:400])
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


class Course:
    """An order on its way: a step further with each of `steps`, the model locked only while it is asked; it may be left at any time."""

    def __init__(self, studio: Studio, order: Order, known: FmaWsss | None):
        self.studio, self.order, self.subject = studio, order, SUBJECTS[order.subject]
        if self.subject.needs and known is None:
            raise Refused("segmentation prompts are learned from what classification prompts see: learn these first, or both")
        with studio.lock:
            self.method = self.subject.begin(studio.clip, order, known)
            self.before = self.subject.start(self.method)
        self.parts = (DRAWING, *self.subject.parts)
        self.made: dict[str, int] = {}  # part -> steps made

    def steps(self) -> Iterator[FitStep]:
        samples = []
        for number in range(self.order.scenes):
            clock = time.perf_counter()
            samples += toy_samples("train", 1, size=self.side, start=number)
            yield FitStep(number + 1, self.order.scenes, {}, 0.0, time.perf_counter() - clock, DRAWING)
        data = DataSet("toy", "train", VOC_CLASSES, "what is drawn", tuple(map(_entry, samples)))
        steps = self.method.fit(data, tasks=[part for part in self.parts if part in TASKS])
        with closing(steps):
            for step in self.studio.in_turn(steps):
                self.made[step.task] = step.step
                yield step

    @property
    def side(self) -> int:
        """Of the drawn scenes, in pixels."""
        return SCENES_SIDES[0] if self.studio.clip.is_tiny else SCENES_SIDES[1]

    def so_far(self) -> FmaWsss | None:
        """A method with what is learned by now; None before there is anything."""
        if not any(self.made.get(task) for task in TASKS):
            return None
        with self.studio.lock:
            method = self.method.so_far()
        about = {**method.learned.about, "steps made": {task: self.made[task] for task in TASKS if task in self.made}}
        learned = dataclasses.replace(method.learned, about=about)
        return FmaWsss(method.clip, method.settings, learned=learned)

    def words(self, method: FmaWsss, name: str) -> list[list[tuple[str, float]]]:
        """What each learned vector of a class comes closest to saying."""
        return nearest_words(self.studio.clip, self.subject.vectors(method, name), count=WORDS)

    def judged(self, after: FmaWsss) -> Iterator[tuple[int, dict[str, float]]]:
        """mIoU in 0..1 over the first scenes of the val split, one more with each step: hand-written prompts, before, after."""
        by_hand = after.siblings(VOC_CLASSES)["by hand"]
        methods = {"hand-written prompts": by_hand, "prompts before learning": self.before, "learned prompts": after}
        if self.subject.needs:
            del methods["prompts before learning"]  # its coarse seeds are those of after
        scores: dict[str, Confusion] = {}
        for done, sample in enumerate(toy_samples("val", self.order.judged, size=self.side), start=1):
            proposals = after.proposals(after.working_image(sample.image))
            with self.studio.lock:
                tokens = after.encode(sample.image)
            for title, method in methods.items():
                with self.studio.lock:
                    result = method.segment(sample, tokens=tokens, proposals=proposals)
                view = View(sample, method, tokens, result, Look(), True)
                for stage in result.votes:
                    labels = figures.stage_maps(view, stage).max(0).indices
                    score = scores.setdefault(f"{title}: {stage} seeds", Confusion(("background", *VOC_CLASSES)))
                    score.add(sample.truth, show.in_voc_colours(labels, sample.names))
            yield done, {title: score.miou() for title, score in scores.items()}


def _entry(sample: Sample) -> Entry:
    return Entry(sample.id, lambda: sample.names, lambda: sample.image.shape[:2], lambda: sample.image, lambda: sample.truth)


# FMA-WSSS


def _settings(clip: Clip, order: Order) -> dict:
    """The preset's way of learning at another length and rate: that of the first prompts, to which the second keep their proportion."""
    preset = FmaWsss(clip).settings
    changes: dict = {"seed": order.seed, "views": "cached", "proposals": SUPERPIXELS}
    for fine in ("", "fine_"):
        rate = order.rate * getattr(preset, f"{fine}rate") / _rate(clip, order.subject)
        warm_up = min(getattr(preset, f"{fine}warm_up"), order.steps // 10)
        changes |= {f"{fine}steps": order.steps, f"{fine}warm_up": warm_up, f"{fine}rate": rate}
        changes[f"{fine}parts"] = 1
    return changes


def _rate(clip: Clip, subject: str) -> float:
    preset = FmaWsss(clip).settings
    return preset.fine_rate if SUBJECTS[subject].needs else preset.rate


def _begin(clip: Clip, order: Order, known: FmaWsss | None) -> FmaWsss:
    if not SUBJECTS[order.subject].needs:
        return FmaWsss(clip, **_settings(clip, order))
    first = known.learned
    only = dataclasses.replace(first, contexts={TASKS[0]: first.contexts[TASKS[0]]}, texts={TASKS[0]: first.texts[TASKS[0]]})
    return FmaWsss(clip, known.settings, learned=only, **_settings(clip, order))


def _start(method: FmaWsss) -> FmaWsss:
    """The method as it asks before learning: with the random vectors that classification prompts begin with."""
    if method.learned is not None:
        return FmaWsss(method.clip, method.settings, learned=method.learned)  # a method of its own: that one goes on learning
    vectors = prompt_context(method.clip, method.settings, VOC_CLASSES, TASKS[0]).vectors
    learned = LearnedPrompts.of(method.clip, method.settings, {TASKS[0]: vectors}, {"classes": list(VOC_CLASSES)})
    return FmaWsss(method.clip, method.settings, learned=learned)


def _vectors(method: FmaWsss, name: str) -> Tensor:
    vectors = list(method.learned.contexts.values())[-1]
    return vectors if vectors.ndim == 2 else vectors[method.learned.classes.index(name)]


# What can be learned; another method comes in with a line here
SUBJECTS: Mapping[str, Subject] = {
    "FMA-WSSS: classification prompts": Subject(
        "Sixteen vectors stand before every class name; they learn to tell which classes a scene shows. Only image-level labels are used.",
        ("encoding", "classification"), _begin, _start, _vectors, _rate,
    ),
    "FMA-WSSS: segmentation prompts": Subject(
        "Vectors of its own for every class; they learn to be hot where the coarse seeds of the classification prompts are. Slower: "
        "every step differentiates a map.",
        ("encoding", "coarse seeds", "segmentation"), _begin, _start, _vectors, _rate, needs=True,
    ),
    "FMA-WSSS: both, one after the other": Subject(
        "First the classification prompts, then their coarse seeds, then the segmentation prompts, each with as many steps.",
        ("encoding", "classification", "coarse seeds", "segmentation"), _begin, _start, _vectors, _rate,
    ),
}  # fmt: skip
