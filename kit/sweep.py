"""Ablations: samples are encoded once, then one or two settings are varied with no further pass of the encoder.

samples -> tokens, kept -> for every value a label map -> mIoU, with its spread over independent draws of the samples
"""

import dataclasses
import functools
import itertools
import json
import math
import operator
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kit.batches import BATCH, can_be_sent, encoded, finished, layers_of
from kit.data import DataSet, Sample
from kit.encode import Clip, Tokens
from kit.evaluate import StageScore, Tally, checked_samples
from kit.method import Driver, Kept, Pipeline, WorkerJob, labels_of_size, scores_with_background
from kit.settings import SettingsError, plain, shortened
from kit.tables import aligned, none_if_nan, percent
from kit.toy.scene import SPLITS
from kit.words import VOC_CLASSES

if TYPE_CHECKING:
    import pandas

    from kit.show import Figure  # loaded only by those who draw

MAX_BYTES = 2_000_000_000  # of pictures and tokens kept
DRAWS = 3  # the parts whose spread is reported
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
        return sum(tensor.nbytes for tensor in kept) + sum(map(_picture_bytes, self.samples))

    def pairs(self) -> Iterator[tuple[Sample, Tokens | None]]:
        """Each sample with its tokens, in full precision; None where there is nothing to ask for."""
        for sample, tokens in zip(self.samples, self.tokens, strict=True):
            yield sample, tokens and dataclasses.replace(tokens, attention=tokens.attention.float())

    def check(self, pipeline: Pipeline) -> None:
        """Raises ValueError where a pipeline's own encoding would be another one."""
        if pipeline.clip is not self.clip:
            raise ValueError(f"these samples were encoded with another Clip ({self.clip.name}): make the method from the same one")
        for name in ("side", "side_limit"):
            own, theirs = getattr(pipeline.settings, name), getattr(self, name)
            if own != theirs:
                raise ValueError(
                    f"these samples were encoded with {name} {theirs}, the method has {own}: encode them again with this method"
                )


