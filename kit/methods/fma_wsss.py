"""Foundation Model Assisted Weakly Supervised Semantic Segmentation (Yang and Gong, WACV 2024, arXiv 2312.03585): CLIP with learned
prompts says what is where, class-free masks of SAM say up to where.

learn classification prompts -> maps, affinity, vote of the masks: coarse seeds -> learn segmentation prompts whose maps fit the coarse
seeds -> maps, affinity, vote: fine seeds.   Nothing but the prompts' contexts is learned.
"""

import dataclasses
import functools
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kit import __version__, cam, mask, refine, words
from kit.data import DataSet, Sample
from kit.encode import Clip, Tokens
from kit.fit import FitError, FitStep, Schedule, fit
from kit.images import load_mask, save_mask
from kit.last_block import last_pass
from kit.learned import check_belongs, load_learned, save_learned
from kit.methods.fma_fit import AugmentedViews, CachedViews, ClassificationTask, SegmentationTask, label_rows
from kit.methods.result import Result
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
    is_list,
    plain_values,
    shifted_words,
    size_within,
)
from kit.prompt import POSITIONS, PromptContext, PromptError, prompts
from kit.propose import PRESETS as SAM_PRESETS
from kit.propose import SUPERPIXELS, Proposals, Sam, sam_proposals, superpixels
from kit.vote import NO_MASK, Vote, mask_vote

METHOD = "fma-wsss"
TITLE = "FMA-WSSS"
TASKS = ("classification", "segmentation")
SPREADS = ("score", "raw")  # what affinity spreads: the positive part stretched to [0, 1], or the signed map
BACKGROUNDS = ("words", "learned")  # what the fine prompts' backgrounds are: words, or contexts of their own without a word
VIEWS = ("augmented", "cached")
LABELS = ("seed", "image")


