"""Ablations: samples are encoded once, then one or two knobs are varied with no further pass of the encoder.

samples -> tokens, kept -> for every value a label map -> mIoU, with its spread over independent draws of the samples
"""

import csv
import dataclasses
import io
import itertools
import json
import math
import operator
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import reduce
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kit import cam
from kit.data import Sample
from kit.encode import Clip, Tokens
from kit.evaluate import (
    BATCH,
    RefinerJob,
    StageScore,
    Tally,
    checked_samples,
    encoded_samples,
    labels_of_size,
    none_if_nan,
    percent,
    refined_jobs,
    short,
    unlike_the_paper,
)
from kit.last_block import last_pass
from kit.methods.clip_es import ClipEs, ClipEsSettings, SettingsError
from kit.methods.result import Result
from kit.prompt import filled, sharpness
from kit.toy.scene import SPLITS
from kit.words import VOC_CLASSES

if TYPE_CHECKING:
    from kit.show import Figure  # loaded only by those who draw

MAX_BYTES = 2_000_000_000  # of pictures and tokens kept
DRAWS = 3  # the parts whose spread is reported
WEAK = 0.3  # a rank correlation nearer to 0 orders hardly anything

# What each stage listens to: a stage is computed again only where one of its own knobs changes, or one before it.
CAM_KNOBS = ("template", "background", "synonyms", "cam")
MATRIX_KNOBS = ("layers", "sinkhorn", "power")
AFFINITY_KNOBS = ("affinity", *MATRIX_KNOBS, "box_threshold", "exact_boxes")
REFINER_KNOBS = (
    "refiner", "iterations", "gaussian_xy", "gaussian_weight", "bilateral_xy", "bilateral_rgb", "bilateral_weight", "smoothing",
    "released_crf_image",
)  # fmt: skip
KNOBS = (*CAM_KNOBS, *AFFINITY_KNOBS, "background_power", *REFINER_KNOBS)
BEFORE_REFINER = tuple(name for name in KNOBS if name not in REFINER_KNOBS)
# The settings that no sweep can vary, and why.
FIXED = {
    "side": "it decides what the encoder sees: encode the samples again for each value",
    "side_limit": "it decides what the encoder sees: encode the samples again for each value",
    "confidence": "it only marks pixels as uncertain, and scores are of label maps before that",
}


@dataclass(frozen=True)
class EncodedSet:
    """Samples with truth and what the encoder saw in them: all that a sweep needs.

    tokens: one Tokens (a batch of one) a sample, None where the sample names no class; layers: the blocks whose attention is kept;
    side and side_limit: the settings the encoder's pass belongs to.   Raises ValueError if there is no sample or the lengths differ.
    """

    samples: tuple[Sample, ...] = field(repr=False)
    tokens: tuple[Tokens | None, ...] = field(repr=False)
    split: str
    clip: Clip = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    layers: tuple[int, ...]
    side: int | None
    side_limit: int

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("expected at least one sample to encode, got none")
        if len(self.samples) != len(self.tokens):
            raise ValueError(f"expected tokens for each of the {len(self.samples)} samples, got {len(self.tokens)}")

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def nbytes(self) -> int:
        """What is kept in memory, in bytes."""
        kept = [tensor for tokens in self.tokens if tokens is not None for tensor in (tokens.last_input, tokens.attention)]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept) + sum(map(_picture_bytes, self.samples))


