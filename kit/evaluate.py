"""A method, or masks that are there already, judged on a whole data set: mIoU, beside a baseline and a control that has to do worse."""

import functools
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kit import mask, refine
from kit.data import DataError, DataSet, Sample
from kit.encode import Tokens
from kit.images import load_mask
from kit.jobs import BATCH_ATTENTION, WAITING, workers_pool
from kit.methods import Method
from kit.methods.fma_wsss import LearnedPrompts
from kit.methods.settings import shifted_words as shifted_words
from kit.propose import Proposals
from kit.vote import oracle_vote
from kit.words import COCO_CLASSES, VOC_CLASSES

BATCH = 16  # images a pass of the encoder
NAMED = 10  # pictures left out that a table names; JSON names all
Owner = TypeVar("Owner")  # whatever a job of the refiner belongs to

CONTROL, ORACLE = "control", "oracle"
ORACLE_TITLE = "oracle vote: knows the truth"


@dataclass(frozen=True)
class StageScore:
    """How well one stage's label maps agree with the truth, counted over the data set.

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


@dataclass(frozen=True)
class Evaluation:
    """What label maps reached on a data set, and all that is needed to read the numbers rightly.

    stages in order, each with its title in the table; classes: background first; labels_from: where the image-level labels come from;
    refused: (id, reason) of every picture left out; about: what else stands in the JSON (a method's settings, seconds and whether anything
    was tuned on the truth, or the folder of the masks); remarks: the sentences under the table.
    """

    data: str
    split: str
    labels_from: str
    classes: tuple[str, ...]
    images: int
    images_two_or_more: int
    titles: dict[str, str]
    stages: dict[str, StageScore]
    refused: tuple[tuple[str, str], ...] = ()
    about: dict = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """Plain values, ready for JSON: scores 0..1."""
        return {
            "data": self.data,
            "split": self.split,
            "labels_from": self.labels_from,
            "images": self.images,
            "images_two_or_more": self.images_two_or_more,
            "classes": list(self.classes),
            **self.about,
            "stages": {stage: score.to_dict() for stage, score in self.stages.items()},
            "refused": [{"id": name, "reason": reason} for name, reason in self.refused],
        }

    def table(self) -> str:
        """The numbers as text, mIoU in percent, with the lines that say what they are numbers of."""
        rows = [(self.titles[stage], percent(score.miou), percent(score.miou_two_or_more)) for stage, score in self.stages.items()]
        width = max(len("mIoU in percent"), *(len(title) for title, _, _ in rows))
        shown = sum(not math.isnan(value) for value in next(iter(self.stages.values())).iou.values())
        place = f"Split {self.split} of {self.data}" if self.split else f"Data set {self.data}"
        return "\n".join([
            f"{'mIoU in percent':<{width}}  {'all':>5}  two or more classes",
            *(f"{title:<{width}}  {everything:>5}  {several:>19}" for title, everything, several in rows),
            "",
            f"{place}: {self.images:,} images, {self.images_two_or_more:,} with two or more classes; labels: {self.labels_from}.",
            f"Mean over the {shown} of {len(self.classes)} classes that the truth shows, background among them; "
            f"pixels of truth {mask.IGNORE} are left out.",
            *self.remarks,
            *self._refusals(),
        ])  # fmt: skip

    def per_class(self) -> str:
        """IoU of every class in percent, a column a stage; a dash where the truth does not show the class."""
        width = max(map(len, (*self.classes, "IoU in percent")))
        columns = [max(len(stage), 5) for stage in self.stages]
        scores = {name: [percent(score.iou[name]) for score in self.stages.values()] for name in self.classes}
        lines = [("IoU in percent", list(self.stages)), *scores.items(), ("mean", [percent(score.miou) for score in self.stages.values()])]
        return "\n".join(
            "  ".join([f"{name:<{width}}", *(f"{cell:>{column}}" for cell, column in zip(cells, columns, strict=True))])
            for name, cells in lines
        )

    def _refusals(self) -> list[str]:
        if not self.refused:
            return []
        named = [f"  {name}: {reason}" for name, reason in self.refused[:NAMED]]
        more = len(self.refused) - len(named)
        return [f"Left out, because they could not be used: {len(self.refused):,}.", *named, *[f"  and {more:,} more"][: more > 0]]


def evaluate(
    method: Method,
    data: DataSet,
    *,
    tuned: bool = False,
    control: bool = True,
    skip_bad: bool = False,
    workers: int = 1,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Every stage's label maps against the truth, counted over the data set; a picture's own labels say what it is asked for.

    tuned: whether settings were chosen by the truth of these very pictures, for the report; control: whether the method's siblings (a
    baseline, and a control whose words are shifted by one class) are measured too, and where masks vote the best they allow; skip_bad:
    pictures that cannot be used are left out and named; workers: processes for the refiner, 1 = this one (more need a script guarded by
    `if __name__ == "__main__"`); batch: images of one size that are encoded together; progress is told how many pictures are done.
    -> Evaluation.   Raises ValueError for a picture without truth, for one that cannot be used, and if there is none.
    """
    if workers < 1 or batch < 1:
        raise ValueError(f"expected at least one worker and one image a batch, got {workers} and {batch}")
    check_truth(data, skip_bad=skip_bad)
    refiner = method.refiner if method.settings.refiner != "none" else None
    siblings = method.siblings(data.classes) if control else {}
    tally, seconds, sources, refused = Tally(data.classes), {"encode": 0.0}, set(), list(data.refused)

    def unrefined() -> Iterator[tuple[Sample, RefinerJob | None]]:
        samples = scorable_samples(data, refuse=(lambda *bad: refused.append(bad)) if skip_bad else None)
        for sample, tokens, spent in encoded_samples(method, samples, batch):
            seconds["encode"] += spent
            if tokens is None:  # tags that name no class leave nothing to ask for
                tally.add_background(sample)
                yield sample, None
                continue
            result = next(method.steps(sample, tokens=tokens))
            for stage in result.stages:
                tally.add(stage, sample, labels_of_size(method.scores_of(result, stage), sample.truth.shape))
            for stage, spent in result.seconds.items():
                if stage in result.stages or stage not in ("encode", *method.stages):
                    seconds[stage] = seconds.get(stage, 0.0) + spent
            if result.proposals is not None:
                sources.add(result.proposals.source)
            if control:
                _add_beside(tally, siblings, sample, tokens, result.proposals)
            scores = method.scores_of(result, stage=list(result.stages)[-1])
            job = RefinerJob(method.working_image(sample.image), scores.cpu().numpy(), sample.truth.shape, refiner)
            yield sample, None if refiner is None else job

    for count, (sample, refined) in enumerate(refined_jobs(unrefined(), 1 if refiner is None else workers), start=1):
        if refined is not None:
            labels, spent = refined
            tally.add("refined", sample, labels)
            seconds["refined"] = seconds.get("refined", 0.0) + spent
        if progress:
            progress(count + len(refused) - len(data.refused))
    check_scored(tally, refused)
    each = {stage: spent / tally.images for stage, spent in seconds.items()}
    about, remarks = _words_about(method, data, each, sorted(sources), tuned)
    scores = tally.scores() or dict.fromkeys(method.stages, tally.score_of_background())
    order = [*(name for name in siblings if name != CONTROL), *method.stages, ORACLE, CONTROL]
    return Evaluation(
        data=data.name,
        split=data.split,
        labels_from=data.labels_from,
        classes=tally.names,
        images=tally.images,
        images_two_or_more=tally.images_two_or_more,
        titles={**method.titles, ORACLE: ORACLE_TITLE},
        stages={stage: scores[stage] for stage in order if stage in scores},
        refused=tuple(refused),
        about=about,
        remarks=remarks,
    )


