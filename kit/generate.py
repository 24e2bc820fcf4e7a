"""Pseudo masks of whole data sets on disk: in batches, resumable, shared out by torchrun."""

import io
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kit import mask, refine
from kit.batches import can_be_sent, layers_of
from kit.data import DataError, DataSet, Entry, Sample
from kit.encode import Tokens
from kit.files import told_bytes
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
from kit.method import Driver, Kept, Pipeline, WorkerJob, scores_with_background
from kit.shard import Shard

LIBRARIES, WORKER_BYTES = 1_100_000_000, 550_000_000  # of PyTorch and the others, measured on Linux; of a process that refines
HEAD_MAPS = 2.2  # attention maps of one block, one a head, that are there at once, measured
BATCH_PIXELS = 2**25  # of the pictures of a batch together: 100 MB of memory
READERS = 4  # threads that read pictures
AHEAD = 2  # batches that are read before they are needed


class GenerateError(ValueError):
    """Pictures or numbers that masks cannot be made with, told in one sentence."""


@dataclass(frozen=True)
class Step:
    """What became of one picture.

    index: its place in the data set; state: "written", "kept" (it was there already) or "refused", then `why` says so;
    seconds: what each stage took; notes: the method's.
    """

    index: int
    id: str
    state: str
    spent: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(self.spent.values())

    def record(self) -> dict:
        """Plain values for the manifest; what is empty is left out."""
        seconds = {stage: round(spent, 4) for stage, spent in self.spent.items()}
        everything = {"state": self.state, "why": self.why, "seconds": seconds, "notes": list(self.notes)}
        return {name: value for name, value in everything.items() if value}


@dataclass(frozen=True)
class Generated:
    """What `generate` did: where the masks are, how many were written now or kept, and (id, reason) of those refused."""

    out: Path
    written: int
    kept: int
    refused: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        named = "".join(f"\n  {name}: {why}" for name, why in self.refused[:10])
        return f"{self.out / MASKS}: {self.written:,} masks written now, {self.kept:,} kept, {len(self.refused):,} refused{named}"


@dataclass(frozen=True)
class Plan:
    """The work, cut: batches of places in the data set, (place, reason) of pictures that are of no use, and what the others show.

    largest: pairs of patches of a batch at most, those of its pictures together.
    """

    batches: tuple[tuple[int, ...], ...]
    refused: tuple[tuple[int, str], ...]
    labels: dict[str, tuple[str, ...]]
    largest: int