def encode_all(
    method: ClipEs | Clip,
    samples: Iterable[Sample],
    *,
    split: str = "",
    layers: Sequence[int] | None = None,
    half: bool = False,
    max_bytes: float = MAX_BYTES,
    classes: tuple[str, ...] = VOC_CLASSES,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> EncodedSet:
    """Every sample through the encoder once, its tokens kept: the only slow part of an ablation.

    samples with truth, their names out of `classes`; split: what the samples are, read from a drawn scene's id where it is not given; the
    held-out split has to be given by name; layers: the blocks whose attention is kept (None: all; without, `layers` cannot be varied beyond
    them); half: attention in float16, half the memory for maps that differ by rounding; progress is told how many are encoded.
    -> EncodedSet.   Raises ValueError for samples that cannot be scored, and, before anything is encoded, if they need over `max_bytes`.
    """
    method = ClipEs(method) if isinstance(method, Clip) else method
    count = method.clip.layer_count
    kept = tuple(range(count)) if layers is None else tuple(dict.fromkeys(layers))
    if any(not isinstance(layer, int) or not 0 <= layer < count for layer in kept):
        raise ValueError(f"expected layers out of the blocks 0 to {count - 1} of {method.clip.name}, got {layers}")

    fitting, needed, patches = [], 0, {}
    for sample in checked_samples(samples, classes):
        needed += _picture_bytes(sample) + (_token_bytes(method, sample, len(kept), half, patches) if sample.names else 0)
        if needed > max_bytes:
            raise ValueError(
                f"these samples need more than the {max_bytes / 1e9:.3g} GB allowed (this one and those before it {needed / 1e9:.3g} GB): "
                f"{len(fitting):,} of them fit; encode fewer, or smaller ones, or keep the attention of fewer layers"
            )
        fitting.append(sample)
    split = _checked_split(fitting, split)

    seen = []
    for _, tokens, _ in encoded_samples(method, (sample for sample in fitting if sample.names), batch):
        if kept != tokens.layers or half:
            attention = tokens.attention[:, list(kept)]
            tokens = dataclasses.replace(tokens, attention=attention.half() if half else attention, layers=kept)
        seen.append(tokens)
        if progress:
            progress(len(seen))
    in_order = iter(seen)
    return EncodedSet(
        samples=tuple(fitting),
        tokens=tuple(next(in_order) if sample.names else None for sample in fitting),
        split=split,
        clip=method.clip,
        classes=tuple(classes),
        layers=kept,
        side=method.settings.side,
        side_limit=method.settings.side_limit,
    )


@dataclass(frozen=True)
class SweepRow:
    """One value of the knob (or of both knobs), the stage measured, its score over all samples, and its score on each draw."""

    values: dict[str, Any]
    stage: str
    score: StageScore
    draws: tuple[StageScore, ...]

    @property
    def miou(self) -> float:
        """Over all samples, 0..1."""
        return self.score.miou

    @property
    def miou_two_or_more(self) -> float:
        """Over the samples with two or more classes, 0..1; nan if there is none."""
        return self.score.miou_two_or_more

    @property
    def spread(self) -> tuple[float, float]:
        """Mean and standard deviation of the draws' mIoU; the deviation is nan for a single draw."""
        return _mean_and_deviation([draw.miou for draw in self.draws])

    @property
    def spread_two_or_more(self) -> tuple[float, float]:
        """The same of the samples with two or more classes."""
        return _mean_and_deviation([draw.miou_two_or_more for draw in self.draws])

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        (mean, deviation), (mean_several, deviation_several) = self.spread, self.spread_two_or_more
        return {
            "values": {name: list(value) if isinstance(value, tuple) else value for name, value in self.values.items()},
            "stage": self.stage,
            **self.score.to_dict(),
            "draws": {
                "mean": none_if_nan(mean),
                "deviation": none_if_nan(deviation),
                "miou": [none_if_nan(draw.miou) for draw in self.draws],
            },
            "draws_two_or_more": {
                "mean": none_if_nan(mean_several),
                "deviation": none_if_nan(deviation_several),
                "miou": [none_if_nan(draw.miou_two_or_more) for draw in self.draws],
            },
        }


@dataclass(frozen=True, repr=False)
class Sweep:
    """What one or two knobs do to the score: a small table that prints itself.

    rows in the order of the values, the first knob outside; draws: how many images each draw has.

    What "±" means: the samples, in their order, are cut into `draws` (three unless asked otherwise). Drawn scenes stand in the order of
    their seeds, so each draw is an independent sample of the world. Each is scored alone; mean and standard deviation (n - 1) of these
    scores stand beside the score of all samples together. So ± tells how much a score of that few images varies with the images; as all
    rows see the same ones, the difference between two rows is surer than that. A draw of few images shows fewer classes, so that the mean
    of the draws need not be the score of all.
    """

    knobs: dict[str, tuple]
    rows: tuple[SweepRow, ...]
    split: str
    images: int
    images_two_or_more: int
    draws: tuple[int, ...]
    classes: tuple[str, ...]
    model: str
    settings: dict

    def __repr__(self) -> str:
        return self.table()

    def table(self) -> str:
        """The numbers as text, in percent, with the lines that say what they are numbers of."""
        mean_of = f"mean ± sd of {len(self.draws)}"
        head = [*self.knobs, "mIoU", mean_of, "two or more", mean_of]
        body = [
            [
                *map(_label, row.values.values()),
                *(percent(row.miou), _plus_minus(row.spread)),
                *(percent(row.miou_two_or_more), _plus_minus(row.spread_two_or_more)),
            ]
            for row in self.rows
        ]
        stages = " or ".join(dict.fromkeys(row.stage for row in self.rows))
        shown = sum(not math.isnan(value) for value in self.rows[0].score.iou.values())
        said = {*self.knobs, "refiner"}
        changed = {name: value for name, value in unlike_the_paper(ClipEs, self.settings).items() if name not in said}
        refiner = "" if "refiner" in self.knobs else f"; refiner {self.settings['refiner']}"
        parts = f"parts, one after the other ({', '.join(map(str, self.draws))} images)" if len(self.draws) > 1 else "part"
        split = self.split or "(not named)"
        return "\n".join([
            *_aligned((head, *body), len(self.knobs)),
            "",
            f"mIoU in percent over the {shown} of {len(self.classes)} classes that the truth shows, background among them.",
            f"Stage {stages}{refiner}.",
            f"Split {split}: {self.images:,} images, {self.images_two_or_more:,} with two or more classes; model {self.model}.",
            f"± is the spread between independent draws: the images are cut into {len(self.draws)} {parts};",
            "each is scored alone, and mean and standard deviation (n - 1) are of these scores. All rows see the same images.",
            f"Other settings unlike the paper's: {'; '.join(f'{name} = {short(value)}' for name, value in changed.items()) or 'none'}.",
            f"Who picks a value from this table tunes it on the truth of {split}: measure it on another split.",
        ])  # fmt: skip

    def to_dict(self) -> dict:
        """Plain values, ready for JSON: scores 0..1, None where there is none."""
        return {
            "split": self.split,
            "images": self.images,
            "images_two_or_more": self.images_two_or_more,
            "draws": list(self.draws),
            "classes": list(self.classes),
            "model": self.model,
            "settings": {name: value for name, value in self.settings.items() if name not in self.knobs},
            "knobs": {
                name: [list(value) if isinstance(value, tuple) else value for value in values] for name, values in self.knobs.items()
            },
            "rows": [row.to_dict() for row in self.rows],
        }

    def to_csv(self, path: str | PathLike | None = None) -> str:
        """A line a row, scores 0..1, lists as JSON; written to `path` if there is one, and returned."""
        each = [f"miou_draw_{number}" for number in range(1, 1 + len(self.draws))]
        spreads = ["mean_of_draws", "deviation_of_draws", "miou_two_or_more", "mean_of_draws_two_or_more", "deviation_of_draws_two_or_more"]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*self.knobs, "stage", "miou", *spreads, *each, "split", "images", "model"])
        for row in self.rows:
            scores = [row.miou, *row.spread, row.miou_two_or_more, *row.spread_two_or_more, *(draw.miou for draw in row.draws)]
            values = [json.dumps(value) if isinstance(value, tuple | dict) else value for value in row.values.values()]
            writer.writerow([*values, row.stage, *map(none_if_nan, scores), self.split, self.images, self.model])
        if path is not None:
            Path(path).write_text(text.getvalue(), encoding="utf-8")
        return text.getvalue()

    def plot(self) -> "Figure":
        """One knob: a curve, its bars the standard deviation between draws; two knobs: a map of the mIoU over all samples."""
        from kit import show

        about = f"{self.split or 'samples'}, {self.images:,} images"
        (first, values), *others = self.knobs.items()
        if others:
            ((second, columns),) = others
            scores = np.array([100 * row.miou for row in self.rows]).reshape(len(values), len(columns))
            names = list(map(_label, values)), list(map(_label, columns))
            return show.grid_map(scores, *names, row_title=first, column_title=second, title=f"mIoU in percent: {about}")
        lines = {"all images": ([row.miou for row in self.rows], [row.spread[1] for row in self.rows])}
        if self.images_two_or_more:
            several = [row.miou_two_or_more for row in self.rows], [row.spread_two_or_more[1] for row in self.rows]
            lines["two or more classes"] = several
        lines = {name: tuple([100 * value for value in part] for part in pair) for name, pair in lines.items()}
        places = [value if _is_number(value) else _label(value) for value in values]
        bars = f"; bars: standard deviation between {len(self.draws)} draws" if len(self.draws) > 1 else ""
        return show.curve(places, lines, x_title=first, y_title="mIoU in percent", title=about + bars)


