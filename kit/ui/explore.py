"""Explore: a picture, its classes, a method and every setting of it, redrawn while a slider moves; what needs no model follows behind."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np

from kit import cam, refine, show
from kit.data import Sample, toy_samples
from kit.images import save_image, save_mask
from kit.last_block import patch_embeddings
from kit.method import Pipeline, with_settings
from kit.prompt import prompts
from kit.propose import LEVELS
from kit.settings import plain
from kit.toy import PLACES
from kit.ui import ask, controls, figures, regions
from kit.ui.session import BY_HAND, HERE, PRIVATE, PROMPTS_FROM, QUIET, STARTED, Look, Refused, Studio, View, friendly, results_folder
from kit.words import SYNONYMS, VOC_CLASSES, class_name, label_numbers

SCENES = (32, 68, 2, 24, 44, 38, 45, 15, 5, 23, 22, 57)  # of the val split: every kind of place, five with several classes
COUNTERFACTUALS = (
    ("A boat on grass", ("boat",), "grass", 4),
    ("A cow on the sea", ("cow",), "sea", 3),
    ("A sofa in the forest", ("sofa",), "forest", 1),
)
NEAREST = 6  # words shown for a patch


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
        self.settings = {name: controls.shown_settings(method) for name, method in studio.methods.items()}
        self.key, self.hidden = gr.State(""), gr.State({})
        with gr.Row(elem_classes="kit-page"):
            with gr.Column(scale=1, min_width=300, elem_classes="kit-panel"):
                self._lay_out_picture()
                choices = [(method.title, name) for name, method in studio.methods.items()]
                self.method = gr.Radio(choices, value=studio.default, label="Method")
                self._lay_out_classes()
                for name in studio.methods:
                    with gr.Column(visible=name == studio.default) as self.panels[name]:
                        self._lay_out_settings(name)
                self._lay_out_look()
                self._lay_out_files()
            with gr.Column(scale=3, min_width=300):
                # no radio: that would refuse a name that has just gone, before the page has heard of the new classes
                self.common["shown"] = gr.Dropdown([], label="Show the heat of", allow_custom_value=True, elem_classes="kit-shown")
                self._lay_out_result()
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
        thumbnails = [(next(toy_samples("val", 1, size=160, start=number)), number) for number in SCENES]
        self.gallery = gr.Gallery(
            [(sample.image, ", ".join(sample.names)) for sample, _ in thumbnails], label="Drawn scenes", show_label=False,
            columns=4, format="png", allow_preview=False, object_fit="cover",
            buttons=[], interactive=False, elem_classes="kit-gallery",
        )  # fmt: skip
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
                self.seed = gr.Number(1, label="Seed", precision=0, minimum=0, min_width=80)
            self.draw_button = gr.Button("Draw it", variant="primary", size="sm")
        with gr.Accordion("Your own photo", open=False):
            self.photo = photo_input("Photo", sources=["upload", "clipboard", "webcam"], height=190)

    def _lay_out_classes(self) -> None:
        self.common["classes"] = gr.Dropdown(
            list(self.studio.vocabulary),
            multiselect=True,
            allow_custom_value=True,
            max_choices=ask.MAX_CLASSES,
            label="Classes in the picture",
            info="choose, or type your own and press Enter",
        )
        self.suggest_button = gr.Button("Suggest classes", size="sm")
        self.suggestions = gr.HTML(visible=False)
        self.common["words"] = gr.Dropdown(
            [], value=[], multiselect=True, allow_custom_value=True, label="Words in place of a class name",
            info="one: a synonym; several of one class: fused; or type: boat = canoe",
        )  # fmt: skip

    def _lay_out_settings(self, name: str) -> None:
        start, learned = self.studio.start(name), self.studio.learned.get(name)
        if self.studio.methods[name].lessons:
            came = [("that came with the app", STARTED)] if start.learned is not None or isinstance(learned, str) else []
            others = [("learned here, on the Learn page", HERE), ("hand-crafted, by the template", BY_HAND)]
            self.sources[name] = gr.Radio([*came, *others], value=BY_HAND if start.learned is None else STARTED, label="Prompts")
        fixed = self.studio.own_changes(start.method)
        for title, inner in controls.groups_of(self.settings[name]).items():
            with gr.Accordion(title, open=False):
                for setting in inner.values():
                    if setting.name not in fixed:
                        value, templates = start.settings.value(setting.name), ask.templates_for(self.clip)
                        self.own[name, setting.name] = controls.control(setting, value, self.clip, templates)

    def _lay_out_look(self) -> None:
        with gr.Accordion("Look", open=False):
            self.common["opacity"] = gr.Slider(0, 1, 0.6, step=0.05, label="Opacity")
            self.common["colour_map"] = gr.Dropdown(list(show.COLOUR_MAPS), value="turbo", label="Colours of heat")

    def _lay_out_files(self) -> None:
        with gr.Accordion("Keep and restore", open=False):
            self.files_button = gr.Button("Make the files", size="sm")
            with gr.Row():
                titles = ("Mask PNG", "Overlay PNG", "Maps npz", "Settings JSON")
                self.files = [gr.DownloadButton(label, visible=False, size="sm", min_width=100) for label in titles]
            self.restore = gr.UploadButton("Load settings from JSON", file_types=[".json"], size="sm")

    def _lay_out_result(self) -> None:
        first, (left, right, voted) = self.studio.default, self._sides(self.studio.default)
        self.strip = gr.HTML()
        self.notes = gr.HTML(elem_classes="kit-notes")
        with gr.Tabs():
            with gr.Tab("Each class"):
                self.heats = gr.HTML()
            with gr.Tab("Masks", visible=self._votes(first)) as self.masks_tab:
                with gr.Row():
                    self.level = gr.Radio([(name, index) for index, name in enumerate(LEVELS)], value=2, label="Level of the masks")
                    self.voted = gr.Dropdown(**voted, label="Votes of")
                self.regions = gr.HTML()
            with gr.Tab("Compare two stages"):
                with gr.Row():
                    self.left, self.right = gr.Dropdown(**left, label="Left"), gr.Dropdown(**right, label="Right")
                self.slider = gr.ImageSlider(label="Drag the line", format="png", max_height=480, interactive=False)
            with gr.Tab("Legend"):
                self.legend = gr.AnnotatedImage(label="Point at a name to see only its pixels", format="png", height=460)
            with gr.Tab("Ask a patch"):
                gr.Markdown("Click into the picture: where does this patch attend, and which words is it nearest to?")
                with gr.Row():
                    self.clickable = gr.Image(
                        label="Click here", format="png", interactive=False, height=340, buttons=[], alt_text="The picture, to be clicked"
                    )
                    self.patch = gr.HTML(elem_classes="kit-patch")

    def _votes(self, name: str) -> bool:
        return any(stage.shows == "votes" for stage in self.studio.methods[name].stages)

    def _sides(self, name: str) -> tuple[dict, dict, dict]:
        """Choices and values of the two stages that are compared, and of the votes."""
        method, settings = self.studio.methods[name], self.studio.start(name).settings
        titles = {stage.name: stage.title_for(settings) for stage in method.stages if stage.is_shown}
        votes = [stage.name for stage in method.stages if stage.shows == "votes"]
        sides = [figures.PICTURE, *((title, stage) for stage, title in titles.items()), figures.MASK, figures.TRUTH]
        left = {"choices": sides, "value": (votes or list(titles))[0]}
        named = [(titles[stage], stage) for stage in votes]
        return left, {"choices": sides, "value": figures.MASK}, {"choices": named, "value": votes[-1] if votes else None}

    def _connect(self, demo: gr.Blocks) -> None:
        """Three kinds of events: open a picture, turn a knob (the model is asked, the encoder is not), look closer."""
        redrawn, (classes, words, shown) = self.redrawn, (self.common[name] for name in ("classes", "words", "shown"))
        opened = self.opened = [self.key, classes, words, shown, self.clickable, self.patch, self.suggestions]
        redrawn(demo.load(friendly(self.open_first), None, opened, **QUIET))
        redrawn(self.gallery.select(friendly(self.open_scene), None, opened, trigger_mode="always_last", **QUIET))
        redrawn(self.draw_button.click(friendly(self.open_drawing), [self.objects, self.place, self.seed], opened, **PRIVATE))
        for button, (_, names, place, seed) in zip(self.examples, COUNTERFACTUALS, strict=True):
            asked = [gr.State(list(names)), gr.State(place), gr.State(seed)]
            redrawn(button.click(friendly(self.open_drawing), asked, opened, **QUIET))
        redrawn(self.photo.input(friendly(self.open_photo), self.photo, opened, **PRIVATE))
        redrawn(classes.change(friendly(self.retune), [classes, words, shown], [words, shown], trigger_mode="always_last", **QUIET))
        templates = list(self.templates.values())
        self.suggest_button.click(
            friendly(self.suggest_classes), [self.key, self.method, *templates], [classes, self.suggestions], **PRIVATE
        )
        restored = [self.hidden, self.method, *self.controls.values()]
        redrawn(self.restore.upload(friendly(self.restored), [self.restore, classes, self.method], restored, **PRIVATE))
        panes = [*self.panels.values(), self.left, self.right, self.voted, self.masks_tab]
        redrawn(self.method.change(friendly(self.choose_method), self.method, panes, **QUIET))

        # A drop-down says nothing by `input` of a word that was typed; `change` also comes when the page itself sets it, and `redraw` knows
        live = []
        for part in (part for name, part in self.controls.items() if name != "classes"):
            live += (
                [part.change] if isinstance(part, gr.Dropdown) else [part.submit, part.blur] if type(part) is gr.Textbox else [part.input]
            )
        self._followed(gr.on(live, friendly(self.redraw), *self._redraw_ends(), trigger_mode="always_last", **QUIET))

        look = [self.common["opacity"], self.common["colour_map"]]
        compared = [*look, shown, self.left, self.right]
        gr.on([self.left.input, self.right.input], friendly(self.compare), compared, self.slider, **QUIET)
        gr.on([self.level.input, self.voted.input], friendly(self.mask_layer), [self.key, self.level, self.voted], self.regions, **QUIET)
        self.clickable.select(friendly(self.ask_patch), look, self.patch, trigger_mode="always_last", **QUIET)
        self.files_button.click(friendly(self.make_files), look[0], self.files, **PRIVATE)

    def redrawn(self, event) -> None:
        """After an event that has set the controls: the answer, and then what follows it."""
        self._followed(event.success(friendly(self.redraw), *self._redraw_ends(), trigger_mode="always_last", **QUIET))

    def _redraw_ends(self) -> tuple[list, list]:
        return [self.key, self.hidden, self.method, *self.controls.values()], [self.strip, self.heats, self.notes]

    def _followed(self, redraw) -> None:
        # What follows a view that is out of date stops by itself. Gradio's `cancels` may ask before it knows what to cancel: an error 422
        slow = [self.strip, self.notes, self.slider, self.legend, self.regions]
        asked = [self.key, self.left, self.right, self.level, self.voted]
        redraw.then(friendly(self.refine), asked, slow, trigger_mode="multiple", concurrency_limit=2, **QUIET)

    def _publish(self) -> None:
        """The doors for programs: hidden components give them typed inputs."""
        with gr.Group(visible=False):
            picture, overlay, mask = photo_input("Picture"), gr.Image(format="png", type="filepath"), gr.File()
            names = gr.Dropdown([], multiselect=True, allow_custom_value=True, label="Classes")
            settings, template = gr.JSON(label="Settings"), gr.Textbox(label="Template")
            method = gr.Textbox(self.studio.default, label="Method")
            objects = gr.Dropdown(list(VOC_CLASSES), multiselect=True, allow_custom_value=True, label="Objects")
            place, seed, report = gr.Textbox(label="Place"), gr.Number(label="Seed"), gr.JSON(label="Report")
            button = gr.Button()
        asked = [picture, names, settings, method]
        button.click(friendly(self.api_segment), asked, [mask, overlay, report], api_name="segment", concurrency_limit=2)
        button.click(friendly(self.api_draw_scene), [objects, place, seed], [overlay, mask, report], api_name="draw_scene")
        button.click(friendly(self.api_suggest), [picture, template], report, api_name="suggest")

    def open_first(self, request: gr.Request):
        return self._opened(request, next(toy_samples("val", 1, size=ask.SCENE_SIDE, start=SCENES[0])))

    def open_scene(self, request: gr.Request, event: gr.SelectData):
        return self._opened(request, next(toy_samples("val", 1, size=ask.SCENE_SIDE, start=SCENES[event.index])))

    def open_drawing(self, request: gr.Request, objects: list[str], place: str, seed: float):
        return self._opened(request, ask.scene_sample(ask.scene(objects, place, seed)))

    def open_photo(self, request: gr.Request, path: str | None):
        if path is None:
            return [gr.skip()] * 7
        return self._opened(request, Sample(ask.page_sized(ask.photo(path)), (), id="photo"))

    def open_with(self, request: gr.Request, image: np.ndarray, names: Sequence[str]):
        """A picture of another page, with the classes that it was asked for there.   image: uint8 (H, W, 3)."""
        return self._opened(request, Sample(ask.page_sized(image), tuple(names), id="photo"))

    def _opened(self, request: gr.Request, sample: Sample):
        key = self.studio.keep(request.session_hash, sample)
        names = sample.names or self._likely(request.session_hash, key, sample, self.studio.start(self.studio.default).settings.template)[0]
        return key, list(names), *self._tuned(names, [], ""), sample.image, "", gr.HTML(visible=False)

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
        return words, gr.Dropdown(choices=list(names), value=shown if shown in names else names[0])

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
        sides = [gr.Dropdown(**side) for side in self._sides(method)]
        return [*(gr.Column(visible=name == method) for name in self.panels), *sides, gr.Tab(visible=self._votes(method))]

    def redraw(self, request: gr.Request, key: str, hidden: dict, method: str, *values) -> Iterator:
        """Everything but what another process could do, from tokens and stages that are already here."""
        asked = dict(zip(self.controls, values, strict=True))
        visitor, sample = request.session_hash, self.studio.sample(request.session_hash, key)
        names = ask.asked_classes(asked["classes"])
        pipeline = self._pipeline(visitor, method, asked, hidden)
        look = Look(asked["opacity"], asked["colour_map"], asked["shown"] or "")
        known = tuple(name for name in names if pipeline.learned is None or name in pipeline.learned.classes)
        told = left_out([name for name in names if name not in known], pipeline)
        if not known:
            yield told, "", ""
            return
        before, sample = self.studio.shelf.get(visitor, "view"), replace(sample, names=known)
        if before is not None and before.same_question(sample, pipeline):
            if (before.pipeline.settings, before.look) == (pipeline.settings, look):
                yield [gr.skip()] * 3
                return
            result = replace(before.result, pipeline=pipeline)
            view = replace(before, pipeline=pipeline, result=result, look=look, urls=before.still_packed(sample, look))
        else:
            tokens, seconds = self.studio.tokens(visitor, key, pipeline, sample.image)
            kept, masks = self.studio.kept(visitor, key), [stage for stage in pipeline.stages if stage.shows == "masks"]
            if masks and not kept.has(masks[0]):
                yield (
                    figures.told("This picture's masks are made, once; a SAM may take minutes for them without a GPU."),
                    gr.skip(),
                    gr.skip(),
                )
            named = {"tokens": tokens, "kept": kept, "lock": self.studio.lock}
            found = list(pipeline.steps(sample, **named, worker=False)) or list(pipeline.steps(sample, **named))
            result = replace(found[-1], seconds={**found[-1].seconds, "encode": seconds})
            done = not any(stage.is_shown and stage.name not in result.stages for stage in pipeline.stages)
            view = View(sample, pipeline, tokens, result, look, done, before.still_packed(sample, look) if before else {})
        self.studio.show(visitor, view)
        yield figures.strip(view), figures.class_heats(view), told + figures.notes(view)

    def refine(self, request: gr.Request, key: str, left: str, right: str, level: int = 2, voted: str | None = None) -> Iterator:
        """What is left, an iteration at a time; given up as soon as the visitor looks at something else."""
        visitor = request.session_hash
        view = self.studio.view(visitor)
        if not self.studio.claim(visitor, view):
            yield [gr.skip()] * 5
            return
        if not view.done:
            kept = self.studio.kept(visitor, key)
            for result in view.pipeline.steps(view.sample, tokens=view.tokens, kept=kept, lock=self.studio.lock):
                if self.studio.view(visitor) is not view:
                    return
                seconds = {**view.result.seconds, **result.seconds}
                refined = replace(view, result=replace(result, seconds=seconds), done=True)
                yield [gr.skip()] * 5
            if self.studio.view(visitor) is not view:
                return
            view = self.studio.show(visitor, refined)
            self.studio.claim(visitor, view)
        layer = self._layer(visitor, key, view, level, voted)
        yield figures.strip(view), figures.notes(view), compared(view, left, right), self._legend(view), layer

    def _legend(self, view: View):
        names, labels = view.sample.names, view.result.labels.cpu().numpy()
        regions = [((labels == index).astype(np.float32), name) for index, name in enumerate(names, start=1) if (labels == index).any()]
        colours = {name: figures.hex_colour(name, names) for name in names}
        return gr.AnnotatedImage((view.sample.image, [(0.7 * region, name) for region, name in regions]), color_map=colours)

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

    def compare(self, request: gr.Request, opacity: float, colour_map: str, shown: str, left: str, right: str):
        view = replace(self.studio.view(request.session_hash), look=Look(opacity, colour_map, shown or ""), urls={})
        return compared(view, left, right)

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
            near = patch_embeddings(tokens)[0, patch] @ self.clip.text(asked).T
        picture = figures.marked_patch(view, cam.stretched(affinity), row, column)
        return (
            figures.framed(figures.png_url(picture), f"Patch {row + 1}, {column + 1}", "hot: what it attends to")
            + "<p>Nearest words (cosine)</p>"
            + figures.bars(figures.class_shares(words, near), top=NEAREST)
        )

    def make_files(self, request: gr.Request, opacity: float):
        return written(replace(self.studio.view(request.session_hash), look=Look(opacity)))

    def restored(self, request: gr.Request, path: str, names: list[str], method: str):
        """A settings file's values in their controls; what has no control is kept aside."""
        values = ask.settings_file(path)
        names, method = ask.asked_classes(values.get("classes", names)), values.get("method", method)
        start = self.studio.start(self.studio.method(method).name)
        source = self._source_of(request.session_hash, method, values)
        settings = self.studio.pipeline(request.session_hash, method, values | ({PROMPTS_FROM: source} if source else {})).settings
        words, shown = self._tuned(names, [f"{name} = {word}" for name, word in settings.synonyms.items()], "")
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

        -> mask (palette PNG, 255 = unsure), overlay (PNG), report (JSON: scores, notes, settings, the number of each class, and who made
        the masks that voted, where there are any).
        """
        pipeline, sample, tokens = ask.pictured(self.studio, image, classes, settings, method)
        *_, result = pipeline.steps(sample, tokens=tokens, lock=self.studio.lock)
        view = View(sample, pipeline, tokens, result, Look(), done=True)
        mask, overlay = write_pictures(view, results_folder())
        report = {"scores": result.scores, "prompts": result.prompts, "labels": label_numbers(sample.names)}
        report |= {"uncertain": float(figures.unsure(view).mean()), "notes": [*result.notes, *figures.unknown_notes(view)]}
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


def compared(view: View, left: str, right: str) -> tuple[np.ndarray, np.ndarray]:
    """Two stages for the slider; a stage that is switched off, or a truth nobody knows, shows the picture."""
    drawn = figures.stage_pictures(view)
    return tuple(drawn.get(side, drawn[figures.PICTURE])() for side in (left, right))


def written(view: View) -> list[gr.DownloadButton]:
    """A view's four files, ready to be downloaded."""
    folder = results_folder()
    mask, overlay = write_pictures(view, folder)
    maps = {f"stage_{stage}": values.cpu().numpy() for stage, values in view.result.stages.items()}
    np.savez_compressed(
        folder / "maps.npz",
        names=np.array(view.sample.names),
        labels=view.result.labels.cpu().numpy(),
        confidence=view.result.confidence.cpu().numpy(),
        **maps,
    )
    (folder / "settings.json").write_text(json.dumps({"classes": list(view.sample.names), **view.result.settings}, indent=2))
    return [gr.DownloadButton(value=str(path), visible=True) for path in (mask, overlay, folder / "maps.npz", folder / "settings.json")]


def write_pictures(view: View, folder: Path) -> tuple[Path, Path]:
    """The mask with uncertain pixels set to 255, and the overlay."""
    labels = view.result.pseudo_mask
    save_mask(folder / "mask.png", show.in_voc_colours(labels, view.sample.names))
    save_image(folder / "overlay.png", figures.mask_picture(view))
    return folder / "mask.png", folder / "overlay.png"
