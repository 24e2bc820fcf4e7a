"""FMA-WSSS in Explore: the visitor's picture and classes asked with learned prompts, and the masks that vote, region by region."""

import functools
import html
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import gradio as gr
import numpy as np

from kit import methods, show
from kit.data import Sample
from kit.encode import Clip
from kit.methods import FmaWsss
from kit.methods.fma_wsss import RANGES, FmaWsssSettings
from kit.propose import LEVELS, SUPERPIXELS, Proposals
from kit.ui import ask, figures, regions
from kit.ui.session import Look, Refused, Studio, View
from kit.words import SYNONYMS

SHIPPED = Path(methods.__file__).parent / "learned" / "fma_wsss_toy.safetensors"  # what the tiny CLIP asks with
TITLE = "CLIP + SAM (FMA-WSSS)"
# What a visitor has on the shelf: the prompts learned here, what is looked at, and the question that this answers
LEARNED, VIEW, ASKED, CLOSER = "learned", "seeds", "seeds asked", "seeds closer"
STARTED, HERE, BY_HAND = "started", "here", "by hand"  # where the prompts come from
STAGES = {
    "cam": "Map",
    "affinity": "After affinity",
    "coarse": "Coarse seeds",
    "fine_cam": "Fine map",
    "fine_affinity": "Fine affinity",
    "fine": "Fine seeds",
}
SIDES = ("Picture", *STAGES.values(), "Truth")  # of the slider
KNOBS = ("vote_power", "fine_vote_power", "box_threshold", "fine_box_threshold")
SHOWN_HIGHEST = {"vote_power": 3.0, "fine_vote_power": 3.0}  # of sliders, where a setting may be far above what is sensible


@dataclass(frozen=True)
class Missing:
    """Why the method is not available, and the command that would help."""

    why: str
    command: str

    def __str__(self) -> str:
        return f"FMA-WSSS is not available: {self.why}. This learns its prompts, to be given as --weights FILE: {self.command}"

    def html(self) -> str:
        return (
            f'<div class="kit-notes"><p class="kit-warn">FMA-WSSS is not available: {html.escape(self.why)}.</p>'
            f"<p>This command learns its prompts; then start the app with --weights FILE:</p><pre>{html.escape(self.command)}</pre>"
            "<p>Or learn prompts here, on the Learn page, or ask with hand-written ones (beside this, under Prompts).</p></div>"
        )


