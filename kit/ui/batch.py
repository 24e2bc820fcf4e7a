"""Batch: many pictures with the settings of Explore, one after the other, and a zip of their masks."""

import csv
import dataclasses
import functools
import html
import io
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import gradio as gr
import numpy as np
from gradio.route_utils import API_PREFIX
from PIL import Image

from kit import show
from kit.data import Sample, toy_samples
from kit.files import told_bytes
from kit.images import load_mask, save_image
from kit.method import Pipeline
from kit.settings import shortened
from kit.ui import ask, bundle, figures
from kit.ui.bundle import Upload
from kit.ui.buttons import buttons
from kit.ui.explore import Explore
from kit.ui.job import DONE, IF_LISTED, IGNORED, LABELLING, LISTED, NAMED, REFUSED, SAME, SUGGESTED, Job, Order, Row
from kit.ui.running import Desk, Run, duration
from kit.ui.session import QUIET, Refused, Studio, friendly, results_folder

RUN, JOB = "batch", "batch's job"  # a visitor's running batch on the shelf, and the last one that began
AT_ONCE = 2  # batches of all visitors
PAUSE = 0.4  # seconds between two redraws of the list
LATEST, THUMBNAIL, LARGE = 6, 192, 960  # pictures shown, their longer side in pixels, and that of a picture enlarged
EXAMPLES = (32, 68, 2, 24)  # drawn scenes of the val split
LIMITS = (
    f"At most {bundle.MAX_PICTURES} pictures, {told_bytes(bundle.PACKED_BYTES)} as sent and {told_bytes(bundle.UNPACKED_BYTES)} unpacked; "
    f"a picture at most {told_bytes(bundle.PICTURE_BYTES)} and {ask.MAX_PIXELS // 1_000_000} megapixels. Nothing is kept: your files and "
    "the result are deleted after about an hour."
)
CSV_EXAMPLE = "a line each: <code>file,classes</code>, such as <code>beach.jpg,person;dog</code>"
COUNTED = (
    "Each file counts once; a zip itself and its folders do not. What is no picture is ignored: a CSV with classes, what a system hides in "
    "a zip (__MACOSX, ._name, .DS_Store, Thumbs.db), any other kind of file."
)


