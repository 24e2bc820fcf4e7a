"""CLIP is Also an Efficient Segmenter (Lin et al., CVPR 2023, arXiv 2212.09506): text-driven Grad-CAM, attention affinity, nothing learned.

image -> tokens -> softmax-GradCAM of the present classes against background words -> class-aware attention affinity -> dense CRF
-> label map, uncertain pixels ignored
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from torch import Tensor

from kit import cam, mask, refine, words
from kit.data import Sample
from kit.encode import Clip, Tokens
from kit.last_block import last_pass
from kit.methods.result import Result
from kit.methods.settings import MAX_CLASSES as MAX_CLASSES
from kit.methods.settings import (
    SettingsError,
    attention_of,
    check_choice,
    check_classes,
    check_flag,
    check_names,
    checked_layers,
    checked_number,
    checked_words,
    chosen_blocks,
    competing_words,
    from_plain_values,
    image_within,
    plain_values,
    shifted_words,
    size_within,
)
from kit.prompt import prompts

# How a table or a picture calls the stages.
CAM_TITLES: Mapping[str, str] = MappingProxyType(
    {"softmax": "softmax Grad-CAM", "plain": "plain Grad-CAM", "similarity": "similarity map"}
)
REFINER_TITLES: Mapping[str, str] = MappingProxyType({"crf": "+ CRF", "pixel-adaptive": "+ pixel-adaptive refinement", "none": ""})
CAMS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"softmax": cam.softmax_grad_cam, "plain": cam.grad_cam, "similarity": cam.similarity_cam}
)
METHOD = "clip-es"
REFINERS = ("crf", "pixel-adaptive", "none")


@dataclass(frozen=True)
class ClipEsSettings:
    """Every knob of CLIP-ES. Defaults are the paper's for PASCAL VOC, from the released code."""

    template: str = words.CLIP_ES_TEMPLATE
    background: tuple[str, ...] = words.VOC_BACKGROUND
    # class name -> the words in its place; a name that is not here stands for itself
    synonyms: Mapping[str, str] = field(default_factory=lambda: dict(words.VOC_PROMPTS))
    cam: str = "softmax"  # which map: softmax | plain | similarity
    affinity: bool = True  # whether maps are spread by attention
    layers: int | tuple[int, ...] = 8  # attention of the last 8 blocks, or of the blocks named (counted from 0)
    box_threshold: float = 0.4  # 0.7 on COCO
    exact_boxes: bool = False  # the released code cuts boxes at the right and lower border
    sinkhorn: int = 3
    power: int = 2
    background_power: float = 1.0
    refiner: str = "crf"  # crf | pixel-adaptive | none
    iterations: int = 10  # of the refiner
    gaussian_xy: float = 1.0
    gaussian_weight: float = 3.0
    bilateral_xy: float = 67.0
    bilateral_rgb: float = 3.0
    bilateral_weight: float = 4.0
    smoothing: float = 0.0  # added to the scores before the CRF
    released_crf_image: bool = False  # the released code's picture for the CRF, wrapped around below zero
    confidence: float = 0.95  # less sure pixels become 255
    side: int | None = None  # longer side the encoder sees; None: the picture's own
    side_limit: int = 640  # larger pictures are worked on at this size (VOC's are up to 500, COCO's up to 640)

    def __post_init__(self) -> None:
        if not isinstance(self.template, str):
            raise SettingsError(f"expected template to be a text with one {{}}, got {self.template!r}")
        background, synonyms = checked_words(self.background, self.synonyms)
        object.__setattr__(self, "background", background)
        object.__setattr__(self, "synonyms", synonyms)
        object.__setattr__(self, "layers", checked_layers(self.layers))
        for name in ("affinity", "exact_boxes", "released_crf_image"):
            check_flag(name, getattr(self, name))
        check_choice("cam", self.cam, tuple(CAMS))
        check_choice("refiner", self.refiner, REFINERS)
        for name, (low, high) in RANGES.items():
            object.__setattr__(self, name, checked_number(name, getattr(self, name), low, high))
        if self.side is not None:
            object.__setattr__(self, "side", checked_number("side", self.side, 16, 2048))

    def to_dict(self) -> dict:
        """Plain values, as JSON holds them."""
        return plain_values(self)

    @classmethod
    def from_dict(cls, values: Mapping) -> "ClipEsSettings":
        """Settings from plain values, a result's settings too (these also name method and model); a name that is no setting is refused."""
        return from_plain_values(values, cls, METHOD, "CLIP-ES")