class Masks:
    """The part of Explore that is FMA-WSSS's own, laid out in two places: `lay_out_knobs` in its panel, `lay_out_result` beside it."""

    def __init__(self, studio: Studio):
        self.studio, self.clip = studio, studio.clip
        self.controls: dict[str, gr.components.Component] = {}

    def lay_out_knobs(self) -> None:
        learned = self.studio.learned
        preset = learned.settings if isinstance(learned, FmaWsss) else FmaWsss(self.clip).settings
        self.controls["source"] = gr.Radio(
            [("that came with the app", STARTED), ("learned here, on the Learn page", HERE), ("hand-written, by the template", BY_HAND)],
            value=STARTED,
            label="Prompts",
        )
        with gr.Accordion("Map and vote", open=False):
            for name, label, info in (
                ("vote_power", "Vote: background power", "of the coarse seeds; higher: less background"),
                ("fine_vote_power", "Fine vote: background power", "of the fine seeds"),
                ("box_threshold", "Box threshold", "a class may spread from boxes around what is hotter"),
                ("fine_box_threshold", "Fine box threshold", ""),
            ):
                low, high = RANGES[name]
                top = SHOWN_HIGHEST.get(name, high)
                self.controls[name] = gr.Slider(low, top, getattr(preset, name), step=0.05, label=label, info=info or None)

    def lay_out_result(self) -> None:
        self.strip = gr.HTML()
        self.notes = gr.HTML(elem_classes="kit-notes")
        with gr.Tabs():
            with gr.Tab("Masks"):
                with gr.Row():
                    self.level = gr.Radio([(name, index) for index, name in enumerate(LEVELS)], value=2, label="Level of the masks")
                    self.voted = gr.Radio([("coarse", "coarse"), ("fine", "fine")], value="fine", label="Votes of the seeds")
                self.regions = gr.HTML()
            with gr.Tab("Coarse against fine"):
                with gr.Row():
                    self.left = gr.Dropdown(list(SIDES), value="Coarse seeds", label="Left")
                    self.right = gr.Dropdown(list(SIDES), value="Fine seeds", label="Right")
                self.slider = gr.ImageSlider(label="Drag the line", format="png", max_height=480, interactive=False)
            with gr.Tab("Each class"):
                self.heats = gr.HTML()
        with gr.Accordion("Keep", open=False):
            self.files_button = gr.Button("Make the files", size="sm")
            with gr.Row():
                self.files = download_buttons()

    # Answering

    def redraw(self, visitor: str, key: str, names: list[str], look: Look, source: str, *knobs) -> Iterator:
        """The strip and the notes; instead of them, why this cannot be asked. Nothing where the question is that of before."""
        names, method = ask.asked_classes(names), self._method(visitor, source, dict(zip(KNOBS, knobs, strict=True)))
        question = method if isinstance(method, str) else (method.learned, method.settings, key, names, look)
        if self.studio.shelf.get(visitor, ASKED) == question:
            yield [gr.skip()] * 2
            return
        self.studio.shelf.put(visitor, ASKED, question, 1)
        if isinstance(method, str):
            self.studio.shelf.put(visitor, VIEW, None, 1)
            yield method, ""
            return
        sample = self.studio.sample(visitor, key)
        known = names if method.learned is None else tuple(name for name in names if name in method.learned.classes)
        others = [name for name in names if name not in known]
        told = left_out(others, method) if others else ""
        if not known:
            self.studio.shelf.put(visitor, VIEW, None, 1)
            yield f'<div class="kit-notes">{told}</div>', ""
            return
        if self.studio.sam is not None and self.studio.shelf.get(visitor, masks_name(key, method)) is None:
            yield figures.told(f"{self.studio.sam.name} is making this picture's masks, once; without a GPU that may take minutes."), ""
        view = self._seen(visitor, key, method, replace(sample, names=known), look)
        yield strip(view), told + notes(view)

    def closer(self, visitor: str, key: str, level: int, voted: str, left: str, right: str):
        """What lies under the strip: the masks with their votes, the two stages of the slider, each class."""
        view, asked = self.studio.shelf.get(visitor, VIEW), (level, voted, left, right)
        if view is None:
            return "", None, ""
        if self.studio.shelf.get(visitor, CLOSER) == (view, asked):
            return [gr.skip()] * 3
        self.studio.shelf.put(visitor, CLOSER, (view, asked), 1)
        return self._layer(visitor, key, view, level, voted), compared(view, left, right), figures.class_heats(view)

    def layer(self, visitor: str, key: str, level: int, voted: str) -> str:
        view = self.studio.shelf.get(visitor, VIEW)
        return "" if view is None else self._layer(visitor, key, view, level, voted)

    def compare(self, visitor: str, left: str, right: str):
        view = self.studio.shelf.get(visitor, VIEW)
        return None if view is None else compared(view, left, right)

    def view(self, visitor: str) -> View:
        view = self.studio.shelf.get(visitor, VIEW)
        if view is None:
            raise Refused("there is no result yet: choose a picture, and prompts that are there")
        return view

    def _method(self, visitor: str, source: str, knobs: Mapping) -> FmaWsss | str:
        """The method as it was set, or what to tell a visitor where it is not available."""
        if source not in (STARTED, HERE, BY_HAND):
            raise Refused(f"expected prompts out of {STARTED}, {HERE}, {BY_HAND}, got {source!r}"[:200])
        found = self.studio.learned
        if source == HERE:
            found = self.studio.shelf.get(visitor, LEARNED)
            if found is None:
                return figures.told("Nothing was learned here yet: learn prompts on the Learn page, and press Use in Explore there.")
        if source == BY_HAND:
            found = FmaWsss(self.clip)
        if isinstance(found, Missing):
            return found.html()
        return with_masks(self.studio, found, **knobs)

    def _seen(self, visitor: str, key: str, method: FmaWsss, sample: Sample, look: Look) -> View:
        """The view of this question; the model is asked only if that is not the one there is already."""
        before = self.studio.shelf.get(visitor, VIEW)
        if before is not None and before.same_question(sample, method.settings) and before.method.learned is method.learned:
            view = replace(before, look=look, urls=before.still_packed(sample, look))
        else:
            tokens, seconds = self.studio.tokens(visitor, key, method, sample.image)
            proposals, spent = proposals_of(self.studio, visitor, key, method, sample.image)
            with self.studio.lock:
                result = method.segment(sample, tokens=tokens, proposals=proposals)
            result = replace(result, seconds={**result.seconds, "encode": seconds, "proposals": spent})
            view = View(sample, method, tokens, result, look, True, before.still_packed(sample, look) if before else {})
        maps = [*view.result.stages.values(), view.result.labels, view.result.confidence]
        self.studio.shelf.put(visitor, VIEW, view, sum(tensor.nbytes for tensor in maps))
        return view

    def _layer(self, visitor: str, key: str, view: View, level: int, voted: str) -> str:
        level = ask.whole_number(level, "the level", 0, len(LEVELS) - 1)
        votes, proposals = view.result.votes, view.result.proposals
        vote = voted if voted in votes else "coarse"
        name = f"{key} outlines {level} {proposals.source}"
        kept = self.studio.shelf.get(visitor, name)
        if kept is None or kept[0] is not proposals:
            kept = proposals, regions.level_outlines(proposals, level)
            self.studio.shelf.put(visitor, name, kept, sum(map(len, kept[1].values())))
        image = view.method.working_image(view.sample.image)
        return regions.layer(image, proposals, kept[1], votes[vote], view.sample.names, level=level, title=f"Votes of the {vote} seeds")


