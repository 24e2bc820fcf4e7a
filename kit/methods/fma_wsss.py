"""Foundation Model Assisted Weakly Supervised Semantic Segmentation (Yang and Gong, WACV 2024, arXiv 2312.03585): CLIP with learned
prompts says what is where, class-free masks of SAM say up to where.

learn classification prompts -> maps, affinity, vote of the masks: coarse seeds -> learn segmentation prompts whose maps fit the coarse
seeds -> maps, affinity, vote: fine seeds.   Nothing but the prompts' contexts is learned.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from kit import cam, refine, words
from kit.encode import Clip
from kit.files import told_bytes
from kit.fit import FitStep, Study
from kit.images import load_mask, save_mask
from kit.learned import Learned
from kit.losses import activation_loss, multi_label_contrastive_loss
from kit.method import Comparison, Done, Lesson, Method, Pipeline, Preset, Scene, Stage, Words
from kit.prompt import PromptContext, PromptError, competing_words, prompts, shifted_words
from kit.propose import CACHE, SUPERPIXELS, Proposals, cache_limit, loaded_sam, sam_proposals, superpixels
from kit.propose import PRESETS as SAM_PRESETS
from kit.settings import Blocks, Learning, Settings, SettingsError, Share, Texts, number, whole
from kit.views import AugmentedViews, CachedViews, Views, label_rows, some_images
from kit.vote import Vote, mask_vote

CLASSIFICATION, SEGMENTATION = "classification", "segmentation"  # the lessons, and the tensors of their contexts
Power = number(0.05, 20)


class Level(Learning):
    """What is about one kind of prompts: how they are laid out and learned, and what is made of their maps."""

    position: Literal["end", "front", "middle"] = Field("end", title="Name's place", description="in a learned prompt")
    per_class: bool = Field(False, title="Context per class", description="whether every text has a context of its own")
    std: Share = Field(0.015, title="Start", description="standard deviation of the random vectors learning begins with")
    affinity: bool = Field(True, title="Spread by attention affinity")
    box_threshold: Share = Field(0.4, title="Box threshold", description="a class may spread from boxes around what is hotter")
    spread: Literal["score", "raw"] = Field("score", title="What is spread", description="the map stretched to [0, 1], or the signed one")
    vote_power: Power = Field(0.6, title="Vote: background power", description="higher: less background")


class FineLevel(Level):
    """The same of the segmentation prompts, which learn from the coarse seeds."""

    background: Literal["words", "learned"] = Field("learned", title="Backgrounds", description="words, or contexts without a word")
    labels: Literal["seed", "image"] = Field("seed", title="Labels", description="a view asks for the classes of its seed, or its image's")


class FmaWsssSettings(Settings):
    """The settings of FMA-WSSS. Defaults are the paper's for PASCAL VOC, from the released code; `coarse` is about the classification
    prompts, `fine` about the segmentation prompts, and what is made with them.
    """

    template: str = Field("a clean origami {}.", title="Template", description="of hand-crafted prompts, where nothing was learned")
    background: Texts = Field(words.VOC_BACKGROUND, title="Background words", description="what else may be there; none is allowed")
    synonyms: dict[str, str] = Field(dict(words.VOC_PROMPTS), title="Words", description="class name -> the words in its place")
    context: whole(1, 64) = Field(16, title="Context", description="learned vectors in a prompt")
    layers: Blocks = Field(8, title="Attention of blocks", description="whose attention makes the affinity")
    sinkhorn: whole(0, 20) = Field(1, title="Sinkhorn", description="how often rows and columns are made to sum to 1")
    power: whole(1, 8) = Field(2, title="Affinity power", description="of the matrix: how far heat may walk")
    exact_boxes: bool = Field(False, title="Exact boxes", description="the released code cuts boxes at the right and lower border")
    proposals: str = Field("facebook/sam-vit-huge", title="Masks", description='a SAM\'s name or folder, or "superpixels"')
    sam_preset: Literal["paper", "light"] = Field("paper", title="SAM", description="how it is asked")
    regions: Annotated[tuple[int, ...], Field(strict=False, min_length=3, max_length=3)] = Field(
        (250, 80, 30), title="Superpixels", description="the most of each level, finest first"
    )
    coarse: Level = Level(steps=1800, warm_up=500)
    fine: FineLevel = FineLevel(
        steps=17000, warm_up=500, position="front", per_class=True, std=0.0125, box_threshold=0.5, spread="raw", vote_power=0.7
    )
    views: Literal["augmented", "cached"] = Field(
        "augmented", title="Views", description="a new piece of each picture every time, or the picture as it is, encoded once"
    )
    crop: whole(16, 1024) = Field(224, title="Crop", description="side of a piece in pixels")
    scale: Annotated[tuple[int, ...], Field(strict=False, min_length=2, max_length=2)] = Field(
        (288, 480), title="Scale", description="lowest and highest length of the picture's longer side before it is cut"
    )
    seed: whole(0, 2**32 - 2) = Field(0, title="Seed", description="behind everything random")

    renamed: ClassVar[Mapping[str, str]] = {
        **{name: f"coarse.{name}" for name in Level.model_fields if name != "losses"},
        **{f"fine_{name}": f"fine.{name}" for name in FineLevel.model_fields},
    }

    def model_post_init(self, _) -> None:
        if not self.proposals.strip():
            raise SettingsError(f"expected proposals to be {SUPERPIXELS!r} or a SAM's name or folder, got {self.proposals!r}", "proposals")
        for name, downwards in (("regions", True), ("scale", False)):
            values = getattr(self, name)
            if list(values) != sorted(values, reverse=downwards) or min(values) < 1:
                order = "falling" if downwards else "rising"
                raise SettingsError(f"expected {name} to be {order} numbers of at least 1, got {values!r}", name)
        if self.fine.background == "learned" and not self.fine.per_class:
            raise SettingsError("backgrounds without a word need contexts of their own: take fine.background words, or fine.per_class true")

    @classmethod
    def from_dict(cls, values: Mapping) -> "FmaWsssSettings":
        """Settings from plain values; those of earlier versions, which had no groups, too."""
        if isinstance(values, Mapping) and "fine_foreground" in values:
            weight = values["fine_foreground"]
            values = {name: value for name, value in values.items() if name != "fine_foreground"}
            values["fine_losses"] = {} if weight == 1 else {"foreground": weight}
        return super().from_dict(values)


@dataclass(frozen=True, eq=False)
class LearnedTexts:
    """The learned prompts as texts: lesson -> (T, D), the classes' rows before the backgrounds'."""

    classes: tuple[str, ...]
    texts: dict[str, Tensor]


def opened(clip: Clip, settings: FmaWsssSettings, learned: Learned) -> LearnedTexts:
    """Learned contexts with the words they were learned for.   Raises ValueError if they do not fit."""
    texts = {}
    for lesson in [name for name in (CLASSIFICATION, SEGMENTATION) if name in learned.tensors]:
        context, vectors = prompt_context(clip, settings, learned.classes, lesson), learned.tensors[lesson]
        if vectors.shape != context.vectors.shape:
            raise ValueError(
                f"expected {lesson} contexts {tuple(context.vectors.shape)}, got {tuple(vectors.shape)}: "
                "take the file that was learned with these settings"
            )
        with torch.no_grad():
            context.vectors.copy_(vectors)
            texts[lesson] = context.text(clip)
    return LearnedTexts(learned.classes, texts)


def shifted(clip: Clip, settings: FmaWsssSettings, learned: Learned) -> LearnedTexts:
    """Each class asked with the text of the class after it: a control that has to do badly."""
    right, count = opened(clip, settings, learned), len(learned.classes)
    return LearnedTexts(
        right.classes, {lesson: torch.cat([text[:count].roll(-1, 0), text[count:]]) for lesson, text in right.texts.items()}
    )


def prompt_context(clip: Clip, settings: FmaWsssSettings, classes: Sequence[str], lesson: str) -> PromptContext:
    """The prompts of a lesson as they are before learning: a text for each class, then one for each background."""
    level = settings.coarse if lesson == CLASSIFICATION else settings.fine
    own = [settings.synonyms.get(name, name) for name in classes]
    rivals, _ = competing_words(settings.background, classes, settings.synonyms)
    if lesson == SEGMENTATION and level.background == "learned":
        rivals = [""] * len(rivals)
    return PromptContext(
        clip, [*own, *rivals], length=settings.context, position=level.position, per_class=level.per_class, std=level.std,
        seed=settings.seed + (lesson == SEGMENTATION),
    )  # fmt: skip


def proposals(scene: Scene, done: Done) -> Proposals:
    settings = scene.settings
    if settings.proposals == SUPERPIXELS:
        return superpixels(scene.image, regions=settings.regions)
    *_, last = sam_proposals(scene.image, loaded_sam(settings.proposals, scene.clip.device), SAM_PRESETS[settings.sam_preset][1])
    return last.proposals


def stand_in(scene: Scene, done: Done) -> Iterator[str]:
    if done["proposals"].source == SUPERPIXELS:
        yield "superpixels vote, the stand-in for SAM"


def matrix(scene: Scene, done: Done) -> Tensor:
    attention = scene.tokens.attention_of(scene.clip.chosen_blocks(scene.settings.layers)).float()
    return refine.attention_affinity(attention, sinkhorn=scene.settings.sinkhorn, power=scene.settings.power)


def has_affinity(level: str) -> Callable[[Scene], bool]:
    return lambda scene: has_level(level)(scene) and getattr(scene.settings, level).affinity


def has_level(level: str) -> Callable[[Scene], bool]:
    """Coarse seeds are always there; fine ones need segmentation prompts, which only learning makes."""
    return lambda scene: level == "coarse" or (scene.learned is not None and SEGMENTATION in scene.learned.texts)


def text(level: str) -> Callable[[Scene, Done], Words]:
    def run(scene: Scene, done: Done) -> Words:
        settings, names = scene.settings, scene.names
        if scene.learned is None:
            own = prompts(settings.template, names, settings.synonyms)
            rivals, _ = competing_words(settings.background, names, settings.synonyms)
            vectors = scene.clip.text(own + prompts(settings.template, rivals))  # (C + backgrounds, D)
        else:
            classes, texts = scene.learned.classes, list(scene.learned.texts.values())
            if strange := [name for name in names if name not in classes]:
                raise PromptError(
                    f"the prompts were learned for {len(classes)} classes, {', '.join(strange)} is none of them: choose among "
                    f"{', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}"
                )
            own = [learned_prompt(settings, scene.learned, name) for name in names]
            asked = texts[0] if level == "coarse" else scene.learned.texts[SEGMENTATION]
            vectors = torch.cat([asked[[classes.index(name) for name in names]], asked[len(classes) :]])
        return Words(tuple(own), cam.class_probabilities(scene.tokens, vectors, done=scene.last)[0, : len(names)], vectors)

    return run


def learned_prompt(settings: FmaWsssSettings, learned: LearnedTexts, name: str) -> str:
    """A learned prompt as it can be read: the last one learned."""
    position = settings.fine.position if SEGMENTATION in learned.texts else settings.coarse.position
    before = {"end": settings.context, "front": 0, "middle": settings.context // 2}[position]
    vectors = [f"[{count} learned]" if count else "" for count in (before, settings.context - before)]
    return " ".join(filter(None, [vectors[0], settings.synonyms.get(name, name), vectors[1]])) + "."


def which_prompts(scene: Scene, done: Done) -> Iterator[str]:
    if scene.learned is not None:
        return
    yield "the prompts are hand-crafted: none were learned"
    _, own = competing_words(scene.settings.background, scene.names, scene.settings.synonyms)
    yield from (f"background word {word!r} is left out: it is one of the classes" for word in own)


def raw(level: str) -> Callable[[Scene, Done], Tensor]:
    return lambda scene, done: cam.softmax_grad_cam(scene.tokens, done[f"{level} text"].text, range(len(scene.names)), done=scene.last)


def silent(level: str) -> Callable[[Scene, Done], Iterator[str]]:
    def told(scene: Scene, done: Done) -> Iterator[str]:
        for name, map_ in zip(scene.names, done[f"{level} raw"][0], strict=True):
            if not (map_ > 0).any():
                yield f"{name}: no patch speaks for it, its {level} map is empty"

    return told


def shown(source: str) -> Callable[[Scene, Done], Tensor]:
    return lambda scene, done: cam.normalised_cam(refine.upsampled(done[source], scene.image.shape[:2]))[0]


def spread(level: str) -> Callable[[Scene, Done], Tensor]:
    """What the affinity makes of raw maps, within the boxes of their positive part."""

    def run(scene: Scene, done: Done) -> Tensor:
        settings, maps = getattr(scene.settings, level), done[f"{level} raw"]
        score = cam.stretched(maps.relu())
        boxes = refine.box_mask(score, threshold=settings.box_threshold, exact=scene.settings.exact_boxes)
        return refine.spread(maps if settings.spread == "raw" else score, done["matrix"], boxes)

    return run


def vote(level: str) -> Callable[[Scene, Done], Vote]:
    def run(scene: Scene, done: Done) -> Vote:
        evidence = done.get(f"{level} spread")
        evidence = done[f"{level} raw"] if evidence is None else evidence
        return mask_vote(evidence[0], done["proposals"], power=getattr(scene.settings, level).vote_power)

    return run


def chain(level: str, prefix: str, what: str) -> tuple[Stage, ...]:
    """The stages of one kind of prompts; what: behind the maps' title."""
    here, spreads = has_level(level), has_affinity(level)
    return (
        Stage(f"{level} text", "Prompts", text(level), shows="words", when=here, notes=which_prompts if level == "coarse" else None),
        Stage(f"{level} raw", "Raw maps", raw(level), when=here, notes=silent(level)),
        Stage(f"{prefix}cam", f"softmax Grad-CAM{what}", shown(f"{level} raw"), shows="maps", when=here,
              about="Where the picture speaks for the class: the signed gradient of its probability among all prompts."),
        Stage(f"{level} spread", "Spread maps", spread(level), when=spreads),
        Stage(f"{prefix}affinity", "+ affinity", shown(f"{level} spread"), shows="maps", when=spreads,
              about="Heat walks to the patches that attention ties together, within boxes around the hottest places."),
        Stage(level, f"+ vote of the masks: {level} seeds", vote(level), shows="votes", when=here,
              about="Every class-free mask takes the class whose map is strongest in it on average, or background; smaller and surer masks "
                    "are painted over."),
    )  # fmt: skip


