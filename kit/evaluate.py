"""Methods, or masks that are there already, judged on a whole data set: mIoU, beside baselines, and controls that have to do worse."""

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from kit import mask
from kit.batches import BATCH, Encoded, can_be_sent, encoded, finished
from kit.data import DataError, DataSet, Sample
from kit.data.found import Files
from kit.data.labels import checked_labels, names_of_labels
from kit.images import read_labels, resized_labels
from kit.method import Comparison, Kept, Pipeline, Result, WorkerJob, labels_of_size, scores_with_background
from kit.settings import shortened
from kit.tables import aligned, none_if_nan, percent
from kit.vote import oracle_vote

if TYPE_CHECKING:
    import pandas

CERTAIN = 50  # pictures after which a truth without any class is no chance
MANY = 0.1  # the share of pictures from which on it is said that labels and truth differ; a few do everywhere
NAMED = 10  # pictures left out that a table names; JSON names all
ORACLE = "oracle"
ORACLE_TITLE = "oracle vote: knows the ground truth"


@dataclass(frozen=True)
class StageScore:
    """How well one stage's label maps agree with the ground truth, counted over the data set.

    mIoU and each class's IoU, 0..1 (nan: no truth shows the class); `miou_two_or_more` counts only the images with
    two or more classes (nan: there is none).   Raises ValueError for a score outside 0..1.
    """

    miou: float
    iou: dict[str, float]
    miou_two_or_more: float

    def __post_init__(self) -> None:
        wrong = [value for value in (self.miou, self.miou_two_or_more, *self.iou.values()) if not (math.isnan(value) or 0 <= value <= 1)]
        if wrong:
            raise ValueError(f"expected scores in 0..1, got {wrong[0]}; percent belongs into tables only")

    def to_dict(self) -> dict:
        """Plain values, None in the place of nan, which JSON does not know."""
        return {
            "miou": none_if_nan(self.miou),
            "iou": {name: none_if_nan(value) for name, value in self.iou.items()},
            "miou_two_or_more": none_if_nan(self.miou_two_or_more),
        }