def _add_beside(tally: "Tally", siblings: Mapping[str, Method], sample: Sample, tokens: Tokens, proposals: Proposals | None) -> None:
    """What stands beside the method's own stages, of the same picture: its siblings, and what its masks allow at best."""
    shared = {} if proposals is None else {"proposals": proposals}
    for name, sibling in siblings.items():
        tally.add(name, sample, sibling.segment(sample, tokens=tokens, **shared).labels.cpu().numpy())
    if proposals is not None:
        size = tuple(proposals.masks.shape[1:])
        ids = oracle_vote(resized_labels(sample.truth, size), proposals).labels.to(torch.uint8).numpy()
        tally.count(ORACLE, sample.truth, resized_labels(ids, sample.truth.shape), several=len(sample.names) >= 2)


def _words_about(
    method: Method, data: DataSet, seconds: Mapping[str, float], sources: Sequence[str], tuned: bool
) -> tuple[dict, tuple[str, ...]]:
    """What else the JSON holds, and the sentences under the table.

    seconds: by stage, of one image; sources: who made the masks that vote.
    """
    values = method.settings.to_dict()
    changed = unlike_the_paper(type(method), values, data.classes)
    about = {
        "model": method.clip.name,
        "precision": method.clip.precision,
        "settings": values,
        "settings_unlike_the_paper": changed,
        "tuned_on_this_split": tuned,
        "seconds_per_image": dict(seconds),
    }
    remarks = [
        f"Model {method.clip.name}, {method.clip.precision}; settings unlike the paper's: "
        f"{'; '.join(f'{name} = {short(value)}' for name, value in changed.items()) or 'none'}."
    ]
    if sources:
        about["proposals"] = list(sources)
        remarks.append(f"The masks that vote: {', '.join(sources)}.")
    if method.learned is not None:
        about["learned"] = {"fingerprint": method.learned.fingerprint, **method.learned.about}
        remarks.append(learned_in_words(method.learned))
    elif hasattr(method, "fit"):
        remarks.append("The prompts are hand-written: nothing was learned.")
    remarks += [
        f"Seconds per image: {', '.join(f'{stage} {value:.3f}' for stage, value in seconds.items())}.",
        "Settings were chosen by the truth of this split: look for the honest number on another one."
        if tuned
        else "None of the kit's settings was tuned on this split's truth.",
    ]
    return about, tuple(remarks)