# name: (lowest, highest) that a visitor may ask for; whole numbers where both are int
RANGES: Mapping[str, tuple] = MappingProxyType({
    "box_threshold": (0.0, 1.0), "sinkhorn": (0, 20), "power": (1, 8), "background_power": (0.1, 20.0),
    "iterations": (1, 50), "gaussian_xy": (0.1, 100.0), "gaussian_weight": (0.0, 100.0),
    "bilateral_xy": (1.0, 500.0), "bilateral_rgb": (0.5, 255.0), "bilateral_weight": (0.0, 100.0),
    "smoothing": (0.0, 1.0), "confidence": (0.0, 1.0), "side_limit": (32, 2048),
})  # fmt: skip

# The background words the tiny CLIP has seen.
TOY_BACKGROUND = tuple(word for word in words.VOC_BACKGROUND if word not in ("keyboard", "helmet", "valley"))

# Settings that differ from the defaults. "toy" is for the tiny CLIP: the words it knows, the blocks that attend locally, the size and the
# box threshold that were best on 100 scenes of the training split.
PRESETS: Mapping[str, Mapping] = MappingProxyType({
    "voc": {},
    "coco": {"background": words.COCO_BACKGROUND, "synonyms": dict(words.COCO_PROMPTS), "box_threshold": 0.7},
    "toy": {"background": TOY_BACKGROUND, "synonyms": {}, "layers": (0, 1, 2), "box_threshold": 0.2, "side": 160},
})  # fmt: skip


def preset(name: str, **changes) -> ClipEsSettings:
    """The settings of a preset (voc, coco, toy), with changes."""
    if name not in PRESETS:
        raise SettingsError(f"expected a preset out of {', '.join(PRESETS)}, got {name!r}")
    check_names(changes, ClipEsSettings, "CLIP-ES")
    return ClipEsSettings(**{**PRESETS[name], **changes})


@dataclass(frozen=True)
class Question:
    """What the tokens are asked: the C classes, each with its prompt, and text (T, D), the classes' rows before the background's."""

    names: tuple[str, ...]
    prompts: tuple[str, ...]
    text: Tensor
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassMaps:
    """The answer before attention has its say: coarse (1, C, h, w) in [0, 1], and probabilities (T,) of all texts."""

    coarse: Tensor
    probabilities: Tensor
    notes: tuple[str, ...] = ()