def compared(pipeline: Pipeline, classes: Sequence[str]) -> Mapping[str, Comparison]:
    if pipeline.learned is None:
        control = pipeline.changed(synonyms=shifted_words(classes, pipeline.settings.synonyms))
        return {"control": Comparison("control: prompts shifted by one class, last seeds", control, control=True)}
    control = dataclasses.replace(pipeline, method=dataclasses.replace(pipeline.method, open=shifted))
    return {
        "by hand": Comparison("hand-crafted prompts, coarse seeds (baseline)", pipeline.changed(learned=None)),
        "control": Comparison("control: prompts shifted by one class, last seeds", control, control=True),
    }


class ClassificationTask:
    """Prompts that tell a picture's classes from the others, by the multi-label contrastive loss; only the text side has a graph."""

    def __init__(self, clip: Clip, context: PromptContext, views: Views, labels: Tensor):
        self.clip, self.context, self.views = clip, context, views
        self.labels = labels.to(clip.device)  # (N, C)
        self.count = views.count
        self.logit_scale = clip.last_block().logit_scale

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.context.parameters()

    def tensors(self) -> dict[str, Tensor]:
        return {CLASSIFICATION: self.context.vectors}

    def losses(self, indices: Sequence[int], random: torch.Generator) -> dict[str, Tensor]:
        labels = self.labels[list(indices)]
        if not (labels.any(1) & ~labels.all(1)).any():
            return {}
        vectors = self.views.embeddings(indices, random)  # (B, D)
        text = self.context.text(self.clip)[: labels.shape[1]]  # (C, D): backgrounds have no say here
        logits = self.logit_scale * vectors @ text.T
        return {"contrastive": multi_label_contrastive_loss(logits, labels)}