@dataclass(frozen=True, eq=False)
class Measured:
    """One method's scores, or those of masks from elsewhere.

    stages in the table's order, each with its title, baselines before and controls behind the method's own; roles: stage -> baseline,
    control or oracle, for what is not the method's own; images: (id, stage) -> mIoU of that image over the classes it shows; about: what
    else stands in the JSON; remarks: the sentences under the table.
    """

    titles: dict[str, str]
    stages: dict[str, StageScore]
    roles: dict[str, str] = field(default_factory=dict)
    images: dict[tuple[str, str], float] = field(default_factory=dict)
    about: dict = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        return {**self.about, "stages": {stage: score.to_dict() for stage, score in self.stages.items()}}


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What label maps reached on a data set, and all that is needed to read the numbers rightly: a table that prints itself.

    classes: background first; labels_from: where the image-level labels come from; methods: name -> Measured; refused: (id, reason) of
    every picture left out; notes: what is doubtful about labels and truth.
    """

    data: str
    split: str
    labels_from: str
    classes: tuple[str, ...]
    images: int
    images_two_or_more: int
    methods: dict[str, Measured]
    refused: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.table()

    @property
    def stages(self) -> dict[str, StageScore]:
        """Those of the first method."""
        return next(iter(self.methods.values())).stages

    def to_frame(self, by: str = "stage") -> "pandas.DataFrame":
        """The scores, 0..1, as a table: by "stage" (mIoU over the data set), by "image" (mIoU of each) or by "class" (IoU).

        role: what a row is beside the method's own stages, a baseline, a control or an oracle.
        """
        import pandas

        rows = []
        for name, method in self.methods.items():
            for stage, score in method.stages.items():
                row = {"method": name, "stage": stage, "title": method.titles[stage], "role": method.roles.get(stage, "")}
                if by == "stage":
                    rows.append(row | {"miou": score.miou, "miou_two_or_more": score.miou_two_or_more})
                elif by == "class":
                    rows += [row | {"class": each, "iou": value} for each, value in score.iou.items()]
                elif by == "image":
                    rows += [{"image": id} | row | {"miou": value} for (id, own), value in method.images.items() if own == stage]
                else:
                    raise ValueError(f"expected by to be stage, image or class, got {by!r}")
        return pandas.DataFrame(rows)

    def to_dict(self) -> dict:
        """Plain values, ready for JSON: scores 0..1; several methods stand by name under "methods"."""
        parts = {name: method.to_dict() for name, method in self.methods.items()}
        return {
            "data": self.data,
            "split": self.split,
            "labels_from": self.labels_from,
            "images": self.images,
            "images_two_or_more": self.images_two_or_more,
            "classes": list(self.classes),
            **(next(iter(parts.values())) if len(parts) == 1 else {"methods": parts}),
            "notes": list(self.notes),
            "refused": [{"id": name, "reason": reason} for name, reason in self.refused],
        }

    def table(self) -> str:
        """The numbers as text, mIoU in percent, with the lines that say what they are numbers of."""
        several = len(self.methods) > 1
        rows = [("mIoU in percent", "all", "two or more classes")]
        for name, method in self.methods.items():
            rows += [(f"{name}:", "", "")] * several
            rows += [
                ("  " * several + method.titles[stage], percent(score.miou), percent(score.miou_two_or_more))
                for stage, score in method.stages.items()
            ]
        shown = sum(not math.isnan(value) for value in next(iter(self.stages.values())).iou.values())
        place = f"Split {self.split} of {self.data}" if self.split else f"Data set {self.data}"
        return "\n".join([
            *aligned(rows),
            "",
            f"{place}: {self.images:,} images, {self.images_two_or_more:,} with two or more classes; labels: {self.labels_from}.",
            f"Mean over the {shown} of {len(self.classes)} classes that the truth shows, background among them; "
            f"pixels of truth {mask.IGNORE} are left out.",
            *(f"{name}: {remark}" if several else remark for name, method in self.methods.items() for remark in method.remarks),
            *(f"Note: {note}." for note in self.notes),
            *self._refusals(),
        ])  # fmt: skip

    def per_class(self) -> str:
        """IoU of every class in percent, a column a stage; a dash where the truth does not show the class."""
        several = len(self.methods) > 1
        scores = {
            f"{name} {stage}" if several else stage: score
            for name, method in self.methods.items() for stage, score in method.stages.items()
        }  # fmt: skip
        rows = [[name, *(percent(score.iou[name]) for score in scores.values())] for name in self.classes]
        means = ["mean", *(percent(score.miou) for score in scores.values())]
        return "\n".join(aligned([["IoU in percent", *(f"{stage:>5}" for stage in scores)], *rows, means]))

    def _refusals(self) -> list[str]:
        if not self.refused:
            return []
        named = [f"  {name}: {reason}" for name, reason in self.refused[:NAMED]]
        more = len(self.refused) - len(named)
        return [f"Left out, because they could not be used: {len(self.refused):,}.", *named, *[f"  and {more:,} more"][: more > 0]]


def evaluate(
    pipelines: Pipeline | Sequence[Pipeline],
    data: DataSet,
    *,
    control: bool = True,
    skip_bad: bool = False,
    workers: int = 1,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Every stage's label maps against the ground truth, counted over the data set; a picture's own labels say what it is asked for.

    pipelines: one, or several that share the encoder's passes; control: whether what each method is compared with is measured too (its
    baselines and its controls) and, where masks vote, the best that they allow; skip_bad: pictures that cannot be used are left out and
    named; workers: processes for the stages that need no model, 1 = this one (more need a script guarded by `if __name__ == "__main__"`);
    batch: images of one size that are encoded together; progress is told how many pictures are done.
    -> Evaluation.   Raises ValueError for a picture without truth, for one that cannot be used, and if there is none.
    """
    if workers < 1 or batch < 1:
        raise ValueError(f"expected at least one worker and one image a batch, got {workers} and {batch}")
    check_truth(data, skip_bad=skip_bad)
    tally, refused, believed = Tally(data.classes), list(data.refused), Believed(data.classes)
    asked = [
        _Asked(name, pipeline, tally, data.classes if control else (), sent=workers > 1 and can_be_sent(pipeline))
        for name, pipeline in named([pipelines] if isinstance(pipelines, Pipeline) else pipelines).items()
    ]
    everyone = [each.pipeline for each in asked] + [other.pipeline for each in asked for other in each.comparisons.values()]
    samples = scorable_samples(data, refuse=(lambda *bad: refused.append(bad)) if skip_bad else None)

    def begun() -> Iterator[tuple[tuple[_Asked | None, Sample], WorkerJob | None]]:
        for sample, tokens, spent in encoded(everyone, samples, batch):
            believed.add(sample.id, sample.names, sample.truth, sample.notes)
            if tokens is None:  # tags that name no class leave nothing to ask for
                tally.add_background(sample)
            for each in asked if tokens is not None else ():
                yield (each, sample), each.begin(sample, tokens, spent)
            yield (None, sample), None

    count = 0
    for (each, sample), done in finished(begun(), workers if any(each.sent for each in asked) else 1):
        if done is not None:
            each.finish(sample, *done)
        count += each is None
        if progress and each is None:
            progress(count + len(refused) - len(data.refused))
    check_scored(tally, refused)
    believed.check()
    scores = tally.scores()
    return Evaluation(
        data=data.name,
        split=data.split,
        labels_from=data.labels_from,
        classes=tally.names,
        images=tally.images,
        images_two_or_more=tally.images_two_or_more,
        methods={each.name: each.measured(data, scores) for each in asked},
        refused=tuple(refused),
        notes=(*data.notes, *believed.notes()),
    )