def generate(pipeline: Pipeline, data: DataSet, out: str | os.PathLike, *, progress: bool = True, **options: Any) -> Generated:
    """The pseudo mask of every picture as a file, to the end, with a progress bar.   Options as in `generate_steps`.

    >>> kit.generate(kit.ClipEs(clip), kit.folder("photos", names={"a.jpg": ["dog"]}), out="masks")          # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    states, refused = Counter(), list(data.refused)
    steps = generate_steps(pipeline, data, out, **options)
    with closing(steps), tqdm(total=len(data), unit="image", disable=not progress) as bar:
        for step in steps:
            states[step.state] += 1
            refused += [(step.id, step.why)] * (step.state == "refused")
            bar.update()
    return Generated(Path(out), states["written"], states["kept"], tuple(refused))


def generate_steps(
    pipeline: Pipeline,
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
    tell: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Step]:
    """The same a picture at a time; closing the generator stops it, and what is done stays.

    out: gets SegmentationClass/ID.png (palette PNG of the picture's size: 0 background, 1.. the data set's classes, 255 uncertain),
    with `maps` maps/ID.npz (every stage as float16 at the size the method works at, `names` and their class `numbers`), with `overlays`
    overlays/ID.png, and manifest.json. batch: pictures encoded together at most; workers: processes that refine and write, 1 = this one.

    What is there already is kept, if the same method, code, settings, model, data set and batch made it; `restart` removes it first.
    Batches are cut from the whole list before anything else is known, so that a run that was killed and goes on makes the masks, byte for
    byte, of one that was not, on one machine. Only the attention the settings ask for is kept: where that is not every block's, the others
    are computed in another way and `pipeline.segment` may differ in the last bits, hence in single pixels. `skip_bad`: pictures that cannot
    be used are refused one by one instead of stopping everything.
    lock: held while the model is asked, for those who share it, and free while a batch is refined and written.
    tell: is told, before anything is computed, what memory and disk the run takes; the manifest keeps it.
    With a shard of several the processes may be on several machines: these have to share the file system `out` is on.

    Raises GenerateError, and with the first step ManifestError, ShardError, DataError or ImageError.
    """
    if batch < 1 or workers < 1:
        raise GenerateError(f"expected at least one picture a batch and one worker, got {batch} and {workers}")
    if not 1 <= len(data.classes) < mask.IGNORE or len(set(data.classes)) < len(data.classes):
        raise GenerateError(f"expected 1 to {mask.IGNORE - 1} classes, each once, got {len(data.classes)}: a palette PNG holds no more")
    _check_ids(data)
    kinds = (MASKS, *[MAPS] * maps, *[OVERLAYS] * overlays)
    return _Work(pipeline, data, Path(out), kinds, skip_bad, tell).steps(batch, workers, restart, shard, lock or nullcontext())


def planned(pipeline: Pipeline, data: DataSet, *, batch: int = 16, skip_bad: bool = False) -> Plan:
    """Batches of pictures that are of one size once they are prepared, in the data set's order, from headers and labels alone.

    A batch has `batch` pictures at most, fewer where its attention maps or pixels would fill the memory; it depends on nothing but the
    pictures' sizes, the settings and `batch`.   Raises DataError, ImageError or ClipError for a picture that cannot be used, unless
    `skip_bad`.
    """
    layers, side = len(layers_of([pipeline]) or range(pipeline.clip.layer_count)), pipeline.settings.side

    def grid_and_pixels(entry: Entry) -> tuple[tuple[int, int], int, tuple[str, ...]] | str:
        try:
            size = entry.size()
            return pipeline.clip.grid(pipeline.working_size(size), side=side), size[0] * size[1], entry.names()
        except ValueError as error:
            if not skip_bad:
                raise _about(entry, error) from error
            return str(_about(entry, error))

    with ThreadPoolExecutor(READERS) as pool:
        answers = list(pool.map(grid_and_pixels, data.entries))
    batches, refused, labels, largest = [], [], {}, 0
    open_batches: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for index, answer in enumerate(answers):
        if isinstance(answer, str):
            refused.append((index, answer))
            continue
        grid, pixels, labels[data.entries[index].id] = answer
        tokens = 1 + grid[0] * grid[1]
        room = min(batch, max(1, BATCH_ATTENTION // (layers * tokens**2)))
        members, sizes = open_batches.setdefault(grid, ([], []))
        if members and (len(members) >= room or sum(sizes) + pixels > BATCH_PIXELS):
            batches.append(tuple(members))
            members.clear()
            sizes.clear()
        members.append(index)
        sizes.append(pixels)
        largest = max(largest, len(members) * tokens**2)
    batches += [tuple(members) for members, _ in open_batches.values()]
    return Plan(tuple(sorted(batches)), tuple(refused), labels, largest)


def memory(pipeline: Pipeline, plan: Plan, workers: int = 1) -> str:
    """About how much memory a run takes, in words: for the weights, the largest batch and each process."""
    weights = sum(weight.nbytes for weight in pipeline.clip.model.parameters())
    heads = pipeline.clip.model.visual.transformer.resblocks[0].attn.num_heads
    maps = len(layers_of([pipeline]) or range(pipeline.clip.layer_count)) + HEAD_MAPS * heads
    batch, others = int(plan.largest * maps * 4), WORKER_BYTES * workers * (workers > 1)
    if pipeline.clip.device.type != "cpu":
        device = pipeline.clip.device.type
        own = told_bytes(weights + batch)
        return f"this run takes about {told_bytes(LIBRARIES + others)} of memory, and {own} of the {device} device's"
    return f"this run takes about {told_bytes(LIBRARIES + int(1.5 * weights) + batch + others)} of memory"


def ask_each(pipeline: Pipeline, names: Sequence[str], image: np.ndarray, tokens: Tokens) -> list[str]:
    """Each class asked for alone: its prompts.

    A prompt's last bits depend on those it is encoded with: so they are the same ones, whichever picture is first.
    Raises what a stage raises for words that cannot be asked.
    """
    stages, kept, prompts = [stage for stage in pipeline.stages if stage.shows == "words"], Kept(limit=1), []
    for name in names:
        driver = Driver(stages, pipeline.scene(Sample(image, (name,)), tokens, kept))
        with suppress(KeyError):  # words that are chosen by what other stages see are asked with each picture
            prompts += [prompt for stage in driver.steps() for prompt in driver.outputs[stage.name].prompts]
    return prompts


@dataclass(frozen=True)
class _Read:
    """A picture that was read: its pixels (3, h*patch, w*patch) as the encoder wants them, None where there is no class to ask for."""

    sample: Sample
    pixels: Tensor | None
    seconds: float


@dataclass(frozen=True)
class _MaskJob:
    """What is left to do of a picture, for a process without a model: refine, judge, write.

    scores (1 + C, h, w): those so far, at the size the method works at; stages: what goes into the maps' file; picture (H, W, 3): what goes
    under an overlay; size (H, W): the mask's; numbers: the C classes' labels; left: the stages to do, if any; power, confidence: settings;
    files: kind -> path.   Arrays, not tensors: torch would send these through shared memory, which containers keep small.
    """

    step: Step
    scores: np.ndarray | None
    stages: dict[str, np.ndarray]
    picture: np.ndarray | None
    size: tuple[int, int]
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    left: WorkerJob | None
    power: float
    confidence: float
    files: dict[str, Path]


@dataclass(frozen=True)
class _Work:
    """Which masks are made of what, and where they go."""

    pipeline: Pipeline
    data: DataSet
    out: Path
    kinds: tuple[str, ...]
    skip_bad: bool
    tell: Callable[[str], None]

    def steps(self, batch: int, workers: int, restart: bool, shard: Shard, lock: AbstractContextManager) -> Iterator[Step]:
        out, data = self.out, self.data

        def begun() -> Plan:
            made_with = description(self.pipeline, data, batch)
            open_folder(out, made_with, data, self.pipeline.method, restart)
            plan = planned(self.pipeline, data, batch=batch, skip_bad=self.skip_bad)
            method = self.pipeline.method
            takes = [memory(self.pipeline, plan, workers), *(method.takes(self.pipeline) if method.takes else ())]
            for sentence in takes:
                self.tell(sentence)
            begin_manifest(out, made_with, data, self.pipeline, plan.labels, {"workers": workers, "processes": shard.world, "takes": takes})
            for kind in self.kinds:
                (out / kind).mkdir(exist_ok=True)
            return plan

        with shard.together():
            plan = shard.agreed(begun)
            journal = Journal(out / f"manifest.rank{shard.rank}.jsonl")
            try:
                if shard.rank == 0:
                    for index, why in plan.refused:
                        step = Step(index, data.entries[index].id, "refused", why=why)
                        journal.note(step.id, step.record())
                        yield step
                with closing(self._noted(plan.batches[shard.rank :: shard.world], workers, journal, lock)) as steps:
                    yield from steps
            finally:
                journal.close()
                if shard.world == 1:
                    merge_journals(out)
            if shard.world > 1:
                torch.distributed.barrier()
                if shard.rank == 0:
                    check_journals(out, shard.world)
                    merge_journals(out)

    def _noted(self, batches: Sequence[tuple[int, ...]], workers: int, journal: Journal, lock: AbstractContextManager) -> Iterator[Step]:
        """One step for each picture of the batches, in their order, noted in the journal."""
        waiting: deque[Future[Step]] = deque()
        room = 0 if workers == 1 else WAITING * workers

        def first() -> Step:
            step = waiting[0].result()
            waiting.popleft()
            journal.note(step.id, step.record())
            return step

        try:
            with workers_pool(workers) as pool, closing(self._made(batches, can_be_sent(self.pipeline))) as everything:
                while True:
                    with lock:
                        made = next(everything, None)
                    if made is None:
                        break
                    waiting.append(pool.submit(_written, made) if isinstance(made, _MaskJob) else _as_future(made))
                    if len(waiting) > room:
                        yield first()
                while waiting:
                    yield first()
        finally:  # the masks that were under way when somebody stopped are there as well
            for future in waiting:
                if future.done() and not future.cancelled() and future.exception() is None:
                    journal.note(future.result().id, future.result().record())

    def _made(self, batches: Sequence[tuple[int, ...]], sent: bool) -> Iterator[Step | _MaskJob]:
        """What the model has to do: a step where that was all, else the job that is left."""
        asked_alone = False
        with closing(self._read_ahead(batches)) as ahead:
            for batch, missing, reads in ahead:
                read: dict[int, _Read | Step] = {index: self._outcome(index, future.result) for index, future in reads.items()}
                asked = [index for index, found in read.items() if isinstance(found, _Read) and found.pixels is not None]
                tokens = None
                if missing.keys() & set(asked):  # all of the batch, for a picture's mask must not depend on what is there already
                    clock = time.perf_counter()
                    pixels = torch.stack([read[index].pixels for index in asked])
                    tokens = self.pipeline.clip.encode(pixels, layers=layers_of([self.pipeline]))
                    share = (time.perf_counter() - clock) / len(asked)
                    if not asked_alone:
                        ask_each(self.pipeline, self.data.classes, read[asked[0]].sample.image, tokens.image(0))
                        asked_alone = True
                for index in batch:
                    if index not in missing:
                        yield Step(index, self.data.entries[index].id, "kept")
                    elif isinstance(read[index], Step):
                        yield read[index]
                    elif index not in asked:
                        yield self._background(read[index], index, missing[index])
                    else:
                        own = tokens.image(asked.index(index))
                        yield self._outcome(index, lambda: self._job(read[index], index, missing[index], own, share, sent))  # noqa: B023

    def _outcome(self, index: int, make: Any) -> Any:
        """What `make` gives, or the picture's refusal."""
        try:
            return make()
        except ValueError as error:
            error = _about(self.data.entries[index], error)
            if not self.skip_bad:
                raise error from error.__cause__
            return Step(index, self.data.entries[index].id, "refused", why=str(error))

    def _read_ahead(
        self, batches: Sequence[tuple[int, ...]]
    ) -> Iterator[tuple[tuple[int, ...], dict[int, dict[str, Path]], dict[int, Future[_Read]]]]:
        """Each batch with the files that are missing of it and, if any are, its pictures, read in threads while others are worked on."""
        ahead: deque = deque()
        pool = ThreadPoolExecutor(READERS)
        try:
            for batch in batches:
                files = {index: {kind: file_of(self.out, kind, self.data.entries[index].id) for kind in self.kinds} for index in batch}
                missing = {index: {kind: path for kind, path in of.items() if not _is_there(path)} for index, of in files.items()}
                missing = {index: of for index, of in missing.items() if of}
                ahead.append((batch, missing, {index: pool.submit(self._read, index) for index in batch} if missing else {}))
                if len(ahead) > AHEAD:
                    yield ahead.popleft()
            yield from ahead
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, index: int) -> _Read:
        clock, entry, data = time.perf_counter(), self.data.entries[index], self.data
        sample = entry.sample()
        if strange := [name for name in sample.names if name not in data.classes]:
            raise DataError(f"{entry.id} shows {', '.join(strange)}, which is none of the {len(data.classes)} classes of {data.name}")
        if sample.image.shape[:2] != (size := entry.size()):
            sizes = [" x ".join(map(str, pair)) for pair in (size, sample.image.shape[:2])]
            raise DataError(f"{entry.id}: its header tells of {sizes[0]} pixels, it has {sizes[1]}; save the picture again")
        pixels = self.pipeline.prepared(sample.image) if sample.names else None
        return _Read(sample, pixels, time.perf_counter() - clock)

    def _job(self, read: _Read, index: int, files: dict[str, Path], tokens: Tokens, encode_seconds: float, sent: bool) -> _MaskJob:
        sample, settings = read.sample, self.pipeline.settings
        *_, result = self.pipeline.steps(sample, tokens=tokens, worker=not sent)
        left = WorkerJob.of(result, sample.image) if sent else None
        return _MaskJob(
            step=Step(index, sample.id, "written", {"read": read.seconds, **result.seconds, "encode": encode_seconds}, notes=result.notes),
            scores=result.planes.cpu().numpy(),
            stages={stage: _half(maps) for stage, maps in result.stages.items()} if MAPS in files else {},
            picture=sample.image if OVERLAYS in files else None,
            size=sample.image.shape[:2],
            names=sample.names,
            numbers=tuple(self.data.classes.index(name) + 1 for name in sample.names),
            left=left,
            power=settings.background_power,
            confidence=settings.confidence,
            files=files,
        )

    def _background(self, read: _Read, index: int, files: dict[str, Path]) -> _MaskJob:
        """Labels that name no class leave nothing to ask for: all is background."""
        image = read.sample.image
        step = Step(index, read.sample.id, "written", {"read": read.seconds}, notes=("no class to look for: all is background",))
        scores, settings = np.ones((1, *image.shape[:2]), np.float32), self.pipeline.settings
        picture = image if OVERLAYS in files else None
        return _MaskJob(step, scores, {}, picture, image.shape[:2], (), (), None, settings.background_power, settings.confidence, files)


def _written(job: _MaskJob) -> Step:
    """The end of a picture's way, here or in another process: refined, judged, written."""
    seconds, stages, scores = dict(job.step.spent), dict(job.stages), torch.from_numpy(job.scores)
    if job.left is not None:
        maps, spent = job.left.done()
        *_, scores = maps.values()
        scores = scores_with_background(scores, len(job.names), job.power)
        seconds |= spent
        if MAPS in job.files:
            stages |= {stage: _half(planes) for stage, planes in maps.items()}
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
        save_mask(job.files[MASKS], numbers[sure], is_pseudo=True)
    return replace(job.step, spent={**seconds, "write": time.perf_counter() - clock})


def _as_future(step: Step) -> Future[Step]:
    future: Future[Step] = Future()
    future.set_result(step)
    return future


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