@dataclass(frozen=True)
class FmaWsssSettings:
    """Every knob of FMA-WSSS. Defaults are the paper's for PASCAL VOC, from the released code; what begins with `fine` is about the
    segmentation prompts and what is made with them.
    """

    # what is asked
    template: str = "a clean origami {}."  # hand-written, where nothing was learned: CLIP-ES's, as in the released evaluation
    background: tuple[str, ...] = words.VOC_BACKGROUND
    synonyms: Mapping[str, str] = field(default_factory=lambda: dict(words.VOC_PROMPTS))  # class name -> the words in its place
    context: int = 16  # learned vectors in a prompt
    position: str = "end"  # of the name: end | front | middle
    per_class: bool = False  # whether every text has a context of its own
    std: float = 0.015  # of the random vectors learning begins with
    fine_position: str = "front"  # COCO: end
    fine_per_class: bool = True  # COCO: False
    fine_std: float = 0.0125  # COCO: 0.015
    fine_background: str = "learned"  # words | learned; COCO: words
    # maps
    layers: int | tuple[int, ...] = 8  # attention of the last 8 blocks, or of the blocks named (counted from 0)
    sinkhorn: int = 1
    power: int = 2
    exact_boxes: bool = False  # the released code cuts boxes at the right and lower border
    affinity: bool = True  # whether maps are spread by attention
    box_threshold: float = 0.4  # COCO: 0.6
    spread: str = "score"  # what is spread: score | raw; COCO: raw
    fine_affinity: bool = True  # COCO: False
    fine_box_threshold: float = 0.5
    fine_spread: str = "raw"
    background_power: float = 1.0  # of the background's score where a map is drawn or judged before the masks vote (CLIP-ES's)
    # masks
    proposals: str = "facebook/sam-vit-huge"  # a SAM's name or folder, or "superpixels"
    sam_preset: str = "paper"  # how SAM is asked: paper | light
    regions: tuple[int, ...] = (250, 80, 30)  # superpixels: the most of each level
    vote_power: float = 0.6  # of the background's score; COCO: the best of 0.3 to 0.5 by the truth, here 0.4
    fine_vote_power: float = 0.7  # COCO: 1
    confidence: float = 0.0  # less sure pixels become 255, those in no mask first; the released code has no 255
    side: int | None = None  # longer side the encoder sees; None: the picture's own
    side_limit: int = 640  # larger pictures are worked on at this size
    # learning
    views: str = "augmented"  # augmented: a new piece of each picture every time; cached: the picture as it is, encoded once
    crop: int = 224  # side of a piece
    scale: tuple[int, ...] = (288, 480)  # length of the picture's longer side before it is cut; COCO: 318 to 530
    batch: int = 16
    rate: float = 1e-3
    steps: int = 1800  # COCO: 6,150 of 20,500, chosen by the truth
    horizon: int | None = None  # the step at which the rate would be 0, None: the last one; COCO: 20,500
    warm_up: int = 500  # steps at a rate of 1e-5; COCO: 1,000
    parts: int = 1  # pieces a batch is cut into; COCO: 4
    fine_batch: int = 16
    fine_rate: float = 1e-3
    fine_steps: int = 17000  # COCO: 45,000 of 75,000, chosen by the truth
    fine_horizon: int | None = None  # COCO: 75,000
    fine_warm_up: int = 500
    fine_parts: int = 1  # COCO: 8
    fine_labels: str = "seed"  # what a view asks for: the classes its piece of the seed shows, or those of the whole image; COCO: image
    fine_foreground: float = 1.0  # weight of the activation loss's foreground, where the background's is 1
    seed: int = 0

    refiner: ClassVar[str] = "none"  # the masks' borders are the last word

    def __post_init__(self) -> None:
        if not isinstance(self.template, str):
            raise SettingsError(f"expected template to be a text with one {{}}, got {self.template!r}")
        background, synonyms = checked_words(self.background, self.synonyms)
        object.__setattr__(self, "background", background)
        object.__setattr__(self, "synonyms", synonyms)
        object.__setattr__(self, "layers", checked_layers(self.layers))
        for name in ("per_class", "fine_per_class", "exact_boxes", "affinity", "fine_affinity"):
            check_flag(name, getattr(self, name))
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        if not isinstance(self.proposals, str) or not self.proposals.strip():
            raise SettingsError(f"expected proposals to be {SUPERPIXELS!r} or a SAM's name or folder, got {self.proposals!r}")
        for name, (low, high) in RANGES.items():
            object.__setattr__(self, name, checked_number(name, getattr(self, name), low, high))
        if self.side is not None:
            object.__setattr__(self, "side", checked_number("side", self.side, 16, 2048))
        for name, length, what in (("regions", 3, "three numbers of regions, finest first"), ("scale", 2, "the lowest and highest length")):
            values = getattr(self, name)
            steps_down = is_list(values, int) and len(values) == length and list(values) == sorted(values, reverse=name == "regions")
            if not steps_down or min(values) < 1:
                raise SettingsError(f"expected {name} to be {what}, got {values!r}")
            object.__setattr__(self, name, tuple(values))
        if self.fine_background == "learned" and not self.fine_per_class:
            raise SettingsError("backgrounds without a word need contexts of their own: take fine_background words, or fine_per_class true")
        for steps, warm_up, horizon in (("steps", "warm_up", "horizon"), ("fine_steps", "fine_warm_up", "fine_horizon")):
            if getattr(self, horizon) is not None:
                object.__setattr__(self, horizon, checked_number(horizon, getattr(self, horizon), 1, 1_000_000))
            if not getattr(self, warm_up) < getattr(self, steps) <= (getattr(self, horizon) or getattr(self, steps)):
                values = ", ".join(f"{name} {getattr(self, name)}" for name in (warm_up, steps, horizon))
                raise SettingsError(f"expected {warm_up} to be less than {steps}, and {horizon} at least {steps} or none, got {values}")

    def to_dict(self) -> dict:
        """Plain values, as JSON holds them."""
        return plain_values(self)

    @classmethod
    def from_dict(cls, values: Mapping) -> "FmaWsssSettings":
        """Settings from plain values, a result's settings too; a name that is no setting is refused."""
        return from_plain_values(values, cls, METHOD, TITLE)


CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "position": POSITIONS, "fine_position": POSITIONS, "fine_background": BACKGROUNDS, "spread": SPREADS, "fine_spread": SPREADS,
    "fine_labels": LABELS, "views": VIEWS, "sam_preset": tuple(SAM_PRESETS),
})  # fmt: skip

# name: (lowest, highest) that a visitor may ask for; whole numbers where both are int
RANGES: Mapping[str, tuple] = MappingProxyType({
    "context": (1, 64), "std": (0.0, 1.0), "fine_std": (0.0, 1.0),
    "sinkhorn": (0, 20), "power": (1, 8), "box_threshold": (0.0, 1.0), "fine_box_threshold": (0.0, 1.0),
    "background_power": (0.1, 20.0), "vote_power": (0.05, 20.0), "fine_vote_power": (0.05, 20.0),
    "confidence": (0.0, 1.0), "side_limit": (32, 2048),
    "crop": (16, 1024), "batch": (1, 1024), "fine_batch": (1, 1024), "parts": (1, 1024), "fine_parts": (1, 1024),
    "rate": (1e-8, 100.0), "fine_rate": (1e-8, 100.0), "steps": (1, 1_000_000), "fine_steps": (1, 1_000_000),
    "warm_up": (0, 1_000_000), "fine_warm_up": (0, 1_000_000),
    "fine_foreground": (0.0, 1000.0), "seed": (0, 2**32 - 2),
})  # fmt: skip

