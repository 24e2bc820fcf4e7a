"""Learn: prompts are learned from drawn scenes while one watches; afterwards they are judged, kept, and used in Explore."""

import html
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import gradio as gr
import pandas

from kit.data import Sample, toy_samples
from kit.encode import Tokens
from kit.learned import Learned
from kit.method import Kept, Pipeline
from kit.ui import ask, figures
from kit.ui.explore import SCENES, Explore
from kit.ui.lesson import Course, Order, Subject, checked_order, chosen, limits, subjects
from kit.ui.running import Desk, Run, duration
from kit.ui.session import HERE, PRIVATE, QUIET, Look, Refused, Studio, View, friendly, results_folder
from kit.words import VOC_CLASSES

RUN, RESULT = "lesson", "lesson result"  # a visitor's learning on the shelf, and what came of it
AT_ONCE = 2  # lessons of all visitors
PAUSE = 0.4  # seconds between two redraws of the numbers and the curves
WATCHED_SHARE = 0.2  # of the time that may go into asking the watched picture again
OPEN = "the picture open in Explore"


@dataclass(frozen=True, eq=False)
class Asked:
    """What a visitor wants to be learned, what was learned before, and the picture to watch."""

    order: Order
    known: Learned | None
    sample: Sample
    key: str


@dataclass
class Watched:
    """The watched picture, asked again and again."""

    sample: Sample
    tokens: Tokens
    kept: Kept

    def view(self, pipeline: Pipeline) -> View:
        *_, result = pipeline.steps(self.sample, tokens=self.tokens, kept=self.kept)
        return View(self.sample, pipeline, self.tokens, result, Look(), True)


