"""Learn: prompts are learned from drawn scenes while one watches; afterwards they are judged, kept, and used in Explore."""

import html
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import gradio as gr

from kit.data import Sample, toy_samples
from kit.learned import Learned
from kit.method import Kept, Pipeline
from kit.ui import ask, figures
from kit.ui.diagram import JUDGED, LOSSES, diagram, recorded
from kit.ui.explore import SCENES, Explore
from kit.ui.lesson import Course, Judgement, Order, Subject, checked_order, chosen, limits, subjects
from kit.ui.recording import Chart, Recording, Watched
from kit.ui.running import Desk, Run, duration
from kit.ui.session import AS_TYPED, HERE, PRIVATE, QUIET, Refused, Studio, friendly, results_folder
from kit.words import VOC_CLASSES

RUN, RESULT, RECORDING = "lesson", "lesson result", "lesson recording"  # on the shelf: a visitor's learning, what came of it, and its steps
AT_ONCE = 2  # lessons of all visitors
REDRAW = 0.4  # seconds between two redraws of the numbers and the curves
HELD_AT_MOST = 600  # seconds that a pause may take, for it keeps its place
WATCHED_SHARE = 0.2  # of the time that may go into asking the watched picture again
OPEN = "the picture open in Explore"
ENABLED = {  # what a run is doing -> the buttons that mean something
    "nothing": ("start",), "waiting": ("stop",), "learning": ("pause", "stop"), "paused": ("pause", "stop"), "judging": ("skip",),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Asked:
    """What a visitor wants to be learned, what was learned before, and the picture to watch."""

    order: Order
    known: Learned | None
    sample: Sample
    key: str


class Learn:
    """The page: laid out when made; `join` connects it with Explore, which lends it a picture and takes what was learned."""

    def __init__(self, studio: Studio, demo: gr.Blocks):
        self.studio, self.clip, self.subjects = studio, studio.clip, subjects(studio.methods)
        with gr.Row(elem_classes="kit-page"):
            with gr.Column(scale=1, min_width=300):
                self._lay_out_order()
            with gr.Column(scale=3, min_width=300):
                self._lay_out_result()
        busy = "you are learning already: wait for it, or press Stop first"
        self.desk = Desk(studio, RUN, len(self.shown), busy=busy, failed="Nothing was learned")
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
        self.start_button = gr.Button("Start", variant="primary", size="sm", min_width=100)

    def _lay_out_result(self) -> None:
        slow = self.clip.device.type == "cpu" and not self.clip.is_tiny
        note = f"{self.clip.name} on a CPU takes some seconds for every step, so a lesson takes minutes." if slow else ""
        gr.HTML(f'<p class="kit-warn">{html.escape(note)}</p>', elem_classes="kit-notes", visible=slow)
        self.told = gr.HTML(figures.told("Choose what to learn, and press Start. CLIP itself stays as it is: only the prompts change."))
        with gr.Row():
            self.pause_button = gr.Button("Pause", size="sm", min_width=80, interactive=False, scale=0)
            self.stop_button = gr.Button("Stop", size="sm", min_width=80, interactive=False, scale=0)
            self.skip_button = gr.Button("Skip judging", size="sm", min_width=110, interactive=False, scale=0)
        self.scores = gr.HTML(elem_classes="kit-notes", visible=False)
        first = next(iter(self.subjects.values()))
        with gr.Accordion("What is learned, and what stays as it is") as self.beside:
            self.diagram = gr.HTML(diagram(self.studio, first))
            self.recorded = gr.HTML(recorded(first, self.studio.start(first.method.name).learned), elem_classes="kit-notes")
        self.watch = gr.HTML()
        self.scrub = gr.Slider(0, 1, 1, step=1, label="Back through the steps", visible=False)
        with gr.Row(visible=False) as self.keep:
            self.use_button = gr.Button("Use in Explore", variant="primary", size="sm", min_width=120)
            self.download = gr.DownloadButton("Save the prompts", size="sm", min_width=120)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                self.curves = gr.LinePlot(
                    x="step", y="loss", color="lesson", height=240, visible=False, label="Loss", elem_classes="kit-plot"
                )
            with gr.Column(scale=1, min_width=280):
                self.words = gr.HTML()
        with gr.Column(visible=False) as self.compared:
            self.slider = gr.ImageSlider(label="Before learning | after: drag the line", format="png", max_height=460, interactive=False)
        self.buttons = {"start": self.start_button, "pause": self.pause_button, "stop": self.stop_button, "skip": self.skip_button}
        self.shown = {
            "told": self.told, "watch": self.watch, "keep": self.keep, "download": self.download, "scores": self.scores,
            "curves": self.curves, "words": self.words, "compared": self.compared, "slider": self.slider, "scrub": self.scrub,
            "beside": self.beside, **self.buttons,
        }  # fmt: skip

    def show(self, doing: str = "", **values) -> list:
        """An update of some of what is shown, by name; doing: what the run does now, for the buttons."""
        if doing:
            values |= {name: gr.Button(interactive=name in ENABLED[doing]) for name in self.buttons}
            values["pause"] = gr.Button("Resume" if doing == "paused" else "Pause", interactive="pause" in ENABLED[doing])
        return [values.get(name, gr.skip()) for name in self.shown]

    def join(self, explore: Explore, tabs: gr.Tabs, own: gr.Tab) -> None:
        """The events of the page, and those that go back to Explore."""
        shown, beside = list(self.shown.values()), [self.diagram, self.recorded]
        self.subject.change(friendly(self.choose), self.subject, [self.explained, self.rate, self.beside, *beside], **QUIET)
        asked = [self.subject, self.scenes, self.steps, self.rate, self.seed, self.judged, self.watched, explore.key]
        begun = self.start_button.click(  # not once, and with nobody to wait for: a second click is answered at once
            friendly(self.begin), asked, shown, trigger_mode="multiple", concurrency_limit=None, **AS_TYPED, **QUIET
        )
        worked = begun.success(
            friendly(self.work), None, shown, trigger_mode="multiple", concurrency_limit=AT_ONCE, concurrency_id="learn", **QUIET
        )
        worked.then(friendly(self.rest), self.subject, [*self.buttons.values(), self.recorded], **QUIET)
        self.pause_button.click(friendly(self.pause), None, self.pause_button, queue=False, **QUIET)
        self.stop_button.click(friendly(self.stop), None, self.stop_button, queue=False, **QUIET)
        self.skip_button.click(friendly(self.skip), None, self.skip_button, queue=False, **QUIET)
        seen = [self.watch, self.words, self.curves]
        self.scrub.input(friendly(self.look_back), self.scrub, seen, trigger_mode="always_last", concurrency_limit=4, **QUIET)
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

    def choose(self, request: gr.Request, name: str):
        subject = chosen(self.studio, name)
        record = self._recorded(request.session_hash, subject)
        return explained(subject), subject.rate(self.studio), gr.Accordion(open=True), diagram(self.studio, subject), record

    def _recorded(self, visitor: str, subject: Subject) -> str:
        """The visitor's last run of a subject, or else that of the app's file."""
        here = self.studio.shelf.get(visitor, recorded_as(subject))
        return recorded(subject, here or self.studio.start(subject.method.name).learned, here=here is not None)

    def rest(self, request: gr.Request, name: str):
        """The buttons after a run, however it ended, and what is recorded of it."""
        run, record = self.desk.run_of(request.session_hash), self._recorded(request.session_hash, chosen(self.studio, name))
        if run is not None and run.is_going:
            return *[gr.skip()] * len(self.buttons), record
        return *self.show("nothing")[-len(self.buttons) :], record

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
        hidden = {"keep": gr.Row(visible=False), "curves": gr.LinePlot(visible=False), "compared": gr.Column(visible=False), "slider": None}
        hidden |= {"scores": gr.HTML(visible=False), "scrub": gr.Slider(visible=False), "beside": gr.Accordion(open=False)}
        return self.show("waiting", told=waiting, watch="", words="", **hidden)

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
        recording = Recording(course, Watched(asked.sample, tokens, Kept(limit=2)))
        chart, clock, last, next_watch = recording.chart, time.monotonic(), 0.0, 0.0
        yield self.show("learning")
        steps = course.steps()
        for step in steps:
            if recording.add(step) and not gone():
                self.studio.shelf.put(visitor, RECORDING, recording, recording.nbytes)
            if run.paused.is_set():
                clock += yield from self._held(visitor, run, recording, gone)
            if gone() or run.stopped.is_set():
                break
            now = time.monotonic()
            if now < last + REDRAW:
                continue
            last, seen = now, {}
            if now > next_watch and step.task in course.subject.lessons:
                seen = dict(zip(("watch", "words"), recording.looked(course.so_far(), "now"), strict=True))
                spent = time.monotonic() - now
                next_watch = time.monotonic() + spent / WATCHED_SHARE
            yield self.show(told=progress(course, chart), curves=chart.plot(), **seen)
        steps.close()
        if gone():
            return
        if not recording.reach():
            yield self.show("nothing", told=figures.told("Stopped before anything was learned."))
            return
        how = "Stopped" if run.stopped.is_set() else "Learned"
        told = f"{how} after {duration(time.monotonic() - clock)}: {course.made_told()}."
        yield from self._finished(visitor, run, recording, told, gone)

    def _held(self, visitor: str, run: Run, recording: Recording, gone: Callable[[], bool]) -> Iterator:
        """Nothing goes on until the visitor says so, or the pause takes too long for those who wait -> the seconds it took."""
        clock, seen = time.monotonic(), {}
        if recording.reach():
            self.studio.shelf.put(visitor, RECORDING, recording, recording.nbytes)
            seen = self._seen(recording)
        step, course = recording.chart.last, recording.course
        sentence = f"Paused. {course.doing(step.task)}: {step.step} of {step.steps}. Resume goes on exactly from here"
        waits = f"; after {duration(HELD_AT_MOST)} it goes on by itself, for others wait for the place."
        yield self.show("paused", told=figures.told(sentence + waits), curves=recording.chart.plot(), **seen)
        while run.paused.is_set() and not (run.stopped.is_set() or gone()) and time.monotonic() < clock + HELD_AT_MOST:
            run.stopped.wait(0.1)
        run.paused.clear()
        seconds = time.monotonic() - clock
        recording.chart.since += seconds
        yield self.show("learning", scrub=gr.Slider(visible=False))
        return seconds

    def _finished(self, visitor: str, run: Run, recording: Recording, told: str, gone: Callable[[], bool]) -> Iterator:
        """What was learned is kept, then judged by all scenes, unless the visitor skips that: no number before all are."""
        course, seen = recording.course, self._seen(recording)
        after = documented(recording.at(recording.last).pipeline, recording.chart)
        self.studio.shelf.put(visitor, RECORDING, recording, recording.nbytes)
        self._keep(visitor, course.subject, after)
        shown = {"keep": gr.Row(visible=True), "download": gr.DownloadButton(value=str(saved(after)))}
        shown |= {"compared": gr.Column(visible=True), "slider": recording.sides(after), "curves": recording.chart.plot()}
        run.skipped.clear()
        yield self.show("judging", told=figures.told(f"{told} Judging…"), **shown, **seen)
        judgement, count = None, course.order.judged
        for judgement in course.judged(after):
            if gone():
                return
            if run.skipped.is_set() and judgement.scenes < count:
                yield self.show("nothing", told=figures.told(f"{told} Not judged: skipped after {judgement.scenes} of {count} scenes."))
                return
            yield self.show(told=figures.told(f"{told} Judging: {judgement.scenes} of {count} scenes", done=judgement.scenes, of=count))
        verdict = course.verdict(judgement)
        after = documented(after, recording.chart, judgement, verdict)
        self._keep(visitor, course.subject, after)
        download, table = gr.DownloadButton(value=str(saved(after))), gr.HTML(score_table(judgement, verdict), visible=True)
        yield self.show("nothing", told=figures.told(told), download=download, scores=table)

    def _seen(self, recording: Recording) -> dict:
        """The last step, and the slider that leads back from it."""
        watch, words = recording.look(recording.at(recording.last))
        last, every = recording.last, recording.every
        info = "recorded at each" if every == 1 else f"recorded every {every} steps, and at the last one"
        scrub = gr.Slider(0, last, last, step=1, info=f"{info}; 0 is before learning", visible=True)
        return {"watch": watch, "words": words, "scrub": scrub}

    def _keep(self, visitor: str, subject: Subject, after: Pipeline) -> None:
        self.studio.shelf.put(visitor, RESULT, after, after.learned.nbytes)
        self.studio.shelf.put(visitor, recorded_as(subject), after.learned, after.learned.nbytes)

    def look_back(self, request: gr.Request, step):
        """The watched picture, the words and the losses as they were at a step of the visitor's last run."""
        visitor = request.session_hash
        recording = self.studio.shelf.get(visitor, RECORDING)
        if recording is None:
            raise Refused("the steps of this run are no longer on the server: learn it again")
        moment = recording.at(ask.whole_number(step, "the step", 0, recording.last))
        watch, words = recording.look(moment)
        self.studio.shelf.put(visitor, RECORDING, recording, recording.nbytes)
        return watch, words, recording.chart.plot(moment.counts)

    def pause(self, request: gr.Request):
        return gr.Button("Resume" if self.desk.pause(request.session_hash) else "Pause")

    def stop(self, request: gr.Request):
        self.desk.stop(request.session_hash)
        return gr.Button(interactive=False)

    def skip(self, request: gr.Request):
        self.desk.skip(request.session_hash)
        return gr.Button(interactive=False)

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

    def api_learn(self, subject: str, scenes: float, steps: float, rate: float, seed: float, judged: float) -> Iterator:
        """Learn from drawn scenes: what ("method: lesson", or "method: all, one after the other"), scenes of the train split, steps,
        learning rate, seed, and scenes of the val split to judge by.

        -> learned prompts (a safetensors file, for --weights), report (JSON: the loss of each step, mIoU 0..1 before and after, the
        verdict in sentences, settings).
        While it learns the report tells how far it is.
        """
        order = checked_order(self.studio, subject, scenes, steps, rate, seed, judged)
        course = Course(self.studio, order, self._known("", order.subject))
        chart, last = Chart(), 0.0
        for step in course.steps():
            chart.add(step)
            if time.monotonic() > last + REDRAW:
                last = time.monotonic()
                yield None, {"task": step.task, "step": step.step, "steps": step.steps}
        after = course.so_far()
        *_, judgement = course.judged(after)
        verdict = course.verdict(judgement)
        yield str(saved(documented(after, chart, judgement, verdict))), {
            "losses": chart.losses, "miou": judgement.scores, "scenes judged": judgement.scenes, "split judged": "val",
            "verdict": verdict, "model": self.clip.name, "settings": after.settings.to_dict(),
        }  # fmt: skip


def recorded_as(subject: Subject) -> str:
    """What a visitor's last run of a subject is called on the shelf."""
    return f"{RUN} {subject.title}"


def documented(after: Pipeline, chart: Chart, judgement: Judgement | None = None, verdict: list[str] | None = None) -> Pipeline:
    """The same with its losses, and its judgement once there is one, beside what was learned, for its file."""
    about = {**after.learned.about, LOSSES: chart.thinned(100)}
    if judgement is not None:
        about[JUDGED] = {"split": "val", "scenes": judgement.scenes, "miou": judgement.scores, "verdict": verdict}
    return replace(after, learned=replace(after.learned, about=about, _made={}))


def score_table(judgement: Judgement, sentences: list[str]) -> str:
    """The verdict first, then the mIoU of everybody who was asked."""
    first, *others = map(html.escape, sentences)
    rows = "".join(f"<tr><td>{html.escape(title)}</td><td>{100 * score:.1f}</td></tr>" for title, score in judgement.scores.items())
    return (
        f"<p><b>{first}</b></p><p>{' '.join(others)}</p>"
        '<div class="kit-rows"><table><thead><tr><th scope="col">Asked with</th><th scope="col">mIoU %</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


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


def explained(subject: Subject) -> str:
    return f'<p class="kit-fine">{html.escape(subject.told)}</p>'


def number(label: str, within: tuple[int, int, int], info: str) -> gr.Slider:
    low, high, first = within
    return gr.Slider(low, high, first, step=1, label=label, info=info)


def scene_of(place: int, side: int = 160) -> Sample:
    """A scene of Explore's gallery, counted from 1."""
    return next(toy_samples("val", 1, size=side, start=SCENES[place - 1]))