class ClipEs:
    """CLIP-ES: from image-level labels to a pseudo mask, without training.

    >>> method = ClipEs(Clip.load("tiny"))                          # doctest: +SKIP
    >>> method.segment(sample).labels                               # doctest: +SKIP
    """

    stages = ("cam", "affinity", "refined")
    learned = None  # there is nothing to learn
    Settings = ClipEsSettings
    preset = staticmethod(preset)

    def __init__(self, clip: Clip, settings: ClipEsSettings | None = None, **changes):
        """`settings`, or the preset that fits the model (toy for the tiny CLIP, voc for any other), with `changes` by name."""
        self.clip = clip
        base = settings or preset("toy" if clip.is_tiny else "voc")
        if not isinstance(base, ClipEsSettings):
            raise SettingsError(f"expected ClipEsSettings, got {type(base).__name__}: make them with ClipEsSettings.from_dict or preset")
        check_names(changes, ClipEsSettings, "CLIP-ES")
        self.settings = dataclasses.replace(base, **changes)

    def encode(self, image: np.ndarray) -> Tokens:
        """The image side, once: everything below can be repeated from it.

        image (H, W, 3) uint8 -> Tokens, with the attention of every block.
        """
        return self.clip.encode(self.clip.prepare(self.working_image(image), side=self.settings.side)[None])

    def segment(self, sample: Sample, *, tokens: Tokens | None = None) -> Result:
        """The pseudo mask of a sample's classes, with every stage on the way.

        `tokens` from `encode` save the encoder's pass. Raises SettingsError or PromptError for what cannot be asked.
        """
        *_, last = self.steps(sample, tokens=tokens)
        return last

    def question(self, names: tuple[str, ...]) -> Question:
        """The classes' prompts against those of the background.   Raises PromptError for what cannot be asked."""
        check_classes(names)
        class_prompts = prompts(self.settings.template, names, self.settings.synonyms)
        rivals, own = competing_words(self.settings.background, names, self.settings.synonyms)
        text = self.clip.text(class_prompts + prompts(self.settings.template, rivals))  # (C + backgrounds, D)
        return Question(
            names, tuple(class_prompts), text, tuple(f"background word {word!r} is left out: it is one of the classes" for word in own)
        )

    def class_maps(self, question: Question, tokens: Tokens) -> ClassMaps:
        """The settings' CAM of every class asked for, of one image."""
        done = last_pass(tokens)
        raw = CAMS[self.settings.cam](tokens, question.text, range(len(question.names)), done=done)  # (1, C, h, w)
        empty = [name for name, map_ in zip(question.names, raw[0], strict=True) if not (map_ > 0).any()]
        return ClassMaps(
            cam.normalised_cam(raw),
            cam.class_probabilities(tokens, question.text, done=done)[0],
            tuple(f"{name}: no patch speaks for it, its map is empty" for name in empty),
        )

    def affinity(self, tokens: Tokens) -> Tensor:
        """How strongly the patches belong together, by the attention of the settings' blocks.   -> (B, N, N)."""
        attention = attention_of(tokens, self.blocks())
        return refine.attention_affinity(attention, sinkhorn=self.settings.sinkhorn, power=self.settings.power)

    def steps(
        self, sample: Sample, *, tokens: Tokens | None = None, maps: ClassMaps | None = None, affinity: Tensor | None = None
    ) -> Iterator[Result]:
        """The same a step at a time: first the result without the refiner, then one after each of the refiner's iterations.

        `maps` from `class_maps` and the matrix from `affinity` save these stages where only later ones change.
        """
        settings, seconds = self.settings, {}
        check_classes(sample.names)  # before the encoder's pass
        clock = time.perf_counter()
        if tokens is None:
            tokens = self.encode(sample.image)
        clock = _lap(seconds, "encode", clock)

        question = self.question(sample.names)
        clock = _lap(seconds, "text", clock)

        maps = maps or self.class_maps(question, tokens)
        coarse = maps.coarse
        notes = [*question.notes, *maps.notes]
        clock = _lap(seconds, "cam", clock)

        image = self.working_image(sample.image)
        stages = {"cam": refine.upsampled(coarse, image.shape[:2])[0]}
        finest = stages["cam"]
        if settings.affinity:
            boxes = refine.box_mask(coarse, threshold=settings.box_threshold, exact=settings.exact_boxes)
            notes += [
                f"{name}: no box above the threshold, so every patch counts"
                for name, box in zip(sample.names, boxes[0], strict=True)
                if not box.any()
            ]
            affinity = self.affinity(tokens) if affinity is None else affinity
            finest = stages["affinity"] = refine.upsampled(cam.stretched(refine.spread(coarse, affinity, boxes)), image.shape[:2])[0]
        clock = _lap(seconds, "affinity", clock)

        def result(scores: Tensor) -> Result:
            full = refine.upsampled(scores[None], sample.image.shape[:2]) if image.shape != sample.image.shape else scores[None]
            return Result(
                names=sample.names, prompts=dict(zip(sample.names, question.prompts, strict=True)),
                scores=dict(zip(sample.names, maps.probabilities.tolist(), strict=False)),  # the background words' share is the rest
                stages=dict(stages), labels=mask.label_map(full)[0], confidence=mask.confidence(full)[0],
                settings={"method": METHOD, "model": self.clip.name, **settings.to_dict()}, seconds=dict(seconds), notes=tuple(notes),
            )  # fmt: skip

        scores = mask.with_background(finest[None], background=self._background)[0]  # (1 + C, H, W)
        yield result(scores)
        for refined in refined_scores(image, scores, settings):
            stages["refined"] = refined
            _lap(seconds, "refined", clock)
            yield result(refined)

    def pseudo_mask(self, result: Result) -> Tensor:
        """The label map with uncertain pixels set to 255.   -> int64 (H, W)."""
        return mask.without_uncertain(result.labels, result.confidence, threshold=self.settings.confidence)

    def scores_of(self, result: Result, stage: str) -> Tensor:
        """A stage with its background plane, ready for a label map.   -> (1 + C, H, W)."""
        maps = result.stages[stage]
        return maps if len(maps) > len(result.names) else mask.with_background(maps[None], background=self._background)[0]

    @property
    def titles(self) -> dict[str, str]:
        """How the stages and the siblings are called in a table."""
        cam_title = CAM_TITLES[self.settings.cam]
        return {
            "plain": "plain Grad-CAM (baseline)", "cam": cam_title, "affinity": "+ affinity",
            "refined": REFINER_TITLES[self.settings.refiner], "control": f"control: words shifted by one class ({cam_title})",
        }  # fmt: skip

    @property
    def refiner(self) -> Callable[[np.ndarray, Tensor], Iterator[Tensor]]:
        """The settings' refiner, which needs no model: another process may have it.   See `refined_scores`."""
        return functools.partial(refined_scores, settings=self.settings)

    def siblings(self, classes: Sequence[str]) -> dict[str, "ClipEs"]:
        """What this method is to be compared with: plain Grad-CAM, and a control with each class's words shifted to the next."""
        bare = {"affinity": False, "refiner": "none"}
        shifted = shifted_words(classes, self.settings.synonyms)
        return {
            "plain": ClipEs(self.clip, self.settings, cam="plain", **bare),
            "control": ClipEs(self.clip, self.settings, synonyms=shifted, **bare),
        }

    def _background(self, maps: Tensor) -> Tensor:
        return mask.leftover_background(maps, power=self.settings.background_power)

    def blocks(self) -> list[int]:
        """The blocks whose attention the settings ask for, counted from 0.   Raises SettingsError for blocks that are not there."""
        return chosen_blocks(self.settings.layers, self.clip)

    def working_image(self, image: np.ndarray) -> np.ndarray:
        """The picture the chain works on: as it is, or made smaller to the side limit.   (H, W, 3) uint8 -> the same."""
        return image_within(image, self.settings.side_limit)

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of the picture the chain works on.   (H, W) -> (H, W), neither above the side limit."""
        return size_within(size, self.settings.side_limit)


def refined_scores(image: np.ndarray, scores: Tensor, settings: ClipEsSettings) -> Iterator[Tensor]:
    """The settings' refiner on scores with background, an iteration at a time; nothing comes from "none".

    image (H, W, 3) uint8, scores (1 + C, H, W) -> yields (1 + C, H, W).
    """
    if settings.refiner == "crf":
        yield from refine.dense_crf(
            image, scores, iterations=settings.iterations, gaussian_xy=settings.gaussian_xy, gaussian_weight=settings.gaussian_weight,
            bilateral_xy=settings.bilateral_xy, bilateral_rgb=settings.bilateral_rgb, bilateral_weight=settings.bilateral_weight,
            smoothing=settings.smoothing, released_image=settings.released_crf_image,
        )  # fmt: skip
    elif settings.refiner == "pixel-adaptive":
        yield from refine.pixel_adaptive_refinement(image, scores, iterations=settings.iterations)


def _lap(seconds: dict[str, float], stage: str, since: float) -> float:
    now = time.perf_counter()
    seconds[stage] = now - since
    return now
