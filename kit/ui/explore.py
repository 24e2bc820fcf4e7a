"""Explore: a picture, its classes, a method and every setting of it, redrawn while a slider moves; what needs no model follows behind."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from kit import cam, refine, show
from kit.data import Sample, toy_samples
from kit.images import save_image, save_mask
from kit.last_block import last_pass, patch_embeddings, value_embeddings
from kit.method import Pipeline, with_settings
from kit.prompt import nearest_words, prompts
from kit.propose import LEVELS
from kit.settings import Setting, Settings, plain, shortened
from kit.toy import PLACES
from kit.toy.places import STUFF
from kit.ui import address, ask, controls, figures, regions, story
from kit.ui.buttons import buttons
from kit.ui.session import (
    AS_TYPED,
    BY_HAND,
    HERE,
    OURS,
    PRIVATE,
    PROMPTS_FROM,
    QUIET,
    STARTED,
    Look,
    Refused,
    Studio,
    View,
    friendly,
    results_folder,
    warn,
)
from kit.words import SYNONYMS, VOC_CLASSES, class_name, label_numbers

SCENES = (32, 68, 2, 24, 44, 38, 45, 15, 5, 23, 22, 57)  # of the val split: every kind of place, five with several classes
COUNTERFACTUALS = (
    ("A boat on grass", ("boat",), "grass", 4),
    ("A cow on the sea", ("cow",), "sea", 3),
    ("A sofa in the forest", ("sofa",), "forest", 1),
)
NEAREST, TOLD = 6, 5  # words shown for a patch, and of learned vectors
LAST_SCENE = 99_999  # of the val split
THUMBNAIL_SIDE = 120
STRIP = Path(__file__).parent / "assets" / "strip.js"
IN_VIEW = """(...given) => {  // on a phone, a picture that is chosen scrolls into view
  const strip = document.querySelector('.kit-answer .kit-strip');
  if (strip && strip.getBoundingClientRect().top > 0.6 * innerHeight) strip.scrollIntoView({behavior: 'smooth', block: 'start'});
  return given;
}"""


class Explore:
    """The page: laid out when made, with its events. Of a visitor it keeps nothing but what lies on the studio's shelf.

    For the other pages: `key` and `method` say what a visitor asks about, `templates` and `sources` (by method's name) are controls that
    they may set, `redrawn` follows an event that has done so; `open_with` gives what the components `opened` need to show another picture.
    """

    def __init__(self, studio: Studio, demo: gr.Blocks):
        self.studio, self.clip = studio, studio.clip
        self.common: dict[str, gr.components.Component] = {}  # for every method
        self.own: dict[tuple[str, str], gr.components.Component] = {}  # by method and setting
        self.sources: dict[str, gr.Radio] = {}
        self.panels: dict[str, gr.Column] = {}
        self.prompts: dict[str, gr.Row] = {}
        self.settings = {name: controls.shown_settings(method) for name, method in studio.methods.items()}
        self.key, self.hidden = gr.State(""), gr.State({})
        with gr.Row(elem_classes="kit-page kit-explore"):
            with gr.Column(scale=1, min_width=300, elem_classes="kit-panel"):
                with gr.Column(elem_classes="kit-pictures"):
                    self._lay_out_picture()
                with gr.Column(elem_classes="kit-controls"):
                    choices = [(method.title, name) for name, method in studio.methods.items()]
                    self.method = gr.Radio(choices, value=studio.default, label="Method")
                    for name in studio.methods:
                        with gr.Column(visible=name == studio.default) as self.panels[name]:
                            self._lay_out_settings(name)
                    self._lay_out_words()
                    self._lay_out_look()
                    self._lay_out_files()
            with gr.Column(scale=3, min_width=300, elem_classes="kit-result"):
                with gr.Column(elem_classes="kit-prompt"):
                    self._lay_out_prompt()
                with gr.Column(elem_classes="kit-answer"):
                    self.strip = gr.HTML(js_on_load=STRIP.read_text(encoding="utf-8"))
                    self.notes = gr.HTML(elem_classes="kit-notes")
                with gr.Column(elem_classes="kit-closer"):
                    self._lay_out_closer()
        self._connect(demo)
        self._publish()

    @property
    def controls(self) -> dict:
        """All that an answer depends on, in the order in which `redraw` takes them."""
        sources = {(name, PROMPTS_FROM): source for name, source in self.sources.items()}
        return {**self.common, **sources, **self.own}

    @property
    def templates(self) -> dict[str, gr.components.Component]:
        return {name: self.own[name, "template"] for name in self.studio.methods if (name, "template") in self.own}

    def _lay_out_picture(self) -> None:
        self.gallery = buttons(f'<div class="kit-gallery">{"".join(map(thumbnail, SCENES))}</div>')
        with gr.Row(elem_classes="kit-whatif"):
            self.examples = [gr.Button(text, size="sm", min_width=80) for text, *_ in COUNTERFACTUALS]
        with gr.Accordion("Draw another", open=False):
            self.objects = gr.Dropdown(
                list(VOC_CLASSES),
                value=["boat", "cow"],
                multiselect=True,
                max_choices=4,
                label="Objects",
                info="up to four; none: what the place has",
            )
            with gr.Row():
                self.place = gr.Dropdown([("where they belong", ""), *PLACES], value="road", label="Place", min_width=120)
                self.seed = gr.Number(1, label="Seed", min_width=80)
            self.draw_button = gr.Button("Draw it", variant="primary", size="sm")
        with gr.Accordion("Your own photo", open=False):
            self.photo = photo_input("Photo", sources=["upload", "clipboard", "webcam"], height=190)

    def _lay_out_prompt(self) -> None:
        """The prompt as a sentence with its controls: classes, and for each method the template and what competes."""
        self.sentence = buttons()
        with gr.Row():
            with gr.Column(scale=2, min_width=180):
                self.common["classes"] = gr.Dropdown(
                    list(self.studio.vocabulary), multiselect=True, allow_custom_value=True, max_choices=ask.MAX_CLASSES,
                    label="Classes",
                )  # fmt: skip
            for name in self.studio.methods:
                with gr.Row(visible=name == self.studio.default, elem_classes="kit-sentence-of") as self.prompts[name]:
                    for setting in self.settings[name].values():
                        if setting.name in controls.SENTENCE:
                            with gr.Column(scale=3 if setting.name == "template" else 7, min_width=180):
                                self._lay_out_setting(name, setting, info=False)
        self.differs = buttons()
        self.common["shown"] = gr.Textbox(visible=False)

    def _lay_out_words(self) -> None:
        with gr.Accordion("Words in place of a class name", open=False):
            self.common["words"] = gr.Dropdown(
                [], value=[], multiselect=True, allow_custom_value=True, label="Words",
                info="one: a synonym; several of one class: fused; or type: boat = canoe",
            )  # fmt: skip
            self.suggest_button = gr.Button("Suggest classes", size="sm")
            self.suggestions = gr.HTML(visible=False)

    def _lay_out_settings(self, name: str) -> None:
        start, learned = self.studio.start(name), self.studio.learned.get(name)
        if self.studio.methods[name].lessons:
            came = [("that came with the app", STARTED)] if start.learned is not None or isinstance(learned, str) else []
            others = [("learned here, on the Learn page", HERE), ("hand-crafted, by the template", BY_HAND)]
            self.sources[name] = gr.Radio([*came, *others], value=BY_HAND if start.learned is None else STARTED, label="Prompts")
        known = self.settings[name]
        first = controls.knobs(self.studio.methods[name], known)
        for setting in first:
            self._lay_out_setting(name, known[setting])
        rest = {key: setting for key, setting in known.items() if key not in (*first, *controls.SENTENCE)}
        for title, inner in controls.groups_of(rest).items():
            with gr.Accordion(title, open=False):
                for setting in inner.values():
                    self._lay_out_setting(name, setting)

    def _lay_out_setting(self, name: str, setting: Setting, **layout) -> None:
        start = self.studio.start(name)
        if setting.name not in self.studio.own_changes(start.method):
            value, templates = start.settings.value(setting.name), ask.templates_for(self.clip)
            self.own[name, setting.name] = controls.control(setting, value, self.clip, templates, **layout)

    def _lay_out_look(self) -> None:
        with gr.Accordion("Look", open=False):
            self.common["opacity"] = gr.Slider(0, 1, 0.6, step=0.05, label="Opacity")
            self.common["colour_map"] = gr.Dropdown(list(show.COLOUR_MAPS), value=show.COLOUR_MAPS[0], label="Colours of heat")

    def _lay_out_files(self) -> None:
        with gr.Accordion("Keep and restore", open=False):
            self.files_button = gr.Button("Make the files", size="sm")
            with gr.Row():
                titles = ("Mask PNG", "Overlay PNG", "Maps npz", "Settings JSON")
                self.files = [gr.DownloadButton(label, visible=False, size="sm", min_width=100) for label in titles]
            self.restore = gr.UploadButton("Load settings from JSON", file_types=[".json"], size="sm")

    def _lay_out_closer(self) -> None:
        first = self.studio.default
        with gr.Tabs():
            with gr.Tab("Each class"):
                self.heats = gr.HTML()
            with gr.Tab("Masks", visible=bool(self._votes(first))) as self.masks_tab:
                with gr.Row():
                    self.level = gr.Radio([(name, index) for index, name in enumerate(LEVELS)], value=2, label="Level of the masks")
                    self.voted = gr.Dropdown(**self._voted(first), label="Votes of")
                self.regions = gr.HTML()
            with gr.Tab("Ask a patch"):
                gr.Markdown(
                    "Click into the picture: where does this patch attend, and which words is it nearest to, before and after it reads the "
                    "others?"
                )
                with gr.Row():
                    self.clickable = gr.Image(
                        label="Click here", format="png", interactive=False, height=340, buttons=[], alt_text="The picture, to be clicked"
                    )
                    self.patch = gr.HTML(elem_classes="kit-patch")

    def _votes(self, name: str) -> list[str]:
        return [stage.name for stage in self.studio.methods[name].stages if stage.shows == "votes"]

    def _voted(self, name: str) -> dict:
        """Choices and value of the votes."""
        method, votes = self.studio.methods[name], self._votes(name)
        named = [(method.stage(stage).title_for(self.studio.start(name).settings), stage) for stage in votes]
        return {"choices": named, "value": votes[-1] if votes else None}

    def _connect(self, demo: gr.Blocks) -> None:
        """Three kinds of events: open a picture, turn a knob (the model is asked, the encoder is not), look closer."""
        redrawn, (classes, words, shown) = self.redrawn, (self.common[name] for name in ("classes", "words", "shown"))
        opened = self.opened = [self.key, classes, words, shown, self.clickable, self.patch, self.suggestions]
        everything = [self.hidden, self.method, *self.controls.values()]
        redrawn(demo.load(friendly(self.open_first), None, [self.key, self.clickable, *everything], **QUIET))
        redrawn(self.gallery.click(friendly(self.open_scene), None, opened, trigger_mode="always_last", js=IN_VIEW, **QUIET))
        redrawn(
            self.draw_button.click(
                friendly(self.open_drawing), [self.objects, self.place, self.seed], opened, js=IN_VIEW, **AS_TYPED, **PRIVATE
            )
        )
        for button, (_, names, place, seed) in zip(self.examples, COUNTERFACTUALS, strict=True):
            asked = [gr.State(list(names)), gr.State(place), gr.State(seed)]
            redrawn(button.click(friendly(self.open_drawing), asked, opened, js=IN_VIEW, **QUIET))
        redrawn(self.photo.input(friendly(self.open_photo), self.photo, opened, **PRIVATE))
        redrawn(self.sentence.click(friendly(self.choose_shown), None, shown, **QUIET))
        redrawn(classes.change(friendly(self.retune), [classes, words, shown], [words, shown], trigger_mode="always_last", **QUIET))
        templates = list(self.templates.values())
        self.suggest_button.click(
            friendly(self.suggest_classes), [self.key, self.method, *templates], [classes, self.suggestions], **PRIVATE
        )
        redrawn(self.restore.upload(friendly(self.restored), [self.restore, classes, self.method], everything, **PRIVATE))
        redrawn(self.differs.click(friendly(self.reset), [self.hidden, self.method], everything, **QUIET))
        panes = [*self.panels.values(), *self.prompts.values(), self.voted, self.masks_tab]
        redrawn(self.method.change(friendly(self.choose_method), self.method, panes, **QUIET))

        # A drop-down says nothing by `input` of a word that was typed; `change` also comes when the page itself sets it, and `redraw` knows
        live = []
        for part in (part for name, part in self.controls.items() if name not in ("classes", "shown")):
            live += (
                [part.change] if isinstance(part, gr.Dropdown) else [part.submit, part.blur] if type(part) is gr.Textbox else [part.input]
            )
        self._followed(gr.on(live, friendly(self.redraw), *self._redraw_ends(), trigger_mode="always_last", **AS_TYPED, **QUIET))

        gr.on([self.level.input, self.voted.input], friendly(self.mask_layer), [self.key, self.level, self.voted], self.regions, **QUIET)
        look = [self.common["opacity"], self.common["colour_map"]]
        self.clickable.select(friendly(self.ask_patch), look, self.patch, trigger_mode="always_last", **QUIET)
        self.files_button.click(friendly(self.make_files), look[0], self.files, **PRIVATE)

    def redrawn(self, event) -> None:
        """After an event that has set the controls: the answer, and then what follows it."""
        self._followed(event.success(friendly(self.redraw), *self._redraw_ends(), trigger_mode="always_last", **AS_TYPED, **QUIET))

    def _redraw_ends(self) -> tuple[list, list]:
        answer = [self.strip, self.heats, self.notes, self.sentence, self.differs, *self.files]
        return [self.key, self.hidden, self.method, *self.controls.values()], answer

    def _followed(self, redraw) -> None:
        # What follows a view that is out of date stops by itself. Gradio's `cancels` may ask before it knows what to cancel: an error 422
        slow, asked = [self.strip, self.notes, self.regions], [self.key, self.level, self.voted]
        redraw.then(friendly(self.refine), asked, slow, trigger_mode="multiple", concurrency_limit=2, **QUIET)
        redraw.failure(friendly(self.back), self.method, [self.hidden, *self.controls.values()], **QUIET)

    def _publish(self) -> None:
        """The doors for programs: hidden components give them typed inputs."""
        with gr.Group(visible=False):
            picture, report = photo_input("Picture"), gr.JSON(label="report")
            mask, overlay = gr.File(label="mask"), gr.Image(format="png", type="filepath", label="overlay")
            drawn, truth = gr.Image(format="png", type="filepath", label="picture"), gr.File(label="truth")
            names = gr.Dropdown([], multiselect=True, allow_custom_value=True, label="Classes")
            settings, template = gr.JSON(label="Settings"), gr.Textbox(label="Template")
            method = gr.Textbox(self.studio.default, label="Method")
            objects = gr.Dropdown(list(VOC_CLASSES), multiselect=True, allow_custom_value=True, label="Objects")
            place, seed = gr.Textbox(label="Place"), gr.Number(label="Seed")
            button = gr.Button()
        asked = [picture, names, settings, method]
        button.click(friendly(self.api_segment), asked, [mask, overlay, report], api_name="segment", concurrency_limit=2)
        button.click(friendly(self.api_draw_scene), [objects, place, seed], [drawn, truth, report], api_name="draw_scene")
        button.click(friendly(self.api_suggest), [picture, template], report, api_name="suggest")

    def open_first(self, request: gr.Request):
        """The picture, the classes and the settings that the page's address names, without one the first scene."""
        asked = address.read(dict(request.query_params or {}))
        try:
            opened = self._opened(request, *self._addressed(asked.picture))
        except OURS as error:
            warn(f"The address cannot be opened: {error}")
            opened = self._opened(request, *self._addressed({}))
        key, names, words, shown, image, *_ = opened
        updates = [{}, gr.skip(), *(dict(zip(("classes", "words", "shown"), (names, words, shown), strict=True)).get(name, gr.skip())
                                    for name in self.controls)]  # fmt: skip
        if asked.values:
            try:
                updates = self._set(request.session_hash, self._named(asked.values), names, self.studio.default)
            except OURS as error:
                warn(f"The address's settings are left out: {error}")
        return key, image, *updates

    def _addressed(self, picture: Mapping[str, str]) -> tuple[Sample, dict[str, str]]:
        if "seed" in picture:
            return self._drawing(
                address.words(picture.get("objects", "")), picture.get("place", ""), address.whole(picture["seed"], "seed")
            )
        number = ask.whole_number(address.whole(picture.get("scene", SCENES[0]), "scene"), "the scene", 0, LAST_SCENE)
        return next(toy_samples("val", 1, size=ask.SCENE_SIDE, start=number)), {"scene": str(number)}

    def _named(self, values: Mapping[str, str]) -> dict:
        """An address's values as a settings file holds them."""
        method = values.get("method", self.studio.default)
        described = self.studio.method(method).Settings.described()
        found = {"method": method} | ({"classes": address.words(values["class"])} if "class" in values else {})
        return found | {name: address.value(described.get(name), text) for name, text in values.items() if name not in ("method", "class")}

    def open_scene(self, request: gr.Request, event: gr.EventData):
        return self._opened(request, *self._addressed({"scene": event.chosen}))

    def open_drawing(self, request: gr.Request, objects: list[str], place: str, seed: float):
        return self._opened(request, *self._drawing(objects, place, seed))

    def _drawing(self, objects: list[str], place: str, seed: float) -> tuple[Sample, dict[str, str]]:
        sample = ask.scene_sample(ask.scene(objects, place, seed))
        return sample, {"objects": ",".join(objects or []), "place": place or "", "seed": str(int(seed))}

    def open_photo(self, request: gr.Request, path: str | None):
        if path is None:
            return [gr.skip()] * 7
        return self._opened(request, Sample(ask.page_sized(ask.photo(path)), (), id=Path(path).stem), {})

    def open_with(self, request: gr.Request, image: np.ndarray, names: Sequence[str], name: str):
        """A picture of another page, with the classes that it was asked for there.   image: uint8 (H, W, 3); name: the picture's."""
        return self._opened(request, Sample(ask.page_sized(image), tuple(names), id=name), {})

    def _opened(self, request: gr.Request, sample: Sample, found_at: Mapping[str, str]):
        """found_at: the picture's part of the page's address, empty where no address leads to it."""
        visitor, studio = request.session_hash, self.studio
        key = studio.keep(visitor, sample)
        studio.shelf.put(visitor, f"{key} address", dict(found_at), 200)
        names = sample.names or self._likely(visitor, key, sample, studio.start(studio.default).settings.template)[0]
        return key, list(names), *self._tuned(names, [], ""), sample.image, "", gr.HTML(visible=False)

    def choose_shown(self, event: gr.EventData):
        return event.chosen

    def retune(self, names: list[str], words: list[str], shown: str | None):
        """The words and the heat to choose from, when the classes have changed."""
        return self._tuned(ask.asked_classes(names), ask.texts(words or [], "words"), shown)

    def _tuned(self, names, entries: list[str], shown: str | None):
        kept = [entry for entry in entries if class_name(entry.partition("=")[0]) in names]
        with_entry = {class_name(entry.partition("=")[0]) for entry in kept}
        usual = {**self.studio.prompt_words, **self.studio.start(self.studio.default).settings.synonyms}
        own = {name: usual.get(name, name) for name in names}
        kept += [f"{name} = {word}" for name, word in own.items() if word != name and name not in with_entry]
        choices = [f"{name} = {word}" for name in names for word in SYNONYMS.get(name, ()) if not self.clip.unknown_words(word)]
        words = gr.Dropdown(choices=list(dict.fromkeys([*choices, *kept])), value=kept, multiselect=True, allow_custom_value=True)
        return words, shown if shown in names else names[0]

    def suggest_classes(self, request: gr.Request, key: str, method: str, *templates: str):
        start = self.studio.start(method)
        template = dict(zip(self.templates, templates, strict=True)).get(method, start.settings.template)
        likely, shares = self._likely(request.session_hash, key, self.studio.sample(request.session_hash, key), template)
        return list(likely), gr.HTML(figures.bars(shares, top=ask.SUGGESTED), visible=True)

    def _likely(self, visitor: str, key: str, sample: Sample, template: str) -> tuple[tuple[str, ...], dict[str, float]]:
        """The vocabulary's names that CLIP finds likeliest, and all their probabilities."""
        tokens, _ = self.studio.tokens(visitor, key, self.studio.start(self.studio.default), sample.image)
        with self.studio.lock:
            return ask.suggested(self.studio, tokens, template)

    def choose_method(self, method: str):
        self.studio.method(method)
        panes = [gr.Column(visible=name == method) for name in self.panels] + [gr.Row(visible=name == method) for name in self.prompts]
        return [*panes, gr.Dropdown(**self._voted(method)), gr.Tab(visible=bool(self._votes(method)))]

    def redraw(self, request: gr.Request, key: str, hidden: dict, method: str, *values) -> list:
        with self.studio.turn(request.session_hash):
            return self._redrawn(request, key, hidden, method, *values)

    def _redrawn(self, request: gr.Request, key: str, hidden: dict, method: str, *values) -> list:
        """Everything but what another process could do, from tokens and stages that are already here.

        No generator: Gradio would send the last answer twice.
        """
        asked, nothing = dict(zip(self.controls, values, strict=True)), [gr.skip()] * len(self._redraw_ends()[1])
        visitor, sample = request.session_hash, self.studio.sample(request.session_hash, key)
        names = ask.asked_classes(asked["classes"])
        pipeline = self._pipeline(visitor, method, asked, hidden)
        look = Look(asked["opacity"], asked["colour_map"], asked["shown"] or "")
        known = tuple(name for name in names if pipeline.learned is None or name in pipeline.learned.classes)
        told = left_out([name for name in names if name not in known], pipeline)
        if not known:
            return [told, "", "", *nothing[3:]]
        before, sample = self.studio.shelf.get(visitor, "view"), replace(sample, names=known)
        if before is not None and before.same_question(sample, pipeline):
            if (before.pipeline.settings, before.look) == (pipeline.settings, look):
                return nothing
            result = replace(before.result, pipeline=pipeline)
            view = replace(before, pipeline=pipeline, result=result, look=look, urls=before.still_packed(sample, look))
        else:
            tokens, seconds = self.studio.tokens(visitor, key, pipeline, sample.image)
            kept, masks = self.studio.kept(visitor, key), [stage for stage in pipeline.stages if stage.shows == "masks"]
            if masks and not kept.has(masks[0]):
                gr.Info("This picture's masks are made, once; a SAM may take minutes for them without a GPU.", duration=5)
            named = {"tokens": tokens, "kept": kept, "lock": self.studio.lock}
            found = list(pipeline.steps(sample, **named, worker=False)) or list(pipeline.steps(sample, **named))
            result = replace(found[-1], seconds={**found[-1].seconds, "encode": seconds})
            done = not any(stage.is_shown and stage.name not in result.stages for stage in pipeline.stages)
            view = View(sample, pipeline, tokens, result, look, done, before.still_packed(sample, look) if before else {})
        self.studio.show(visitor, view)
        heats, no_files = figures.class_heats(view), [gr.DownloadButton(visible=False)] * len(self.files)
        return [self._strip(visitor, key, view), heats, told + figures.notes(view), self._sentence(view), self._differs(view), *no_files]

    def _strip(self, visitor: str, key: str, view: View) -> str:
        """The strip with the address at which this very view can be opened again."""
        found_at = self.studio.shelf.get(visitor, f"{key} address")
        return figures.strip(view, address.written(found_at, view, self._usual(view), self.studio.default) if found_at else "")

    def _usual(self, view: View) -> Settings:
        """The settings as a visitor finds them, with the words that stand in the place of this view's classes."""
        settings, names = self.studio.start(view.pipeline.method.name).settings, view.sample.names
        return settings.changed(synonyms=settings.synonyms | {name: self.studio.prompt_words[name] for name in names
                                                              if name in self.studio.prompt_words})  # fmt: skip

    def _sentence(self, view: View) -> str:
        settings, name = view.pipeline.settings, figures.shown_class(view)
        colours = {own: figures.hex_colour(own, view.sample.names) for own in view.sample.names}
        vectors, rivals = self._vectors(view.pipeline, name), len(settings.background)
        return story.sentence(settings.template, view.sample.names, settings.synonyms, colours, name, rivals=rivals, vectors=vectors)

    def _vectors(self, pipeline: Pipeline, name: str) -> str:
        """What stands in the template's place where prompts were learned, and the words that its vectors come nearest to."""
        if pipeline.learned is None:
            return ""
        found = [lesson for key, lesson in pipeline.method.lessons.items() if key in pipeline.learned.tensors and lesson.vectors]
        if not found:
            return "<span>learned prompts:</span>"
        near = pipeline.learned.once(("nearest", name), lambda: nearest_words(self.clip, found[0].vectors(pipeline, name), count=1))
        said = [html.escape(word) for word in dict.fromkeys(row[0][0] for row in near)]
        title = f"the word nearest to each vector: {' · '.join(said)}"
        return f'<span title="{title}">[{len(near)} learned vectors, nearest to {" · ".join(said[:TOLD])} …]</span>'

    def _differs(self, view: View) -> str:
        """What differs from the preset, each with a way back."""
        settings, usual, chips = view.pipeline.settings, self._usual(view), []
        described = type(settings).described()
        for name, value in settings.unlike(usual).items():
            title, now, then = described[name].title or name, in_short(value), in_short(usual.value(name))
            group = f"{name.rpartition('.')[0].replace('.', ': ')}: " if "." in name else ""
            chips.append(
                f'<button class="kit-chip" data-choose="{name}" aria-label="reset {html.escape(title)} to {html.escape(then)}">'
                f"{html.escape(group + title)} <b>{html.escape(now)}</b> <s>{html.escape(then)}</s> ↺</button>"
            )
        if not chips:
            return ""
        return (
            f'<p class="kit-differs">Unlike the preset: {" ".join(chips)} <button class="kit-chip" data-choose="*">reset all</button></p>'
        )

    def reset(self, request: gr.Request, hidden: dict, method: str, event: gr.EventData):
        """One setting, or all of a method's, as a visitor first found them; those without a control too."""
        start, wanted = self.studio.start(self.studio.method(method).name), event.chosen
        updates = {
            key: controls.shown(self.settings[method][key[1]], plain(start.settings.value(key[1])), self.clip)
            for key in self.own
            if key[0] == method and wanted in (key[1], "*")
        }
        if wanted in ("synonyms", "*"):
            view = self.studio.view(request.session_hash)
            updates["words"], _ = self._tuned(view.sample.names, [], view.look.shown)
        kept = {name: value for name, value in hidden.get(method, {}).items() if wanted not in (name, "*")}
        return {**hidden, method: kept}, gr.skip(), *(updates.get(key, gr.skip()) for key in self.controls)

    def back(self, request: gr.Request, method: str):
        """After something that cannot be asked: every control shows what is drawn."""
        view = self.studio.shelf.get(request.session_hash, "view")
        if view is None or view.pipeline.method.name != method:
            return [gr.skip()] * (1 + len(self.controls))
        settings = view.pipeline.settings
        updates = {(method, name): controls.shown(setting, plain(settings.value(name)), self.clip)
                   for name, setting in self.settings[method].items()}  # fmt: skip
        updates |= {"opacity": view.look.opacity, "colour_map": view.look.colour_map}
        if method in self.sources:
            learned, started = view.pipeline.learned, self.studio.start(method).learned
            updates[method, PROMPTS_FROM] = BY_HAND if learned is None else STARTED if learned is started else HERE
        updates["words"], updates["shown"] = self._tuned(view.sample.names, entries_of(settings.synonyms), view.look.shown)
        return gr.skip(), *(updates.get(key, gr.skip()) for key in self.controls)

    def refine(self, request: gr.Request, key: str, level: int = 2, voted: str | None = None) -> list:
        """What is left, an iteration at a time; given up as soon as the visitor looks at something else."""
        visitor = request.session_hash
        view = self.studio.view(visitor)
        if not self.studio.claim(visitor, view):
            return [gr.skip()] * 3
        if not view.done:
            kept = self.studio.kept(visitor, key)
            for result in view.pipeline.steps(view.sample, tokens=view.tokens, kept=kept, lock=self.studio.lock):
                if self.studio.view(visitor) is not view:
                    return [gr.skip()] * 3
                seconds = {**view.result.seconds, **result.seconds}
                refined = replace(view, result=replace(result, seconds=seconds), done=True)
            view = self.studio.show(visitor, refined)
            self.studio.claim(visitor, view)
        return [self._strip(visitor, key, view), figures.notes(view), self._layer(visitor, key, view, level, voted)]

    def _pipeline(self, visitor: str, method: str, asked: dict, hidden: dict) -> Pipeline:
        """The method as its controls say; what they leave as it was is that of the prompts that were chosen."""
        start = self.studio.start(self.studio.method(method).name)
        given = {setting: asked[name, setting] for name, setting in self.own if name == method}
        values = controls.changes(start.settings, given, self.clip) | hidden.get(method, {})
        names, own = ask.asked_classes(asked["classes"]), start.settings.synonyms
        new = {name: word for name, word in own.items() if name not in names} | ask.words_to_synonyms(asked["words"] or [], names)
        if new != own:
            values["synonyms"] = new
        source = asked[method, PROMPTS_FROM] if method in self.sources else None
        return self.studio.pipeline(visitor, method, values | ({PROMPTS_FROM: source} if source else {}))

    def mask_layer(self, request: gr.Request, key: str, level: int, voted: str) -> str:
        return self._layer(request.session_hash, key, self.studio.view(request.session_hash), level, voted)

    def _layer(self, visitor: str, key: str, view: View, level: int, voted: str | None) -> str:
        """The masks of a level with their votes."""
        votes, proposals = view.result.votes, view.result.proposals
        if not votes or proposals is None:
            return ""
        level = ask.whole_number(level, "the level", 0, len(LEVELS) - 1)
        stage = voted if voted in votes else list(votes)[-1]
        name = f"{key} outlines {level} {proposals.source}"
        kept = self.studio.shelf.get(visitor, name)
        if kept is None or kept[0] is not proposals:
            kept = proposals, regions.level_outlines(proposals, level)
            self.studio.shelf.put(visitor, name, kept, sum(map(len, kept[1].values())))
        rows, columns = proposals.masks.shape[1:]
        image = view.pipeline.scene(view.sample, view.tokens).image
        if image.shape[:2] != (rows, columns):
            return ""
        title = view.pipeline.titles[stage]
        return regions.layer(image, proposals, kept[1], votes[stage], view.sample.names, level=level, title=title)

    def ask_patch(self, request: gr.Request, event: gr.SelectData, opacity: float, colour_map: str):
        """The clicked patch's row of the affinity, and the words whose vectors are nearest to it."""
        view = replace(self.studio.view(request.session_hash), look=Look(opacity, colour_map))
        tokens, pipeline, size = view.tokens, view.pipeline, view.sample.image.shape[:2]
        settings = pipeline.settings
        row, column = (
            min(int(at * count / length), count - 1) for at, count, length in zip(reversed(event.index), tokens.grid, size, strict=True)
        )
        patch = row * tokens.grid[1] + column
        attention = tokens.attention[:, pipeline.layers] if pipeline.layers else tokens.attention
        affinity = with_settings(refine.attention_affinity, settings)(attention)[0, patch].unflatten(0, tokens.grid)
        words = [*view.sample.names, *settings.background]
        asked = prompts(settings.template, view.sample.names, settings.synonyms) + prompts(settings.template, settings.background)
        with self.studio.lock:
            text, done = self.clip.text(asked).T, last_pass(tokens)
        own, output = (embed(tokens, done=done)[0, patch] @ text for embed in (value_embeddings, patch_embeddings))
        picture = figures.marked_patch(view, cam.stretched(affinity), row, column)
        return (
            figures.framed(figures.picture_url(picture), f"Patch {row + 1}, {column + 1}", "hot: what it attends to")
            + "<p><b>Nearest words to what the patch itself says</b> (cosine; its value in the last block, as in MaskCLIP)</p>"
            + figures.bars(figures.class_shares(words, own), top=NEAREST)
            + "<p><b>Nearest words to the block's output there</b> (the patch after it has read all others: in the drawn scenes it names "
            "the object mostly where the object is not. CLIP never learned to say what a single patch shows)</p>"
            + figures.bars(figures.class_shares(words, output), top=NEAREST)
        )

    def make_files(self, request: gr.Request, opacity: float):
        return written(replace(self.studio.view(request.session_hash), look=Look(opacity)))

    def restored(self, request: gr.Request, path: str, names: list[str], method: str):
        """A settings file's values in their controls; what has no control is kept aside."""
        values = ask.settings_file(path)
        return self._set(request.session_hash, values, names, method)

    def _set(self, visitor: str, values: dict, names: Sequence[str], method: str) -> tuple:
        """What is hidden, the method and every control, as plain values of a file or an address say."""
        names, method = ask.asked_classes(values.get("classes", names)), values.get("method", method)
        start = self.studio.start(self.studio.method(method).name)
        source = self._source_of(visitor, method, values)
        settings = self.studio.pipeline(visitor, method, values | ({PROMPTS_FROM: source} if source else {})).settings
        words, shown = self._tuned(names, entries_of(settings.synonyms), "")
        updates = {"classes": list(names), "words": words, "shown": shown} | ({(method, PROMPTS_FROM): source} if source else {})
        for name, setting in self.settings[method].items():
            updates[method, name] = controls.shown(setting, plain(settings.value(name)), self.clip)
        kept = {name: value for name, value in settings.unlike(start.settings).items() if (method, name) not in self.own}
        kept.pop("synonyms", None)
        return {method: kept}, method, *(updates.get(name, gr.skip()) for name in self.controls)

    def _source_of(self, visitor: str, method: str, values: dict) -> str | None:
        """Which prompts a settings file was made with, where there are several."""
        if method not in self.sources or "model" not in values:
            return None
        made_with, here = values.get("learned"), self.studio.learned_here(visitor, method)
        if made_with is None:
            return BY_HAND
        for source, learned in ((STARTED, self.studio.start(method).learned), (HERE, here)):
            if learned is not None and learned.fingerprint == made_with:
                return source
        raise Refused(f"these settings belong to learned prompts that are not here ({made_with}): start the app with their file"[:300])

    def api_segment(self, image: str, classes: list[str], settings: dict | None, method: str):
        """Segment a picture: the classes that it shows, any of the method's settings ({} for those it starts with), and the method's name.

        -> mask (palette PNG, 255 = unsure), overlay (PNG), report (JSON: scores, notes, settings, the number of each class, the seconds of
        every stage and of the encoder, and who made the masks that voted, where there are any).
        """
        pipeline, sample = ask.asked(self.studio, image, classes, settings, method)
        *_, result = pipeline.steps(sample, lock=self.studio.lock)
        view = View(sample, pipeline, None, result, Look(), done=True)
        mask, overlay = write_pictures(view, results_folder())
        report = {"scores": result.scores, "prompts": result.prompts, "labels": label_numbers(sample.names)}
        report |= {"uncertain": float(figures.unsure(view).mean()), "notes": list(result.notes)}
        report |= {"seconds": result.seconds, "settings": result.settings}
        if result.proposals is not None:
            report["masks"] = {"by": result.proposals.source, "count": len(result.proposals)}
        return str(mask), str(overlay), report

    def api_draw_scene(self, objects: list[str], place: str, seed: float):
        """Draw a scene: up to four objects (none: what the place has), a place ("": where they belong), a seed.

        -> picture (PNG), truth (palette PNG), report (JSON).
        """
        drawn, folder = ask.scene(objects, place, seed), results_folder()
        save_image(folder / "scene.png", drawn.image)
        save_mask(folder / "truth.png", drawn.truth)
        report = {
            "objects": [list(thing) for thing in drawn.objects],
            "place": drawn.place,
            "stuff": list(drawn.present_stuff),
            "style": drawn.style,
            "seed": drawn.seed,
        }
        return str(folder / "scene.png"), str(folder / "truth.png"), report

    def api_suggest(self, image: str, template: str):
        """The probability of every name of the vocabulary for a picture, the likeliest first; template "" for the usual one."""
        if not image:
            raise Refused("expected a picture, got none")
        start = self.studio.start(self.studio.default)
        with self.studio.lock:
            tokens = start.encode(ask.photo(image, ask.MAX_PIXELS))
            _, shares = ask.suggested(self.studio, tokens, template or start.settings.template)
        return shares


def photo_input(label: str, **layout) -> gr.Image:
    """An image component that hands over the file as it came: Gradio's own reading would skip the limits of `load_image`."""
    component = gr.Image(type="filepath", image_mode=None, format="png", label=label, **layout)
    component.preprocess = lambda payload: payload.path if payload else None
    return component


def left_out(names: list[str], pipeline: Pipeline) -> str:
    """What to say of classes that the prompts were not learned for."""
    if not names:
        return ""
    classes = pipeline.learned.classes
    sentence = (
        f"The prompts were learned for {len(classes)} classes; {', '.join(names)} is none of them and is left out: "
        "hand-crafted prompts take any word."
    )
    meant = [name for name, own in SYNONYMS.items() if name in classes and any(word in own for word in names)]
    return figures.warning(sentence + (f" Did you mean {', '.join(meant)}?" if meant else ""))


def in_short(value: Any) -> str:
    value = plain(value)
    return ", ".join(map(str, value)) if isinstance(value, list) and 0 < len(value) <= 4 else shortened(value)


def entries_of(synonyms: Mapping[str, str]) -> list[str]:
    return [f"{name} = {word}" for name, word in synonyms.items()]


def thumbnail(number: int) -> str:
    """A drawn scene to choose, called by what it shows and where."""
    sample = next(toy_samples("val", 1, size=THUMBNAIL_SIDE, start=number))
    said = html.escape(" and ".join(sample.names) + place_told(sample))
    picture = f'<img src="{figures.thumbnail_url(sample.image)}" alt="{said}">'
    return f'<button class="kit-thumb" data-choose="{number}" title="{said}">{picture}</button>'


def place_told(sample: Sample) -> str:
    """Of a drawn scene the ground on which most of its lower half lies: " on grass"."""
    below = sample.stuff[sample.stuff.shape[0] // 2 :]
    counts = np.bincount(below[below > 0])
    return f" on {STUFF[int(counts.argmax())]}" if counts.any() else ""


def written(view: View) -> list[gr.DownloadButton]:
    """A view's four files, ready to be downloaded; their names say of which picture and which method they are."""
    folder = results_folder()
    mask, overlay = write_pictures(view, folder)
    maps = {f"stage_{stage}": values.cpu().numpy() for stage, values in view.result.stages.items()}
    np.savez_compressed(
        folder / f"{stem(view)}-maps.npz",
        names=np.array(view.sample.names),
        labels=view.result.labels.cpu().numpy(),
        confidence=view.result.confidence.cpu().numpy(),
        **maps,
    )
    told = {"picture": view.sample.id, "classes": list(view.sample.names), **view.result.settings}
    (folder / f"{stem(view)}-settings.json").write_text(json.dumps(told, indent=2))
    paths = (mask, overlay, folder / f"{stem(view)}-maps.npz", folder / f"{stem(view)}-settings.json")
    return [gr.DownloadButton(value=str(path), visible=True) for path in paths]


def stem(view: View) -> str:
    """The picture and the method, as a file's name may hold them."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", f"{view.sample.id or 'picture'}-{view.pipeline.method.name}")


def write_pictures(view: View, folder: Path) -> tuple[Path, Path]:
    """The mask with uncertain pixels set to 255, and the overlay."""
    mask, overlay = folder / f"{stem(view)}-mask.png", folder / f"{stem(view)}-overlay.png"
    save_mask(mask, show.in_voc_colours(view.result.pseudo_mask, view.sample.names), is_pseudo=True)
    save_image(overlay, figures.mask_picture(view))
    return mask, overlay