class Learn:
    """The page: laid out when made; `join` connects it with Explore, which lends it a picture and takes what was learned."""

    def __init__(self, studio: Studio, demo: gr.Blocks):
        self.studio, self.clip, self.subjects = studio, studio.clip, subjects(studio.methods)
        busy = "you are learning already: wait for it, or press Stop first"
        self.desk = Desk(studio, RUN, 9, busy=busy, failed="Nothing was learned")
        with gr.Row(elem_classes="kit-page"):
            with gr.Column(scale=1, min_width=300):
                self._lay_out_order()
            with gr.Column(scale=3, min_width=300):
                self._lay_out_result()
        self._publish()

    def _lay_out_order(self) -> None:
        first, within = next(iter(self.subjects)), limits(self.clip)
        titles = [(subject.title, name) for name, subject in self.subjects.items()]
        self.subject = gr.Radio(titles, value=first, label="What to learn")
        self.explained = gr.HTML(explained(self.subjects[first]))
        self.scenes = number("Drawn scenes", within.scenes, "of the train split, with their class names and nothing else")
        self.steps = number("Steps", within.steps, "of each lesson")
        with gr.Row():
            self.rate = gr.Number(self.subjects[first].rate(self.studio), label="Rate", min_width=100)
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=100)
        titles = [(f"scene {place}: {', '.join(scene_of(place).names)}", place) for place in range(1, len(SCENES) + 1)]
        self.watched = gr.Dropdown([(OPEN, 0), *titles], value=0, label="Picture to watch")
        self.judged = number("Scenes to judge by", within.judged, "of the val split, which is not learned from")
        with gr.Row():
            self.start_button = gr.Button("Start", variant="primary", size="sm", min_width=100)
            self.stop_button = gr.Button("Stop", size="sm", min_width=80)

    def _lay_out_result(self) -> None:
        slow = self.clip.device.type == "cpu" and not self.clip.is_tiny
        note = f"{self.clip.name} on a CPU takes some seconds for every step, so a lesson takes minutes." if slow else ""
        gr.HTML(f'<p class="kit-warn">{html.escape(note)}</p>', elem_classes="kit-notes", visible=slow)
        self.told = gr.HTML(figures.told("Choose what to learn, and press Start. CLIP itself stays as it is: only the prompts change."))
        self.watch = gr.HTML()
        with gr.Row(visible=False) as self.keep:
            self.use_button = gr.Button("Use in Explore", variant="primary", size="sm", min_width=120)
            self.download = gr.DownloadButton("Save the prompts", size="sm", min_width=120)
        self.scores = gr.HTML()
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                self.curves = gr.LinePlot(
                    x="step", y="loss", color="lesson", height=240, visible=False, label="Loss", elem_classes="kit-plot"
                )
            with gr.Column(scale=1, min_width=280):
                self.words = gr.HTML()
        with gr.Column(visible=False) as self.compared:
            self.slider = gr.ImageSlider(label="Before learning | after: drag the line", format="png", max_height=460, interactive=False)

    def join(self, explore: Explore, tabs: gr.Tabs, own: gr.Tab) -> None:
        """The events of the page, and those that go back to Explore."""
        shown = [self.told, self.watch, self.keep, self.download, self.scores, self.curves, self.words, self.compared, self.slider]
        self.subject.change(friendly(self.choose), self.subject, [self.explained, self.rate], **QUIET)
        asked = [self.subject, self.scenes, self.steps, self.rate, self.seed, self.judged, self.watched, explore.key]
        begun = self.start_button.click(  # not once, and with nobody to wait for: a second click is answered at once
            friendly(self.begin), asked, shown, trigger_mode="multiple", concurrency_limit=None, **QUIET
        )
        begun.success(friendly(self.work), None, shown, trigger_mode="multiple", concurrency_limit=AT_ONCE, concurrency_id="learn", **QUIET)
        self.stop_button.click(friendly(self.stop), None, None, queue=False, **QUIET)
        goes = [explore.method, *explore.sources.values(), tabs]
        self._sources = [*explore.sources]
        used = self.use_button.click(friendly(self.use), None, goes, **PRIVATE)
        explore.redrawn(used)

    def _publish(self) -> None:
        """The door for programs."""
        with gr.Group(visible=False):
            subject, scenes, steps = gr.Textbox(label="Subject"), gr.Number(label="Scenes"), gr.Number(label="Steps")
            rate, seed, judged = gr.Number(label="Rate"), gr.Number(label="Seed"), gr.Number(label="Scenes to judge by")
            file, report, button = gr.File(label="Learned prompts"), gr.JSON(label="Report"), gr.Button()
        button.click(
            friendly(self.api_learn), [subject, scenes, steps, rate, seed, judged], [file, report],
            api_name="learn", concurrency_limit=AT_ONCE, concurrency_id="learn",
        )  # fmt: skip

    def choose(self, name: str):
        subject = chosen(self.studio, name)
        return explained(subject), subject.rate(self.studio)

    def begin(self, request: gr.Request, subject, scenes, steps, rate, seed, judged, watched, key: str):
        """The order as it is now, kept until its turn comes."""
        visitor = request.session_hash
        self.desk.check_free(visitor)
        order = checked_order(self.studio, subject, scenes, steps, rate, seed, judged)
        sample, key = self._watched_sample(visitor, watched, key)
        known = self._known(visitor, order.subject)
        if order.subject.needs and known is None:
            raise Refused(f"this builds on {' and '.join(order.subject.needs)}: learn these first, or all of them")
        self.desk.take(visitor, Asked(order, known, sample, key))
        waiting = figures.told(f"Waiting for a place: {AT_ONCE} visitors may learn at a time.")
        return waiting, "", gr.Row(visible=False), gr.skip(), "", gr.LinePlot(visible=False), "", gr.Column(visible=False), None

    def _known(self, visitor: str, subject: Subject) -> Learned | None:
        """What this visitor has learned here, or what the app asks with."""
        name = subject.method.name
        return self.studio.learned_here(visitor, name) or self.studio.start(name).learned

    def work(self, request: gr.Request) -> Iterator:
        """Step by step; after a Stop, what was learned is judged and kept."""
        visitor = request.session_hash
        yield from self.desk.work(visitor, lambda run: self._worked(visitor, run))

    def _worked(self, visitor: str, run: Run) -> Iterator:
        """What the page shows while it is learned and judged; ends without a word when the visitor has left."""

        def gone() -> bool:
            return self.desk.has_left(visitor, run)

        asked: Asked = run.order
        course = Course(self.studio, asked.order, asked.known)
        tokens, _ = self.studio.tokens(visitor, asked.key, course.before, asked.sample.image)
        watched = Watched(asked.sample, tokens, Kept(limit=2))
        chart, clock, last, next_watch = Chart(), time.monotonic(), 0.0, 0.0
        steps = course.steps()
        for step in steps:
            chart.add(step)
            if gone() or run.stopped.is_set():
                break
            now = time.monotonic()
            if now < last + PAUSE:
                continue
            last, pictures, words = now, gr.skip(), gr.skip()
            if now > next_watch and step.task in course.subject.lessons:
                pictures, words = self._looked(course, watched, course.so_far())
                spent = time.monotonic() - now
                next_watch = time.monotonic() + spent / WATCHED_SHARE
            yield progress(course, chart), pictures, gr.skip(), gr.skip(), gr.skip(), chart.plot(), words, gr.skip(), gr.skip()
        steps.close()
        if gone():
            return
        after, seconds = course.so_far(), time.monotonic() - clock
        if after is None:
            yield figures.told("Stopped before anything was learned."), *[gr.skip()] * 8
            return
        how = "Stopped" if run.stopped.is_set() else "Learned"
        run.stopped.clear()  # a second Stop ends the judging
        made = ", ".join(f"{course.made[name]} steps of {course.title(name)}" for name in course.subject.lessons if name in course.made)
        sentence = f"{how} after {duration(seconds)}: {made}."
        file = saved(after)
        self.studio.shelf.put(visitor, RESULT, after, after.learned.nbytes)
        pictures, words = self._looked(course, watched, after)
        with self.studio.lock:
            slider = last_mask(watched.view(course.before)), last_mask(watched.view(after))
        download = gr.DownloadButton(value=str(file))
        waiting = figures.told(sentence + " Judging…")
        yield waiting, pictures, gr.Row(visible=True), download, "", chart.plot(), words, gr.Column(visible=True), slider
        table = ""
        for done, scores in course.judged(after):
            if gone():
                return
            table = score_table(scores, done)
            if run.stopped.is_set():
                break
            told = figures.told(f"{sentence} Judging: {done} of {asked.order.judged} scenes", done=done, of=asked.order.judged)
            yield told, *[gr.skip()] * 3, table, *[gr.skip()] * 4
        yield figures.told(sentence), *[gr.skip()] * 3, table, *[gr.skip()] * 4

    def stop(self, request: gr.Request) -> None:
        self.desk.stop(request.session_hash)

    def use(self, request: gr.Request):
        """What was learned becomes what Explore asks with."""
        after = self.studio.shelf.get(request.session_hash, RESULT)
        if after is None:
            raise Refused("what was learned is no longer on the server: learn it again, or start the app with --weights and your file")
        name = after.method.name
        self.studio.keep_learned(request.session_hash, name, after.learned)
        return name, *[HERE if source == name else gr.skip() for source in self._sources], gr.Tabs(selected="Explore")

    def _watched_sample(self, visitor: str, watched, key: str) -> tuple[Sample, str]:
        place = ask.whole_number(watched, "the picture to watch", 0, len(SCENES))
        if place == 0:
            sample = self.studio.sample(visitor, key)
            view = self.studio.shelf.get(visitor, "view")
            names = view.sample.names if view is not None and view.sample.image is sample.image else sample.names
        else:
            sample = scene_of(place, ask.SCENE_SIDE)
            key, names = self.studio.keep(visitor, sample), sample.names
        names = tuple(name for name in names if name in VOC_CLASSES)
        if not names:
            raise Refused("the picture to watch has none of the 20 classes that are learned: watch a drawn scene")
        return replace(sample, names=names), key

    def _looked(self, course: Course, watched: Watched, pipeline: Pipeline) -> tuple[str, str]:
        """The watched picture's map and mask with what is learned by now, and what the learned vectors come closest to saying."""
        with self.studio.lock:
            view = watched.view(pipeline)
        name, stages, titles = view.sample.names[0], list(view.result.stages), pipeline.titles
        last = stages[-1]
        heat = next((stage for stage in reversed(stages) if stage not in view.result.votes), last)
        score = figures.iou_text(figures.scene_iou(view, view.result.labels))
        parts = [figures.framed(figures.png_url(view.sample.image), "Picture", html.escape(", ".join(view.sample.names)))]
        shown = ((figures.heat(view, heat, name), titles[heat], f"heat of {html.escape(name)}"), (last_mask(view), titles[last], score))
        for picture, title, told in shown:
            caption = " · ".join(filter(None, ("now", told)))
            parts.append(figures.framed(figures.png_url(picture), html.escape(title), caption))
        return f'<div class="kit-strip kit-watch">{"".join(parts)}</div>', said(course.words(pipeline, name), name, pipeline)

    def api_learn(self, subject: str, scenes: float, steps: float, rate: float, seed: float, judged: float) -> Iterator:
        """Learn from drawn scenes: what ("method: lesson", or "method: all, one after the other"), scenes of the train split, steps,
        learning rate, seed, and scenes of the val split to judge by.

        -> learned prompts (a safetensors file, for --weights), report (JSON: the loss of each step, mIoU 0..1 before and after, settings).
        While it learns the report tells how far it is.
        """
        order = checked_order(self.studio, subject, scenes, steps, rate, seed, judged)
        course = Course(self.studio, order, self._known("", order.subject))
        chart, last = Chart(), 0.0
        for step in course.steps():
            chart.add(step)
            if time.monotonic() > last + PAUSE:
                last = time.monotonic()
                yield None, {"task": step.task, "step": step.step, "steps": step.steps}
        after = course.so_far()
        *_, (count, scores) = course.judged(after)
        yield str(saved(after)), {
            "losses": chart.losses, "miou": scores, "scenes judged": count, "split judged": "val", "model": self.clip.name,
            "settings": after.settings.to_dict(),
        }  # fmt: skip