def evaluate_masks(
    folder: str | PathLike, data: DataSet, *, skip_bad: bool = False, progress: Callable[[int], None] | None = None
) -> Evaluation:
    """Label maps somebody wrote as PNGs, against the truth: ours, the official releases', any.

    folder: holds ID.png for every picture, or SegmentationClass/ID.png; labels as in the data set, 255 = uncertain. Two scores: over the
    pixels the masks are sure of, and with uncertain pixels taken as background; the share of uncertain pixels stands beside them.
    skip_bad and progress as in `evaluate`.   Raises ValueError for a mask that is missing, of another size or with other labels.
    """
    folder = Path(folder)
    folder = inside if (inside := folder / "SegmentationClass").is_dir() else folder
    if not folder.is_dir():
        raise ValueError(f"expected a folder of masks named ID.png, got {folder}, which is none; check the path")
    check_truth(data, skip_bad=skip_bad)
    tally = Tally(data.classes)
    refused = list(data.refused)
    judged = uncertain = 0
    for count, entry in enumerate(data.entries, start=1):
        try:
            truth = checked_truth(entry.truth(), data.classes, entry.id)
            labels = checked_mask(folder / f"{entry.id}.png", truth.shape, data.classes)
            several = len(entry.names()) >= 2
        except ValueError as error:
            if not skip_bad:
                raise
            refused.append((entry.id, str(error)))
        else:
            unsure = labels == mask.IGNORE
            tally.count("sure", np.where(unsure, mask.IGNORE, truth), np.where(unsure, 0, labels), several=several)
            tally.count("filled", truth, np.where(unsure, 0, labels), several=several)
            judged += np.count_nonzero(truth != mask.IGNORE)
            uncertain += np.count_nonzero(unsure & (truth != mask.IGNORE))
        if progress:
            progress(count)
    check_scored(tally, refused)
    share = uncertain / judged if judged else math.nan
    scores = tally.scores()
    remarks = (f"Masks: {folder}; no model was run.", "Whether anything was tuned on this truth, only those who made the masks can say.")
    if uncertain:
        titles = {"sure": "sure pixels only", "filled": "uncertain pixels as background"}
        remarks = (
            *remarks,
            f"Uncertain ({mask.IGNORE}) in the masks: {percent(share)} % of the judged pixels. To leave them out flatters the masks, "
            "to call them background is harsh: name the one you quote.",
        )
    else:
        titles, scores = {"sure": "masks"}, {"sure": scores["sure"]}
    return Evaluation(
        data=data.name,
        split=data.split,
        labels_from=data.labels_from,
        classes=tally.names,
        images=tally.images,
        images_two_or_more=tally.images_two_or_more,
        titles=titles,
        stages=scores,
        refused=tuple(refused),
        about={"masks": str(folder), "uncertain": none_if_nan(share)},
        remarks=remarks,
    )