def named(pipelines: Sequence[Pipeline]) -> dict[str, Pipeline]:
    """Pipelines by a name for the table: the method's, with the settings in which it differs from the first one of that name."""
    found: dict[str, Pipeline] = {}
    for pipeline in pipelines:
        name = pipeline.name
        if name in found:
            unlike = [f"{own} = {shortened(value)}" for own, value in pipeline.settings.unlike(found[name].settings).items()]
            if pipeline.learned is not found[name].learned:
                unlike.append("hand-crafted prompts" if pipeline.learned is None else f"learned {pipeline.learned.fingerprint}")
            name += f" ({', '.join(unlike)})" if unlike else ""
        if name in found:
            raise ValueError(f"expected pipelines that differ, got {name} twice")
        found[name] = pipeline
    if not found:
        raise ValueError("expected at least one method to evaluate, got none")
    return found


class _Asked:
    """One method on its way through the data set."""

    def __init__(self, name: str, pipeline: Pipeline, tally: "Tally", beside: Sequence[str], *, sent: bool):
        """beside: the classes for what it is compared with, empty for no comparison; sent: whether another process does the rest."""
        self.name, self.pipeline, self.tally, self.sent = name, pipeline, tally, sent
        self.comparisons: dict[str, Comparison] = pipeline.compared(beside) if beside else {}
        self.has_oracle = bool(beside)
        self.seconds: dict[str, float] = {"encode": 0.0}
        self.sources: set[str] = set()

    def begin(self, sample: Sample, tokens: Encoded, spent: float) -> WorkerJob | None:
        """All that needs the model; what is left for another process."""
        own, kept = tokens[self.pipeline.key], Kept()
        *_, result = self.pipeline.steps(sample, tokens=own, kept=kept, worker=not self.sent)
        self._count(sample, result)
        self._spend(result.seconds | {"encode": spent})
        for name, comparison in self.comparisons.items():
            *_, other = comparison.pipeline.steps(sample, tokens=tokens[comparison.pipeline.key], kept=kept)
            self._add(name, sample, other.labels.cpu().numpy())
        if result.proposals is not None:
            self.sources.add(result.proposals.source)
            if self.has_oracle:
                size = tuple(result.proposals.masks.shape[1:])
                best = oracle_vote(resized_labels(sample.truth, size), result.proposals).labels.to(torch.uint8).numpy()
                ids = resized_labels(best, sample.truth.shape)
                self.tally.count((self.name, ORACLE), sample.truth, ids, several=len(sample.names) >= 2, id=sample.id)
        return WorkerJob.of(result, sample.image) if self.sent else None

    def finish(self, sample: Sample, maps: Mapping[str, np.ndarray], seconds: Mapping[str, float]) -> None:
        """What another process made of the rest."""
        for stage, planes in maps.items():
            scores = scores_with_background(torch.from_numpy(planes), len(sample.names), self.pipeline.settings.background_power)
            self._add(stage, sample, labels_of_size(scores, sample.truth.shape))
        self._spend(seconds)

    def measured(self, data: DataSet, scores: Mapping[Hashable, StageScore]) -> Measured:
        order = [
            *(name for name, comparison in self.comparisons.items() if not comparison.control),
            *self.pipeline.titles,
            ORACLE,
            *(name for name, comparison in self.comparisons.items() if comparison.control),
        ]
        own = {stage: scores[self.name, stage] for stage in order if (self.name, stage) in scores}
        roles = {name: "control" if comparison.control else "baseline" for name, comparison in self.comparisons.items()}
        titles = {**{name: comparison.title for name, comparison in self.comparisons.items()}, ORACLE: ORACLE_TITLE, **self.pipeline.titles}
        about, remarks = self._words_about(data)
        last = own.get(list(self.pipeline.titles)[-1])
        better = [name for name in own if roles.get(name) == "control" and last is not None and own[name].miou > last.miou]
        remarks += tuple(
            f"The control does better than the method ({titles[name]}: {percent(own[name].miou)} against {percent(last.miou)}): either the "
            "labels or the numbers of the masks mean other classes, or the model does not know these."
            for name in better
        )
        return Measured(
            titles={stage: titles[stage] for stage in own} or self.pipeline.titles,
            stages=own or dict.fromkeys(self.pipeline.titles, self.tally.score_of_background()),
            roles={ORACLE: "oracle", **roles},
            images={(id, stage): miou for id, (name, stage), miou in self.tally.each if name == self.name},
            about=about,
            remarks=remarks,
        )

    def _add(self, stage: str, sample: Sample, labels: np.ndarray) -> None:
        self.tally.add((self.name, stage), sample, labels)

    def _count(self, sample: Sample, result: Result) -> None:
        for stage in result.stages:
            self._add(stage, sample, labels_of_size(result.scores_of(stage), sample.truth.shape))

    def _spend(self, seconds: Mapping[str, float]) -> None:
        """Adds the times; those of a stage that shows nothing to the next one that does."""
        self.seconds["encode"] += seconds.get("encode", 0.0)
        carried = 0.0
        for stage in self.pipeline.stages:
            carried += seconds.get(stage.name, 0.0)
            if stage.shows and stage.name in seconds:
                self.seconds[stage.name] = self.seconds.get(stage.name, 0.0) + carried
                carried = 0.0

    def _words_about(self, data: DataSet) -> tuple[dict, tuple[str, ...]]:
        """What else the JSON holds, and the sentences under the table."""
        pipeline, images = self.pipeline, self.tally.images
        seconds = {stage: spent / images for stage, spent in self.seconds.items()}
        changed, tuned = pipeline.unlike_the_paper(data.classes), pipeline.was_chosen_on(data.name, data.split)
        about = {
            "method": pipeline.method.name,
            "model": pipeline.clip.name,
            "precision": pipeline.clip.precision,
            "settings": pipeline.settings.to_dict(),
            "settings_unlike_the_paper": changed,
            "tuned_on_this_split": tuned,
            "seconds_per_image": seconds,
        }
        unlike = "; ".join(f"{name} = {shortened(value)}" for name, value in changed.items()) or "none"
        remarks = [f"Model {pipeline.clip.name}, {pipeline.clip.precision}; settings unlike the paper's: {unlike}."]
        if pipeline.code:
            about["code"] = pipeline.code
            remarks.append(f"Code that is not the kit's: {'; '.join(f'{name}: {code}' for name, code in pipeline.code.items())}.")
        if self.sources:
            about["proposals"] = sorted(self.sources)
            remarks.append(f"The masks that vote: {', '.join(sorted(self.sources))}.")
        if pipeline.learned is not None:
            about["learned"] = {"fingerprint": pipeline.learned.fingerprint, **pipeline.learned.about}
        remarks += [
            *filter(None, [pipeline.prompts_told()]),
            f"Seconds per image: {', '.join(f'{stage} {value:.3f}' for stage, value in seconds.items())}.",
            "Settings were chosen by the truth of this split: look for the honest number on another one."
            if tuned
            else "None of the kit's settings was tuned on this split's truth.",
        ]
        return about, tuple(remarks)