class Batch:
    """The page: laid out when made; `join` connects it with Explore, whose settings it takes."""

    def __init__(self, studio: Studio, demo: gr.Blocks):
        self.studio, self.clip = studio, studio.clip
        busy = "your batch is still running: wait for it, or press Stop first"
        self.desk = Desk(studio, RUN, 5, busy=busy, failed="Nothing was done")
        with gr.Row(elem_classes="kit-page"):
            with gr.Column(scale=1, min_width=300):
                self._lay_out_order()
            with gr.Column(scale=3, min_width=300):
                self._lay_out_result()
        self._publish()

    def _lay_out_order(self) -> None:
        self.files = files_input("Pictures, or one zip of them", height=160)
        self.try_button = gr.Button("Try four drawn scenes", size="sm")
        gr.HTML(f'<p class="kit-fine">How a list of classes is written: {example_link()}, that of the four scenes.</p>')
        gr.HTML(f'<p class="kit-fine">{LIMITS}</p>')
        self.labelling = gr.Radio(list(LABELLING), value=SUGGESTED, label="Classes in each picture")
        self.explained = gr.HTML(explained(SUGGESTED))
        self.classes = gr.Dropdown(
            list(self.studio.vocabulary),
            multiselect=True,
            allow_custom_value=True,
            max_choices=ask.MAX_CLASSES,
            label="Classes of all pictures",
            info="choose, or type your own and press Enter",
            visible=False,
        )
        self.settings = gr.HTML(elem_classes="kit-notes")
        self.overlays = gr.Checkbox(True, label="Overlays beside the masks")
        with gr.Row():
            self.start_button = gr.Button("Start", variant="primary", size="sm", min_width=100)
            self.stop_button = gr.Button("Stop", size="sm", min_width=80)

    def _lay_out_result(self) -> None:
        note = f'<p class="kit-warn">{html.escape(figures.PHOTO_NOTE)}</p>' if self.clip.is_tiny else ""
        gr.HTML(note, elem_classes="kit-notes", visible=bool(note))
        self.told = gr.HTML(figures.told("Choose pictures or a zip, and press Start."))
        self.download = gr.DownloadButton("Download the zip", visible=False, size="sm", variant="primary")
        self.notes = gr.HTML(elem_classes="kit-notes")
        self.latest = buttons()
        self.rows = buttons()

    def join(self, explore: Explore, tabs: gr.Tabs, own: gr.Tab) -> None:
        """The events of the page; it is told of Explore's settings when the visitor arrives, and takes them at Start."""
        shown = [self.told, self.download, self.notes, self.latest, self.rows]
        own.select(friendly(self.arrive), None, self.settings, **QUIET)
        self.labelling.change(friendly(self.choose), self.labelling, [self.explained, self.classes], **QUIET)
        begun = self.start_button.click(  # not once, and with nobody to wait for: a second click is answered at once
            friendly(self.begin),
            [self.files, self.labelling, self.classes, self.overlays],
            [self.settings, *shown],
            trigger_mode="multiple",
            concurrency_limit=None,
            **QUIET,
        )
        begun.success(friendly(self.work), None, shown, trigger_mode="multiple", concurrency_limit=AT_ONCE, concurrency_id="batch", **QUIET)
        self.stop_button.click(friendly(self.stop), None, None, queue=False, **QUIET)
        self.try_button.click(friendly(self.try_scenes), None, [self.files, self.labelling], **QUIET)
        self._explore = explore
        clicks = [self.latest.click, self.rows.click]
        explore.redrawn(gr.on(clicks, friendly(self.open), None, [*explore.opened, tabs], trigger_mode="always_last", **QUIET))

    def _publish(self) -> None:
        """The door for programs."""
        with gr.Group(visible=False):
            files, result = files_input("Files"), gr.File(label="Result")
            classes = gr.Dropdown([], multiselect=True, allow_custom_value=True, label="Classes")
            labels, settings, report = gr.Textbox(label="Labels CSV"), gr.JSON(label="Settings"), gr.JSON(label="Report")
            method = gr.Textbox(self.studio.default, label="Method")
            overlays, button = gr.Checkbox(True, label="Overlays"), gr.Button()
        button.click(
            friendly(self.api_batch),
            [files, classes, labels, settings, overlays, method],
            [result, report],
            api_name="batch",
            concurrency_limit=AT_ONCE,
            concurrency_id="batch",
        )

    def arrive(self, request: gr.Request) -> str:
        return self._told(self._pipeline(request.session_hash))

    def choose(self, labelling: str):
        return explained(labelling), gr.Dropdown(visible=labelling == SAME)

    def try_scenes(self):
        """Drawn scenes and the list of their classes as if somebody had sent them, so that Start has all it needs."""
        return written_examples(results_folder()), LISTED

    def open(self, request: gr.Request, event: gr.EventData):
        """A picture that is done, in Explore with its classes."""
        job, id = self.studio.shelf.get(request.session_hash, JOB), event.chosen
        row = job.rows.get(id) if job is not None and isinstance(id, str) else None
        if row is None or row.state != DONE:
            raise Refused("this picture is no longer on the server: start the batch again")
        return *self._explore.open_with(request, job.reread(id), row.classes, PurePosixPath(row.file).stem), gr.Tabs(selected="Explore")

    def begin(self, request: gr.Request, files: list[Upload], labelling: str, classes: list[str], overlays: bool):
        """The order as it is now, kept until its turn comes."""
        self.desk.check_free(request.session_hash)
        pipeline = self._pipeline(request.session_hash)
        order = Order(tuple(files), labelling, tuple(classes or ()) if labelling == SAME else (), pipeline, overlays)
        self.desk.take(request.session_hash, order)
        waiting = figures.told(f"Waiting for a place: {AT_ONCE} batches may run at a time.")
        return self._told(pipeline), waiting, gr.DownloadButton(visible=False), "", "", ""

    def work(self, request: gr.Request) -> Iterator:
        """Picture by picture; after a Stop, what is done becomes the result."""

        def worked(run: Run) -> Iterator:
            with tempfile.TemporaryDirectory(prefix="kit-batch-") as folder:
                yield from self._worked(request.session_hash, run, Path(folder))

        yield from self.desk.work(request.session_hash, worked)

    def _worked(self, visitor: str, run: Run, folder: Path) -> Iterator:
        yield figures.told("Unpacking"), *[gr.skip()] * 4
        job, clock, last = Job(self.studio, run.order, folder), time.monotonic(), 0.0
        pictures, working = Pictures(job, results_folder()), clock
        self.studio.shelf.put(visitor, JOB, job, 1)
        for row in job.steps():
            if self.desk.has_left(visitor, run):
                return  # the visitor has left
            if row.state == NAMED:
                working = time.monotonic()
            elif row.state == DONE:
                self.latest.temp_files.add(str(pictures.add(row)))  # Gradio deletes these by age
            if time.monotonic() - last > PAUSE:
                last = time.monotonic()
                yield progress(job, row, last - working), gr.skip(), gr.skip(), pictures.html(), listing(job)
            if run.stopped.is_set():
                break
        target = job.pack(results_folder() / "masks.zip")
        how = "Stopped after" if run.stopped.is_set() else "Finished in"
        sentence = f"{how} {duration(time.monotonic() - clock)}: {summary(job)}."
        download = gr.DownloadButton(f"Download the zip ({told_bytes(target.stat().st_size)})", value=str(target), visible=True)
        yield figures.told(sentence), download, self._notes(job), pictures.html(), listing(job)

    def stop(self, request: gr.Request) -> None:
        self.desk.stop(request.session_hash)

    def _pipeline(self, visitor: str) -> Pipeline:
        """Explore's method and settings as the visitor last saw them at work, with the usual words for classes that are not open there."""
        view = self.studio.shelf.get(visitor, "view")
        pipeline = view.pipeline if view is not None else self.studio.start(self.studio.default)
        if "synonyms" in pipeline.method.belongs and pipeline.learned is not None:
            return pipeline
        opened = view.sample.names if view is not None else ()
        usual = {name: word for name, word in self.studio.prompt_words.items() if name not in opened}
        return pipeline.changed(synonyms={**usual, **pipeline.settings.synonyms})

    def _told(self, pipeline: Pipeline) -> str:
        told = (
            "; ".join(differences(pipeline, self.studio.start(pipeline.method.name), self.studio.prompt_words))
            or "those the model comes with"
        )
        method = f"<b>{html.escape(pipeline.method.title)}</b> with the settings of Explore"
        return f"<p>{method}: {html.escape(told)}. Any method will do: choose and set it there.</p>"

    def _notes(self, job: Job) -> str:
        strange = dict.fromkeys(word for row in job.rows.values() for name in row.classes for word in self.clip.unknown_words(name))
        lines = [*job.notes, *(f"'{word}' is unknown to the tiny model" for word in strange)]
        return "".join(f'<p class="kit-warn">{html.escape(line, quote=False)}</p>' for line in lines)

    def api_batch(
        self, request: gr.Request, files: list[Upload], classes: list[str], labels_csv: str, settings: dict | None, overlays: bool,
        method: str,
    ) -> Iterator:  # fmt: skip
        """Masks of many pictures: pictures or one zip, and their classes. One list of classes is for all pictures; else labels_csv is the
        text of a CSV (a line each: file,classes with ; between them), or one in the zip counts; without any, the model suggests.
        Settings, {} for the app's; overlays too or not; the method.

        -> zip (masks/NAME.png, overlays/NAME.png, settings.json, report.csv, manifest.json), report (JSON: how many files were read, and of
        these done, refused, ignored because they are no pictures, not_done; a row for each). While it works the report tells how far it is.
        """
        if classes and (labels_csv or "").strip():
            raise Refused("expected classes for all pictures or a CSV, got both: leave one out")
        asked = self.studio.pipeline("", method or self.studio.default, settings)
        order = Order(tuple(files), SAME if classes else IF_LISTED, tuple(classes or ()), asked, overlays, (labels_csv or "").strip())
        with tempfile.TemporaryDirectory(prefix="kit-batch-") as folder:
            job = Job(self.studio, order, Path(folder))
            for _ in job.steps():
                yield None, {**job.counts(), "pictures": len(job)}
            rows = [dataclasses.asdict(row) for row in job.all_rows()]
            report = {**job.counts(), "pictures": len(job), "files": rows, "notes": job.notes}
            yield str(job.pack(results_folder() / "masks.zip")), report