def with_masks(studio: Studio, method: FmaWsss, **changes) -> FmaWsss:
    """The same prompts with other settings, and with the masks that the app was started with: superpixels unless a SAM was asked for."""
    proposals = studio.sam.name if studio.sam else SUPERPIXELS
    return FmaWsss(studio.clip, method.settings, learned=method.learned, sam=studio.sam, proposals=proposals, **changes)


def asked_method(studio: Studio, values: Mapping | None) -> FmaWsss:
    """The method with a program's settings.   Raises Refused where it is not available, and for masks of another maker."""
    if isinstance(studio.learned, Missing):
        raise Refused(str(studio.learned))
    if not isinstance(values or {}, dict):
        raise Refused("expected settings as a JSON object of names and values")
    own = with_masks(studio, studio.learned).settings
    settings = FmaWsssSettings.from_dict({**own.to_dict(), **(values or {})})
    if settings.proposals != own.proposals:
        raise Refused(f"the masks of this app are those of {own.proposals}; another SAM is an option of its start, --sam")
    method = FmaWsss(studio.clip, settings, learned=studio.learned.learned, sam=studio.sam)
    method.blocks()
    return method


def known_prompts(clip: Clip, path: str | Path | None = None) -> FmaWsss | Missing:
    """FMA-WSSS with the prompts of a file (None: those that the kit brings), or why it is not available."""
    path, why = Path(path or SHIPPED), f"no prompts were learned for {clip.name}"
    try:
        if path != SHIPPED or clip.is_tiny:
            return FmaWsss.load(path, clip)
    except ValueError as error:  # a LearnedError, or a file whose settings or shapes do not fit
        why = str(error).replace(str(path), path.name)
    model = [] if clip.is_tiny else ["--model", clip.name]
    command = shlex.join(["python", "-m", "kit", "fit", "--data", "toy", "--method", "fma-wsss", *model, "--out", "FILE"])
    return Missing(why, command)


def proposals_of(studio: Studio, visitor: str, key: str, method: FmaWsss, image: np.ndarray) -> tuple[Proposals, float]:
    """The masks of a picture that may vote, and the seconds they took: made when the picture is new, taken from the shelf ever after."""
    name = masks_name(key, method)
    with studio.masks_lock:  # one of its own, because CLIP is not asked
        kept = studio.shelf.get(visitor, name)
        if kept is None:
            clock = time.perf_counter()
            proposals = method.proposals(method.working_image(image))
            kept = proposals, time.perf_counter() - clock
            studio.shelf.put(visitor, name, kept, proposals.masks.nbytes)
    return kept