def sweep(
    method: ClipEs,
    encoded: EncodedSet,
    *,
    stage: str | None = None,
    refiner: str | Sequence[str] | None = "none",
    seeds: int = DRAWS,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    **knobs: Sequence,
) -> Sweep:
    """One or two settings varied, everything else as in `method`: the encoder never runs.

    knobs: a setting's name = its values; stage: cam, affinity or refined (None: each row's last one);
    refiner: off, because it takes most of the time, or the name of one, or None for the method's own, or a list, which makes it a knob;
    seeds: how many independent draws the samples are cut into, in their order: the spread beside each score is that between them
    (see Sweep); workers: processes for the refiner; progress is told how many samples are done.
    -> Sweep.   Raises SettingsError for a knob or value that does not exist or changes nothing at this stage, ValueError for tokens of
    another encoder or side.

    >>> sweep(method, encoded, box_threshold=[.2, .4, .6])          # doctest: +SKIP
    """
    if not 1 <= seeds <= len(encoded):
        raise ValueError(f"expected seeds to be from 1 to {len(encoded)}, the number of samples, got {seeds}: take fewer, or more samples")
    if workers < 1:
        raise ValueError(f"expected at least one worker, got {workers}")
    _check_same_encoder(method, encoded)
    knobs = {name: knob_values(name, values) for name, values in knobs.items()}
    if refiner is not None and not isinstance(refiner, str):
        knobs["refiner"], refiner = knob_values("refiner", refiner), None
    variants = knob_grid(method, knobs, stage=stage, refiner=refiner)
    absent = sorted(set(blocks_needed(variants)) - set(encoded.layers))
    if absent:
        raise SettingsError(f"expected the attention of blocks {absent}, kept are {list(encoded.layers)}: encode again with these layers")

    tallies = [Tally(encoded.classes) for _ in range(seeds)]
    parts = np.array_split(np.arange(len(encoded)), seeds)
    part_of = {int(index): part for part, indices in enumerate(parts) for index in indices}

    def unrefined() -> Iterator[tuple[tuple[int, int], RefinerJob | None]]:
        shared = [_equal_before(variants, names) for names in (CAM_KNOBS, MATRIX_KNOBS, BEFORE_REFINER)]
        for index, (sample, tokens) in enumerate(zip(encoded.samples, encoded.tokens, strict=True)):
            add = tallies[part_of[index]].add
            if tokens is None:  # nothing to ask for: all is background
                for row in range(len(variants)):
                    add(row, sample, np.zeros(sample.truth.shape, np.uint8))
                    yield (index, row), None
                continue
            for row, result in enumerate(_results(variants, shared, sample, tokens)):
                variant, job = variants[row], None
                scores = variant.scores_of(result, list(result.stages)[-1])
                if variant.settings.refiner == "none":
                    add(row, sample, labels_of_size(scores, sample.truth.shape))
                else:
                    job = RefinerJob(variant.working_image(sample.image), scores.cpu().numpy(), sample.truth.shape, variant.refiner)
                yield (index, row), job

    has_refiner = any(variant.settings.refiner != "none" for variant in variants)
    for (index, row), refined in refined_jobs(unrefined(), workers if has_refiner else 1):
        if refined is not None:
            tallies[part_of[index]].add(row, encoded.samples[index], refined[0])
        if progress and row == len(variants) - 1:
            progress(index + 1)

    total, scores = reduce(operator.add, tallies).scores(), [tally.scores() for tally in tallies]
    return Sweep(
        knobs=knobs,
        rows=tuple(
            SweepRow(
                values={name: getattr(variant.settings, name) for name in knobs},
                stage=_last_stage(variant),
                score=total[row],
                draws=tuple(part[row] for part in scores),
            )
            for row, variant in enumerate(variants)
        ),
        split=encoded.split,
        images=len(encoded),
        images_two_or_more=sum(tally.images_two_or_more for tally in tallies),
        draws=tuple(map(len, parts)),
        classes=("background", *encoded.classes),
        model=method.clip.name,
        settings=method.settings.to_dict() | ({"refiner": variants[0].settings.refiner} if "refiner" not in knobs else {}),
    )


