"""Pseudo masks of whole data sets on disk: in batches, resumable, shared out by torchrun."""

import io
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kit import mask, refine
from kit.data import DataError, DataSet, Entry, Sample
from kit.encode import Tokens
from kit.images import save_image, save_mask
from kit.jobs import BATCH_ATTENTION, WAITING, workers_pool
from kit.manifest import (
    MAPS,
    MASKS,
    OVERLAYS,
    Journal,
    begin_manifest,
    check_journals,
    description,
    file_of,
    is_file_name,
    merge_journals,
    open_folder,
    write_file,
)
from kit.methods import Method
from kit.shard import Shard

BATCH_PIXELS = 2**25  # of the pictures of a batch together: 100 MB of memory
READERS = 4  # threads that read pictures
AHEAD = 2  # batches that are read before they are needed
Made = TypeVar("Made")


class GenerateError(ValueError):
    """Pictures or numbers that masks cannot be made with, told in one sentence."""


@dataclass(frozen=True)
class Step:
    """What became of one picture.

    index: its place in the data set; state: "written", "kept" (it was there already) or "refused", then `why` says so;
    seconds: what it took, all stages together.
    """

    index: int
    id: str
    state: str
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """The work, cut: batches of places in the data set, and (place, reason) of pictures whose header is of no use."""

    batches: tuple[tuple[int, ...], ...]
    refused: tuple[tuple[int, str], ...]


def generate(
    method: Method,
    data: DataSet,
    out: str | os.PathLike,
    *,
    maps: bool = False,
    overlays: bool = False,
    batch: int = 16,
    workers: int = 1,
    restart: bool = False,
    skip_bad: bool = False,
    shard: Shard = Shard(),  # noqa: B008  frozen
    lock: AbstractContextManager | None = None,
) -> Iterator[Step]:
    """The pseudo mask of every picture as a file, a step at a time; closing the generator stops it, and what is done stays.

    out: gets SegmentationClass/ID.png (palette PNG of the picture's size: 0 background, 1.. the data set's classes, 255 uncertain),
    with `maps` maps/ID.npz (every stage as float16 at the size the method works at, `names` and their class `numbers`), with `overlays`
    overlays/ID.png, and manifest.json. batch: pictures encoded together at most; workers: processes that refine and write, 1 = this one.

    What is there already is kept, if the same method, settings, model, data set and batch made it; `restart` removes it first. Batches are
    cut from the whole list before anything else is known, so that a run that was killed and goes on makes the masks, byte for byte, of
    one that was not, on one machine. Only the attention the settings ask for is kept: where that is not every block's, the others are
    computed in another way and `method.segment` may differ in the last bits, hence in single pixels. `skip_bad`: pictures that cannot be
    used are refused one by one instead of stopping everything.
    lock: held while the model is asked, for those who share it, and free while a batch is refined and written.
    With a shard of several the processes may be on several machines: these have to share the file system `out` is on.

    Raises GenerateError, and with the first step ManifestError, ShardError, DataError or ImageError.
    """
    if batch < 1 or workers < 1:
        raise GenerateError(f"expected at least one picture a batch and one worker, got {batch} and {workers}")
    if not 1 <= len(data.classes) < mask.IGNORE or len(set(data.classes)) < len(data.classes):
        raise GenerateError(f"expected 1 to {mask.IGNORE - 1} classes, each once, got {len(data.classes)}: a palette PNG holds no more")
    _check_ids(data)
    kinds = (MASKS, *[MAPS] * maps, *[OVERLAYS] * overlays)
    return _steps(method, data, Path(out), kinds, batch, workers, restart, skip_bad, shard, lock or nullcontext())