class Pictures:
    """What is done to look at: the last few as small pictures, each picture as a large one that opens over the page when it is clicked.

    folder: where the large ones lie for the browser to fetch. They keep their order in the page, so that one that is open stays open while
    others come.
    """

    def __init__(self, job: Job, folder: Path):
        self.job, self.folder = job, folder
        self._latest: list[str] = []
        self._large: dict[str, str] = {}

    def add(self, row: Row) -> Path:
        """-> the large picture's file."""
        small = drawn(self.job.pictures_of(row.id))
        small.thumbnail((LARGE, LARGE))
        path = self.folder / f"{row.id}.png"
        small.save(path, compress_level=1)
        self._large[row.id] = large(row, path, self.job.classes)
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        self._latest = [thumbnail(row, figures.picture_url(np.array(small)), self.job.classes), *self._latest][:LATEST]
        return path

    def html(self) -> str:
        larger = "".join(f'<div id="{large_id(id)}" class="kit-popup" popover>{self._large.get(id, "")}</div>' for id in self.job.rows)
        return f'<div class="kit-heats kit-latest">{"".join(self._latest)}</div><div>{larger}</div>'


def large_id(id: str) -> str:
    return html.escape(f"large {id}".replace(" ", "-"))


def enlarges(row: Row) -> str:
    """The attributes of a button that shows a picture large: a popover, which the browser opens, and closes with Escape."""
    named = html.escape(f"enlarge {PurePosixPath(row.file).stem}: {', '.join(row.classes)}")
    return f'type="button" popovertarget="{large_id(row.id)}" aria-label="{named}"'


