"""A method judged on a whole data set: the mIoU of every stage, beside a baseline and a control that has to do worse."""

import dataclasses
import math
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kit import mask, refine
from kit.data import Sample
from kit.encode import Tokens
from kit.methods.clip_es import ClipEs, ClipEsSettings, refined_scores
from kit.words import VOC_CLASSES

BATCH = 16  # images a pass of the encoder
BATCH_ATTENTION = 2**26  # numbers in a batch's attention maps at most: a quarter of a gigabyte
Owner = TypeVar("Owner")  # whatever a job of the refiner belongs to
WAITING = 4  # pictures that may wait in memory for each process of the refiner

CAM_TITLES = {"softmax": "softmax Grad-CAM", "plain": "plain Grad-CAM", "similarity": "similarity map"}
REFINER_TITLES = {"crf": "+ CRF", "pixel-adaptive": "+ pixel-adaptive refinement"}


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
    """What a method reached on a data set, and all that is needed to read the numbers rightly.

    stages in order: "plain" (the baseline), "cam", "affinity", the refiner's name, "control"; classes: background first;
    changed: the settings that are not the paper's; tuned: whether settings were chosen by the truth of these very images.
    """

    split: str
    images: int
    images_two_or_more: int
    classes: tuple[str, ...]
    model: str
    settings: dict
    changed: dict
    stages: dict[str, StageScore]
    seconds_per_image: dict[str, float]
    tuned: bool = False

    def to_dict(self) -> dict:
        """Plain values, ready for JSON: scores 0..1."""
        return {
            "split": self.split,
            "images": self.images,
            "images_two_or_more": self.images_two_or_more,
            "classes": list(self.classes),
            "model": self.model,
            "settings": self.settings,
            "settings_unlike_the_paper": self.changed,
            "tuned_on_this_split": self.tuned,
            "stages": {stage: score.to_dict() for stage, score in self.stages.items()},
            "seconds_per_image": self.seconds_per_image,
        }

    def table(self) -> str:
        """The numbers as text, mIoU in percent, with the lines that say what they are numbers of."""
        cam = CAM_TITLES[self.settings["cam"]]
        titles = {"plain": "plain Grad-CAM (baseline)", "cam": cam, "affinity": "+ affinity", **REFINER_TITLES}
        titles["control"] = f"control: words shifted by one class ({cam})"
        rows = [(titles[stage], percent(score.miou), percent(score.miou_two_or_more)) for stage, score in self.stages.items()]
        width = max(len("mIoU in percent"), *(len(title) for title, _, _ in rows))
        shown = sum(not math.isnan(value) for value in next(iter(self.stages.values())).iou.values())
        changed = "; ".join(f"{name} = {short(value)}" for name, value in self.changed.items())
        seconds = ", ".join(f"{stage} {value:.3f}" for stage, value in self.seconds_per_image.items())
        return "\n".join([
            f"{'mIoU in percent':<{width}}  {'all':>5}  two or more classes",
            *(f"{title:<{width}}  {everything:>5}  {several:>19}" for title, everything, several in rows),
            "",
            f"Split {self.split}: {self.images:,} images, {self.images_two_or_more:,} with two or more classes; model {self.model}.",
            f"Mean over the {shown} of {len(self.classes)} classes that the truth shows, background among them; "
            f"pixels of truth {mask.IGNORE} are left out.",
            f"Settings unlike the paper's: {changed or 'none'}.",
            f"Seconds per image: {seconds}.",
            "Settings were chosen by the truth of this split: look for the honest number on another one."
            if self.tuned
            else "None of the kit's settings was tuned on this split's truth.",
        ])  # fmt: skip