def masks_name(key: str, method: FmaWsss) -> str:
    """What a picture's masks are called on the shelf."""
    settings = method.settings
    return f"{key} masks {settings.proposals} {settings.regions} {settings.side_limit}"


def left_out(names: list[str], method: FmaWsss) -> str:
    """What to say of classes that the prompts were not learned for."""
    sentence = (
        f"The prompts were learned for {len(method.learned.classes)} classes; {', '.join(names)} is none of them and is left out: "
        "CLIP-ES, and hand-written prompts, take any word."
    )
    meant = [name for name, own in SYNONYMS.items() if name in method.learned.classes and any(word in own for word in names)]
    sentence += f" Did you mean {', '.join(meant)}?" if meant else ""
    return f'<p class="kit-warn">{html.escape(sentence)}</p>'


def stage_pictures(view: View) -> dict[str, Callable[[], np.ndarray]]:
    """Title -> a function that draws it, uint8 (H, W, 3)."""
    pictures = {"Picture": lambda: view.sample.image}
    for stage in view.result.stages:
        seeds = stage in view.result.votes
        pictures[STAGES[stage]] = functools.partial(seeds_picture if seeds else heat_picture, view, stage)
    if view.sample.truth is not None:
        pictures["Truth"] = lambda: show.mask_overlay(view.sample.image, view.sample.truth, opacity=view.look.opacity)
    return pictures


def heat_picture(view: View, stage: str) -> np.ndarray:
    return figures.heat(view, stage, figures.shown_class(view))


def seeds_picture(view: View, stage: str) -> np.ndarray:
    return figures.plain_mask(view, stage_labels(view, stage))


def stage_labels(view: View, stage: str):
    return figures.stage_maps(view, stage).max(0).indices


def strip(view: View) -> str:
    """From the picture to the truth, the coarse way above the fine one."""
    height, width = view.sample.image.shape[:2]
    drawn, shown = stage_pictures(view), html.escape(figures.shown_class(view))
    parts = [figures.framed(figures.packed(view, "Picture", drawn["Picture"]), "Picture", f"{width} × {height} pixels")]
    for stage, title in STAGES.items():
        if stage not in view.result.stages:
            if stage in ("affinity", "fine_affinity") and (stage == "affinity" or "fine" in view.result.stages):
                parts.append(figures.placeholder(title, "Affinity is off"))
            continue
        alt = f"{title}: heat of {shown}" if stage not in view.result.votes else title
        told = figures.iou_text(figures.scene_iou(view, stage_labels(view, stage))) or f"heat of {shown}"
        parts.append(figures.framed(figures.packed(view, title, drawn[title]), title, told, alt=alt))
    if view.sample.truth is None:
        parts.append(figures.placeholder("Truth", "Nobody knows it for a photo"))
    else:
        parts.append(figures.framed(figures.packed(view, "Truth", drawn["Truth"]), "Truth", "only for judging"))
    return f'<div class="kit-strip kit-eight">{"".join(parts)}</div>'


def notes(view: View) -> str:
    """Who made the masks, then what a reader of any result should know."""
    proposals = view.result.proposals
    counts = ", ".join(f"{int((proposals.levels == level).sum())} {name}" for level, name in reversed(list(enumerate(LEVELS))))
    made = f"<p>Masks by {html.escape(regions.source_told(proposals.source))}: {counts}.</p>"
    return made + figures.notes(view)


def compared(view: View, left: str, right: str) -> tuple[np.ndarray, np.ndarray]:
    """Two stages for the slider; a stage that is not there shows the coarse seeds for the fine ones, else the picture."""
    drawn = stage_pictures(view)
    if "Fine seeds" not in drawn:
        drawn["Fine seeds"] = drawn["Coarse seeds"]
    return tuple(drawn.get(side, drawn["Picture"])() for side in (left, right))


def download_buttons() -> list[gr.DownloadButton]:
    titles = ("Mask PNG", "Overlay PNG", "Maps npz", "Settings JSON")
    return [gr.DownloadButton(label, visible=False, size="sm", min_width=100) for label in titles]
