"""CLIP is Also an Efficient Segmenter (Lin et al., CVPR 2023, arXiv 2212.09506): text-driven Grad-CAM, attention affinity, and nothing
learned.

image -> tokens -> softmax-GradCAM of the present classes against background words -> class-aware attention affinity -> dense CRF -> label
map, uncertain pixels ignored
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from PIL import Image
from torch import Tensor

from kit import cam, mask, refine, words
from kit.data import Sample
from kit.encode import Clip, Tokens
from kit.last_block import last_pass
from kit.methods.result import Result
from kit.prompt import PromptError, prompts

CAMS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"softmax": cam.softmax_grad_cam, "plain": cam.grad_cam, "similarity": cam.similarity_cam}
)
REFINERS = ("crf", "pixel-adaptive", "none")
MAX_CLASSES = 100


class SettingsError(ValueError):
    """A setting out of its range, or one that does not exist."""


@dataclass(frozen=True)
class ClipEsSettings:
    """Every knob of CLIP-ES. Defaults are the paper's for PASCAL VOC, from the released code."""

    template: str = words.CLIP_ES_TEMPLATE
    background: tuple[str, ...] = words.VOC_BACKGROUND
    synonyms: Mapping[str, str] = field(
        default_factory=lambda: dict(words.VOC_PROMPTS)
    )  # class name -> the words in its place; a name that is not here stands for itself
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
        object.__setattr__(self, "background", tuple(self.background))
        object.__setattr__(self, "synonyms", dict(self.synonyms))
        if not isinstance(self.layers, int):
            object.__setattr__(self, "layers", tuple(self.layers))
        _check_choice("cam", self.cam, tuple(CAMS))
        _check_choice("refiner", self.refiner, REFINERS)
        for name, (low, high) in RANGES.items():
            _check_number(name, getattr(self, name), low, high)
        if self.side is not None:
            _check_number("side", self.side, 16, 2048)
        if isinstance(self.layers, tuple) and not self.layers:
            raise SettingsError("layers is empty: name at least one block, or switch the affinity off")

    def to_dict(self) -> dict:
        """Plain values, as JSON holds them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping) -> "ClipEsSettings":
        """Settings from plain values; a name that is no setting is refused."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        strange = sorted(set(values) - known)
        if strange:
            raise SettingsError(f"unknown setting {', '.join(strange)}: CLIP-ES has {', '.join(sorted(known))}")
        return cls(**values)


# name: (lowest, highest) that a visitor may ask for; whole numbers where both are int
RANGES: Mapping[str, tuple] = MappingProxyType({
    "box_threshold": (0.0, 1.0), "sinkhorn": (0, 20), "power": (1, 8), "background_power": (0.1, 20.0),
    "iterations": (1, 50), "gaussian_xy": (0.1, 100.0), "gaussian_weight": (0.0, 100.0),
    "bilateral_xy": (1.0, 500.0), "bilateral_rgb": (0.5, 255.0), "bilateral_weight": (0.0, 100.0),
    "smoothing": (0.0, 1.0), "confidence": (0.0, 1.0), "side_limit": (32, 2048),
})  # fmt: skip

# The background words the tiny CLIP has seen.
TOY_BACKGROUND = tuple(word for word in words.VOC_BACKGROUND if word not in ("keyboard", "helmet", "valley"))

# Settings that differ from the defaults. "toy": chosen on the drawn world's training split, for the tiny CLIP.
PRESETS: Mapping[str, Mapping] = MappingProxyType({
    "voc": {},
    "coco": {"background": words.COCO_BACKGROUND, "synonyms": dict(words.COCO_PROMPTS), "box_threshold": 0.7},
    "toy": {
        "template": "a photo of a {}.", "background": TOY_BACKGROUND, "synonyms": {}, "layers": (0, 1, 2), "side": 160,
        "bilateral_xy": 50.0, "bilateral_rgb": 5.0, "smoothing": 0.01,
    },
})  # fmt: skip


def preset(name: str, **changes) -> ClipEsSettings:
    """The settings of a preset (voc, coco, toy), with changes."""
    if name not in PRESETS:
        raise SettingsError(f"expected a preset out of {', '.join(PRESETS)}, got {name!r}")
    return ClipEsSettings(**{**PRESETS[name], **changes})


