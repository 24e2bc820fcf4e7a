"""Prompts: what the words do. Templates against each other, words in a class's place, background words left out; nothing is learned, and
prompts are hand-crafted, for words are what is tried."""

import html
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import gradio as gr
import pandas
from torch import Tensor

from kit.data import Sample
from kit.encode import Tokens
from kit.method import Pipeline
from kit.toy.captions import known_templates
from kit.ui import ask, figures
from kit.ui.explore import Explore, photo_input
from kit.ui.session import AS_TYPED, BY_HAND, PRIVATE, QUIET, Refused, Studio, View, friendly
from kit.words import SYNONYMS, class_name
from kit.words_tried import (
    BackgroundRow,
    TemplateRow,
    TemplateTable,
    WordRow,
    background_rows,
    reworded,
    template_row,
    template_rows,
    template_table,
    word_rows,
)

THIS, MANY = "the picture open in Explore", "drawn scenes of the val split"
KNOWN, EVERY = "those the tiny model knows", "all of CLIP's"
SCENES = (10, 200, 20)  # lowest, highest and first number of scenes
EXTRA_WORDS = 20
PAUSE = 0.25  # seconds between two redraws of a table that grows
RUN, MEASURED = "templates", "templates measured"  # on a visitor's shelf: the measurement that runs, the question it answered unasked
SHARPNESS, MIOU = "sharpness (lower is better)", "mIoU %"  # the axes of the plot
TEMPLATE_HEAD = ["Template", "Sharpness", "Score %", "mIoU %"]
BACKGROUND_HEAD = ["Left out", "Changed %", "IoU %", "IoU change"]


NOTHING = [gr.skip()] * 5  # of a measurement's outputs


class Stopped(Exception):
    """A visitor pressed Stop, or left."""


class Replaced(Exception):
    """Another measurement of the same visitor has begun."""


@dataclass(eq=False)
class Run:
    """A visitor's measurement on the shelf; unasked: it began by itself when the page was opened."""

    unasked: bool = False
    stopped: bool = False
    ended: bool = False