def evaluate_masks(
    folder: str | PathLike, data: DataSet, *, skip_bad: bool = False, progress: Callable[[int], None] | None = None
) -> Evaluation:
    """Label maps somebody wrote as PNGs, against the ground truth: ours, the official releases', any.

    folder: holds ID.png for every picture, or SegmentationClass/ID.png; labels as in the data set, 255 = uncertain. Two scores: over the
    pixels the masks are sure of, and with uncertain pixels taken as background; the share of uncertain pixels stands beside them.
    skip_bad and progress as in `evaluate`.   Raises ValueError for a mask that is missing, of another size or with other labels.
    """
    folder = Path(folder)
    folder = inside if (inside := folder / "SegmentationClass").is_dir() else folder
    if not folder.is_dir():
        raise ValueError(f"expected a folder of masks named ID.png, got {folder}, which is none; check the path")
    check_truth(data, skip_bad=skip_bad)
    tally, refused, believed, there = Tally(data.classes), list(data.refused), Believed(data.classes), Files(folder)
    judged = uncertain = 0
    for count, entry in enumerate(data.entries, start=1):
        try:
            truth = checked_truth(entry.truth(), data.classes, entry.id)
            labels = checked_mask(there.find(entry.id, (".png",)) or folder / f"{entry.id}.png", truth.shape, data.classes)
            names = entry.names()
        except ValueError as error:
            if not skip_bad:
                raise
            refused.append((entry.id, str(error)))
        else:
            several, unsure = len(names) >= 2, labels == mask.IGNORE
            believed.add(entry.id, names, truth)
            filled = np.where(unsure, 0, labels)
            tally.count("sure", np.where(unsure, mask.IGNORE, truth), filled, several=several, id=entry.id)
            tally.count("filled", truth, filled, several=several, id=entry.id)
            judged += np.count_nonzero(truth != mask.IGNORE)
            uncertain += np.count_nonzero(unsure & (truth != mask.IGNORE))
        if progress:
            progress(count)
    check_scored(tally, refused)
    believed.check()
    share = uncertain / judged if judged else math.nan
    scores, titles = tally.scores(), {"sure": "sure pixels only", "filled": "uncertain pixels as background"}
    remarks = [f"Masks: {folder}; no model was run.", "Whether anything was tuned on this truth, only those who made the masks can say."]
    if uncertain:
        remarks.append(
            f"Uncertain ({mask.IGNORE}) in the masks: {percent(share)} % of the judged pixels. To leave them out flatters the masks, "
            "to call them background is harsh: name the one you quote."
        )
    else:
        titles, scores = {"sure": "masks"}, {"sure": scores["sure"]}
    measured = Measured(
        titles=titles,
        stages=scores,
        images={(id, stage): miou for id, stage, miou in tally.each if stage in scores},
        about={"masks": str(folder), "uncertain": none_if_nan(share)},
        remarks=tuple(remarks),
    )
    return Evaluation(
        data=data.name,
        split=data.split,
        labels_from=data.labels_from,
        classes=tally.names,
        images=tally.images,
        images_two_or_more=tally.images_two_or_more,
        methods={"masks": measured},
        refused=tuple(refused),
        notes=(*data.notes, *believed.notes()),
    )