def thumbnail(row: Row, url: str, names: Sequence[str]) -> str:
    name = html.escape(row.file)
    picture = f'<button {enlarges(row)}><img src="{url}" alt="mask of {name}"></button>'
    return f"<figure>{picture}<figcaption><b>{name}</b><span>{chips(row, names)}</span></figcaption></figure>"


def large(row: Row, path: Path, names: Sequence[str]) -> str:
    """What is in a popover: a picture that is fetched once it is seen, its classes, and what can be done next."""
    name, url = html.escape(row.file), html.escape(f"{API_PREFIX.lstrip('/')}/file={quote(str(path))}")
    closes = f'type="button" class="kit-do" popovertarget="{large_id(row.id)}" popovertargetaction="hide"'
    can = f"<button {closes} autofocus>Close</button><button {closes} {opens(row)}>Open in Explore</button>"
    return (
        f'<img src="{url}" alt="mask of {name}, enlarged" loading="lazy"><p><b>{name}</b> {chips(row, names)}</p>'
        f'<p class="kit-chips">{can}</p>'
    )


def opens(row: Row) -> str:
    return f'data-choose="{html.escape(row.id)}"'


def chips(row: Row, names: Sequence[str]) -> str:
    """The classes in their masks' colours, with their probabilities where they were suggested."""
    shares = [f" {100 * score:.0f}\u00a0%" for score in row.scores] or [""] * len(row.classes)
    parts = (figures.chip(name, names, share) for name, share in zip(row.classes, shares, strict=True))
    return f'<span class="kit-chips">{"".join(parts)}</span>'


def files_input(label: str, **layout) -> gr.File:
    """A file component that hands over the names visitors gave; Gradio's own reading leaves an empty file behind for each."""
    component = gr.File(file_count="multiple", file_types=[*bundle.PICTURES, ".zip", bundle.LABELS], label=label, **layout)
    component.preprocess = lambda payload: [Upload(Path(file.orig_name or file.path).name, Path(file.path)) for file in payload or []]
    return component


def explained(labelling: str) -> str:
    """What a choice of where the classes come from means."""
    sentences = {
        SUGGESTED: f"The model's likeliest name, and up to {ask.SUGGESTED - 1} more with a probability of at least {ask.SURE_ENOUGH}. "
        "It may be wrong: classes that you know make better masks.",
        SAME: "Every picture is asked for all of these.",
        LISTED: f"From a CSV beside the pictures or in the zip, {CSV_EXAMPLE}.",
    }
    return f'<p class="kit-fine">{sentences.get(labelling, "")}</p>'


def drawn(pictures: dict[str, Path]) -> Image.Image:
    """An overlay, or a mask in VOC's colours."""
    if "overlays" not in pictures:
        return Image.fromarray(show.labels_to_rgb(load_mask(pictures["masks"])))
    with Image.open(pictures["overlays"]) as file:
        return file.convert("RGB")


@functools.cache
def examples() -> dict[str, Sample]:
    """Drawn scenes by the names of their files."""
    return {f"scene {number:02}.png": next(toy_samples("val", 1, size=ask.SCENE_SIDE, start=number)) for number in EXAMPLES}