def unlike_the_paper(kind: type[Method], settings: Mapping, classes: Sequence[str] = VOC_CLASSES) -> dict:
    """Those of a method's settings (plain values) that are not the paper's, for COCO where the classes are COCO's."""
    paper = kind.preset("coco" if set(COCO_CLASSES) <= set(classes) else "voc").to_dict()
    return {name: value for name, value in settings.items() if value != paper[name]}


def learned_in_words(learned: LearnedPrompts) -> str:
    """From what the prompts were learned, in a sentence."""
    about = learned.about
    split = f"split {about['split']} of " if about["split"] else ""
    return (
        f"Prompts ({', '.join(learned.contexts)}) learned from {about['images']:,} images of {split}{about['data']}, "
        f"labels: {about['labels_from']}; fingerprint {learned.fingerprint}."
    )


@dataclass(frozen=True)
class RefinerJob:
    """What a process of the refiner needs: a picture (h, w, 3), its scores (1 + C, h, w), and the size (H, W) of the labels wanted."""

    image: np.ndarray
    scores: np.ndarray  # not a tensor: torch would send it through shared memory, which containers keep small
    size: tuple[int, int]
    refiner: Callable[[np.ndarray, Tensor], Iterator[Tensor]]


class Tally:
    """Two confusions a stage: over all images, and over those with two or more classes.

    A stage is whatever is compared on the same images: a method's stage, or the value of a knob. It begins with its first image; images of
    which nothing is asked count at every stage.
    """

    def __init__(self, classes: tuple[str, ...]):
        from kit.score import Confusion  # here, so that the refiner's processes need not load torchmetrics

        self.names = ("background", *classes)
        self._confusion = functools.partial(Confusion, self.names)
        self.everything, self.several = defaultdict(self._confusion), defaultdict(self._confusion)
        self.background = self._confusion()  # images of which nothing is asked have no class
        self.images = self.images_two_or_more = 0

    def add(self, stage: Hashable, sample: Sample, labels: np.ndarray) -> None:
        """Count one image.   labels (H, W) in 0..C, by the sample's own order of names."""
        ids = np.array([0, *(self.names.index(name) for name in sample.names)])[labels]
        self.count(stage, sample.truth, ids, several=len(sample.names) >= 2)

    def count(self, stage: Hashable, truth: np.ndarray, ids: np.ndarray, *, several: bool) -> None:
        """Count one image whose labels are the data set's own.   truth and ids (H, W)."""
        self.everything[stage].add(truth, ids)
        if several:
            self.several[stage].add(truth, ids)
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
        total.background = self.background + other.background
        total.images, total.images_two_or_more = self.images + other.images, self.images_two_or_more + other.images_two_or_more
        return total


def check_truth(data: DataSet, *, skip_bad: bool = False) -> None:
    """Refuses, before the work, a data set in which pictures have no truth; with `skip_bad` only one in which none has."""
    without = [entry.id for entry in data.entries if entry.truth is None]
    if without and (not skip_bad or len(without) == len(data)):
        named = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
        raise DataError(
            f"{len(without):,} of {len(data):,} pictures of {data.name} have no truth ({named}): "
            "only pictures with a known answer can be scored"
        )


def check_scored(tally: "Tally", refused: Sequence[tuple[str, str]]) -> None:
    if not tally.images:
        first = f": {len(refused):,} could not be used, the first because {refused[0][1]}" if refused else ""
        raise ValueError(f"expected at least one picture to score, got none{first}")


def checked_truth(truth: np.ndarray, classes: Sequence[str], name: str) -> np.ndarray:
    """A truth as it is.   Raises ValueError for a label that is no class."""
    return _checked_labels(truth, classes, f"the truth of {name or 'a picture'}")


def checked_mask(path: Path, size: tuple[int, ...], classes: Sequence[str]) -> np.ndarray:
    """A label map, read.   -> uint8 (H, W).   Raises ValueError for a file that is missing, of another size or of other classes."""
    labels = load_mask(path)
    if labels.shape != size:
        found, wanted = (" x ".join(map(str, shape)) for shape in (labels.shape, size))
        raise DataError(f"{path}: expected {wanted} pixels like the truth, got {found}; is it another picture's mask, or a resized one?")
    return _checked_labels(labels, classes, str(path))