class ClipEs:
    """CLIP-ES: from image-level labels to a pseudo mask, without training.

    >>> method = ClipEs(Clip.load("tiny"))                          # doctest: +SKIP
    >>> method.segment(sample).labels                               # doctest: +SKIP
    """

    stages = ("cam", "affinity", "refined")

    def __init__(self, clip: Clip, settings: ClipEsSettings | None = None, **changes):
        """`settings`, or the preset that fits the model (toy for the tiny CLIP, voc for any other), with `changes` by name."""
        self.clip = clip
        base = settings or preset("toy" if clip.is_tiny else "voc")
        strange = set(changes) - {entry.name for entry in dataclasses.fields(base)}
        if strange:
            raise SettingsError(f"unknown setting {', '.join(sorted(strange))}")
        self.settings = dataclasses.replace(base, **changes)

    def encode(self, image: np.ndarray) -> Tokens:
        """The image side, once: everything below can be repeated from it.

        image (H, W, 3) uint8 -> Tokens, with the attention of every block.
        """
        return self.clip.encode(self.clip.prepare(self._working(image), side=self.settings.side)[None])

    def segment(self, sample: Sample, *, tokens: Tokens | None = None) -> Result:
        """The pseudo mask of a sample's classes, with every stage on the way.

        `tokens` from `encode` save the encoder's pass. Raises SettingsError or PromptError for what cannot be asked.
        """
        *_, last = self.steps(sample, tokens=tokens)
        return last

    def steps(self, sample: Sample, *, tokens: Tokens | None = None) -> Iterator[Result]:
        """The same a step at a time: first the result without the refiner, then one after each of the refiner's iterations."""
        settings, seconds, notes = self.settings, {}, []
        if not 1 <= len(sample.names) <= MAX_CLASSES:
            raise PromptError(
                f"expected 1 to {MAX_CLASSES} classes, got {len(sample.names)}" + ("" if sample.names else ": choose at least one class")
            )

        clock = time.perf_counter()
        if tokens is None:
            tokens = self.encode(sample.image)
        clock = _lap(seconds, "encode", clock)

        class_prompts = prompts(settings.template, sample.names, settings.synonyms)
        text = self.clip.text(class_prompts + prompts(settings.template, settings.background))  # (C + backgrounds, D)
        clock = _lap(seconds, "text", clock)

        targets = range(len(sample.names))
        done = last_pass(tokens)
        raw = CAMS[settings.cam](tokens, text, targets, done=done)  # (1, C, h, w)
        coarse = cam.normalised_cam(raw)
        probabilities = cam.class_probabilities(tokens, text, done=done)[0]
        notes += [
            f"{name}: no patch speaks for it, its map is empty"
            for name, map_ in zip(sample.names, raw[0], strict=True)
            if not (map_ > 0).any()
        ]
        clock = _lap(seconds, "cam", clock)

        image = self._working(sample.image)
        stages = {"cam": refine.upsampled(coarse, image.shape[:2])[0]}
        finest = stages["cam"]
        if settings.affinity:
            boxes = refine.box_mask(coarse, threshold=settings.box_threshold, exact=settings.exact_boxes)
            notes += [
                f"{name}: no box above the threshold, so every patch counts"
                for name, box in zip(sample.names, boxes[0], strict=True)
                if not box.any()
            ]
            attention = tokens.attention[:, self._layers(tokens)]
            affinity = refine.attention_affinity(attention, sinkhorn=settings.sinkhorn, power=settings.power)
            finest = stages["affinity"] = refine.upsampled(cam.stretched(refine.spread(coarse, affinity, boxes)), image.shape[:2])[0]
        clock = _lap(seconds, "affinity", clock)

        def result(scores: Tensor) -> Result:
            full = refine.upsampled(scores[None], sample.image.shape[:2]) if image.shape != sample.image.shape else scores[None]
            return Result(
                names=sample.names, prompts=dict(zip(sample.names, class_prompts, strict=True)), scores=dict(zip(sample.names,
                probabilities.tolist(), strict=False)),
                stages=dict(stages), labels=mask.label_map(full)[0], confidence=mask.confidence(full)[0],
                settings={"method": "clip-es", "model": self.clip.name, **settings.to_dict()}, seconds=dict(seconds), notes=tuple(notes),
            )  # fmt: skip

        scores = mask.with_background(finest[None], background=self._background)[0]  # (1 + C, H, W)
        yield result(scores)
        for refined in self._refined(image, scores):
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

    def _refined(self, image: np.ndarray, scores: Tensor) -> Iterator[Tensor]:
        s = self.settings
        if s.refiner == "crf":
            yield from refine.dense_crf(
                image, scores, iterations=s.iterations, gaussian_xy=s.gaussian_xy, gaussian_weight=s.gaussian_weight,
                bilateral_xy=s.bilateral_xy, bilateral_rgb=s.bilateral_rgb,
                bilateral_weight=s.bilateral_weight, smoothing=s.smoothing, released_image=s.released_crf_image,
            )  # fmt: skip
        elif s.refiner == "pixel-adaptive":
            yield from refine.pixel_adaptive_refinement(image, scores, iterations=s.iterations)

    def _background(self, maps: Tensor) -> Tensor:
        return mask.leftover_background(maps, power=self.settings.background_power)

    def _layers(self, tokens: Tokens) -> list[int]:
        wanted, count = self.settings.layers, len(tokens.layers)
        chosen = list(range(count))[-min(wanted, count) :] if isinstance(wanted, int) else list(wanted)
        if not chosen or any(not 0 <= layer < count for layer in chosen):
            raise SettingsError(f"{self.clip.name} has blocks 0 to {count - 1}, got layers {wanted}")
        return chosen

    def _working(self, image: np.ndarray) -> np.ndarray:
        """The picture the chain works on: as it is, or made smaller to the side limit."""
        longest = max(image.shape[:2])
        if longest <= self.settings.side_limit:
            return image
        height, width = (max(1, round(length * self.settings.side_limit / longest)) for length in image.shape[:2])
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _lap(seconds: dict[str, float], stage: str, since: float) -> float:
    now = time.perf_counter()
    seconds[stage] = now - since
    return now


def _check_choice(name: str, value, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"expected {name} to be one of {', '.join(choices)}, got {value!r}")


def _check_number(name: str, value, low, high) -> None:
    whole = isinstance(low, int) and isinstance(high, int)
    fits = (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
        and (not whole or float(value).is_integer())
    )
    if not fits:
        raise SettingsError(f"expected {name} to be a {'whole ' if whole else ''}number from {low} to {high}, got {value!r}")