class Chart:
    """The losses of every task, and how fast the one at work is."""

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = {}
        self.steps: dict[str, int] = {}
        self.last = None
        self.since, self.first = time.monotonic(), 1

    def add(self, step) -> None:
        if self.last is None or self.last.task != step.task:
            self.since, self.first = time.monotonic() - step.seconds, step.step
        self.last = step
        if step.losses:
            self.losses.setdefault(step.task, []).append(step.loss)
            self.steps[step.task] = step.steps

    def speed(self) -> float:
        """Steps a second of the task at work."""
        return (self.last.step - self.first + 1) / max(time.monotonic() - self.since, 1e-3)

    def plot(self) -> gr.LinePlot:
        """The losses over their steps, up to a few hundred points each; the axis runs to the last step."""
        rows = [
            (step + 1, losses[step], lesson)
            for lesson, losses in self.losses.items()
            for step in sorted({*range(0, len(losses), max(1, len(losses) // 300)), len(losses) - 1})
        ]
        data = pandas.DataFrame(rows, columns=["step", "loss", "lesson"])
        return gr.LinePlot(data, x_lim=[1, max(self.steps.values(), default=2)], visible=bool(rows))


def saved(after: Pipeline):
    """The file of what was learned, ready to be downloaded."""
    file = results_folder() / f"{after.method.name.replace('-', '_')}_learned.safetensors"
    after.save(file)
    return file


def progress(course: Course, chart: Chart) -> str:
    """Which part, how far, how fast, and how long this part will still take."""
    step, rate = chart.last, chart.speed()
    part = f"Part {course.parts.index(step.task) + 1} of {len(course.parts)}"
    sentence = f"{part} · {course.doing(step.task)}: {step.step} of {step.steps} · {rate:.1f} a second"
    if step.step < step.steps:
        sentence += f" · about {duration((step.steps - step.step) / rate)} left of this part"
    return figures.told(sentence, done=step.step, of=step.steps + 1)


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


def score_table(scores: dict[str, float], count: int) -> str:
    rows = "".join(f"<tr><td>{html.escape(title)}</td><td>{100 * score:.1f}</td></tr>" for title, score in scores.items())
    return (
        f"<p>{html.escape(verdict(scores))}</p>"
        '<div class="kit-rows"><table><thead><tr><th scope="col">Asked with</th><th scope="col">mIoU %</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f'<p class="kit-fine">Over {count} scenes of the val split: few, so a difference of some points may be chance.</p>'
    )


def verdict(scores: dict[str, float]) -> str:
    """The last seeds against all that cost no learning, or less of it."""
    *others, (last, learned) = scores.items()
    told = []
    for title, score in others:
        points = 100 * (learned - score)
        how = "level with" if abs(points) < 0.05 else f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"
        whose, _, seeds = title.partition(": ")
        told.append(f"{how} {whose} ({seeds})")
    whose, _, seeds = last.partition(": ")
    return f"{whose.capitalize()} ({seeds}): {', '.join(told)}."


def last_mask(view: View):
    return figures.plain_mask(view, view.result.labels)


def explained(subject: Subject) -> str:
    return f'<p class="kit-fine">{html.escape(subject.told)}</p>'


def number(label: str, within: tuple[int, int, int], info: str) -> gr.Slider:
    low, high, first = within
    return gr.Slider(low, high, first, step=1, label=label, info=info)


def scene_of(place: int, side: int = 160) -> Sample:
    """A scene of Explore's gallery, counted from 1."""
    return next(toy_samples("val", 1, size=side, start=SCENES[place - 1]))