def _checked_labels(labels: np.ndarray, classes: Sequence[str], what: str) -> np.ndarray:
    highest = int(np.where(labels == mask.IGNORE, 0, labels).max())
    if highest > len(classes):
        raise DataError(f"{what}: expected labels 0 to {len(classes)} or {mask.IGNORE}, got {highest}; these numbers mean other classes")
    return labels


def scorable_samples(data: DataSet, *, refuse: Callable[[str, str], None] | None = None) -> Iterator[Sample]:
    """The data set's pictures with their truth, as they come; what cannot be scored raises ValueError or, with `refuse`, is told to it."""
    for entry in data.entries:
        try:
            sample = entry.sample(truth=True)
            (sample,) = checked_samples([sample], data.classes)
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


def encoded_samples(method: Method, samples: Iterable[Sample], batch: int) -> Iterator[tuple[Sample, Tokens | None, float]]:
    """Each sample with its tokens and the seconds these took; neighbours of one size go through the encoder together."""
    waiting: list[tuple[Sample, Tensor]] = []
    spent = 0.0

    def tokens_of_waiting() -> Iterator[tuple[Sample, Tokens, float]]:
        clock = time.perf_counter()
        tokens = method.clip.encode(torch.stack([pixels for _, pixels in waiting]))
        share = (spent + time.perf_counter() - clock) / len(waiting)
        for index, (sample, _) in enumerate(waiting):
            yield sample, tokens.image(index), share

    for sample in samples:
        if not sample.names:
            yield sample, None, 0.0
            continue
        clock = time.perf_counter()
        pixels = method.clip.prepare(method.working_image(sample.image), side=method.settings.side)
        took = time.perf_counter() - clock
        patches = pixels[0].numel() // method.clip.patch**2
        room = min(batch, max(1, BATCH_ATTENTION // (method.clip.layer_count * (1 + patches) ** 2)))
        if waiting and (len(waiting) >= room or pixels.shape != waiting[0][1].shape):
            yield from tokens_of_waiting()
            waiting, spent = [], 0.0
        waiting.append((sample, pixels))
        spent += took
    if waiting:
        yield from tokens_of_waiting()


def refined_jobs(jobs: Iterable[tuple[Owner, RefinerJob | None]], workers: int) -> Iterator[tuple[Owner, tuple[np.ndarray, float] | None]]:
    """Every job's owner in its order, with the refined labels and the seconds these took, where there was something to refine."""
    room = WAITING * workers if workers > 1 else 0  # what is done right here need not wait
    waiting: deque[tuple[Owner, Future | None]] = deque()

    def first() -> tuple[Owner, tuple[np.ndarray, float] | None]:
        owner, future = waiting.popleft()
        return owner, None if future is None else future.result()

    with workers_pool(workers) as pool:
        for owner, job in jobs:
            waiting.append((owner, None if job is None else pool.submit(_labels_of_job, job)))
            if len(waiting) > room:
                yield first()
        while waiting:
            yield first()


def _labels_of_job(job: RefinerJob) -> tuple[np.ndarray, float]:
    clock = time.perf_counter()
    *_, scores = job.refiner(job.image, torch.from_numpy(job.scores))
    return labels_of_size(scores, job.size), time.perf_counter() - clock


def labels_of_size(scores: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The label map of scores, at the truth's size.   (1 + C, h, w) -> uint8 (H, W) in 0..C."""
    scores = scores[None] if tuple(scores.shape[1:]) == tuple(size) else refine.upsampled(scores[None], size)
    return mask.label_map(scores)[0].to(torch.uint8).cpu().numpy()


def resized_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map at another size, each pixel that of the nearest one.   uint8 (h, w) -> (H, W)."""
    if labels.shape == size:
        return labels
    return np.array(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))


def none_if_nan(value: float) -> float | None:
    """For JSON, which knows no nan."""
    return None if math.isnan(value) else value


def percent(value: float) -> str:
    """0..1 as tables show it."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def short(value) -> str:
    """A setting's value in a few words."""
    if isinstance(value, list | dict) and len(value) > 4:
        return f"{len(value)} words"
    return "none" if value in ({}, [], None) else str(value)