def example_csv() -> str:
    with io.StringIO(newline="") as text:
        csv.writer(text).writerows([("file", "classes"), *((name, ";".join(sample.names)) for name, sample in examples().items())])
        return text.getvalue()


def example_link() -> str:
    return f'<a href="data:text/csv;charset=utf-8,{quote(example_csv())}" download="classes.csv">an example CSV</a>'


def written_examples(folder: Path) -> list[str]:
    """The drawn scenes and the list of their classes as files.   -> their paths."""
    for name, sample in examples().items():
        save_image(folder / name, sample.image)
    (folder / "classes.csv").write_text(example_csv(), encoding="utf-8", newline="")
    return [str(folder / name) for name in (*examples(), "classes.csv")]


def progress(job: Job, row: Row, seconds: float) -> str:
    """How far a batch is, how fast, and how long it will take."""
    if row.state == NAMED:
        named = sum(bool(row.classes) or row.state == REFUSED for row in job.rows.values())
        return figures.told(f"Suggesting classes: {named} of {len(job)} pictures", done=named, of=len(job) + 1)
    done = sum(row.state in (DONE, REFUSED) for row in job.rows.values())
    sentence = f"{done} of {len(job)} pictures"
    if job.count(DONE) and seconds > 0:
        rate = job.count(DONE) / seconds
        sentence += f" · {rate:.1f} a second · about {duration((len(job) - done) / rate)} left"
    return figures.told(sentence, done=done, of=len(job) + 1)


def summary(job: Job) -> str:
    """What became of the files, in numbers that add up."""
    counts = job.counts()
    parts = [f"{counts['done']} done"]
    if refused := counts["refused"]:
        parts.append(f"{refused} refused")
    if ignored := counts["ignored"]:
        parts.append(f"{ignored} ignored ({'no picture' if ignored == 1 else 'no pictures'})")
    if left := counts["not_done"]:
        parts.append(f"{left} not done")
    return f"{counts['read']} {'file' if counts['read'] == 1 else 'files'} read: {', '.join(parts)}"


def listing(job: Job) -> str:
    """A line for each file: first those with news, refused ones with the reason, last those that are ignored."""
    order = {REFUSED: 0, DONE: 1, NAMED: 2, IGNORED: 4}
    rows = sorted(job.all_rows(), key=lambda row: order.get(row.state, 3))
    lines = []
    for row in rows:
        seconds, name, explore = "", html.escape(row.file), ""
        if row.state == DONE:
            seconds, name = f"{row.seconds:.2f}", f'<button class="kit-link" {enlarges(row)}>{name}</button>'
            label = f'aria-label="Open in Explore: {html.escape(row.file)}"'
            explore = f'<button type="button" class="kit-do" {opens(row)} {label}>Open in Explore</button>'
        said = f"{row.state}: {html.escape(row.reason)}" if row.reason else row.state
        cells = (name, chips(row, job.classes), said, seconds, explore)
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f'<th scope="col">{title}</th>' for title in ("File", "Classes", "State", "Seconds", "Explore"))
    table = f'<div class="kit-rows" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    return f'{table}<p class="kit-fine">{COUNTED}</p>'


def differences(pipeline: Pipeline, base: Pipeline, usual: dict[str, str]) -> list[str]:
    """What is set otherwise than in `base` with the usual words, in words."""
    told, settings, before = [], pipeline.settings, base.settings.changed(synonyms=usual or base.settings.synonyms)
    for name, setting in type(settings).described().items():
        value, old = settings.value(name), before.value(name)
        if name == "layers":
            value, old = pipeline.layers, base.layers
        if value == old:
            continue
        if setting.kind == "texts":
            told += [f"{setting.title.lower()} {kind} {', '.join(words)}" for kind, words in (
                ("without", [word for word in old if word not in value]), ("with", [word for word in value if word not in old])
            ) if words]  # fmt: skip
        elif setting.kind == "pairs":
            changed = [key for key in {**old, **value} if old.get(key, key) != value.get(key, key)]
            told += [f"words {', '.join(f'{key} = {value.get(key, key)}' for key in changed)}"] * bool(changed)
        else:
            told.append(f"{name.replace('_', ' ')} {shortened(value)} instead of {shortened(old)}")
    return told