@dataclass(frozen=True)
class TemplateRow:
    """What one template is worth, over so many images.

    sharpness: lower is better, nan without an image of two classes; class_score: the mean probability of the classes that are there, 0..1;
    miou: before the refiner, 0..1, nan where no truth is known.
    """

    template: str
    sharpness: float
    class_score: float
    miou: float
    images: int


@dataclass(frozen=True, repr=False)
class TemplateTable:
    """Templates side by side: a small table that prints itself."""

    rows: tuple[TemplateRow, ...]
    split: str
    model: str

    def __repr__(self) -> str:
        return self.table()

    @property
    def rank_correlation(self) -> float:
        """Spearman's, between sharpness and mIoU, -1..1: near -1 where the sharpness finds the better templates; nan where the ranks of
        three templates or more are not known."""
        pairs = [(row.sharpness, row.miou) for row in self.rows if not math.isnan(row.sharpness + row.miou)]
        columns = list(zip(*pairs, strict=True))
        if len(pairs) < 3 or any(len(set(column)) < 2 for column in columns):
            return math.nan
        from scipy.stats import spearmanr

        return float(spearmanr(*columns).statistic)

    def verdict(self) -> str:
        """The rank correlation in a sentence, said as plainly where it is weak."""
        value = self.rank_correlation
        known = sum(not math.isnan(row.sharpness + row.miou) for row in self.rows)
        if math.isnan(value):
            return "No rank correlation: it needs three templates or more with different sharpness and mIoU."
        chance = min(1, 2 / math.sqrt(known - 1))  # about two standard deviations of the correlation of unrelated ranks
        if abs(value) < max(chance, WEAK):
            meaning = f"weak, as unrelated numbers often reach {chance:.2f}: sharpness is hardly a guide here"
        elif value < 0:
            meaning = "a sharper template (lower) tends to make better masks here, as CLIP-ES says"
        else:
            meaning = "the wrong way round: here a sharper template (lower) tends to make worse masks"
        return f"Rank correlation of sharpness and mIoU over {known} templates: {value:+.2f}; {meaning}."

    def table(self) -> str:
        """The numbers as text, in the order of the mIoU, or of the sharpness where no truth is known, and what they are numbers of."""
        ranked = sorted(self.rows, key=lambda row: (-row.miou if not math.isnan(row.miou) else math.inf, row.sharpness))
        head = ("template", "sharpness", "class score", "mIoU")
        body = [(row.template, f"{row.sharpness:.4f}", percent(row.class_score), percent(row.miou)) for row in ranked]
        images = ", ".join(sorted({f"{row.images:,}" for row in self.rows}))
        return "\n".join([
            *_aligned((head, *body), 1),
            "",
            f"Split {self.split or '(not named)'}: {images} images; model {self.model}; before the refiner.",
            f"Sharpness: lower is better. Class score and mIoU in percent. {self.verdict()}",
        ])  # fmt: skip

    def to_dict(self) -> dict:
        """Plain values, ready for JSON: scores 0..1, None where there is none."""
        rows = [{name: none_if_nan(value) if isinstance(value, float) else value for name, value in vars(row).items()} for row in self.rows]
        about = {"rank_correlation": none_if_nan(self.rank_correlation), "verdict": self.verdict()}
        return {"templates": rows, **about, "split": self.split, "model": self.model}

    def to_csv(self, path: str | PathLike | None = None) -> str:
        """A line a template, scores 0..1; written to `path` if there is one, and returned."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*(entry.name for entry in dataclasses.fields(TemplateRow)), "split", "model"])
        for row in self.to_dict()["templates"]:
            writer.writerow([*row.values(), self.split, self.model])
        if path is not None:
            Path(path).write_text(text.getvalue(), encoding="utf-8")
        return text.getvalue()


def template_rows(
    method: ClipEs,
    encoded: EncodedSet,
    templates: Sequence[str],
    *,
    lock: AbstractContextManager | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[TemplateRow]:
    """Each template measured over all samples, one row after the other, with no pass of the encoder; everything else as in `method`.

    lock: held while the model works on one sample, for those who share it; progress is told how many samples of this template are done, and
    whatever it raises ends the measurement.   Raises SettingsError, PromptError or ValueError as `sweep` does, before the first row.

    Source of the sharpness: CLIP-ES, section 3.2.
    """
    templates = knob_values("template", templates)
    for template in templates:
        filled(template, "word")  # a slip is told before anything is measured
    _check_same_encoder(method, encoded)
    changes = [{"template": template} for template in templates]
    return _template_rows(method, encoded, changes, lock or nullcontext(), progress)


def _template_rows(method: ClipEs, encoded: EncodedSet, changes: list[dict], lock, progress) -> Iterator[TemplateRow]:
    # One stream a sample, and each keeps its affinity, which no template changes.
    streams = [
        None if tokens is None else reworded(method, sample, tokens, changes)
        for sample, tokens in zip(encoded.samples, encoded.tokens, strict=True)
    ]
    for change in changes:
        tally, scores = Tally(encoded.classes), []
        for count, (sample, stream) in enumerate(zip(encoded.samples, streams, strict=True), start=1):
            labels = np.zeros(sample.truth.shape, np.uint8)  # where there is nothing to ask for, all is background
            if stream is not None:
                with lock:
                    result = next(stream)
                labels = result.labels.cpu().numpy()
                scores.append(list(result.scores.values()))
            tally.add("template", sample, labels)
            if progress:
                progress(count)
        yield template_row(change["template"], scores, tally.scores()["template"].miou, len(encoded))


def template_row(template: str, scores: Sequence[Sequence[float]], miou: float, images: int) -> TemplateRow:
    """A template's row from its answers.   scores: for each image the probabilities of its classes, 0..1; miou: 0..1 or nan."""
    every = [score for image in scores for score in image]
    return TemplateRow(
        template=template,
        sharpness=sharpness([torch.tensor(image) for image in scores]),
        class_score=statistics.fmean(every) if every else math.nan,
        miou=miou,
        images=images,
    )