class Believed:
    """What the labels name and what the truth shows, of every picture: where the two contradict, one of them means other classes.

    Raises DataError, at the end or when it is certain, if the truth has pixels that are not judged in the place of all the classes named.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = classes
        self.named, self.shown, self.doubtful = Counter(), Counter(), defaultdict(list)
        self.has_unjudged = False
        self.pictures, self.unlike = 0, []  # (id, what it names, what its truth shows)

    def add(self, id: str, names: Sequence[str], truth: np.ndarray, notes: Sequence[str] = ()) -> None:
        seen = names_of_labels(truth, self.classes)
        self.pictures += 1
        self.named.update(names)
        self.shown.update(seen)
        self.has_unjudged |= bool((truth == mask.IGNORE).any())
        for note in notes:
            self.doubtful[note].append(id)
        if set(seen) != set(names):
            self.unlike.append((id, ", ".join(names) or "no class", ", ".join(seen) or "none"))
        if self.pictures == CERTAIN:
            self.check()

    def check(self) -> None:
        if self.named and self.has_unjudged and not self.shown:
            raise DataError(
                f"the truth of {self.pictures:,} pictures shows no class at all, though they name {self._few(self.named)}: in a mask 0 is "
                "background and 255 not judged, so an object has to be 1 or another class's number"
            )

    def notes(self) -> tuple[str, ...]:
        """In sentences without their full stop."""
        found = [f"{len(ids):,} of {self.pictures:,} pictures ({self._few(ids)}): {note}" for note, ids in self.doubtful.items()]
        if not self.shown:
            return (*found, "the truth shows no class at all: in its masks 0 is background, and 255 would be pixels that are not judged")
        if never := [name for name in self.named if name not in self.shown]:
            found.append(f"named and never shown by the truth: {self._few(never)}")
        if never := [name for name in self.shown if name not in self.named]:
            found.append(f"shown by the truth and never named: {self._few(never)}")
        if len(self.unlike) > MANY * self.pictures:
            id, names, seen = self.unlike[0]
            found.append(
                f"labels and truth differ in {len(self.unlike):,} of {self.pictures:,} pictures ({id or 'the first'} names {names}, its "
                f"truth shows {seen}): do the numbers in the masks mean these classes?"
            )
        return tuple(found)

    @staticmethod
    def _few(names: Iterable[str]) -> str:
        names = list(names)
        return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


class Tally:
    """Two confusions a stage: over all images, and over those with two or more classes.

    A stage is whatever is compared on the same images: a method's stage, or the value of a knob. It begins with its first image; images of
    which nothing is asked count at every stage. each: (id, stage, mIoU of that image).
    """

    def __init__(self, classes: tuple[str, ...]):
        from kit.score import Confusion  # here, so that processes that only refine need not load torchmetrics

        self.names = ("background", *classes)
        self._confusion = functools.partial(Confusion, self.names)
        self.everything, self.several = defaultdict(self._confusion), defaultdict(self._confusion)
        self.background = self._confusion()  # images of which nothing is asked have no class
        self.images = self.images_two_or_more = 0
        self.each: list[tuple[str, Hashable, float]] = []

    def add(self, stage: Hashable, sample: Sample, labels: np.ndarray) -> None:
        """Count one image.   labels (H, W) in 0..C, by the sample's own order of names."""
        ids = np.array([0, *(self.names.index(name) for name in sample.names)])[labels]
        self.count(stage, sample.truth, ids, several=len(sample.names) >= 2, id=sample.id)

    def count(self, stage: Hashable, truth: np.ndarray, ids: np.ndarray, *, several: bool, id: str = "") -> None:
        """Count one image whose labels are the data set's own.   truth and ids (H, W)."""
        one = self._confusion()
        one.add(truth, ids)
        self.each.append((id, stage, one.miou()))
        self.everything[stage] += one
        if several:
            self.several[stage] += one
        if stage == next(iter(self.everything)):  # every stage has the same images
            self.images += 1
            self.images_two_or_more += several

    def add_background(self, sample: Sample) -> None:
        """Count one image of which nothing is asked: at every stage all of it is background."""
        self.background.add(sample.truth, np.zeros(sample.truth.shape, np.uint8))
        self.images += 1

    def scores(self) -> dict[Hashable, StageScore]:
        """Each stage's score, in the order in which they began."""
        together = {stage: every + self.background for stage, every in self.everything.items()}
        return {stage: StageScore(every.miou(), every.iou(), self.several[stage].miou()) for stage, every in together.items()}

    def score_of_background(self) -> StageScore:
        """Of the images alone of which nothing is asked."""
        return StageScore(self.background.miou(), self.background.iou(), math.nan)

    def __add__(self, other: "Tally") -> "Tally":
        """Both together, as if all images had been added to one; both stay as they are."""
        total = Tally(self.names[1:])
        for name in ("everything", "several"):
            ours, theirs = getattr(self, name), getattr(other, name)
            getattr(total, name).update({stage: ours[stage] + theirs[stage] for stage in {**ours, **theirs}})
        total.background, total.each = self.background + other.background, self.each + other.each
        total.images, total.images_two_or_more = self.images + other.images, self.images_two_or_more + other.images_two_or_more
        return total