# What learned contexts depend on when they are asked: it cannot be changed afterwards.
ASKED = ("background", "synonyms", "context", "position", "per_class", "fine_position", "fine_per_class", "fine_background")

# Settings that differ from the defaults. "toy" is for the tiny CLIP: the words it knows, the blocks that attend locally, superpixels in
# SAM's place, and numbers that were best on scenes of the training split.
PRESETS: Mapping[str, Mapping] = MappingProxyType({
    "voc": {},
    "coco": {
        "background": words.COCO_BACKGROUND, "synonyms": dict(words.COCO_PROMPTS), "fine_position": "end", "fine_per_class": False,
        "fine_std": 0.015, "fine_background": "words", "box_threshold": 0.6, "spread": "raw", "fine_affinity": False, "vote_power": 0.4,
        "fine_vote_power": 1.0, "scale": (318, 530), "steps": 6150, "horizon": 20500, "warm_up": 1000, "parts": 4,
        "fine_steps": 45000, "fine_horizon": 75000, "fine_warm_up": 1000, "fine_parts": 8, "fine_labels": "image",
    },
    "toy": {
        "background": tuple(word for word in words.VOC_BACKGROUND if word not in ("keyboard", "helmet", "valley")), "synonyms": {},
        "layers": (0, 1, 2), "box_threshold": 0.2, "fine_box_threshold": 0.2, "fine_spread": "score", "vote_power": 1.0,
        "fine_vote_power": 1.0, "side": 160, "proposals": SUPERPIXELS, "views": "cached",
        "rate": 1e-2, "steps": 200, "warm_up": 10,
        "fine_rate": 3.0, "fine_steps": 100, "fine_warm_up": 0, "fine_batch": 8, "fine_foreground": 4.0,
    },
})  # fmt: skip


def preset(name: str, **changes) -> FmaWsssSettings:
    """The settings of a preset (voc, coco, toy), with changes."""
    if name not in PRESETS:
        raise SettingsError(f"expected a preset out of {', '.join(PRESETS)}, got {name!r}")
    check_names(changes, FmaWsssSettings, TITLE)
    return FmaWsssSettings(**{**PRESETS[name], **changes})