def template_table(method: ClipEs, encoded: EncodedSet, templates: Sequence[str], **options) -> TemplateTable:
    """Sharpness, class score and mIoU of templates over encoded samples; options as in `template_rows`.

    >>> template_table(method, encoded, IMAGENET_TEMPLATES).rank_correlation          # doctest: +SKIP
    """
    return TemplateTable(tuple(template_rows(method, encoded, templates, **options)), encoded.split, encoded.clip.name)


def reworded(method: ClipEs, sample: Sample, tokens: Tokens, changes: Iterable[Mapping[str, Any]]) -> Iterator[Result]:
    """One image's results before the refiner under other words: each change holds settings out of template, synonyms and background.

    The affinity, which no word changes, is computed once.
    """
    tokens = dataclasses.replace(tokens, attention=tokens.attention.float())
    affinity = method.affinity(tokens) if method.settings.affinity else None
    for change in changes:
        strange = [name for name in change if name not in ("template", "synonyms", "background")]
        if strange:
            raise SettingsError(
                f"expected template, synonyms or background to change, got {', '.join(strange)}: sweep varies other settings"
            )
        variant = ClipEs(method.clip, method.settings, **{**change, "refiner": "none"})
        yield next(variant.steps(sample, tokens=tokens, affinity=affinity))