class SegmentationTask:
    """Prompts whose maps are high on the coarse seeds and nowhere else, by the activation loss; the maps are differentiated once more.

    A view asks for the classes that its piece of the seed shows (VOC) or, with `labels` (N, C), for those of its image (COCO); one without
    any teaches nothing.
    The losses grow with the maps, so that they may rise while the maps become better.   Source: FMA-WSSS, released code.
    """

    def __init__(
        self, clip: Clip, context: PromptContext, views: Views, class_count: int, seed: Callable[[int], np.ndarray], *,
        labels: Tensor | None = None,
    ):  # fmt: skip
        self.clip, self.context, self.views, self.class_count, self.seed = clip, context, views, class_count, seed
        self.labels = None if labels is None else labels.bool().to(clip.device)
        self.count = views.count

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.context.parameters()

    def tensors(self) -> dict[str, Tensor]:
        return {SEGMENTATION: self.context.vectors}

    def losses(self, indices: Sequence[int], random: torch.Generator) -> dict[str, Tensor]:
        tokens, seeds = self.views.tokens_and_seeds(indices, random, self.seed)
        if self.labels is not None:
            present = self.labels[list(indices)]
        else:
            numbers = torch.arange(1, self.class_count + 1, device=seeds.device)[:, None, None]
            present = (seeds[:, None] == numbers).flatten(2).any(2)  # (B, C)
        pictured = present.any(1).nonzero()[:, 0]
        if not len(pictured):
            return {}
        maps = cam.masked_softmax_grad_cam(some_images(tokens, pictured.tolist()), self.context.text(self.clip), present[pictured])
        foreground, background = activation_loss(maps, present[pictured], seeds[pictured])
        return {"foreground": foreground, "background": background}