class Prompts:
    """The page: laid out when made; `join` connects it with Explore, whose picture and settings it asks about."""

    def __init__(self, studio: Studio, demo: gr.Blocks):
        self.studio, self.clip, self.first = studio, studio.clip, by_hand(studio.start(studio.default))
        self.about = gr.State("")  # the picture and classes that the results are of
        self.opened = gr.HTML()
        with gr.Tabs():
            with gr.Tab("Templates"), gr.Row(elem_classes="kit-page"):
                self._lay_out_templates()
            with gr.Tab("Words"), gr.Row(elem_classes="kit-page"):
                self._lay_out_words()
            with gr.Tab("Background words"), gr.Row(elem_classes="kit-page"):
                self._lay_out_background()
        self._publish()

    def _lay_out_templates(self) -> None:
        sets = [KNOWN, EVERY] if self.clip.is_tiny else [EVERY]
        with gr.Column(scale=1, min_width=280):
            self.over = gr.Radio([THIS, MANY], value=THIS, label="Measure over")
            low, high, first = SCENES
            self.scenes = gr.Slider(
                low, high, first, step=10, label="Scenes", info="drawn and encoded once, then kept for everybody", visible=False
            )
            self.which = gr.Radio(sets, value=sets[0], label="Templates", visible=len(sets) > 1)
            self.own = gr.Textbox(lines=2, label="Your own templates", info="one a line, {} where the class name goes")
            with gr.Row():
                self.measure_button = gr.Button("Measure", variant="primary", size="sm", min_width=100)
                self.stop_button = gr.Button("Stop", size="sm", min_width=80)
            self.chosen = gr.Dropdown(
                ask.templates_for(self.clip),
                value=self.first.settings.template,
                allow_custom_value=True,
                label="Template to use",
                info="choose here, or click a line of the table",
            )
            self.use_button = gr.Button("Use this in Explore", size="sm")
        with gr.Column(scale=3, min_width=280):
            self.told = gr.HTML(figures.told("Which template makes the better masks, and does the sharpness tell?"))
            self.pair = gr.HTML()
            with gr.Row():
                with gr.Column(scale=5, min_width=280):
                    self.table = table(TEMPLATE_HEAD, label="Templates (to sort: ⋮ beside a heading)", widths=["46%", "20%", "18%", "16%"])
                    gr.Markdown(
                        "Sharpness: how unevenly a template spreads the probabilities of the classes that are there; lower is better. "
                        "Score: the mean of these probabilities."
                    )
                with gr.Column(scale=4, min_width=280):
                    self.said = gr.HTML(elem_classes="kit-notes")
                    self.scatter = gr.ScatterPlot(
                        x=SHARPNESS,
                        y=MIOU,
                        tooltip=["template", SHARPNESS, MIOU],
                        height=300,
                        visible=False,
                        label="Sharpness and mIoU",
                        elem_classes="kit-plot",
                    )

    def _lay_out_words(self) -> None:
        with gr.Column(scale=1, min_width=280):
            self.name = gr.Radio([], label="Class")
            self.extra = gr.Dropdown(
                [],
                value=[],
                multiselect=True,
                allow_custom_value=True,
                max_choices=EXTRA_WORDS,
                label="Your own words, and decoys",
                info="type a word and press Enter; the list holds words of other classes",
            )
        with gr.Column(scale=3, min_width=280):
            self.words = gr.HTML(elem_classes="kit-notes")
            self.word_heats = gr.HTML()

    def _lay_out_background(self) -> None:
        with gr.Column(scale=1, min_width=280):
            gr.Markdown("How much of the mask changes when one background word of Explore is left out?")
            self.leave_out_button = gr.Button("Leave each one out", variant="primary", size="sm")
        with gr.Column(scale=3, min_width=280):
            self.background_told = gr.HTML()
            self.background_masks = gr.HTML()
            self.background_table = table(
                BACKGROUND_HEAD, label="Background words (to sort: ⋮ beside a heading)", widths=["40%", "20%", "20%", "20%"]
            )

    def join(self, explore: Explore, tabs: gr.Tabs, own: gr.Tab) -> None:
        """The events of the page, and those that come from Explore and go back to it."""
        background = [self.background_told, self.background_masks, self.background_table]
        words = [self.words, self.word_heats]
        arrived = own.select(
            friendly(self.arrive), [explore.key, self.about], [self.about, self.opened, self.name, self.extra, *background], **QUIET
        )
        arrived.success(friendly(self.compare_words), [self.name, self.extra], words, **QUIET)
        measured = [self.told, self.table, self.said, self.scatter, self.pair]
        together = {"concurrency_limit": 2, "concurrency_id": "measure", "show_progress": "minimal", "show_progress_on": self.told}
        arrived.success(friendly(self.measure_unasked), self.about, measured, **together, **PRIVATE)
        self.over.input(lambda over: gr.Slider(visible=over == MANY), self.over, self.scenes, **QUIET)
        self.measure_button.click(
            friendly(self.measure),
            [self.over, self.scenes, self.which, self.own],
            measured,
            **together,
            **AS_TYPED,
            **PRIVATE,
        )
        self.stop_button.click(friendly(self.stop), None, None, queue=False, **QUIET)
        self.table.select(friendly(self.choose), None, self.chosen, **QUIET)
        goes = [*explore.templates.values(), *explore.sources.values(), tabs]
        used = self.use_button.click(friendly(self.use), [self.chosen, explore.method], goes, **QUIET)
        self._goes = [*explore.templates], [*explore.sources]
        explore.redrawn(used)
        gr.on(
            [self.name.input, self.extra.change],  # a word that is typed is no input to Gradio, but a change
            friendly(self.compare_words),
            [self.name, self.extra],
            words,
            trigger_mode="always_last",
            **QUIET,
        )
        self.leave_out_button.click(
            friendly(self.leave_out),
            None,
            background,
            show_progress="minimal",
            show_progress_on=self.background_told,
            **PRIVATE,
        )

    def _publish(self) -> None:
        """The doors for programs."""
        with gr.Group(visible=False):
            picture, settings, report = photo_input("Picture"), gr.JSON(label="Settings"), gr.JSON(label="Report")
            templates, classes, words = (
                gr.Dropdown([], multiselect=True, allow_custom_value=True, label=label) for label in ("Templates", "Classes", "Words")
            )
            scenes, name, button = gr.Number(label="Scenes"), gr.Textbox(label="Class"), gr.Button()
            method = gr.Textbox(self.studio.default, label="Method")
        measured = {"concurrency_limit": 2, "concurrency_id": "measure"}
        button.click(friendly(self.api_templates), [templates, scenes, settings, method], report, api_name="templates", **measured)
        button.click(friendly(self.api_words), [picture, classes, name, words, settings, method], report, api_name="words")
        asked = [picture, classes, settings, method]
        button.click(friendly(self.api_background_words), asked, report, api_name="background_words")

    def arrive(self, request: gr.Request, key: str, about: str):
        """The picture that is open now; what was said of another one's background words is cleared away."""
        view = self.studio.view(request.session_hash)
        now = " ".join((key, *view.sample.names))
        if now == about:
            return about, figures.opened(view), *[gr.skip()] * 5
        others = [word for name, own in SYNONYMS.items() if name not in view.sample.names for word in own]
        name = gr.Radio(choices=list(view.sample.names), value=figures.shown_class(view))
        return (
            now,
            figures.opened(view),
            name,
            gr.Dropdown(choices=others, value=[], multiselect=True, allow_custom_value=True),
            "",
            "",
            None,
        )

    def measure_unasked(self, request: gr.Request, about: str) -> Iterator:
        """The usual templates over the open picture when the page is opened: once for each question, and not while a visitor's own runs."""
        visitor, view = request.session_hash, self.studio.view(request.session_hash)
        run = self.studio.shelf.get(visitor, RUN)
        asked = f"{about} {by_hand(view.pipeline).about()}"
        if self.studio.shelf.get(visitor, MEASURED) == asked or (run is not None and not run.unasked and not run.ended):
            yield NOTHING  # an event without an answer would clear the page
            return
        self.studio.shelf.put(visitor, MEASURED, asked, len(asked))
        yield from self.measure(request, THIS, SCENES[2], KNOWN if self.clip.is_tiny else EVERY, "", unasked=True)

    def measure(self, request: gr.Request, over: str, scenes: float, which: str, own: str, *, unasked: bool = False) -> Iterator:
        """Row by row; what was measured before a Stop stays."""
        templates = self._templates(which, own)
        if over not in (THIS, MANY):
            raise Refused(f"expected to measure over {THIS} or {MANY}, got {over!r}"[:200])
        run, view = Run(unasked), None
        going = self._started(request.session_hash, run)
        masks: dict[str, Tensor] = {}  # of the best and the worst template so far
        if over == THIS:
            view = self.studio.view(request.session_hash)
            steps = self._over_view(view, templates, masks, going)
        else:
            opened = self.studio.shelf.get(request.session_hash, "view")
            pipeline = self._for_scenes(opened.pipeline if opened else self.first)
            steps = self._over_scenes(pipeline, ask.whole_number(scenes, "scenes", *SCENES[:2]), templates, going)
        measured, sentence, last = [], "", 0.0
        try:
            for sentence, rows in steps:
                measured += rows
                if time.monotonic() - last > PAUSE:
                    last = time.monotonic()
                    yield self._shown(figures.told(sentence, done=len(measured), of=len(templates)), measured, view, masks)
            sentence += "."
        except Replaced:
            yield NOTHING
            return
        except Stopped:
            sentence = f"Stopped: {len(measured)} of {len(templates)} templates are measured, and stay."
        run.ended = True
        yield self._shown(figures.told(sentence) + self._strange(templates), measured, view, masks)

    def stop(self, request: gr.Request) -> None:
        run = self.studio.shelf.get(request.session_hash, RUN)
        if run is not None:
            run.stopped = True

    def choose(self, event: gr.SelectData):
        """The template of the line that was clicked, however the lines are sorted."""
        return event.row_value[0]

    def use(self, template: str, method: str):
        """The template goes to the method that is chosen in Explore, which is then asked with hand-crafted prompts."""
        (template,) = ask.asked_templates([template or ""])
        with_template, with_source = self._goes
        if method not in with_template:
            raise Refused(f"{self.studio.method(method).title} is not asked with a template: choose another method in Explore")
        templates = [template if name == method else gr.skip() for name in with_template]
        return *templates, *[BY_HAND if name == method else gr.skip() for name in with_source], gr.Tabs(selected="Explore")

    def _templates(self, which: str, own: str) -> list[str]:
        if which not in (KNOWN, EVERY):
            raise Refused(f"expected templates out of {KNOWN} or {EVERY}, got {which!r}"[:200])
        chosen = known_templates() if which == KNOWN else ask.templates_for(self.clip)
        return ask.asked_templates([*(own or "").splitlines(), self.first.settings.template, *chosen])

    def _started(self, visitor: str, run: Run) -> Callable[..., None]:
        """A new measurement in the place of the visitor's last -> what raises Stopped or Replaced once that is no longer so."""
        self.studio.shelf.put(visitor, RUN, run, 1)

        def going(*_) -> None:
            now = self.studio.shelf.get(visitor, RUN)
            if run.stopped or now is None:
                raise Stopped
            if now is not run:
                raise Replaced

        return going

    def _over_view(
        self, view: View, templates: list[str], masks: dict[str, Tensor], going: Callable[..., None]
    ) -> Iterator[tuple[str, list[TemplateRow]]]:
        results, rows = reworded(by_hand(view.pipeline), view.sample, view.tokens, ({"template": template} for template in templates)), []
        for count, (template, result) in enumerate(zip(templates, self.studio.in_turn(results), strict=True), start=1):
            going()
            iou = figures.scene_iou(view, result.labels)
            rows.append(template_row(template, [list(result.scores.values())], math.nan if iou is None else iou, 1))
            masks[template] = result.labels
            ends = {row.template for row in (min(rows, key=worth), max(rows, key=worth))}
            for other in masks.keys() - ends:
                del masks[other]
            yield f"{count} of {len(templates)} templates over the picture with {', '.join(view.sample.names)}", rows[-1:]

    def _over_scenes(
        self, pipeline: Pipeline, count: int, templates: list[str], going: Callable[..., None]
    ) -> Iterator[tuple[str, list[TemplateRow]]]:
        for encoded in self.studio.encoded(count):
            going()
            yield f"Encoding: {len(encoded)} of {count} scenes", []
        rows = template_rows(pipeline, encoded, templates, lock=self.studio.lock, progress=going)
        for number, row in enumerate(rows, start=1):
            yield f"{number} of {len(templates)} templates over {count} scenes", [row]

    def _for_scenes(self, pipeline: Pipeline) -> Pipeline:
        """The method with its own words for every class, at the size at which all visitors' scenes are encoded."""
        usual, first = self.studio.start(pipeline.method.name).settings, self.first.settings
        words = {**usual.synonyms, **pipeline.settings.synonyms}
        return by_hand(pipeline).changed(side=first.side, side_limit=first.side_limit, synonyms=words)

    def _shown(self, sentence: str, rows: Sequence[TemplateRow], view: View | None, masks: Mapping[str, Tensor]):
        """Status, table, what is to be said of it, plot, the masks of the best and of the worst template."""
        best = sorted(rows, key=worth, reverse=True)
        cells = [[row.template, rounded(row.sharpness, 4), rounded(100 * row.class_score, 1), rounded(100 * row.miou, 1)] for row in best]
        known = [row for row in rows if not math.isnan(row.sharpness + row.miou)]
        lines = [TemplateTable(tuple(rows), "val", self.clip.name).verdict()] if len(known) > 2 else []
        if view is not None:
            if len(view.sample.names) < 2:
                lines = ["Sharpness compares classes of one picture, so it needs a picture with two or more: this one was asked for one."]
            if view.sample.truth is None:
                lines.append("Nobody knows the truth of a photo, so there is no IoU.")
            lines.append("mIoU is here the IoU of this picture alone; one picture says little about a template: measure over drawn scenes.")
        elif rows:
            lines.append("Who picks a template from this table tunes it on the truth of these scenes; no refiner.")
        points = [(row.template, round(row.sharpness, 4), round(100 * row.miou, 1)) for row in known]
        plot = gr.ScatterPlot(pandas.DataFrame(points, columns=["template", SHARPNESS, MIOU]), visible=len(known) > 2)
        ends = [(title, best[place]) for title, place in (("Best", 0), ("Worst", -1)) if len(masks) > 1]
        pair = "".join(self._end(view, title, row, masks[row.template]) for title, row in ends)
        pair = f'<div class="kit-heats kit-pair">{pair}</div>'
        return sentence, cells, "".join(f"<p>{html.escape(line)}</p>" for line in lines), plot, pair

    def _end(self, view: View, title: str, row: TemplateRow, labels: Tensor) -> str:
        """The mask of the best or the worst template."""
        by = f"score {100 * row.class_score:.1f} %: nobody knows the truth" if math.isnan(row.miou) else f"IoU {100 * row.miou:.1f} %"
        sharp = "" if math.isnan(row.sharpness) else f" · sharpness {row.sharpness:.4f}"
        said, url = html.escape(f"“{row.template}”"), figures.picture_url(figures.plain_mask(view, labels))
        return figures.framed(url, title, f"{said} · {by}{sharp}", alt=f"mask of the {title.lower()} template, {said}")

    def _strange(self, templates: Sequence[str]) -> str:
        return warned(word for template in templates for word in self.clip.unknown_words(template.replace("{}", " ")))

    def compare_words(self, request: gr.Request, name: str, extra: list[str]):
        """Bars of similarity, and beside them the map that each word gives."""
        view = self.studio.view(request.session_hash)
        rows = sorted(self._word_rows(by_hand(view.pipeline), view.sample, view.tokens, name, extra), key=lambda row: -row.similarity)
        marks = word_marks(name, rows)
        sentences = [f"How similar is the picture to each word of {name}? Bars run from the lowest to the highest of these words."]
        if decoy_of(name, rows[0].word):
            sentences.append(
                f"The decoy “{rows[0].word}” is more similar than every word of {name}: the word alone does not tell what is there."
            )
        said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
        strange = warned(word for row in rows for word in self.clip.unknown_words(row.word.replace(",", " ")))
        heats = "".join(self._word_heat(view, name, row, marks[row.word]) for row in rows)
        bars = figures.word_bars({row.word: row.similarity for row in rows}, marks)
        return said + bars + strange, f'<div class="kit-heats kit-small">{heats}</div>'

    def _word_rows(self, pipeline: Pipeline, sample: Sample, tokens: Tokens, name: str, extra: list[str] | None) -> list[WordRow]:
        own = [word.strip() for word in ask.texts(extra or [], "words") if word.strip()]
        if len(own) > EXTRA_WORDS:
            raise Refused(f"expected at most {EXTRA_WORDS} words of your own, got {len(own)}")
        asked = pipeline.settings.synonyms.get(name, name)
        words = list(dict.fromkeys((name, asked, *SYNONYMS.get(name, ()), *own)))
        return list(self.studio.in_turn(word_rows(pipeline, sample, tokens, name, words)))

    def _word_heat(self, view: View, name: str, row: WordRow, mark: str) -> str:
        picture = figures.heat(replace(view, result=row.result), next(iter(row.result.stages)), name)
        caption = " · ".join(filter(None, (html.escape(mark), figures.iou_text(figures.scene_iou(view, row.result.labels), 1))))
        word = html.escape(row.word)
        return figures.framed(figures.picture_url(picture), word, caption, alt=f"heat of {html.escape(name)} asked for as {word}")

    def leave_out(self, request: gr.Request) -> Iterator:
        """A row at a time, the word that changes most first."""
        view = self.studio.view(request.session_hash)
        total = len(dict.fromkeys(view.pipeline.settings.background))
        rows: list[BackgroundRow] = []
        last = 0.0
        for row in self.studio.in_turn(background_rows(by_hand(view.pipeline), view.sample, view.tokens)):
            rows.append(row)
            if time.monotonic() - last > PAUSE:
                last = time.monotonic()
                yield (
                    figures.told("Leaving out one word after the other", done=len(rows), of=total + 2),
                    gr.skip(),
                    self._left_out(view, rows),
                )
        ranked = sorted((row for row in rows if len(row.left_out) == 1), key=lambda row: -row.changed)
        sentence = "There is no background word to leave out: choose some in Explore."
        if ranked:
            idle = sum(row.changed == 0 for row in ranked)
            sentence = f"“{ranked[0].left_out[0]}” matters most; {idle} of {total} words change no pixel. Before the refiner."
        pictures = "".join(self._mask(view, row) for row in dict.fromkeys([rows[0], *ranked[:1], *rows[1:2]]))
        yield figures.told(sentence), f'<div class="kit-strip">{pictures}</div>', self._left_out(view, rows)

    def _left_out(self, view: View, rows: Sequence[BackgroundRow]) -> list[list]:
        base = figures.scene_iou(view, rows[0].labels)
        cells = []
        for row in sorted(rows, key=lambda row: -row.changed):
            iou = figures.scene_iou(view, row.labels)
            scores = [None, None] if iou is None else [rounded(100 * iou, 1), rounded(100 * (iou - base), 1)]
            cells.append([title_of(row), rounded(100 * row.changed, 1), *scores])
        return cells

    def _mask(self, view: View, row: BackgroundRow) -> str:
        title = f"Without {title_of(row)}" if row.left_out else "With all words"
        caption = (
            figures.iou_text(figures.scene_iou(view, row.labels), 1),
            f"{100 * row.changed:.1f}&nbsp;% changed" if row.left_out else "",
        )
        url = figures.picture_url(figures.plain_mask(view, row.labels))
        return figures.framed(url, html.escape(title), " · ".join(filter(None, caption)), alt="mask " + html.escape(title.lower()))

    def api_templates(self, templates: list[str], scenes: float, settings: dict | None, method: str):
        """Measure templates over the first scenes of the drawn world's val split (1 to 200): settings, {} for the app's, and the method.

        -> report (JSON): for each template sharpness (lower is better), class_score and miou (0..1, before the refiner), and the rank
        correlation of sharpness and miou (null where it is not known).
        """
        templates = ask.asked_templates(templates or [])
        count = ask.whole_number(scenes, "scenes", 1, SCENES[1])
        pipeline = self._for_scenes(self.studio.pipeline("", method or self.studio.default, settings))
        *_, encoded = self.studio.encoded(count)
        return template_table(pipeline, encoded, templates, lock=self.studio.lock).to_dict()

    def api_words(self, image: str, classes: list[str], name: str, words: list[str], settings: dict | None, method: str):
        """Compare words in a class's place: the picture, its classes, one of them, words of your own beside the known ones, settings and
        the method.

        -> report (JSON): each word's cosine with the picture, and what kind of word it is, the most similar first.
        """
        pipeline, sample, tokens = ask.pictured(self.studio, image, classes, settings, method)
        name = class_name(name or "")
        rows = self._word_rows(by_hand(pipeline), sample, tokens, name, words)
        marks = word_marks(name, rows)
        told = [
            {
                "word": row.word,
                "similarity": row.similarity,
                "score": row.result.scores[name],
                "mark": marks[row.word],
                "unknown": self.clip.unknown_words(row.word.replace(",", " ")),
            }
            for row in sorted(rows, key=lambda row: -row.similarity)
        ]
        return {"class": name, "words": told, "model": self.clip.name}

    def api_background_words(self, image: str, classes: list[str], settings: dict | None, method: str):
        """Leave out each background word of the settings in turn: the picture, its classes, settings, {} for the app's, and the method.

        -> report (JSON): for each word the share of pixels whose label changes (0..1), the largest first; and the same for all of them.
        """
        pipeline, sample, tokens = ask.pictured(self.studio, image, classes, settings, method)
        _, *rows = self.studio.in_turn(background_rows(by_hand(pipeline), sample, tokens))
        each = sorted((row for row in rows if len(row.left_out) == 1), key=lambda row: -row.changed)
        words = [{"word": row.left_out[0], "changed": row.changed} for row in each]
        return {"words": words, "without_any": rows[0].changed if rows else 0.0, "model": self.clip.name}