@dataclass(frozen=True, eq=False)
class WordRow:
    """One word in a class's place: the cosine of its prompt with the image, -1..1, and the whole answer with it."""

    word: str
    similarity: float
    result: Result


def word_rows(method: ClipEs, sample: Sample, tokens: Tokens, name: str, words: Sequence[str]) -> Iterator[WordRow]:
    """A class asked for with one word after the other, the other classes as they are, with no pass of the encoder.

    name: one of the sample's classes.   Raises SettingsError for a class that the sample does not name.
    Source: POLE, which takes the word whose prompt CLIP finds most similar to the image.
    """
    if name not in sample.names:
        raise SettingsError(f"expected a class out of {', '.join(sample.names)}, got {name!r}")
    done, settings = last_pass(tokens), method.settings
    answers = reworded(method, sample, tokens, ({"synonyms": {**settings.synonyms, name: word}} for word in words))
    for word in words:
        text = method.clip.text([filled(settings.template, word)])
        similarity = cam.class_logits(tokens, text, done=done)[0, 0] / tokens.block.logit_scale
        yield WordRow(word, float(similarity), next(answers))


@dataclass(frozen=True, eq=False)
class BackgroundRow:
    """The answer without some background words, and the share of pixels whose label differs from the answer with all of them, 0..1."""

    left_out: tuple[str, ...]
    changed: float
    labels: Tensor = field(repr=False)