def check_truth(data: DataSet, *, skip_bad: bool = False) -> None:
    """Refuses, before the work, a data set in which pictures have no truth; with `skip_bad` only one in which none has."""
    without = [entry.id for entry in data.entries if entry.truth is None]
    if without and (not skip_bad or len(without) == len(data)):
        shown = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
        raise DataError(
            f"{len(without):,} of {len(data):,} pictures of {data.name} have no truth ({shown}): "
            "only pictures with a known answer can be scored"
        )


def check_scored(tally: "Tally", refused: Sequence[tuple[str, str]]) -> None:
    if not tally.images:
        first = f": {len(refused):,} could not be used, the first because {refused[0][1]}" if refused else ""
        raise ValueError(f"expected at least one picture to score, got none{first}")


def checked_truth(truth: np.ndarray, classes: Sequence[str], name: str) -> np.ndarray:
    """A truth as it is.   Raises ValueError for a label that is no class."""
    highest = int(np.where(truth == mask.IGNORE, 0, truth).max())
    if highest > len(classes):
        raise DataError(
            f"the truth of {name or 'a picture'}: expected labels 0 to {len(classes)} or {mask.IGNORE}, got {highest}; these numbers mean "
            "other classes"
        )
    return truth


def checked_mask(path: Path, size: tuple[int, ...], classes: Sequence[str]) -> np.ndarray:
    """A label map, read.   -> uint8 (H, W).   Raises ValueError for a file that is missing, of another size or of other classes."""
    file = read_labels(path)
    if file.labels.shape != size:
        found, wanted = (" x ".join(map(str, shape)) for shape in (file.labels.shape, size))
        raise DataError(f"{path}: expected {wanted} pixels like the truth, got {found}; is it another picture's mask, or a resized one?")
    return checked_labels(file, classes, path)


def scorable_samples(data: DataSet, *, refuse: Callable[[str, str], None] | None = None) -> Iterator[Sample]:
    """The data set's pictures with their truth, as they come; what cannot be scored raises ValueError or, with `refuse`, is told to it."""
    for entry in data.entries:
        try:
            (sample,) = checked_samples([entry.sample(truth=True)], data.classes)
        except ValueError as error:
            if refuse is None:
                raise
            refuse(entry.id, str(error))
        else:
            yield sample


def checked_samples(samples: Iterable[Sample], classes: tuple[str, ...]) -> Iterator[Sample]:
    """The samples as they come.   Raises ValueError for one without truth, or with a class or a label that is not in `classes`."""
    for sample in samples:
        if sample.truth is None:
            raise ValueError(
                f"expected samples with truth, got {sample.id or 'one'} without: only pictures with a known answer can be scored"
            )
        strange = [name for name in sample.names if name not in classes]
        if strange:
            shows = f"{sample.id or 'a sample'} shows {', '.join(strange)}"
            raise ValueError(f"{shows}, which is none of the {len(classes)} classes to score; give all of them in `classes`")
        checked_truth(sample.truth, classes, sample.id)
        yield sample