def worth(row: TemplateRow) -> float:
    """By what templates are ranked: the IoU, or the classes' score where nobody knows the truth."""
    return row.class_score if math.isnan(row.miou) else row.miou


def by_hand(pipeline: Pipeline) -> Pipeline:
    """The same asked with words, not with what was learned."""
    return pipeline if pipeline.learned is None else pipeline.changed(learned=None)


def table(head: Sequence[str], *, label: str, widths: Sequence[str]) -> gr.Dataframe:
    """A table that visitors sort and do not edit: words, then numbers."""
    return gr.Dataframe(
        headers=list(head),
        datatype=["str", *["number"] * (len(head) - 1)],
        type="array",
        label=label,
        interactive=False,
        wrap=True,
        max_height=420,
        column_count=len(head),
        column_widths=list(widths),
        buttons=["copy"],
        elem_classes="kit-table",
    )


def rounded(value: float, digits: int) -> float | None:
    """A number for a table; what is not known stays empty."""
    return None if math.isnan(value) else round(value, digits)


def title_of(row: BackgroundRow) -> str:
    if not row.left_out:
        return "nothing"
    return row.left_out[0] if len(row.left_out) == 1 else "all words"


def decoy_of(name: str, word: str) -> str:
    """The other class that a word belongs to; an empty text for a word that is no decoy."""
    if word in SYNONYMS.get(name, (name,)):
        return ""
    return next((other for other, words in SYNONYMS.items() if other != name and word in words), "")


def word_marks(name: str, rows: Sequence[WordRow]) -> dict[str, str]:
    """What is to be said of each word: the class name, a decoy, the word that CLIP finds most similar."""
    honest = [row for row in rows if not decoy_of(name, row.word)]
    best = max(honest, key=lambda row: row.similarity).word
    marks = {}
    for row in rows:
        other = decoy_of(name, row.word)
        parts = ["class name"] * (row.word == name) + ["best word"] * (row.word == best) + [f"decoy: a word of {other}"] * bool(other)
        marks[row.word] = ", ".join(parts)
    return marks


def warned(words: Iterable[str]) -> str:
    """The words that the tiny model has never seen, in one sentence."""
    strange = ", ".join(f"'{word}'" for word in dict.fromkeys(words))
    return f'<p class="kit-warn">unknown to the tiny model: {html.escape(strange, quote=False)}</p>' if strange else ""