def background_rows(method: ClipEs, sample: Sample, tokens: Tokens) -> Iterator[BackgroundRow]:
    """What each background word does to the mask, with no pass of the encoder: all words, none, then all but one, in their order."""
    words = tuple(dict.fromkeys(method.settings.background))
    left_out = [(), words, *((word,) for word in words)] if len(words) > 1 else [(), words][: 1 + len(words)]
    changes = ({"background": [word for word in words if word not in out]} for out in left_out)
    labels = None
    for out, result in zip(left_out, reworded(method, sample, tokens, changes), strict=True):
        labels = result.labels if labels is None else labels
        yield BackgroundRow(out, (result.labels != labels).float().mean().item(), result.labels)


def knob_values(name: str, values: Sequence) -> tuple:
    """A knob's values, each checked as the setting it is.   Raises SettingsError for a knob or value that does not exist."""
    if name in FIXED:
        raise SettingsError(f"{name} cannot be varied in a sweep: {FIXED[name]}")
    if name not in KNOBS:
        raise SettingsError(f"unknown knob {name}: CLIP-ES has {', '.join(KNOBS)}")
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise SettingsError(f"expected a list of values for {name}, got {values!r}: write {name}=[{values!r}]")
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    checked = tuple(getattr(ClipEsSettings(**{name: value}), name) for value in plain)
    if not checked:
        raise SettingsError(f"expected at least one value for {name}, got none")
    again = [value for number, value in enumerate(checked) if value in checked[:number]]
    if again:
        raise SettingsError(f"expected every value of {name} once, got {again[0]!r} again")
    return checked


def knob_grid(method: ClipEs, knobs: Mapping[str, tuple], *, stage: str | None = None, refiner: str | None = "none") -> list[ClipEs]:
    """The method once for every value, or pair of values, the first knob outside; it ends at the stage to be measured.

    Raises SettingsError if there are not one or two knobs, or if one changes nothing at this stage.
    """
    if not 1 <= len(knobs) <= 2:
        raise SettingsError(
            f"expected one or two knobs, got {len(knobs)}{': ' if knobs else ''}{', '.join(knobs)}; CLIP-ES has {', '.join(KNOBS)}"
        )
    if stage is not None and stage not in ClipEs.stages:
        raise SettingsError(f"expected stage to be one of {', '.join(ClipEs.stages)}, got {stage!r}")
    fixed = {} if refiner is None or "refiner" in knobs else {"refiner": refiner}
    variants = [
        ClipEs(method.clip, method.settings, **{**fixed, **dict(zip(knobs, values, strict=True))})
        for values in itertools.product(*knobs.values())
    ]
    without_affinity = [name for name in knobs if name in AFFINITY_KNOBS[1:]]
    without_refiner = [name for name in knobs if name in REFINER_KNOBS[1:]]
    late = {"cam": (*AFFINITY_KNOBS, *REFINER_KNOBS), "affinity": ("affinity", *REFINER_KNOBS)}.get(stage, ())
    for name in knobs:
        if name in late:
            raise SettingsError(f"{name} changes nothing at stage {stage}: measure a later stage, or none in particular")
    if without_affinity and not any(variant.settings.affinity for variant in variants):
        raise SettingsError(f"{without_affinity[0]} changes nothing without affinity: set affinity=True")
    if without_refiner and all(variant.settings.refiner == "none" for variant in variants):
        raise SettingsError(f"{without_refiner[0]} changes nothing without a refiner, which is off in a sweep: give refiner='crf'")
    if stage == "affinity" and not method.settings.affinity:
        raise SettingsError("there is no stage affinity without affinity: set affinity=True, or measure stage cam")
    if stage == "refined" and any(variant.settings.refiner == "none" for variant in variants):
        raise SettingsError("there is no stage refined without a refiner, which is off in a sweep: give refiner='crf'")
    cut = {"cam": {"affinity": False, "refiner": "none"}, "affinity": {"refiner": "none"}}.get(stage, {})
    return [ClipEs(variant.clip, variant.settings, **cut) for variant in variants]