@dataclass(frozen=True, eq=False)
class LearnedPrompts:
    """What was learned, ready to be asked.

    classes: the C classes it was learned for; settings: those of the learning; contexts: task -> vectors (M, E) or (T, M, E); texts: task
    -> (T, D), the classes' rows before the backgrounds'; about: what it belongs to, in plain values.
    """

    classes: tuple[str, ...]
    settings: FmaWsssSettings
    contexts: dict[str, Tensor]
    texts: dict[str, Tensor]
    about: dict

    @classmethod
    def of(cls, clip: Clip, settings: FmaWsssSettings, contexts: Mapping[str, Tensor], about: Mapping) -> "LearnedPrompts":
        """Contexts with the words they were learned for.   Raises ValueError if they do not fit."""
        classes, texts = tuple(about["classes"]), {}
        for task in [task for task in TASKS if task in contexts]:
            context = prompt_context(clip, settings, classes, task)
            if contexts[task].shape != context.vectors.shape:
                raise ValueError(
                    f"expected {task} contexts {tuple(context.vectors.shape)}, got {tuple(contexts[task].shape)}: "
                    "take the file that was learned with these settings"
                )
            with torch.no_grad():
                context.vectors.copy_(contexts[task])
                texts[task] = context.text(clip)
        return cls(classes, settings, {task: contexts[task].detach().cpu() for task in texts}, texts, dict(about))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell these contexts from others."""
        digest = hashlib.sha256()
        for task, vectors in self.contexts.items():
            digest.update(task.encode() + vectors.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def shifted(self) -> "LearnedPrompts":
        """Each class asked with the text of the class after it: a control that has to do badly."""
        count = len(self.classes)
        texts = {task: torch.cat([text[:count].roll(-1, 0), text[count:]]) for task, text in self.texts.items()}
        return dataclasses.replace(self, texts=texts)


def prompt_context(clip: Clip, settings: FmaWsssSettings, classes: Sequence[str], task: str) -> PromptContext:
    """The prompts of a task as they are before learning: a text for each class, then one for each background."""
    coarse = task == TASKS[0]
    own_words = [settings.synonyms.get(name, name) for name in classes]
    rivals, _ = competing_words(settings.background, classes, settings.synonyms)
    if not coarse and settings.fine_background == "learned":
        rivals = [""] * len(rivals)
    return PromptContext(
        clip, [*own_words, *rivals], length=settings.context,
        position=settings.position if coarse else settings.fine_position,
        per_class=settings.per_class if coarse else settings.fine_per_class,
        std=settings.std if coarse else settings.fine_std,
        seed=settings.seed if coarse else settings.seed + 1,
    )  # fmt: skip


@dataclass(frozen=True)
class Question:
    """What the tokens are asked: the C classes, each with its prompt, and for each of "coarse" and "fine" the texts (T, D), the classes'
    rows before the backgrounds'.
    """

    names: tuple[str, ...]
    prompts: tuple[str, ...]
    texts: dict[str, Tensor]
    notes: tuple[str, ...] = ()


class FmaWsss:
    """FMA-WSSS: maps of learned prompts, borders of class-free masks.

    Without learned prompts the hand-written template is asked and there are coarse seeds only; `fit` learns, `load` reads what was learned.

    >>> method = FmaWsss.load("prompts.safetensors", Clip.load("tiny"))                     # doctest: +SKIP
    >>> method.segment(sample).labels                                                       # doctest: +SKIP
    """

    stages = ("cam", "affinity", "coarse", "fine_cam", "fine_affinity", "fine")
    titles = MappingProxyType({
        "by hand": "hand-written prompts, coarse seeds (baseline)",
        "cam": "softmax Grad-CAM", "affinity": "+ affinity", "coarse": "+ vote of the masks: coarse seeds",
        "fine_cam": "softmax Grad-CAM, segmentation prompts", "fine_affinity": "+ affinity", "fine": "+ vote of the masks: fine seeds",
        "control": "control: prompts shifted by one class, last seeds",
    })  # fmt: skip
    Settings = FmaWsssSettings
    preset = staticmethod(preset)

    def __init__(
        self,
        clip: Clip,
        settings: FmaWsssSettings | None = None,
        *,
        learned: LearnedPrompts | None = None,
        sam: Sam | None = None,
        **changes,
    ):
        """`settings`, or those of the learning, or the preset that fits the model (toy for the tiny CLIP, else voc), with `changes`.

        `sam`: the one that `settings.proposals` names, where it is loaded already; else it is loaded when it is first needed.
        """
        base = settings or (learned.settings if learned else preset("toy" if clip.is_tiny else "voc"))
        if not isinstance(base, FmaWsssSettings):
            raise SettingsError(f"expected FmaWsssSettings, got {type(base).__name__}: make them with FmaWsssSettings.from_dict or preset")
        check_names(changes, FmaWsssSettings, TITLE)
        self.clip, self.learned, self._sam = clip, learned, sam
        self.settings = dataclasses.replace(base, **changes)
        self._under_way: tuple[str, PromptContext, dict] | None = None  # the task that `fit` is at, its prompts, what they belong to
        if learned is not None:
            for name in ASKED:
                if getattr(self.settings, name) != getattr(learned.settings, name):
                    raise SettingsError(f"{name} belongs to the learned prompts and cannot be changed: learn others with python -m kit fit")

    @classmethod
    def load(cls, path: str | os.PathLike, clip: Clip, *, sam: Sam | None = None, **changes) -> "FmaWsss":
        """What `save` wrote, with changes to its settings.   Raises LearnedError for a file of another method or CLIP."""
        contexts, about = load_learned(path)
        check_belongs(path, about, method=METHOD, clip=clip.fingerprint)
        settings = FmaWsssSettings.from_dict(about["settings"])
        return cls(clip, learned=LearnedPrompts.of(clip, settings, contexts, about), sam=sam, **changes)

    def save(self, path: str | os.PathLike) -> None:
        """Write what was learned.   Raises ValueError if nothing was, LearnedError if the file cannot be written."""
        if self.learned is None:
            raise ValueError("nothing was learned that could be saved: run fit first")
        save_learned(path, self.learned.contexts, self.learned.about)

    # From a picture to its seeds

    def encode(self, image: np.ndarray) -> Tokens:
        """The image side, once: everything below can be repeated from it.

        image (H, W, 3) uint8 -> Tokens, with the attention of every block.
        """
        return self.clip.encode(self.clip.prepare(self.working_image(image), side=self.settings.side)[None])

    def segment(self, sample: Sample, *, tokens: Tokens | None = None, proposals: Proposals | None = None) -> Result:
        """The seeds of a sample's classes, with every stage on the way.

        `tokens` from `encode` and `proposals` save these stages. Raises SettingsError, PromptError or ProposalError for what cannot be
        asked.
        """
        *_, last = self.steps(sample, tokens=tokens, proposals=proposals)
        return last

    def question(self, names: tuple[str, ...]) -> Question:
        """The classes' prompts against those of the background.   Raises PromptError for what cannot be asked."""
        check_classes(names)
        if self.learned is None:
            own_prompts = prompts(self.settings.template, names, self.settings.synonyms)
            rivals, own = competing_words(self.settings.background, names, self.settings.synonyms)
            text = self.clip.text(own_prompts + prompts(self.settings.template, rivals))  # (C + backgrounds, D)
            notes = [f"background word {word!r} is left out: it is one of the classes" for word in own]
            return Question(names, tuple(own_prompts), {"coarse": text}, ("the prompts are hand-written: none were learned", *notes))
        classes = self.learned.classes
        if strange := [name for name in names if name not in classes]:
            raise PromptError(
                f"the prompts were learned for {len(classes)} classes, {', '.join(strange)} is none of them: choose among "
                f"{', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}"
            )
        rows = [classes.index(name) for name in names]
        texts = {
            level: torch.cat([self.learned.texts[task][rows], self.learned.texts[task][len(classes) :]])
            for level, task in zip(("coarse", "fine"), self.learned.texts, strict=False)
        }
        return Question(names, tuple(self._shown(name) for name in names), texts)

    def affinity(self, tokens: Tokens) -> Tensor:
        """How strongly the patches belong together, by the attention of the settings' blocks.   -> (B, N, N)."""
        attention = attention_of(tokens, self.blocks())
        return refine.attention_affinity(attention, sinkhorn=self.settings.sinkhorn, power=self.settings.power)

    def proposals(self, image: np.ndarray) -> Proposals:
        """The masks that vote, of the picture at working size.   Raises ProposalError if the SAM cannot be had."""
        if self.settings.proposals == SUPERPIXELS:
            return superpixels(image, regions=self.settings.regions)
        if self._sam is None:
            self._sam = Sam.load(self.settings.proposals, device=self.clip.device)
        *_, last = sam_proposals(image, self._sam, SAM_PRESETS[self.settings.sam_preset][1])
        return last.proposals

    def steps(self, sample: Sample, *, tokens: Tokens | None = None, proposals: Proposals | None = None) -> Iterator[Result]:
        """The same as a generator, for those who draw a method's steps: here there is one."""
        settings, seconds, notes = self.settings, {}, []
        check_classes(sample.names)  # before the encoder's pass
        clock = time.perf_counter()
        if tokens is None:
            tokens = self.encode(sample.image)
        clock = _lap(seconds, "encode", clock)
        question = self.question(sample.names)
        notes += question.notes
        clock = _lap(seconds, "text", clock)
        image = self.working_image(sample.image)
        if proposals is None:
            proposals = self.proposals(image)
        if proposals.source == SUPERPIXELS:
            notes.append("superpixels vote, the stand-in for SAM")
        clock = _lap(seconds, "proposals", clock)

        size, done = image.shape[:2], last_pass(tokens)
        stages, votes = {}, {}
        for level, text in question.texts.items():
            fine = "fine_" if level == "fine" else ""
            raw = cam.softmax_grad_cam(tokens, text, range(len(sample.names)), done=done)  # (1, C, h, w), signed
            silent = [name for name, map_ in zip(sample.names, raw[0], strict=True) if not (map_ > 0).any()]
            notes += [f"{name}: no patch speaks for it, its {level} map is empty" for name in silent]
            stages[f"{fine}cam"] = cam.normalised_cam(refine.upsampled(raw, size))[0]
            clock = _lap(seconds, f"{fine}cam", clock)
            evidence = raw
            if getattr(settings, f"{fine}affinity"):
                evidence = self._spread(tokens, raw, fine)
                stages[f"{fine}affinity"] = cam.normalised_cam(refine.upsampled(evidence, size))[0]
                clock = _lap(seconds, f"{fine}affinity", clock)
            votes[level] = mask_vote(evidence[0], proposals, power=getattr(settings, f"{fine}vote_power"))
            stages[level] = painted_scores(votes[level])
            clock = _lap(seconds, level, clock)

        scores = stages[level][None]
        full = refine.upsampled(scores, sample.image.shape[:2]) if image.shape != sample.image.shape else scores
        about = {} if self.learned is None else {"learned": self.learned.fingerprint}
        yield Result(
            names=sample.names, prompts=dict(zip(sample.names, question.prompts, strict=True)),
            scores=dict(zip(sample.names, cam.class_probabilities(tokens, text, done=done)[0].tolist(), strict=False)),
            stages=stages, labels=mask.label_map(full)[0], confidence=mask.confidence(full)[0],
            settings={"method": METHOD, "model": self.clip.name, **about, **settings.to_dict()}, seconds=seconds, notes=tuple(notes),
            votes=votes, proposals=proposals,
        )  # fmt: skip

    def _spread(self, tokens: Tokens, raw: Tensor, fine: str) -> Tensor:
        """What the affinity makes of raw maps, within the boxes of their positive part.   (1, C, h, w) -> the same."""
        settings, score = self.settings, cam.stretched(raw.relu())
        boxes = refine.box_mask(score, threshold=getattr(settings, f"{fine}box_threshold"), exact=settings.exact_boxes)
        return refine.spread(raw if getattr(settings, f"{fine}spread") == "raw" else score, self.affinity(tokens), boxes)

    def pseudo_mask(self, result: Result) -> Tensor:
        """The label map with uncertain pixels set to 255, if the settings ask for that.   -> int64 (H, W)."""
        return mask.without_uncertain(result.labels, result.confidence, threshold=self.settings.confidence)

    def scores_of(self, result: Result, stage: str) -> Tensor:
        """A stage with its background plane, ready for a label map.   -> (1 + C, H, W)."""
        maps = result.stages[stage]
        if len(maps) > len(result.names):
            return maps
        background = functools.partial(mask.leftover_background, power=self.settings.background_power)
        return mask.with_background(maps[None], background=background)[0]

    def siblings(self, classes: Sequence[str]) -> dict[str, "FmaWsss"]:
        """What this method is to be compared with: the hand-written prompts, and a control that asks each class for the one after it."""
        by_hand = FmaWsss(self.clip, self.settings, sam=self._sam)
        if self.learned is not None:
            return {"by hand": by_hand, "control": FmaWsss(self.clip, self.settings, learned=self.learned.shifted(), sam=self._sam)}
        words = shifted_words(classes, self.settings.synonyms)
        return {"control": FmaWsss(self.clip, self.settings, sam=self._sam, synonyms=words)}

    def blocks(self) -> list[int]:
        """The blocks whose attention the settings ask for, counted from 0.   Raises SettingsError for blocks that are not there."""
        return chosen_blocks(self.settings.layers, self.clip)

    def working_image(self, image: np.ndarray) -> np.ndarray:
        """The picture the chain works on: as it is, or made smaller to the side limit.   (H, W, 3) uint8 -> the same."""
        return image_within(image, self.settings.side_limit)

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of the picture the chain works on.   (H, W) -> (H, W), neither above the side limit."""
        return size_within(size, self.settings.side_limit)

    def _shown(self, name: str) -> str:
        """A learned prompt as it can be read: the last one learned."""
        settings, word = self.settings, self.settings.synonyms.get(name, name)
        position = settings.fine_position if TASKS[1] in self.learned.texts else settings.position
        before = {"end": settings.context, "front": 0, "middle": settings.context // 2}[position]
        vectors = [f"[{count} learned]" if count else "" for count in (before, settings.context - before)]
        return " ".join(filter(None, [vectors[0], word, vectors[1]])) + "."

    # Learning

    def fit(
        self,
        data: DataSet,
        path: str | os.PathLike | None = None,
        *,
        tasks: Sequence[str] = TASKS,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[FitStep]:
        """Learn the prompts of a data set's classes, a step at a time; afterwards this method asks them, and `path` holds them.

        The steps' `task`: "encoding" (cached views only), "classification", "coarse seeds", "segmentation". tasks: both, or only the first
        of them, or only the second where this method has learned the first.
        With a path, PATH.work beside it holds the way so far and the coarse seeds: a run that was left or killed goes on there, and it is
        removed at the end. `world` processes (torchrun, an initialised process group) need a path that all of them see.
        Raises FitError, SettingsError or what the data set raises.
        """
        tasks = tuple(tasks)
        if not tasks or tasks not in (TASKS, TASKS[:1], TASKS[1:]):
            raise FitError(f"expected tasks {' and '.join(TASKS)}, in this order, or one of them, got {tasks!r}")
        if tasks == TASKS[1:] and self.learned is None:
            raise FitError("segmentation prompts are learned from the classification prompts' seeds: learn these first")
        if tasks == TASKS[1:] and self.learned.classes != data.classes:
            raise FitError(f"the classification prompts were learned for other classes than those of {data.name}: learn both tasks")
        if world > 1 and path is None:
            raise FitError(f"expected a path, because {world} processes share the coarse seeds: give the file to be written")
        if not len(data):
            raise FitError("expected pictures to learn from, got none")
        about = {
            "method": METHOD, "model": self.clip.name, "clip": self.clip.fingerprint, "classes": list(data.classes), "data": data.name,
            "split": data.split, "labels_from": data.labels_from, "images": len(data), "settings": self.settings.to_dict(),
            "precision": self.clip.precision, "kit": __version__,
        }  # fmt: skip
        with _work_folder(path, rank) as work:
            yield from self._learn(data, work, tasks, about, rank, world)
            if path is not None and rank == 0:
                self.save(path)
            if world > 1:
                torch.distributed.barrier()

    def so_far(self) -> "FmaWsss":
        """A method with what a `fit` that is under way, or was left, has learned by now; this one where none is."""
        if self._under_way is None:
            return self
        task, context, about = self._under_way
        before = self.learned.contexts if self.learned is not None and task != TASKS[0] else {}
        learned = LearnedPrompts.of(self.clip, self.settings, {**before, task: context.vectors.detach().clone()}, about)
        return FmaWsss(self.clip, self.settings, learned=learned, sam=self._sam)

    def _learn(self, data: DataSet, work: Path, tasks: tuple[str, ...], about: dict, rank: int, world: int) -> Iterator[FitStep]:
        settings = self.settings
        if settings.views == "cached":
            views = CachedViews(self.clip, data, prepare=lambda image: self.clip.prepare(self.working_image(image), side=settings.side))
            yield from views.fill()
        else:
            views = AugmentedViews(self.clip, data, crop=settings.crop, scale=settings.scale)
            yield from views.fill()
        labels = label_rows(views.names, data.classes)
        listed = "\n".join(f"{entry.id}: {', '.join(names)}" for entry, names in zip(data.entries, views.names, strict=True))
        about = {**about, "list": hashlib.sha256(listed.encode()).hexdigest()[:16]}  # of pictures, and of their labels

        if TASKS[0] in tasks:
            context = prompt_context(self.clip, settings, data.classes, TASKS[0])
            task = ClassificationTask(self.clip, context, views, labels)
            yield from self._task_steps(TASKS[0], task, work, about, rank, world)
        else:
            self._keep_learned(work / f"{TASKS[0]}.safetensors", about, rank, world)
        if TASKS[1] in tasks:
            coarse = FmaWsss(self.clip, settings, learned=self._only(TASKS[0]), sam=self._sam)
            yield from coarse_seeds(coarse, data, work / "seeds", rank=rank, world=world)
            if world > 1:
                torch.distributed.barrier()
            context = prompt_context(self.clip, settings, data.classes, TASKS[1])
            task = SegmentationTask(
                self.clip, context, views, len(data.classes), lambda index: load_mask(_seed_file(work / "seeds", index)),
                foreground=settings.fine_foreground, labels=labels if settings.fine_labels == "image" else None,
            )  # fmt: skip
            yield from self._task_steps(TASKS[1], task, work, about, rank, world)

    def _task_steps(
        self, name: str, task: ClassificationTask | SegmentationTask, work: Path, about: dict, rank: int, world: int
    ) -> Iterator[FitStep]:
        """The steps of one task, unless its file is there already; then this method asks what was learned."""
        settings, fine = self.settings, "fine_" if name == TASKS[1] else ""
        file = work / f"{name}.safetensors"
        before = {} if self.learned is None or name == TASKS[0] else self.learned.contexts
        about = {**about, "tasks": [*[other for other in before if other != name], name]}
        parts = max(getattr(settings, f"{fine}parts"), world)
        about[f"{name} parts"] = parts
        way = work / f"{name}.way"
        if not _all_see(file, world):
            schedule = Schedule(
                getattr(settings, f"{fine}steps"), getattr(settings, f"{fine}rate"), getattr(settings, f"{fine}warm_up"),
                horizon=getattr(settings, f"{fine}horizon"),
            )  # fmt: skip
            self._under_way = name, task.context, about
            steps = fit(
                task, schedule, batch=getattr(settings, f"{fine}batch"), parts=parts, seed=settings.seed, checkpoint=way, about=about,
                name=name, rank=rank, world=world,
            )  # fmt: skip
            with closing(steps):
                yield from steps
            if rank == 0:
                save_learned(file, {name: task.context.vectors}, about)
                way.unlink(missing_ok=True)  # not before: what was learned is in one of the two at any time
            if world > 1:
                torch.distributed.barrier()
        contexts, made = load_learned(file)
        check_belongs(file, made, **about)
        self.learned, self._under_way = LearnedPrompts.of(self.clip, settings, {**before, **contexts}, about), None

    def _keep_learned(self, file: Path, about: dict, rank: int, world: int) -> None:
        """Lays the classification prompts that were learned before into the work folder: seeds that lie there must be theirs."""
        known = {**about, "fingerprint": self._only(TASKS[0]).fingerprint}
        if _all_see(file, world):
            check_belongs(file, load_learned(file)[1], **known)
        elif rank == 0:
            save_learned(file, self._only(TASKS[0]).contexts, known)
        if world > 1:
            torch.distributed.barrier()

    def _only(self, task: str) -> LearnedPrompts:
        """What was learned of one task."""
        learned = self.learned
        return dataclasses.replace(learned, contexts={task: learned.contexts[task]}, texts={task: learned.texts[task]})


def painted_scores(vote: Vote) -> Tensor:
    """At each pixel the vote of the mask that painted it: its largest plane is the vote's label.

    -> (1 + C, H, W) in [0, 1]; where no mask painted, all are 0: background, as sure as nothing.
    """
    if not len(vote.mask_labels):  # each pixel voted for itself
        return F.one_hot(vote.labels, vote.mask_scores.shape[1]).permute(2, 0, 1) * vote.confidence
    scores = vote.mask_scores[vote.mask.clamp_min(0)].permute(2, 0, 1)  # (H, W, 1 + C) -> (1 + C, H, W)
    return scores.masked_fill(vote.mask == NO_MASK, 0)


def coarse_seeds(method: FmaWsss, data: DataSet, folder: Path, *, rank: int = 0, world: int = 1) -> Iterator[FitStep]:
    """The seeds of every picture as palette PNGs, named by number, a picture a step; those that are there already are kept.

    Labels are places in the data set's classes + 1. Of several processes each makes every `world`-th.
    """
    folder.mkdir(exist_ok=True)
    share = range(rank, len(data), world)
    for done, index in enumerate(share, start=1):
        clock = time.perf_counter()
        file = _seed_file(folder, index)
        if not file.exists():
            sample = data.entries[index].sample()
            seed = np.zeros(sample.image.shape[:2], np.uint8)
            if sample.names:
                pixels = method.clip.prepare(method.working_image(sample.image), side=method.settings.side)
                tokens = method.clip.encode(pixels[None], layers=method.blocks())
                numbers = np.array([0, *(data.classes.index(name) + 1 for name in sample.names)], np.uint8)
                seed = numbers[method.segment(sample, tokens=tokens).labels.cpu().numpy()]
            save_mask(file, seed)
        yield FitStep(done, len(share), {}, 0.0, time.perf_counter() - clock, "coarse seeds")


def _all_see(file: Path, world: int) -> bool:
    """Whether the file is there, looked at by all processes before one of them can go on and make it."""
    if world == 1:
        return file.exists()
    torch.distributed.barrier()
    there = file.exists()
    torch.distributed.barrier()
    return there


def _seed_file(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.png"


@contextmanager
def _work_folder(path: str | os.PathLike | None, rank: int) -> Iterator[Path]:
    """A folder for the way so far: PATH.work, which stays if learning is left, or a temporary one."""
    if path is None:
        with tempfile.TemporaryDirectory(prefix="fma-wsss-") as folder:
            yield Path(folder)
        return
    folder = Path(path).with_name(f"{Path(path).name}.work")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FitError(f"{folder}: this folder cannot be made ({error.strerror or error}); choose another path") from error
    yield folder
    if rank == 0:
        for file in [*folder.glob("seeds/*.png"), *folder.glob("*.safetensors")]:
            file.unlink()
        for emptied in (folder / "seeds", folder):
            with suppress(OSError):  # somebody put something there, or there were no seeds
                emptied.rmdir()


def _lap(seconds: dict[str, float], stage: str, since: float) -> float:
    now = time.perf_counter()
    seconds[stage] = now - since
    return now