def planned(method: Method, data: DataSet, *, batch: int = 16, skip_bad: bool = False) -> Plan:
    """Batches of pictures that are of one size once they are prepared, in the data set's order, read from the headers alone.

    A batch has `batch` pictures at most, fewer where its attention maps or pixels would fill the memory; it depends on nothing but the
    pictures' sizes, the settings and `batch`.   Raises DataError, ImageError or ClipError for a picture that cannot be used, unless
    `skip_bad`.
    """
    layers, side = len(method.blocks()), method.settings.side

    def grid_and_pixels(entry: Entry) -> tuple[tuple[int, int], int] | str:
        try:
            size = entry.size()
            return method.clip.grid(method.working_size(size), side=side), size[0] * size[1]
        except ValueError as error:
            if not skip_bad:
                raise _about(entry, error) from error
            return str(_about(entry, error))

    with ThreadPoolExecutor(READERS) as pool:
        answers = list(pool.map(grid_and_pixels, data.entries))
    batches, refused = [], []
    open_batches: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for index, answer in enumerate(answers):
        if isinstance(answer, str):
            refused.append((index, answer))
            continue
        grid, pixels = answer
        tokens = 1 + grid[0] * grid[1]
        room = min(batch, max(1, BATCH_ATTENTION // (layers * tokens**2)))
        members, sizes = open_batches.setdefault(grid, ([], []))
        if members and (len(members) >= room or sum(sizes) + pixels > BATCH_PIXELS):
            batches.append(tuple(members))
            members.clear()
            sizes.clear()
        members.append(index)
        sizes.append(pixels)
    batches += [tuple(members) for members, _ in open_batches.values()]
    return Plan(tuple(sorted(batches)), tuple(refused))


def _steps(
    method: Method,
    data: DataSet,
    out: Path,
    kinds: tuple[str, ...],
    batch: int,
    workers: int,
    restart: bool,
    skip_bad: bool,
    shard: Shard,
    lock: AbstractContextManager,
) -> Iterator[Step]:
    with shard.together():

        def begun() -> Plan:
            made_with = description(method, data, batch)
            open_folder(out, made_with, data, restart)
            plan = planned(method, data, batch=batch, skip_bad=skip_bad)
            begin_manifest(out, made_with, data, method, workers, shard.world)
            for kind in kinds:
                (out / kind).mkdir(exist_ok=True)
            return plan

        plan = shard.agreed(begun)
        journal = Journal(out / f"manifest.rank{shard.rank}.jsonl")
        try:
            if shard.rank == 0:
                for index, why in plan.refused:
                    answer = Answer(index, data.entries[index].id, "refused", why=why)
                    journal.note(answer.id, answer.record())
                    yield answer.step()
            share = plan.batches[shard.rank :: shard.world]
            with closing(_answers(method, data, share, out, kinds, workers, skip_bad, journal, lock)) as answers:
                for answer in answers:
                    yield answer.step()
        finally:
            journal.close()
            if shard.world == 1:
                merge_journals(out)
        if shard.world > 1:
            torch.distributed.barrier()
            if shard.rank == 0:
                check_journals(out, shard.world)
                merge_journals(out)


@dataclass(frozen=True)
class Answer:
    """A step with what the manifest wants to know of it: seconds by stage, and the method's notes."""

    index: int
    id: str
    state: str
    seconds: dict[str, float] = field(default_factory=dict)
    why: str = ""
    notes: tuple[str, ...] = ()

    def step(self) -> Step:
        return Step(self.index, self.id, self.state, sum(self.seconds.values()), self.why)

    def record(self) -> dict:
        """Plain values; what is empty is left out."""
        seconds = {stage: round(spent, 4) for stage, spent in self.seconds.items()}
        everything = {"state": self.state, "why": self.why, "seconds": seconds, "notes": list(self.notes)}
        return {name: value for name, value in everything.items() if value}


@dataclass(frozen=True)
class MaskJob:
    """What is left to do of a picture, for a process without a model: refine, judge, write.

    image (h, w, 3) and scores (1 + C, h, w) at the size the method works at; stages: what goes into the maps' file; picture (H, W, 3):
    what goes under an overlay; size (H, W): the mask's; numbers: the C classes' labels; refiner: None if nothing is left to
    refine; files: kind -> path.   Arrays, not tensors: torch would send these through shared memory, which containers keep small.
    """

    answer: Answer
    image: np.ndarray
    scores: np.ndarray
    stages: dict[str, np.ndarray]
    picture: np.ndarray | None
    size: tuple[int, int]
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    refiner: Callable[[np.ndarray, Tensor], Iterator[Tensor]] | None
    confidence: float
    files: dict[str, Path]


@dataclass(frozen=True)
class Prepared:
    """A picture that was read: its pixels (3, h*patch, w*patch) as the encoder wants them, None where there is no class to ask for."""

    sample: Sample
    pixels: Tensor | None
    seconds: float


def _answers(
    method: Method,
    data: DataSet,
    batches: Sequence[tuple[int, ...]],
    out: Path,
    kinds: tuple[str, ...],
    workers: int,
    skip_bad: bool,
    journal: Journal,
    lock: AbstractContextManager,
) -> Iterator[Answer]:
    """One answer for each picture of the batches, in their order, noted in the journal."""
    waiting: deque[Future[Answer]] = deque()
    room = 0 if workers == 1 else WAITING * workers

    def first() -> Answer:
        answer = waiting[0].result()
        waiting.popleft()
        journal.note(answer.id, answer.record())
        return answer

    try:
        with workers_pool(workers) as pool, closing(_made(method, data, batches, out, kinds, skip_bad)) as everything:
            for name in data.classes:  # a prompt's last bits depend on those it is encoded with: the same ones, whichever picture is first
                with lock:
                    method.question((name,))
            for made in _locked(everything, lock):
                waiting.append(pool.submit(_written, made) if isinstance(made, MaskJob) else _as_future(made))
                if len(waiting) > room:
                    yield first()
            while waiting:
                yield first()
    finally:  # the masks that were under way when somebody stopped are there as well
        for future in waiting:
            if future.done() and not future.cancelled() and future.exception() is None:
                answer = future.result()
                journal.note(answer.id, answer.record())


def _locked(steps: Iterator[Made], lock: AbstractContextManager) -> Iterator[Made]:
    """The same steps, the lock held while one is made and free between two."""
    while True:
        with lock:
            made = next(steps, None)
        if made is None:
            return
        yield made


def _as_future(answer: Answer) -> Future[Answer]:
    future: Future[Answer] = Future()
    future.set_result(answer)
    return future


def _made(
    method: Method, data: DataSet, batches: Sequence[tuple[int, ...]], out: Path, kinds: tuple[str, ...], skip_bad: bool
) -> Iterator[Answer | MaskJob]:
    """What the model has to do, a batch at a time: an answer where that was all, else the job that is left."""
    with closing(_read_ahead(method, data, batches, out, kinds)) as ahead:
        for batch, missing, reads in ahead:
            yield from _made_of_batch(method, data, batch, missing, reads, skip_bad)


def _made_of_batch(
    method: Method,
    data: DataSet,
    batch: tuple[int, ...],
    missing: Mapping[int, dict[str, Path]],
    reads: Mapping[int, Future[Prepared]],
    skip_bad: bool,
) -> Iterator[Answer | MaskJob]:
    prepared: dict[int, Prepared] = {}
    refused: dict[int, str] = {}
    for index, read in reads.items():
        try:
            prepared[index] = read.result()
        except ValueError as error:
            if not skip_bad:
                raise
            refused[index] = str(error)
    asked = [index for index, picture in prepared.items() if picture.pixels is not None]
    if missing.keys() & set(asked):  # all of the batch, for a picture's mask must not depend on what is there already
        clock = time.perf_counter()
        tokens = method.clip.encode(torch.stack([prepared[index].pixels for index in asked]), layers=method.blocks())
        share = (time.perf_counter() - clock) / len(asked)
    for index in batch:
        entry = data.entries[index]
        if index not in missing:
            yield Answer(index, entry.id, "kept")
        elif index in refused:
            yield Answer(index, entry.id, "refused", why=refused[index])
        elif index not in asked:
            yield _background_job(prepared[index], index, missing[index], method)
        else:
            try:
                job = _job(prepared[index], index, missing[index], method, data, tokens.image(asked.index(index)), share)
            except ValueError as error:
                if not skip_bad:
                    raise _about(entry, error) from error
                yield Answer(index, entry.id, "refused", why=str(_about(entry, error)))
            else:
                yield job


def _read_ahead(
    method: Method, data: DataSet, batches: Sequence[tuple[int, ...]], out: Path, kinds: tuple[str, ...]
) -> Iterator[tuple[tuple[int, ...], dict[int, dict[str, Path]], dict[int, Future[Prepared]]]]:
    """Each batch with the files that are missing of it and, if any are, its pictures, read in threads while others are worked on."""
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque = deque()
        try:
            for batch in batches:
                files = {index: {kind: file_of(out, kind, data.entries[index].id) for kind in kinds} for index in batch}
                missing = {index: {kind: path for kind, path in of.items() if not _is_there(path)} for index, of in files.items()}
                missing = {index: of for index, of in missing.items() if of}
                reads = {index: pool.submit(_prepared, method, data, index) for index in batch} if missing else {}
                ahead.append((batch, missing, reads))
                if len(ahead) > AHEAD:
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            pool.shutdown(cancel_futures=True)


def _prepared(method: Method, data: DataSet, index: int) -> Prepared:
    clock = time.perf_counter()
    entry = data.entries[index]
    try:
        sample = entry.sample()
        if strange := [name for name in sample.names if name not in data.classes]:
            raise DataError(f"{entry.id} shows {', '.join(strange)}, which is none of the {len(data.classes)} classes of {data.name}")
        if sample.image.shape[:2] != (size := entry.size()):
            sizes = [" x ".join(map(str, pair)) for pair in (size, sample.image.shape[:2])]
            raise DataError(f"{entry.id}: its header tells of {sizes[0]} pixels, it has {sizes[1]}; save the picture again")
        pixels = method.clip.prepare(method.working_image(sample.image), side=method.settings.side) if sample.names else None
    except ValueError as error:
        raise _about(entry, error) from error
    return Prepared(sample, pixels, time.perf_counter() - clock)


def _job(
    prepared: Prepared, index: int, files: dict[str, Path], method: Method, data: DataSet, tokens: Tokens, encode_seconds: float
) -> MaskJob:
    sample, settings = prepared.sample, method.settings
    results = method.steps(sample, tokens=tokens)
    if refined := settings.refiner == "pixel-adaptive" and method.clip.device.type != "cpu":  # it is faster where the maps are
        *_, result = results
    else:
        result = next(results)
    seconds = {"read": prepared.seconds, **result.seconds, "encode": encode_seconds}
    stages = list(result.stages)
    return MaskJob(
        answer=Answer(index, sample.id, "written", seconds, notes=result.notes),
        image=method.working_image(sample.image),
        scores=method.scores_of(result, stages[-1]).cpu().numpy(),
        stages={stage: _half(result.stages[stage]) for stage in stages} if MAPS in files else {},
        picture=sample.image if OVERLAYS in files else None,
        size=sample.image.shape[:2],
        names=sample.names,
        numbers=tuple(data.classes.index(name) + 1 for name in sample.names),
        refiner=None if refined or settings.refiner == "none" else method.refiner,
        confidence=settings.confidence,
        files=files,
    )


def _background_job(prepared: Prepared, index: int, files: dict[str, Path], method: Method) -> MaskJob:
    """Labels that name no class leave nothing to ask for: all is background."""
    sample = prepared.sample
    size = sample.image.shape[:2]
    answer = Answer(index, sample.id, "written", {"read": prepared.seconds}, notes=("no class to look for: all is background",))
    picture = sample.image if OVERLAYS in files else None
    return MaskJob(
        answer, sample.image, np.ones((1, *size), np.float32), {}, picture, size, (), (), None, method.settings.confidence, files
    )


def _written(job: MaskJob) -> Answer:
    """The end of a picture's way, here or in another process: refined, judged, written."""
    seconds, stages, scores = dict(job.answer.seconds), dict(job.stages), torch.from_numpy(job.scores)
    clock = time.perf_counter()
    if job.refiner is not None:
        *_, scores = job.refiner(job.image, scores)
        if MAPS in job.files:
            stages["refined"] = _half(scores)
        seconds["refined"] = time.perf_counter() - clock
        clock = time.perf_counter()
    full = scores[None] if tuple(scores.shape[1:]) == job.size else refine.upsampled(scores[None], job.size)
    labels = mask.label_map(full)
    sure = mask.without_uncertain(labels, mask.confidence(full), threshold=job.confidence)[0].numpy()
    numbers = np.full(256, mask.IGNORE, np.uint8)
    numbers[: 1 + len(job.numbers)] = [0, *job.numbers]
    if MAPS in job.files:
        packed = io.BytesIO()
        np.savez_compressed(packed, names=np.array(job.names, str), numbers=np.array(job.numbers, np.uint8), **stages)
        write_file(job.files[MAPS], packed.getvalue())
    if OVERLAYS in job.files:
        from kit.show import hatch, mask_overlay  # matplotlib, for those who want pictures

        save_image(job.files[OVERLAYS], hatch(mask_overlay(job.picture, numbers[labels[0].numpy()]), sure == mask.IGNORE))
    if MASKS in job.files:
        save_mask(job.files[MASKS], numbers[sure])
    seconds["write"] = time.perf_counter() - clock
    return Answer(job.answer.index, job.answer.id, job.answer.state, seconds, notes=job.answer.notes)


def _half(maps: Tensor) -> np.ndarray:
    return maps.to(torch.float16).cpu().numpy()


def _about(entry: Entry, error: ValueError) -> ValueError:
    """The error, which names its picture."""
    return error if entry.id in str(error) else DataError(f"{entry.id}: {error}")


def _is_there(path: Path) -> bool:
    """Whether a file was written: never half, but a machine that lost its power may leave it empty."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _check_ids(data: DataSet) -> None:
    """Every mask needs a file of its own, also where upper and lower case are one."""
    for entry in data.entries:
        if not is_file_name(entry.id):
            raise GenerateError(f"expected ids that can be names of files, got {entry.id!r}; rename that picture")
    twice = [name for name, count in Counter(entry.id.casefold() for entry in data.entries).items() if count > 1]
    if twice:
        raise GenerateError(f"expected ids that differ, got {twice[0]!r} more than once: their masks would be one file")