def blocks_needed(variants: Iterable[ClipEs]) -> list[int]:
    """The blocks whose attention these methods read.   Raises SettingsError for blocks that the encoder has not."""
    return sorted({block for variant in variants if variant.settings.affinity for block in variant.blocks()})


def _results(variants: list[ClipEs], shared: list[list[int]], sample: Sample, tokens: Tokens) -> Iterator[Result]:
    """Every variant's result before the refiner; what several of them have in common is computed once.

    shared: for the maps, the affinity matrix and the whole result, the number of the first variant that has the same.
    """
    tokens = dataclasses.replace(tokens, attention=tokens.attention.float())
    maps, affinities, results = {}, {}, {}
    for variant, of_maps, of_affinity, of_all in zip(variants, *shared, strict=True):
        if of_all not in results:
            if of_maps not in maps:
                maps[of_maps] = variant.class_maps(variant.question(sample.names), tokens)
            if variant.settings.affinity and of_affinity not in affinities:
                affinities[of_affinity] = variant.affinity(tokens)
            results[of_all] = next(variant.steps(sample, tokens=tokens, maps=maps[of_maps], affinity=affinities.get(of_affinity)))
        yield results[of_all]


def _equal_before(variants: list[ClipEs], names: tuple[str, ...]) -> list[int]:
    """For each variant the number of the first one that agrees with it in these settings."""
    values = [[getattr(variant.settings, name) for name in names] for variant in variants]
    return [values.index(value) for value in values]


def _last_stage(variant: ClipEs) -> str:
    return "refined" if variant.settings.refiner != "none" else "affinity" if variant.settings.affinity else "cam"


def _check_same_encoder(method: ClipEs, encoded: EncodedSet) -> None:
    if method.clip is not encoded.clip:
        raise ValueError(f"these samples were encoded with another Clip ({encoded.clip.name}): make the method from the same one")
    for name in ("side", "side_limit"):
        own, theirs = getattr(method.settings, name), getattr(encoded, name)
        if own != theirs:
            raise ValueError(f"these samples were encoded with {name} {theirs}, the method has {own}: encode them again with this method")


def _checked_split(samples: Sequence[Sample], split: str) -> str:
    """The split's name, which a drawn scene's id must not contradict; held_out is never taken by accident."""
    drawn = sorted({sample.id.rpartition("-")[0] for sample in samples} & set(SPLITS))
    if "held_out" in drawn and split != "held_out":
        raise ValueError("these scenes are of the held-out split, kept for the last measurement: if that is meant, say split='held_out'")
    if split and drawn not in ([], [split]):
        raise ValueError(f"expected scenes of the split {split}, got some of {', '.join(drawn)}")
    return split or "+".join(drawn)


def _picture_bytes(sample: Sample) -> int:
    return sum(plane.nbytes for plane in (sample.image, sample.truth, sample.stuff) if plane is not None)


def _token_bytes(method: ClipEs, sample: Sample, layers: int, half: bool, patches: dict[tuple[int, int], int]) -> int:
    """What this sample's tokens will take; pictures of one size have as many `patches`."""
    size = sample.image.shape[:2]
    if size not in patches:
        pixels = method.clip.prepare(method.working_image(sample.image), side=method.settings.side)
        patches[size] = pixels[0].numel() // method.clip.patch**2
    count, width = 1 + patches[size], method.clip.last_block().projection.shape[0]
    return 4 * count * width + (2 if half else 4) * layers * count**2


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if not math.isnan(value)]
    return (statistics.fmean(known) if known else math.nan), (statistics.stdev(known) if len(known) > 1 else math.nan)


def _plus_minus(spread: tuple[float, float]) -> str:
    return f"{percent(spread[0])} ± {percent(spread[1])}"


def _aligned(lines: Sequence[Sequence[str]], named: int) -> list[str]:
    """Cells in columns, the first `named` of them words, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < named else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _label(value: Any) -> str:
    """A knob's value in a table or under a curve."""
    if isinstance(value, tuple | dict) and len(value) > 4:
        return f"{next(iter(value))} ... ({len(value)} words)"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else short(value)