def encode_all(
    pipeline: Pipeline,
    data: DataSet | Iterable[Sample],
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

    data: a data set, or samples with truth, their names out of `classes`; split: what the samples are, read from a drawn scene's id where
    it is not given; the held-out split has to be given by name; layers: the blocks whose attention is kept (None: all; without, `layers`
    cannot be varied beyond them); half: attention in float16, half the memory for maps that differ by rounding; progress is told how many
    are encoded.   -> EncodedSet.   Raises ValueError for samples that cannot be scored, and, before anything is encoded, if they need over
    `max_bytes`.
    """
    if isinstance(data, DataSet):
        split, classes = split or data.split, data.classes
        data = data.samples(truth=True)
    count = pipeline.clip.layer_count
    kept = tuple(range(count)) if layers is None else tuple(dict.fromkeys(layers))
    if any(not isinstance(layer, int) or not 0 <= layer < count for layer in kept):
        raise ValueError(f"expected layers out of the blocks 0 to {count - 1} of {pipeline.clip.name}, got {layers}")

    fitting, needed, patches = [], 0, {}
    for sample in checked_samples(data, classes):
        needed += _picture_bytes(sample) + (_token_bytes(pipeline, sample, len(kept), half, patches) if sample.names else 0)
        if needed > max_bytes:
            raise ValueError(
                f"these samples need more than the {max_bytes / 1e9:.3g} GB allowed (this one and those before it {needed / 1e9:.3g} GB): "
                f"{len(fitting):,} of them fit; encode fewer, or smaller ones, or keep the attention of fewer layers"
            )
        fitting.append(sample)
    split = _checked_split(fitting, split)

    seen = []
    for _, every, _ in encoded([pipeline], (sample for sample in fitting if sample.names), batch, all_layers=True):
        tokens = every[pipeline.key]
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
        clip=pipeline.clip,
        classes=tuple(classes),
        layers=kept,
        side=pipeline.settings.side,
        side_limit=pipeline.settings.side_limit,
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
        draws = {
            name: {
                "mean": none_if_nan(mean),
                "deviation": none_if_nan(deviation),
                "miou": [none_if_nan(getattr(draw, of)) for draw in self.draws],
            }
            for name, of, (mean, deviation) in (
                ("draws", "miou", self.spread), ("draws_two_or_more", "miou_two_or_more", self.spread_two_or_more)
            )
        }  # fmt: skip
        return {"values": {name: plain(value) for name, value in self.values.items()}, "stage": self.stage, **self.score.to_dict(), **draws}


@dataclass(frozen=True, repr=False)
class Sweep:
    """What one or two knobs do to the score: a small table that prints itself.

    knobs: dotted name -> values; rows in the order of the values, the first knob outside; draws: how many images each draw has; settings:
    plain values of the others; changed: those of them that are not the paper's.

    What "±" means: the samples, in their order, are cut into `draws` (three unless asked otherwise). Drawn scenes stand in the order of
    their seeds, so each draw is an independent sample of the world. Each is scored alone; mean and standard deviation (n - 1) of these
    scores stand beside the score of all samples together. So ± tells how much a score of that few images varies with the images; as all
    rows see the same ones, the difference between two rows is surer than that. A draw of few images shows fewer classes, so that the mean
    of the draws need not be the score of all.
    """

    method: str
    knobs: dict[str, tuple]
    rows: tuple[SweepRow, ...]
    split: str
    images: int
    images_two_or_more: int
    draws: tuple[int, ...]
    classes: tuple[str, ...]
    model: str
    settings: dict
    changed: dict

    def __repr__(self) -> str:
        return self.table()

    def to_frame(self) -> "pandas.DataFrame":
        """A line a row: the knobs' values, the stage, and scores 0..1 with mean and standard deviation of the draws."""
        import pandas

        return pandas.DataFrame([
            {
                **row.values,
                "stage": row.stage,
                "miou": row.miou,
                **dict(zip(("mean_of_draws", "deviation_of_draws"), row.spread, strict=True)),
                "miou_two_or_more": row.miou_two_or_more,
                **dict(zip(("mean_of_draws_two_or_more", "deviation_of_draws_two_or_more"), row.spread_two_or_more, strict=True)),
                **{f"miou_draw_{number}": draw.miou for number, draw in enumerate(row.draws, start=1)},
                "split": self.split,
                "images": self.images,
                "model": self.model,
            }
            for row in self.rows
        ])  # fmt: skip

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
        parts = f"parts, one after the other ({', '.join(map(str, self.draws))} images)" if len(self.draws) > 1 else "part"
        split = self.split or "(not named)"
        changed = "; ".join(f"{name} = {shortened(value)}" for name, value in self.changed.items()) or "none"
        return "\n".join([
            *aligned((head, *body), len(self.knobs)),
            "",
            f"mIoU in percent over the {shown} of {len(self.classes)} classes that the truth shows, background among them.",
            f"Method {self.method}, stage {stages}.",
            f"Split {split}: {self.images:,} images, {self.images_two_or_more:,} with two or more classes; model {self.model}.",
            f"± is the spread between independent draws: the images are cut into {len(self.draws)} {parts};",
            "each is scored alone, and mean and standard deviation (n - 1) are of these scores. All rows see the same images.",
            f"Other settings unlike the paper's: {changed}.",
            f"Who picks a value from this table tunes it on the truth of {split}: measure it on another split.",
        ])  # fmt: skip

    def to_dict(self) -> dict:
        """Plain values, ready for JSON: scores 0..1, None where there is none."""
        return {
            "method": self.method,
            "split": self.split,
            "images": self.images,
            "images_two_or_more": self.images_two_or_more,
            "draws": list(self.draws),
            "classes": list(self.classes),
            "model": self.model,
            "settings": self.settings,
            "knobs": {name: [plain(value) for value in values] for name, values in self.knobs.items()},
            "rows": [row.to_dict() for row in self.rows],
        }

    def to_csv(self, path: str | PathLike | None = None) -> str:
        """The frame's lines, lists as JSON; written to `path` if there is one, and returned."""
        frame = self.to_frame()
        for name in self.knobs:
            frame[name] = [json.dumps(plain(value)) if isinstance(value, tuple | dict) else plain(value) for value in frame[name]]
        text = frame.to_csv(index=False, lineterminator="\n")
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

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

    def save(self, path: str | PathLike) -> None:
        """The plot as a picture, or the table, by the name's end: .png, .svg, .pdf, .csv or .json.   Raises ValueError for another one."""
        ending = Path(path).suffix.lower()
        if ending in (".png", ".svg", ".pdf"):
            self.plot().savefig(path, format=ending[1:])
        elif ending == ".csv":
            self.to_csv(path)
        elif ending == ".json":
            Path(path).write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        else:
            raise ValueError(f"expected a name that ends with .png, .svg, .pdf, .csv or .json, got {path}")


def sweep(
    pipeline: Pipeline,
    data: DataSet | EncodedSet,
    *,
    stage: str | None = None,
    seeds: int | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    **knobs: Sequence,
) -> Sweep:
    """One or two settings varied, everything else as in `pipeline`: the encoder runs once, or never over samples that are encoded.

    knobs: a setting's name = its values, a group's as coarse__box_threshold; stage: which one to measure (None: the last one that these
    settings change; an earlier one is quicker, for a refiner takes most of the time); seeds: how many independent draws the samples are
    cut into, in their order (None: three, if there are as many): the spread beside each score is that between them (see Sweep); workers:
    processes for the stages that need no model; progress is told how many samples are done.
    -> Sweep.   Raises SettingsError for a knob or value that does not exist or changes nothing at this stage, ValueError for tokens of
    another encoder or side, or without the attention that is asked for.

    >>> sweep(pipeline, kit.toy("val", 20), box_threshold=[.2, .4, .6])          # doctest: +SKIP
    """
    if workers < 1:
        raise ValueError(f"expected at least one worker, got {workers}")
    seeds = min(DRAWS, max(1, len(data))) if seeds is None else seeds
    if not 1 <= seeds <= len(data):
        raise ValueError(f"expected seeds to be from 1 to {len(data)}, the number of samples, got {seeds}: take fewer, or more samples")
    knobs = {name.replace("__", "."): knob_values(pipeline, name, values) for name, values in knobs.items()}
    variants = _variants(pipeline, knobs, stage)
    if isinstance(data, DataSet):
        data = encode_all(pipeline, data, layers=layers_of(variants))
    data.check(pipeline)

    tallies = [Tally(data.classes) for _ in range(seeds)]
    parts = np.array_split(np.arange(len(data)), seeds)
    part_of = {int(index): part for part, indices in enumerate(parts) for index in indices}
    first = next(((index, *pair) for index, pair in enumerate(data.pairs()) if pair[1] is not None), None)
    kept_of_first = Kept()
    if first is not None:
        stage = _measured_stage(variants, knobs, stage, *first[1:], kept_of_first)
    sent = [
        workers > 1 and stage in (None, *(each.name for each in variant.left)) and bool(variant.left) and can_be_sent(variant)
        for variant in variants
    ]

    def begun() -> Iterator[tuple[tuple[int, int], WorkerJob | None]]:
        for index, (sample, tokens) in enumerate(data.pairs()):
            is_first = first is not None and index == first[0]
            kept, tokens = (kept_of_first, first[2]) if is_first else (Kept(), tokens)
            for row, (variant, send) in enumerate(zip(variants, sent, strict=True)):
                if tokens is None:  # nothing to ask for: all is background
                    tallies[part_of[index]].add(row, sample, np.zeros(sample.truth.shape, np.uint8))
                    yield (index, row), None
                    continue
                driver = variant.driver(sample, tokens, until=stage, kept=kept)
                last = _run(driver, worker=not send)
                result = driver.result(variant, sample.image.shape[:2])
                if not send:
                    tallies[part_of[index]].add(row, sample, labels_of_size(result.scores_of(last), sample.truth.shape))
                yield (index, row), WorkerJob.of(result, sample.image) if send else None

    for (index, row), done in finished(begun(), workers if any(sent) else 1):
        if done is not None:
            sample, maps = data.samples[index], done[0]
            planes = torch.from_numpy(maps[stage] if stage else [*maps.values()][-1])
            scores = scores_with_background(planes, len(sample.names), variants[row].settings.background_power)
            tallies[part_of[index]].add(row, sample, labels_of_size(scores, sample.truth.shape))
        if progress and row == len(variants) - 1:
            progress(index + 1)

    total, scores = functools.reduce(operator.add, tallies).scores(), [tally.scores() for tally in tallies]
    settings, changed = pipeline.settings.flat(), pipeline.unlike_the_paper(data.classes)
    return Sweep(
        method=pipeline.name,
        knobs=knobs,
        rows=tuple(
            SweepRow(
                values={name: variant.settings.value(name) for name in knobs},
                stage=stage or [*variant.titles][-1],
                score=total[row],
                draws=tuple(part[row] for part in scores),
            )
            for row, variant in enumerate(variants)
        ),
        split=data.split,
        images=len(data),
        images_two_or_more=sum(tally.images_two_or_more for tally in tallies),
        draws=tuple(map(len, parts)),
        classes=("background", *data.classes),
        model=pipeline.clip.name,
        settings={name: value for name, value in settings.items() if name not in knobs},
        changed={name: value for name, value in changed.items() if name not in knobs},
    )


def knob_values(pipeline: Pipeline, name: str, values: Sequence) -> tuple:
    """A knob's values, each checked as the setting it is.   Raises SettingsError for a knob or value that does not exist."""
    dotted = name.replace("__", ".")
    if dotted in FIXED:
        raise SettingsError(f"{dotted} cannot be varied in a sweep: {FIXED[dotted]}")
    if dotted not in (known := type(pipeline.settings).described()):
        raise SettingsError(f"unknown setting {dotted}: {pipeline.method.name} has {', '.join(known)}")
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise SettingsError(f"expected a list of values for {dotted}, got {values!r}: write {name}=[{values!r}]")
    checked = tuple(pipeline.changed(**{dotted: value}).settings.value(dotted) for value in values)
    if not checked:
        raise SettingsError(f"expected at least one value for {dotted}, got none")
    if again := [value for number, value in enumerate(checked) if value in checked[:number]]:
        raise SettingsError(f"expected every value of {dotted} once, got {again[0]!r} again")
    return checked


def _variants(pipeline: Pipeline, knobs: Mapping[str, tuple], stage: str | None) -> list[Pipeline]:
    """The pipeline once for every value, or pair of values, the first knob outside."""
    if not 1 <= len(knobs) <= 2:
        known = ", ".join(type(pipeline.settings).described())
        raise SettingsError(
            f"expected one or two settings to vary, got {len(knobs)}{': ' if knobs else ''}{', '.join(knobs)}; "
            f"{pipeline.method.name} has {known}"
        )
    variants = [pipeline.changed(**dict(zip(knobs, values, strict=True))) for values in itertools.product(*knobs.values())]
    for variant in variants:
        if stage is not None and stage not in variant.titles:
            raise SettingsError(
                f"expected stage to be one of {', '.join(variant.titles)}, got {stage!r}: with these settings there is no other"
            )
    return variants


def _run(driver: Driver, *, worker: bool = True) -> str:
    """The name of the last stage that was shown."""
    *_, last = (stage.name for stage in driver.steps(worker=worker) if stage.is_shown)
    return last


def _measured_stage(
    variants: Sequence[Pipeline], knobs: Mapping[str, tuple], stage: str | None, sample: Sample, tokens: Tokens, kept: Kept
) -> str | None:
    """Which stage to measure: the one asked for, else each row's last one (None), or the last one of all rows that the knobs reach.

    Tried on one picture.   Raises SettingsError if nothing that leads to the stage reads a knob.
    """
    drivers = [variant.driver(sample, tokens, until=stage, kept=kept) for variant in variants]
    lasts = [_run(driver) for driver in drivers]
    read = set().union(*(driver.behind(last) for driver, last in zip(drivers, lasts, strict=True)))
    if knobs.keys() <= read:
        return stage
    common = [name for name in reversed(variants[0].titles) if all(name in variant.titles for variant in variants)]
    for earlier in common if stage is None else ():
        if knobs.keys() <= set().union(*(driver.behind(earlier) for driver in drivers)):
            return earlier
    idle = next(name for name in knobs if name not in read)
    where = " or ".join(dict.fromkeys(lasts))
    raise SettingsError(f"{idle} changes nothing at stage {where} with these settings: nothing that leads to it reads this setting")


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


def _token_bytes(pipeline: Pipeline, sample: Sample, layers: int, half: bool, patches: dict[tuple[int, int], int]) -> int:
    """What this sample's tokens will take; pictures of one size have as many `patches`."""
    size = sample.image.shape[:2]
    if size not in patches:
        patches[size] = pipeline.prepared(sample.image)[0].numel() // pipeline.clip.patch**2
    count, width = 1 + patches[size], pipeline.clip.last_block().projection.shape[0]
    return 4 * count * width + (2 if half else 4) * layers * count**2


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if not math.isnan(value)]
    return (statistics.fmean(known) if known else math.nan), (statistics.stdev(known) if len(known) > 1 else math.nan)


def _plus_minus(spread: tuple[float, float]) -> str:
    return f"{percent(spread[0])} ± {percent(spread[1])}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _label(value: Any) -> str:
    """A knob's value in a table or under a curve."""
    if isinstance(value, tuple | dict) and len(value) > 4:
        return f"{next(iter(value))} ... ({len(value)} words)"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else shortened(value)
