"""What a run of learning leaves to be looked back at: its losses, and moments of it, each with what was learned by then."""

import html
import time
from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr
import pandas

from kit.data import Sample
from kit.encode import Tokens
from kit.fit import FitStep
from kit.method import Kept, Pipeline
from kit.ui import figures
from kit.ui.lesson import Course
from kit.ui.session import Look, View

MOMENTS = 40  # of a run, evenly over its steps
MOMENTS_BYTES = 60_000_000  # of one visitor's run
POINTS = 300  # of a curve


class Chart:
    """The losses of every task, and how fast the one at work is."""

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = {}
        self.steps: dict[str, int] = {}
        self.last: FitStep | None = None
        self.since, self.first = time.monotonic(), 1

    def add(self, step: FitStep) -> None:
        if self.last is None or self.last.task != step.task:
            self.since, self.first = time.monotonic() - step.seconds, step.step
        self.last = step
        if step.losses:
            self.losses.setdefault(step.task, []).append(step.loss)
            self.steps[step.task] = step.steps

    def speed(self) -> float:
        """Steps a second of the task at work."""
        return (self.last.step - self.first + 1) / max(time.monotonic() - self.since, 1e-3)

    def counts(self) -> dict[str, int]:
        """How many losses each task has by now."""
        return {task: len(losses) for task, losses in self.losses.items()}

    def thinned(self, points: int = POINTS) -> dict[str, list[tuple[int, float]]]:
        """task -> its (step, loss), from the first step to the last, up to about twice as many as `points`."""
        return {
            task: [(place + 1, losses[place]) for place in sorted({*range(0, len(losses), max(1, len(losses) // points)), len(losses) - 1})]
            for task, losses in self.losses.items()
        }

    def plot(self, counts: Mapping[str, int] | None = None) -> gr.LinePlot:
        """The losses over their steps, up to a few hundred points each; the axis runs to the last step.   counts: no more than these."""
        shown = self.counts() if counts is None else counts
        rows = [(step, loss, task) for task, points in self.thinned().items() for step, loss in points if step <= shown.get(task, 0)]
        data = pandas.DataFrame(rows, columns=["step", "loss", "lesson"])
        return gr.LinePlot(data, x_lim=[1, max(self.steps.values(), default=2)], visible=bool(self.losses))


@dataclass
class Watched:
    """The watched picture, asked again and again."""

    sample: Sample
    tokens: Tokens
    kept: Kept

    @property
    def nbytes(self) -> int:
        return self.sample.image.nbytes + self.tokens.last_input.nbytes + self.tokens.attention.nbytes

    def view(self, pipeline: Pipeline) -> View:
        *_, result = pipeline.steps(self.sample, tokens=self.tokens, kept=self.kept)
        return View(self.sample, pipeline, self.tokens, result, Look(), True)


@dataclass
class Moment:
    """A step that can be looked back at.

    pipeline: the method with what was learned by then; counts: task -> losses by then; seen: the watched picture and the words as HTML,
    once somebody has looked.
    """

    when: str
    pipeline: Pipeline
    counts: dict[str, int]
    seen: tuple[str, str] | None = None

    @property
    def nbytes(self) -> int:
        learned = self.pipeline.learned
        return (0 if learned is None else learned.nbytes) + sum(map(len, self.seen or ()))


class Recording:
    """A run's losses and moments: up to MOMENTS of them and MOMENTS_BYTES, fewer where they are large.

    moments: the step, counted over all lessons, 0 before the first -> what was learned by then.
    """

    def __init__(self, course: Course, watched: Watched):
        self.course, self.watched, self.chart = course, watched, Chart()
        total = course.order.steps * len(course.subject.lessons)
        self.every = -(-total // (MOMENTS - 2))  # steps from a moment to the next; besides there are the first and the last one
        self.moments = {0: Moment("before learning", course.before, {})}

    @property
    def nbytes(self) -> int:
        return self.watched.nbytes + self._moments_bytes()

    def _moments_bytes(self) -> int:
        return sum(moment.nbytes for moment in tuple(self.moments.values()))

    @property
    def last(self) -> int:
        return max(self.moments)

    def add(self, step: FitStep) -> bool:
        """Notes a step, with what was learned by then if it is the turn of this one -> whether it is kept as a moment."""
        self.chart.add(step)
        due = step.task in self.course.subject.lessons and self._made() % self.every == 0
        return due and self.reach()

    def reach(self) -> bool:
        """Keeps what is learned by now as the last moment -> False before anything was learned."""
        now, made = self.course.so_far(), self._made()
        if now is None or made in self.moments:
            return now is not None
        name, count = list(self.course.made_of_lessons.items())[-1]
        kept = {step: moment for step, moment in self.moments.items() if step % self.every == 0}
        kept[made] = Moment(f"step {count} of {self.course.title(name)}", now, self.chart.counts())
        self.moments = kept
        while self._moments_bytes() > MOMENTS_BYTES and len(self.moments) > 2:
            self.every *= 2
            self.moments = {step: moment for step, moment in kept.items() if step % self.every == 0 or step == made}
        return True

    def at(self, step: float) -> Moment:
        """The last moment not after a step, counted over all lessons."""
        return self.moments[max(own for own in tuple(self.moments) if own <= max(0, step))]

    def look(self, moment: Moment) -> tuple[str, str]:
        """The watched picture and the words at a moment, as HTML; what was looked at is kept while there is room."""
        if moment.seen is not None:
            return moment.seen
        seen = self.looked(moment.pipeline, moment.when)
        if self._moments_bytes() + sum(map(len, seen)) <= MOMENTS_BYTES:
            moment.seen = seen
        return seen

    def looked(self, pipeline: Pipeline, when: str) -> tuple[str, str]:
        """The watched picture's map and mask with something learned, and what the learned vectors come closest to saying; the picture is
        not encoded again.
        """
        with self.course.studio.lock:
            view = self.watched.view(pipeline)
        name, stages, titles = view.sample.names[0], list(view.result.stages), pipeline.titles
        last = stages[-1]
        heat = next((stage for stage in reversed(stages) if stage not in view.result.votes), last)
        score = figures.iou_text(figures.scene_iou(view, view.result.labels))
        parts = [figures.framed(figures.picture_url(view.sample.image), "Picture", html.escape(", ".join(view.sample.names)))]
        shown = ((figures.heat(view, heat, name), titles[heat], f"heat of {html.escape(name)}"), (last_mask(view), titles[last], score))
        for picture, title, told in shown:
            caption = " · ".join(filter(None, (html.escape(when), told)))
            parts.append(figures.framed(figures.picture_url(picture), html.escape(title), caption))
        words = "" if pipeline.learned is None else said(self.course.words(pipeline, name), name, pipeline)
        return f'<div class="kit-strip kit-watch">{"".join(parts)}</div>', words

    def sides(self, after: Pipeline):
        """The watched picture's mask before learning and after.   -> two of uint8 (H, W, 3)."""
        with self.course.studio.lock:
            return last_mask(self.watched.view(self.course.before)), last_mask(self.watched.view(after))

    def _made(self) -> int:
        return sum(self.course.made_of_lessons.values())


def last_mask(view: View):
    return figures.plain_mask(view, view.result.labels)


def said(words: list[list[tuple[str, float]]], name: str, pipeline: Pipeline) -> str:
    """The words nearest to each learned vector, in the vectors' order."""
    if not words:
        return ""
    shared = list(pipeline.learned.tensors.values())[-1].ndim == 2
    whose = "which all classes share" if shared else f"of {name}"
    spans = []
    for nearest in words:
        told = ", ".join(f"{word} {distance:.2f}" for word, distance in nearest)
        spans.append(f'<span title="{html.escape(told)}">{html.escape(nearest[0][0])}</span>')
    sentence = f"The word nearest to each of the {len(words)} learned vectors, {whose}. Few mean much: they lie between the words."
    return f'<p class="kit-fine">{html.escape(sentence)}</p><div class="kit-said">{"".join(spans)}</div>'