def viewed(study: Study) -> Iterator[FitStep]:
    """The pictures' views, filled once for both lessons.   -> Views"""
    if "views" not in study.shared:
        pipeline, settings = study.pipeline, study.pipeline.settings
        if settings.views == "cached":
            views = CachedViews(pipeline.clip, study.data, prepare=pipeline.prepared)
        else:
            views = AugmentedViews(pipeline.clip, study.data, crop=settings.crop, scale=settings.scale)
        yield from views.fill()
        study.shared["views"], study.names = views, views.names
    return study.shared["views"]


def classification(study: Study) -> Iterator[FitStep]:
    pipeline, classes = study.pipeline, study.data.classes
    views = yield from viewed(study)
    context = prompt_context(pipeline.clip, pipeline.settings, classes, CLASSIFICATION)
    return ClassificationTask(pipeline.clip, context, views, label_rows(views.names, classes))


def segmentation(study: Study) -> Iterator[FitStep]:
    pipeline, classes, folder = study.pipeline, study.data.classes, study.work / "seeds"
    views = yield from viewed(study)
    labels = label_rows(views.names, classes)
    folder.mkdir(exist_ok=True)
    coarse = dataclasses.replace(pipeline, learned=pipeline.learned.only(CLASSIFICATION))
    yield from study.shared_out("coarse seeds", len(study.data), lambda index: coarse_seed(coarse, study.data, index, folder))
    return SegmentationTask(
        pipeline.clip, prompt_context(pipeline.clip, pipeline.settings, classes, SEGMENTATION), views, len(classes),
        lambda index: load_mask(seed_file(folder, index)), labels=labels if pipeline.settings.fine.labels == "image" else None,
    )  # fmt: skip