def evaluate(
    method: ClipEs,
    samples: Iterable[Sample],
    *,
    split: str = "",
    classes: tuple[str, ...] = VOC_CLASSES,
    tuned: bool = False,
    workers: int = 1,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Every stage's label maps against the truth, counted over the whole data set; a picture's own tags say which classes it is asked for.

    samples with truth, their names out of `classes` (label = index + 1); split and tuned are what the report says of them;
    workers: processes for the refiner, 1 = this one (more need a script guarded by `if __name__ == "__main__"`);
    batch: images of one size that are encoded together; progress is told how many images are done.
    -> Evaluation.   Raises ValueError for a sample without truth or with a class that is not in `classes`, and if there is no sample.
    """
    if workers < 1 or batch < 1:
        raise ValueError(f"expected at least one worker and one image a batch, got {workers} and {batch}")
    settings = method.settings
    siblings = {
        "plain": ClipEs(method.clip, settings, cam="plain", affinity=False, refiner="none"),
        "control": ClipEs(method.clip, settings, synonyms=shifted_words(classes, settings.synonyms), affinity=False, refiner="none"),
    }
    has_refiner = settings.refiner != "none"
    stages = ["plain", "cam"] + ["affinity"] * settings.affinity + [settings.refiner] * has_refiner + ["control"]
    tally = Tally(classes, stages)
    timed = ["encode", "text", "cam"] + ["affinity"] * settings.affinity + [settings.refiner] * has_refiner
    seconds = dict.fromkeys(timed, 0.0)

    def unrefined() -> Iterator[tuple[Sample, RefinerJob | None]]:
        for sample, tokens, spent in encoded_samples(method, checked_samples(samples, classes), batch):
            seconds["encode"] += spent
            if tokens is None:  # tags that name no class leave nothing to ask for: all is background
                for stage in stages:
                    tally.add(stage, sample, np.zeros(sample.truth.shape, np.uint8))
                yield sample, None
                continue
            result = next(method.steps(sample, tokens=tokens))
            for stage in seconds.keys() & {"text", "cam", "affinity"}:
                seconds[stage] += result.seconds[stage]
            for stage in result.stages:
                tally.add(stage, sample, labels_of_size(method.scores_of(result, stage), sample.truth.shape))
            for stage, sibling in siblings.items():
                tally.add(stage, sample, sibling.segment(sample, tokens=tokens).labels.cpu().numpy())
            scores = method.scores_of(result, stage=list(result.stages)[-1])
            job = RefinerJob(method.working_image(sample.image), scores.cpu().numpy(), sample.truth.shape, settings)
            yield sample, job if has_refiner else None

    for count, (sample, refined) in enumerate(refined_jobs(unrefined(), workers if has_refiner else 1), start=1):
        if refined is not None:
            labels, spent = refined
            tally.add(settings.refiner, sample, labels)
            seconds[settings.refiner] += spent
        if progress:
            progress(count)
    if not tally.images:
        raise ValueError("expected at least one sample to evaluate, got none")

    values = settings.to_dict()
    return Evaluation(
        split=split,
        images=tally.images,
        images_two_or_more=tally.images_two_or_more,
        classes=tally.names,
        model=method.clip.name,
        settings=values,
        changed=unlike_the_paper(values),
        stages=tally.scores(),
        seconds_per_image={stage: spent / tally.images for stage, spent in seconds.items()},
        tuned=tuned,
    )


def unlike_the_paper(settings: Mapping) -> dict:
    """Those of the settings (plain values) that are not the paper's."""
    paper = ClipEsSettings().to_dict()
    return {name: value for name, value in settings.items() if value != paper[name]}


def shifted_words(classes: tuple[str, ...], words: Mapping[str, str]) -> dict[str, str]:
    """Each class with the words of the class after it: a method that listens to its words must do badly with them.

    >>> shifted_words(("cat", "dog"), {"dog": "dog hound"})
    {'cat': 'dog hound', 'dog': 'cat'}
    """
    following = (*classes[1:], classes[0])
    return {name: words.get(other, other) for name, other in zip(classes, following, strict=True)}


@dataclass(frozen=True)
class RefinerJob:
    """What a process of the refiner needs: a picture (h, w, 3), its scores (1 + C, h, w), and the size (H, W) of the labels wanted."""

    image: np.ndarray
    scores: np.ndarray  # not a tensor: torch would send it through shared memory, which containers keep small
    size: tuple[int, int]
    settings: ClipEsSettings


class Tally:
    """Two confusions a stage: over all images, and over those with two or more classes.

    `stages` are whatever is compared on the same images: a method's stages, or the values of a knob.
    """

    def __init__(self, classes: tuple[str, ...], stages: Sequence[Hashable]):
        from kit.score import Confusion  # here, so that the refiner's processes need not load torchmetrics

        self.names = ("background", *classes)
        self.everything = {stage: Confusion(self.names) for stage in stages}
        self.several = {stage: Confusion(self.names) for stage in stages}
        self._counted = stages[0]
        self.images = self.images_two_or_more = 0

    def add(self, stage: Hashable, sample: Sample, labels: np.ndarray) -> None:
        """Count one image.   labels (H, W) in 0..C, by the sample's own order of names."""
        several = len(sample.names) >= 2
        ids = np.array([0, *(self.names.index(name) for name in sample.names)])[labels]
        self.everything[stage].add(sample.truth, ids)
        if several:
            self.several[stage].add(sample.truth, ids)
        if stage == self._counted:
            self.images += 1
            self.images_two_or_more += several

    def scores(self) -> dict[Hashable, StageScore]:
        return {stage: StageScore(every.miou(), every.iou(), self.several[stage].miou()) for stage, every in self.everything.items()}

    def __add__(self, other: "Tally") -> "Tally":
        """Both together, as if all images had been added to one; both stay as they are."""
        total = Tally(self.names[1:], list(self.everything))
        total.everything = {stage: confusion + other.everything[stage] for stage, confusion in self.everything.items()}
        total.several = {stage: confusion + other.several[stage] for stage, confusion in self.several.items()}
        total.images, total.images_two_or_more = self.images + other.images, self.images_two_or_more + other.images_two_or_more
        return total


def checked_samples(samples: Iterable[Sample], classes: tuple[str, ...]) -> Iterator[Sample]:
    """The samples as they come.   Raises ValueError for one without truth or with a class that is not in `classes`."""
    for sample in samples:
        if sample.truth is None:
            raise ValueError(
                f"expected samples with truth, got {sample.id or 'one'} without: only pictures with a known answer can be scored"
            )
        strange = [name for name in sample.names if name not in classes]
        if strange:
            shows = f"{sample.id or 'a sample'} shows {', '.join(strange)}"
            raise ValueError(f"{shows}, which is none of the {len(classes)} classes to score; give all of them in `classes`")
        yield sample


def encoded_samples(method: ClipEs, samples: Iterable[Sample], batch: int) -> Iterator[tuple[Sample, Tokens | None, float]]:
    """Each sample with its tokens and the seconds these took; neighbours of one size go through the encoder together."""
    waiting: list[tuple[Sample, Tensor]] = []
    spent = 0.0

    def tokens_of_waiting() -> Iterator[tuple[Sample, Tokens, float]]:
        clock = time.perf_counter()
        tokens = method.clip.encode(torch.stack([pixels for _, pixels in waiting]))
        share = (spent + time.perf_counter() - clock) / len(waiting)
        for index, (sample, _) in enumerate(waiting):
            yield sample, _of_image(tokens, index), share

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


def _of_image(tokens: Tokens, index: int) -> Tokens:
    """One image of a batch, as a batch of one."""
    one = slice(index, index + 1)
    return dataclasses.replace(tokens, last_input=tokens.last_input[one], attention=tokens.attention[one])


def refined_jobs(jobs: Iterable[tuple[Owner, RefinerJob | None]], workers: int) -> Iterator[tuple[Owner, tuple[np.ndarray, float] | None]]:
    """Every job's owner in its order, with the refined labels and the seconds these took, where there was something to refine."""
    if workers == 1:
        yield from ((owner, None if job is None else _labels_of_job(job)) for owner, job in jobs)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))  # the other half of the cores is the refiner's
    # Spawned, not forked: a fork would copy torch's locks without the threads that hold them.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        waiting: deque = deque()

        def first() -> tuple[Owner, tuple[np.ndarray, float] | None]:
            owner, future = waiting.popleft()
            return owner, None if future is None else future.result()

        try:
            for owner, job in jobs:
                waiting.append((owner, None if job is None else pool.submit(_labels_of_job, job)))
                if len(waiting) > WAITING * workers:
                    yield first()
            while waiting:
                yield first()
        finally:
            torch.set_num_threads(threads)
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    torch.set_num_threads(1)  # one process a core: more threads would only stand in each other's way


def _labels_of_job(job: RefinerJob) -> tuple[np.ndarray, float]:
    clock = time.perf_counter()
    *_, scores = refined_scores(job.image, torch.from_numpy(job.scores), job.settings)
    return labels_of_size(scores, job.size), time.perf_counter() - clock


def labels_of_size(scores: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The label map of scores, at the truth's size.   (1 + C, h, w) -> uint8 (H, W) in 0..C."""
    scores = scores[None] if tuple(scores.shape[1:]) == tuple(size) else refine.upsampled(scores[None], size)
    return mask.label_map(scores)[0].to(torch.uint8).cpu().numpy()


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
