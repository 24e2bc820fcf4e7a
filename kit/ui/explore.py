"""Explore: a picture, its classes and every knob of CLIP-ES, redrawn while a slider moves; the refiner follows behind. FMA-WSSS, the other
method for the same picture and classes, is in masks.py.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np

from kit import cam, refine, show
from kit.data import Sample, toy_samples
from kit.images import save_image, save_mask
from kit.last_block import patch_embeddings
from kit.methods import ClipEs, ClipEsSettings
from kit.methods.clip_es import RANGES, REFINERS
from kit.prompt import prompts
from kit.toy import PLACES
from kit.ui import ask, figures
from kit.ui.masks import TITLE as FMA_WSSS
from kit.ui.masks import Masks, asked_method, download_buttons
from kit.ui.session import PRIVATE, QUIET, Look, Refused, Studio, View, friendly, results_folder
from kit.words import SYNONYMS, VOC_BACKGROUND, VOC_CLASSES

SCENES = (32, 68, 2, 24, 44, 38, 45, 15, 5, 23, 22, 57)  # of the val split: every kind of place, five with several classes
COUNTERFACTUALS = (
    ("A boat on grass", ("boat",), "grass", 4),
    ("A cow on the sea", ("cow",), "sea", 3),
    ("A sofa in the forest", ("sofa",), "forest", 1),
)
CLIP_ES = "CLIP-ES"
NEAREST = 6  # words shown for a patch
STAGES = ("Picture", "CAM", "After affinity", "After refiner", "Pseudo mask", "Truth")
KNOBS = (
    "affinity",
    "layers",
    "box_threshold",
    "power",
    "background_power",
    "confidence",
    "refiner",
    "iterations",
    "bilateral_xy",
    "bilateral_rgb",
    "bilateral_weight",
    "template",
    "background",
)


class Explore:
    """The page: laid out when made, with its events. Of a visitor it keeps nothing but what lies on the studio's shelf."""

    def __init__(self, studio: Studio, demo: gr.Blocks):
        self.studio, self.clip, self.preset = studio, studio.clip, studio.preset
        self.controls: dict[str, gr.components.Component] = {}
        self.masks = Masks(studio)
        self.key, self.hidden = gr.State(""), gr.State({})
        with gr.Row(elem_classes="kit-page"):
            with gr.Column(scale=1, min_width=300, elem_classes="kit-panel"):
                self._lay_out_picture()
                self.method = gr.Radio([CLIP_ES, FMA_WSSS], value=CLIP_ES, label="Method")
                self._lay_out_classes()
                with gr.Column() as self.own_knobs:
                    self._lay_out_words()
                    self._lay_out_knobs()
                with gr.Column(visible=False) as self.mask_knobs:
                    self.masks.lay_out_knobs()
                self._lay_out_look()
                with gr.Column() as self.own_files:
                    self._lay_out_files()
            with gr.Column(scale=3, min_width=300):
                # no radio: that would refuse a name that has just gone, before the page has heard of the new classes
                self.controls["shown"] = gr.Dropdown([], label="Show the heat of", allow_custom_value=True, elem_classes="kit-shown")
                with gr.Column() as self.own_result:
                    self._lay_out_result()
                with gr.Column(visible=False) as self.mask_result:
                    self.masks.lay_out_result()
        self._connect(demo)
        self._publish()

    # What is on the page

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
        self.controls["classes"] = gr.Dropdown(
            list(self.studio.vocabulary),
            multiselect=True,
            allow_custom_value=True,
            max_choices=ask.MAX_CLASSES,
            label="Classes in the picture",
            info="choose, or type your own and press Enter",
        )
        self.suggest_button = gr.Button("Suggest classes", size="sm")
        self.suggestions = gr.HTML(visible=False)

    def _lay_out_words(self) -> None:
        add, preset = self.controls, self.preset
        with gr.Accordion("Words", open=False):
            add["template"] = gr.Dropdown(
                ask.templates_for(self.clip),
                value=preset.template,
                allow_custom_value=True,
                label="Template",
                info="{} is where the class name goes",
            )
            add["words"] = gr.Dropdown(
                [],
                value=[],
                multiselect=True,
                allow_custom_value=True,
                label="Words in place of a class name",
                info="one: a synonym; several of one class: fused; or type: boat = canoe",
            )
            add["background"] = gr.Dropdown(
                list(VOC_BACKGROUND),
                value=list(preset.background),
                multiselect=True,
                allow_custom_value=True,
                label="Background words",
                info="what else may be there; none is allowed",
            )

    def _lay_out_knobs(self) -> None:
        add, preset = self.controls, self.preset

        def slider(name: str, label: str, step: float, info: str = "") -> None:
            low, high = RANGES[name]
            add[name] = gr.Slider(low, high, getattr(preset, name), step=step, label=label, info=info or None)

        with gr.Accordion("Map", open=False):
            add["affinity"] = gr.Checkbox(preset.affinity, label="Spread by attention affinity")
            count = self.clip.layer_count
            add["layers"] = gr.CheckboxGroup(
                [(str(layer), layer) for layer in range(count)],
                value=ask.layer_numbers(preset, count),
                label="Attention of blocks",
                info="counted from 0, the first",
            )
            slider("box_threshold", "Box threshold", 0.01, "a class may spread from boxes around what is hotter")
            slider("power", "Affinity power", 1)
            slider("background_power", "Background power", 0.1, "higher: less background")
            slider("confidence", "Confidence", 0.01, "pixels below are unsure and hatched")
        with gr.Accordion("Refiner", open=False):
            add["refiner"] = gr.Radio(list(REFINERS), value=preset.refiner, label="Refiner")
            slider("iterations", "Iterations", 1)
            slider("bilateral_xy", "CRF: reach in pixels", 1)
            slider("bilateral_rgb", "CRF: reach in colour", 0.5)
            slider("bilateral_weight", "CRF: weight", 0.5)

    def _lay_out_look(self) -> None:
        with gr.Accordion("Look", open=False):
            self.controls["opacity"] = gr.Slider(0, 1, 0.6, step=0.05, label="Opacity")
            self.controls["colour_map"] = gr.Dropdown(list(show.COLOUR_MAPS), value="turbo", label="Colours of heat")

    def _lay_out_files(self) -> None:
        with gr.Accordion("Keep and restore", open=False):
            self.files_button = gr.Button("Make the files", size="sm")
            with gr.Row():
                self.files = download_buttons()
            self.restore = gr.UploadButton("Load settings from JSON", file_types=[".json"], size="sm")

    def _lay_out_result(self) -> None:
        self.strip = gr.HTML()
        self.notes = gr.HTML(elem_classes="kit-notes")
        with gr.Tabs():
            with gr.Tab("Each class"):
                self.heats = gr.HTML()
            with gr.Tab("Compare two stages"):
                with gr.Row():
                    self.left = gr.Dropdown(list(STAGES), value="CAM", label="Left")
                    self.right = gr.Dropdown(list(STAGES), value="Pseudo mask", label="Right")
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

    # How it is connected

    def _connect(self, demo: gr.Blocks) -> None:
        """Three kinds of events: open a picture, turn a knob (the model is asked, the encoder is not), look closer."""
        redrawn = self.redrawn
        opened = [
            self.key,
            self.controls["classes"],
            self.controls["words"],
            self.controls["shown"],
            self.clickable,
            self.patch,
            self.suggestions,
        ]
        redrawn(demo.load(friendly(self.open_first), None, opened, **QUIET))
        redrawn(self.gallery.select(friendly(self.open_scene), None, opened, trigger_mode="always_last", **QUIET))
        redrawn(self.draw_button.click(friendly(self.open_drawing), [self.objects, self.place, self.seed], opened, **PRIVATE))
        for button, (_, names, place, seed) in zip(self.examples, COUNTERFACTUALS, strict=True):
            asked = [gr.State(list(names)), gr.State(place), gr.State(seed)]
            redrawn(button.click(friendly(self.open_drawing), asked, opened, **QUIET))
        redrawn(self.photo.input(friendly(self.open_photo), self.photo, opened, **PRIVATE))

        classes, words, shown = (self.controls[name] for name in ("classes", "words", "shown"))
        redrawn(classes.change(friendly(self.retune), [classes, words, shown], [words, shown], trigger_mode="always_last", **QUIET))
        asked = [self.key, classes, self.controls["template"]]
        self.suggest_button.click(friendly(self.suggest_classes), asked, [classes, self.suggestions], **PRIVATE)
        redrawn(self.restore.upload(friendly(self.restored), [self.restore, classes], [self.hidden, *self.controls.values()], **PRIVATE))

        # A drop-down says nothing by `input` of a word that was typed; `change` also comes when the page itself sets it, and `redraw` knows
        live = [part.change if isinstance(part, gr.Dropdown) else part.input for name, part in self.controls.items() if name != "classes"]
        self._followed(gr.on(live, friendly(self.redraw), *self._redraw_ends(), trigger_mode="always_last", **QUIET))
        self._connect_masks()

        gr.on(
            [self.left.input, self.right.input],
            friendly(self.compare),
            [self.controls["opacity"], self.controls["colour_map"], shown, self.left, self.right],
            self.slider,
            **QUIET,
        )
        self.clickable.select(
            friendly(self.ask_patch),
            [self.controls["opacity"], self.controls["colour_map"]],
            self.patch,
            trigger_mode="always_last",
            **QUIET,
        )
        self.files_button.click(friendly(self.make_files), [self.controls["opacity"]], self.files, **PRIVATE)

    def _connect_masks(self) -> None:
        """The other method's events: its own knobs, and what it shares with CLIP-ES."""
        masks, (opacity, colour_map, shown) = self.masks, (self.controls[name] for name in ("opacity", "colour_map", "shown"))
        self.redrawn(self.method.change(friendly(self.choose_method), self.method, [*self._panes(), *self._mask_panes()], **QUIET))
        own = [part.input for part in masks.controls.values()]
        live = gr.on([opacity.input, colour_map.change, shown.change, *own], friendly(self.redraw_masks), *self._mask_ends(),
                     trigger_mode="always_last", **QUIET)  # fmt: skip
        self._masks_followed(live)
        layer = [self.key, masks.level, masks.voted]
        gr.on([masks.level.input, masks.voted.input], friendly(self.mask_layer), layer, masks.regions, **QUIET)
        gr.on([masks.left.input, masks.right.input], friendly(self.compare_masks), [masks.left, masks.right], masks.slider, **QUIET)
        masks.files_button.click(friendly(self.make_mask_files), opacity, masks.files, **PRIVATE)

    def redrawn(self, event) -> None:
        """After an event that has set the controls: the answer, and then the refiner; and that of the other method, if it is chosen."""
        self._followed(event.success(friendly(self.redraw), *self._redraw_ends(), trigger_mode="always_last", **QUIET))
        self._masks_followed(event.success(friendly(self.redraw_masks), *self._mask_ends(), trigger_mode="always_last", **QUIET))

    def _panes(self) -> list[gr.Column]:
        return [self.own_knobs, self.own_files, self.own_result]

    def _mask_panes(self) -> list[gr.Column]:
        return [self.mask_knobs, self.mask_result]

    def _mask_ends(self) -> tuple[list, list]:
        look = [self.controls[name] for name in ("opacity", "colour_map", "shown")]
        asked = [self.method, self.key, self.controls["classes"], *look, *self.masks.controls.values()]
        return asked, [self.masks.strip, self.masks.notes]

    def _masks_followed(self, redraw) -> None:
        masks = self.masks
        asked = [self.method, self.key, masks.level, masks.voted, masks.left, masks.right]
        redraw.success(friendly(self.closer), asked, [masks.regions, masks.slider, masks.heats], trigger_mode="always_last", **QUIET)

    def _redraw_ends(self) -> tuple[list, list]:
        return [self.key, self.hidden, *self.controls.values()], [self.strip, self.heats, self.notes]

    def _followed(self, redraw) -> None:
        # A refiner whose view is out of date stops by itself. Gradio's `cancels` may ask before it knows what to cancel: an error 422
        slow = [self.strip, self.notes, self.slider, self.legend]
        asked = [self.left, self.right, self.method]
        redraw.then(friendly(self.refine), asked, slow, trigger_mode="multiple", concurrency_limit=2, **QUIET)

    def _publish(self) -> None:
        """The doors for programs: hidden components give them typed inputs."""
        with gr.Group(visible=False):
            picture, overlay, mask = photo_input("Picture"), gr.Image(format="png", type="filepath"), gr.File()
            names, settings, template = (
                gr.Dropdown([], multiselect=True, allow_custom_value=True, label="Classes"),
                gr.JSON(label="Settings"),
                gr.Textbox(label="Template"),
            )
            objects = gr.Dropdown(list(VOC_CLASSES), multiselect=True, allow_custom_value=True, label="Objects")
            place, seed, report = gr.Textbox(label="Place"), gr.Number(label="Seed"), gr.JSON(label="Report")
            button = gr.Button()
        button.click(
            friendly(self.api_segment), [picture, names, settings], [mask, overlay, report], api_name="segment", concurrency_limit=2
        )
        button.click(
            friendly(self.api_fma_segment), [picture, names, settings], [mask, overlay, report], api_name="fma_segment", concurrency_limit=2
        )
        button.click(friendly(self.api_draw_scene), [objects, place, seed], [overlay, mask, report], api_name="draw_scene")
        button.click(friendly(self.api_suggest), [picture, template], report, api_name="suggest")

    # Opening a picture

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

    def _opened(self, request: gr.Request, sample: Sample):
        key = self.studio.keep(request.session_hash, sample)
        names = sample.names or self._likely(request.session_hash, key, sample, self.preset.template)[0]
        return key, list(names), *self._tuned(names, [], ""), sample.image, "", gr.HTML(visible=False)

    def retune(self, names: list[str], words: list[str], shown: str | None):
        """The words and the heat to choose from, when the classes have changed."""
        return self._tuned(ask.asked_classes(names), ask.texts(words or [], "words"), shown)

    def _tuned(self, names, entries: list[str], shown: str | None):
        kept = [entry for entry in entries if entry.partition("=")[0].strip() in names]
        with_entry = {entry.partition("=")[0].strip() for entry in kept}
        own = {name: self.studio.prompt_words.get(name, name) for name in names}
        kept += [f"{name} = {word}" for name, word in own.items() if word != name and name not in with_entry]
        choices = [f"{name} = {word}" for name in names for word in SYNONYMS.get(name, ()) if not self.clip.unknown_words(word)]
        words = gr.Dropdown(choices=list(dict.fromkeys([*choices, *kept])), value=kept, multiselect=True, allow_custom_value=True)
        return words, gr.Dropdown(choices=list(names), value=shown if shown in names else names[0])

    def suggest_classes(self, request: gr.Request, key: str, names: list[str], template: str):
        likely, shares = self._likely(request.session_hash, key, self.studio.sample(request.session_hash, key), template)
        return list(likely), gr.HTML(figures.bars(shares, top=ask.SUGGESTED), visible=True)

    def _likely(self, visitor: str, key: str, sample: Sample, template: str) -> tuple[tuple[str, ...], dict[str, float]]:
        """The vocabulary's names that CLIP finds likeliest, and all their probabilities."""
        tokens, _ = self.studio.tokens(visitor, key, ClipEs(self.clip, self.preset), sample.image)
        with self.studio.lock:
            return ask.suggested(self.studio, tokens, template)

    # Answering

    def redraw(self, request: gr.Request, key: str, hidden: dict, *values):
        """Everything but the refiner, from tokens that are already here."""
        asked = dict(zip(self.controls, values, strict=True))
        visitor, sample = request.session_hash, self.studio.sample(request.session_hash, key)
        sample = replace(sample, names=ask.asked_classes(asked["classes"]))
        method, look = ClipEs(self.clip, self._settings(asked, hidden)), Look(asked["opacity"], asked["colour_map"], asked["shown"] or "")
        before = self.studio.shelf.get(visitor, "view")
        if (
            before is not None
            and before.same_question(sample, method.settings)
            and (before.method.settings, before.look) == (method.settings, look)
        ):
            return [gr.skip()] * 3
        if before is not None and before.same_question(sample, method.settings):
            view = replace(before, method=method, look=look, urls=before.still_packed(sample, look))
        else:
            tokens, seconds = self.studio.tokens(visitor, key, method, sample.image)
            result = next(self.studio.stepped(method, sample, tokens))
            result = replace(result, seconds={**result.seconds, "encode": seconds})
            view = View(
                sample, method, tokens, result, look, method.settings.refiner == "none", before.still_packed(sample, look) if before else {}
            )
        self.studio.show(visitor, view)
        return figures.strip(view), figures.class_heats(view), figures.notes(view)

    def refine(self, request: gr.Request, left: str, right: str, method: str = CLIP_ES) -> Iterator:
        """The refiner, an iteration at a time; given up as soon as the visitor looks at something else."""
        visitor = request.session_hash
        view = self.studio.view(visitor)
        if method != CLIP_ES or not self.studio.claim(visitor, view):
            yield [gr.skip()] * 4
            return
        if not view.done:
            for result in self.studio.stepped(view.method, view.sample, view.tokens):
                if self.studio.view(visitor) is not view:
                    return
                seconds = {**result.seconds, "encode": view.result.seconds["encode"]}
                refined = replace(view, result=replace(result, seconds=seconds), done=True)
                yield [gr.skip()] * 4
            if self.studio.view(visitor) is not view:
                return
            view = self.studio.show(visitor, refined)
            self.studio.claim(visitor, view)
        yield figures.strip(view), figures.notes(view), compared(view, left, right), self._legend(view)

    def _legend(self, view: View):
        names, labels = view.sample.names, view.result.labels.cpu().numpy()
        regions = [((labels == index).astype(np.float32), name) for index, name in enumerate(names, start=1) if (labels == index).any()]
        colours = {name: figures.hex_colour(name, names) for name in names}
        return gr.AnnotatedImage((view.sample.image, [(0.7 * region, name) for region, name in regions]), color_map=colours)

    def _settings(self, asked: dict, hidden: dict) -> ClipEsSettings:
        values = {**self.preset.to_dict(), **hidden, **{name: asked[name] for name in KNOBS}}
        if not values["affinity"] and not values["layers"]:
            values["layers"] = self.preset.layers  # nothing is spread, so no block need be named
        values["synonyms"] = ask.words_to_synonyms(asked["words"] or [], asked["classes"])
        return ask.settings_of(values, self.clip)

    def compare(self, request: gr.Request, opacity: float, colour_map: str, shown: str, left: str, right: str):
        view = replace(self.studio.view(request.session_hash), look=Look(opacity, colour_map, shown or ""))
        return compared(view, left, right)

    def ask_patch(self, request: gr.Request, event: gr.SelectData, opacity: float, colour_map: str):
        """The clicked patch's row of the affinity, and the words whose vectors are nearest to it."""
        view = replace(self.studio.view(request.session_hash), look=Look(opacity, colour_map))
        tokens, settings, (height, width) = view.tokens, view.method.settings, view.sample.image.shape[:2]
        row, column = (
            min(int(at * count / length), count - 1)
            for at, count, length in zip(reversed(event.index), tokens.grid, (height, width), strict=True)
        )
        patch = row * tokens.grid[1] + column
        attention = tokens.attention[:, ask.layer_numbers(settings, self.clip.layer_count)]
        affinity = refine.attention_affinity(attention, sinkhorn=settings.sinkhorn, power=settings.power)[0, patch].unflatten(
            0, tokens.grid
        )
        words = [*view.sample.names, *settings.background]
        with self.studio.lock:
            text = self.clip.text(
                prompts(settings.template, view.sample.names, settings.synonyms) + prompts(settings.template, settings.background)
            )
            near = patch_embeddings(tokens)[0, patch] @ text.T
        picture = figures.marked_patch(view, cam.stretched(affinity), row, column)
        return (
            figures.framed(figures.png_url(picture), f"Patch {row + 1}, {column + 1}", "hot: what it attends to")
            + "<p>Nearest words (cosine)</p>"
            + figures.bars(figures.class_shares(words, near), top=NEAREST)
        )

    # The other method

    def choose_method(self, method: str):
        if method not in (CLIP_ES, FMA_WSSS):
            raise Refused(f"expected a method out of {CLIP_ES}, {FMA_WSSS}, got {method!r}"[:200])
        own = method == CLIP_ES
        return [gr.Column(visible=own) for _ in self._panes()] + [gr.Column(visible=not own) for _ in self._mask_panes()]

    def redraw_masks(
        self, request: gr.Request, method: str, key: str, names: list[str], opacity: float, colour_map: str, shown: str, *asked
    ) -> Iterator:
        if method != FMA_WSSS:
            yield [gr.skip()] * 2
            return
        yield from self.masks.redraw(request.session_hash, key, names, Look(opacity, colour_map, shown or ""), *asked)

    def closer(self, request: gr.Request, method: str, *asked):
        return self.masks.closer(request.session_hash, *asked) if method == FMA_WSSS else [gr.skip()] * 3

    def mask_layer(self, request: gr.Request, key: str, level: int, voted: str) -> str:
        return self.masks.layer(request.session_hash, key, level, voted)

    def compare_masks(self, request: gr.Request, left: str, right: str):
        return self.masks.compare(request.session_hash, left, right)

    def make_mask_files(self, request: gr.Request, opacity: float):
        return written(replace(self.masks.view(request.session_hash), look=Look(opacity)))

    # Files

    def make_files(self, request: gr.Request, opacity: float):
        return written(replace(self.studio.view(request.session_hash), look=Look(opacity)))

    def restored(self, path: str, names: list[str]):
        """A settings file's values in their controls; what has no control is kept aside."""
        values = ask.settings_file(path)
        names = ask.asked_classes(values.get("classes", names))
        settings = ask.settings_of({**self.preset.to_dict(), **values}, self.clip)
        words, shown = self._tuned(names, [f"{name} = {word}" for name, word in settings.synonyms.items()], "")
        updates = {name: getattr(settings, name) for name in KNOBS} | {
            "background": list(settings.background),
            "layers": ask.layer_numbers(settings, self.clip.layer_count),
        }
        updates |= {"classes": list(names), "words": words, "shown": shown}
        hidden = {name: value for name, value in settings.to_dict().items() if name not in (*KNOBS, "synonyms")}
        return hidden, *(updates.get(name, gr.skip()) for name in self.controls)

    # For programs

    def api_segment(self, image: str, classes: list[str], settings: dict | None):
        """Segment a picture: the classes that it shows, and any of CLIP-ES's settings ({} for the preset).

        -> mask (palette PNG, 255 = unsure), overlay (PNG), report (JSON: scores, notes, settings, the number of each class).
        """
        method, sample, tokens = ask.pictured(self.studio, image, classes, settings)
        *_, result = self.studio.stepped(method, sample, tokens)
        view = View(sample, method, tokens, result, Look(), done=True)
        mask, overlay = write_pictures(view, results_folder())
        report = {"scores": result.scores, "prompts": result.prompts, "labels": figures.palette_ids(sample.names)}
        report |= {"uncertain": float(figures.unsure(view).mean()), "notes": [*result.notes, *figures.unknown_notes(view)]}
        report |= {"seconds": result.seconds, "settings": result.settings}
        return str(mask), str(overlay), report

    def api_fma_segment(self, image: str, classes: list[str], settings: dict | None):
        """Segment a picture by FMA-WSSS with the prompts that the app was started with: the classes that it shows (out of those the
        prompts were learned for), and any of FMA-WSSS's settings ({} for those of the learning).

        -> mask (palette PNG, 255 = unsure), overlay (PNG), report (JSON: scores, notes, settings, who made the masks that voted and how
        many there are, the number of each class).
        """
        method = asked_method(self.studio, settings)
        if not image:
            raise Refused("expected a picture, got none")
        sample = Sample(ask.photo(image, ask.MAX_PIXELS), ask.asked_classes(classes or []))
        proposals = method.proposals(method.working_image(sample.image))
        with self.studio.lock:
            tokens = method.encode(sample.image)
            result = method.segment(sample, tokens=tokens, proposals=proposals)
        view = View(sample, method, tokens, result, Look(), done=True)
        mask, overlay = write_pictures(view, results_folder())
        report = {"scores": result.scores, "prompts": result.prompts, "labels": figures.palette_ids(sample.names)}
        report |= {"masks": {"by": proposals.source, "count": len(proposals)}, "notes": list(result.notes)}
        report |= {"uncertain": float(figures.unsure(view).mean()), "seconds": result.seconds, "settings": result.settings}
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
        """The probability of every name of the vocabulary for a picture, the likeliest first; template "" for the preset's."""
        if not image:
            raise Refused("expected a picture, got none")
        method = ClipEs(self.clip, self.preset)
        with self.studio.lock:
            tokens = method.encode(ask.photo(image, ask.MAX_PIXELS))
            _, shares = ask.suggested(self.studio, tokens, template or self.preset.template)
        return shares


def photo_input(label: str, **layout) -> gr.Image:
    """An image component that hands over the file as it came: Gradio's own reading would skip the limits of `load_image`."""
    component = gr.Image(type="filepath", image_mode=None, format="png", label=label, **layout)
    component.preprocess = lambda payload: payload.path if payload else None
    return component


def compared(view: View, left: str, right: str) -> tuple[np.ndarray, np.ndarray]:
    """Two stages for the slider; a stage that is switched off, or a truth nobody knows, shows the picture."""
    drawn = {title if title in STAGES else "After refiner": picture for title, picture in figures.stage_pictures(view).items()}
    return tuple(drawn.get(side, drawn["Picture"])() for side in (left, right))


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
    labels = view.method.pseudo_mask(view.result)
    save_mask(folder / "mask.png", show.in_voc_colours(labels, view.sample.names))
    save_image(folder / "overlay.png", figures.mask_picture(view))
    return folder / "mask.png", folder / "overlay.png"