def coarse_seed(pipeline: Pipeline, data, index: int, folder: Path) -> None:
    """The seed of a picture as a palette PNG, named by its number, if it is not there already; labels are places in the classes + 1."""
    file = seed_file(folder, index)
    if file.exists():
        return
    sample = data.entries[index].sample()
    seed = np.zeros(sample.image.shape[:2], np.uint8)
    if sample.names:
        tokens = pipeline.clip.encode(pipeline.prepared(sample.image)[None], layers=pipeline.layers)
        numbers = np.array([0, *(data.classes.index(name) + 1 for name in sample.names)], np.uint8)
        seed = numbers[pipeline.segment(sample, tokens=tokens).labels.cpu().numpy()]
    save_mask(file, seed, is_pseudo=True)


def seed_file(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.png"


def random_start(pipeline: Pipeline, classes: Sequence[str]) -> dict[str, Tensor]:
    return {CLASSIFICATION: prompt_context(pipeline.clip, pipeline.settings, classes, CLASSIFICATION).vectors.detach()}


def vectors_of(lesson: str) -> Callable[[Pipeline, str], Tensor]:
    def vectors(pipeline: Pipeline, name: str) -> Tensor:
        learned = pipeline.learned.tensors[lesson]
        return learned if learned.ndim == 2 else learned[pipeline.learned.classes.index(name)]

    return vectors


def taken(pipeline: Pipeline) -> list[str]:
    """What SAM and its masks take."""
    settings = pipeline.settings
    if settings.proposals == SUPERPIXELS:
        return []
    weights = sum(weight.nbytes for weight in loaded_sam(settings.proposals, pipeline.clip.device).model.parameters())
    return [
        f"SAM {settings.proposals} takes {told_bytes(weights)} besides, and as much again while it works",
        f"its masks are kept in {CACHE}, up to {told_bytes(cache_limit())} (half of what the disk has room for), the oldest go first",
    ]


FmaWsss = Method(
    "fma-wsss", "CLIP + SAM (FMA-WSSS)", FmaWsssSettings,
    stages=(
        Stage("proposals", "Masks", proposals, shows="masks", notes=stand_in),
        Stage("matrix", "Attention affinity", matrix, when=lambda scene: has_affinity("coarse")(scene) or has_affinity("fine")(scene)),
        *chain("coarse", "", ""),
        *chain("fine", "fine_", ", segmentation prompts"),
    ),
    presets={
        "coco": Preset({
            "background": words.COCO_BACKGROUND, "synonyms": dict(words.COCO_PROMPTS), "scale": (318, 530),
            # the vote's power: the released code takes the best of 0.3 to 0.5 by the truth; steps chosen by the truth
            "coarse": {"box_threshold": 0.6, "spread": "raw", "vote_power": 0.4, "steps": 6150, "horizon": 20500, "warm_up": 1000,
                       "parts": 4},
            "fine": {"position": "end", "per_class": False, "std": 0.015, "background": "words", "affinity": False, "vote_power": 1.0,
                     "steps": 45000, "horizon": 75000, "warm_up": 1000, "parts": 8, "labels": "image"},
        }),
        # for the tiny CLIP: the words it knows, the blocks that attend locally, superpixels in SAM's place, numbers that were best on
        # scenes of the training split
        "toy": Preset(
            {
                "background": words.TOY_BACKGROUND, "synonyms": {}, "layers": (0, 1, 2), "side": 160, "proposals": SUPERPIXELS,
                "views": "cached",
                "coarse": {"box_threshold": 0.2, "vote_power": 1.0, "rate": 1e-2, "steps": 200, "warm_up": 10},
                "fine": {"box_threshold": 0.2, "spread": "score", "vote_power": 1.0, "rate": 3.0, "steps": 100, "warm_up": 0, "batch": 8,
                         "losses": {"foreground": 4.0}},
            },
            chosen_on=(("toy", "train"),),
        ),
    },
    compared=compared,
    lessons=MappingProxyType({
        CLASSIFICATION: Lesson(
            "Classification prompts",
            "Sixteen vectors stand before every class name; they learn to tell which classes a scene shows. Only image-level labels are "
            "used.",
            "coarse", classification, losses=("contrastive",), parts=("encoding", CLASSIFICATION), start=random_start,
            vectors=vectors_of(CLASSIFICATION),
        ),
        SEGMENTATION: Lesson(
            "Segmentation prompts",
            "Vectors of its own for every class; they learn to be hot where the coarse seeds of the classification prompts are. Slower: "
            "every step differentiates a map.",
            "fine", segmentation, losses=("foreground", "background"), parts=("encoding", "coarse seeds", SEGMENTATION),
            needs=(CLASSIFICATION,), vectors=vectors_of(SEGMENTATION),
        ),
    }),
    open=opened,
    belongs=(
        "background", "synonyms", "context", "coarse.position", "coarse.per_class", "fine.position", "fine.per_class", "fine.background",
    ),  # fmt: skip
    shipped=Path(__file__).parent / "learned" / "fma_wsss_toy.safetensors",
    source="Yang and Gong, Foundation Model Assisted Weakly Supervised Semantic Segmentation, WACV 2024",
    notebook="4_clip_sam.ipynb",
    takes=taken,
    knobs=("coarse.box_threshold", "coarse.vote_power", "coarse.affinity"),
)  # fmt: skip
