"""Pictures through the encoder in batches, and what is left of them in other processes."""

import pickle
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

import torch
from torch import Tensor

from kit.data import Sample
from kit.encode import Tokens
from kit.jobs import BATCH_ATTENTION, WAITING, workers_pool
from kit.method import Pipeline, WorkerJob

BATCH = 16  # pictures a pass of the encoder
Owner = TypeVar("Owner")  # whatever a job belongs to
Encoded = dict[tuple, Tokens]  # by Pipeline.key


def encoded(
    pipelines: Sequence[Pipeline], samples: Iterable[Sample], batch: int = BATCH, *, all_layers: bool = False
) -> Iterator[tuple[Sample, Encoded | None, float]]:
    """Each sample with its tokens by the pipelines' keys and the seconds these took; one that names no class has None.

    A key is encoded once, for all pipelines that share it; neighbours of one size go through the encoder together. all_layers: keep the
    attention of every block, not only of those that the pipelines read.
    """
    keys = {pipeline.key: pipeline for pipeline in pipelines}
    layers = {key: None if all_layers else layers_of([each for each in pipelines if each.key == key]) for key in keys}
    waiting: list[tuple[Sample, dict[tuple, Tensor]]] = []
    spent = 0.0

    def tokens_of_waiting() -> Iterator[tuple[Sample, Encoded, float]]:
        clock = time.perf_counter()
        tokens = {
            key: pipeline.clip.encode(torch.stack([pixels[key] for _, pixels in waiting]), layers=layers[key])
            for key, pipeline in keys.items()
        }
        share = (spent + time.perf_counter() - clock) / len(waiting)
        for index, (sample, _) in enumerate(waiting):
            yield sample, {key: each.image(index) for key, each in tokens.items()}, share

    for sample in samples:
        if not sample.names:
            yield sample, None, 0.0
            continue
        clock = time.perf_counter()
        pixels = {key: pipeline.prepared(sample.image) for key, pipeline in keys.items()}
        took = time.perf_counter() - clock
        room = min(_room(pipeline, pixels[key], batch) for key, pipeline in keys.items())
        if waiting and (len(waiting) >= room or any(pixels[key].shape != waiting[0][1][key].shape for key in keys)):
            yield from tokens_of_waiting()
            waiting, spent = [], 0.0
        waiting.append((sample, pixels))
        spent += took
    if waiting:
        yield from tokens_of_waiting()


def layers_of(pipelines: Sequence[Pipeline]) -> list[int] | None:
    """The blocks whose attention they read; None, all of them, where no setting says which, or a function of one's own may read any."""
    wanted = [() if pipeline.code else pipeline.layers for pipeline in pipelines]
    return sorted({layer for layers in wanted for layer in layers}) if all(wanted) else None


def _room(pipeline: Pipeline, pixels: Tensor, batch: int) -> int:
    """How many such pictures are encoded at once: memory grows with the square of their patches."""
    patches = pixels[0].numel() // pipeline.clip.patch**2
    return min(batch, max(1, BATCH_ATTENTION // (pipeline.clip.layer_count * (1 + patches) ** 2)))


def can_be_sent(pipeline: Pipeline) -> bool:
    """Whether another process can be handed what is left of a picture: functions written on the spot cannot."""
    try:
        pickle.dumps((pipeline.left, pipeline.settings))
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return any(stage.is_shown and stage not in pipeline.left for stage in pipeline.stages)


def finished(
    jobs: Iterable[tuple[Owner, WorkerJob | None]], workers: int
) -> Iterator[tuple[Owner, tuple[dict[str, Tensor], dict[str, float]] | None]]:
    """Every job's owner in its order, with the maps of its stages and their seconds, where something was left to do."""
    room = WAITING * workers if workers > 1 else 0  # what is done right here need not wait
    waiting: deque[tuple[Owner, Future | None]] = deque()

    def first():
        owner, future = waiting.popleft()
        return owner, None if future is None else future.result()

    with workers_pool(workers) as pool:
        for owner, job in jobs:
            waiting.append((owner, None if job is None else pool.submit(_done, job)))
            if len(waiting) > room:
                yield first()
        while waiting:
            yield first()


def _done(job: WorkerJob):
    maps, seconds = job.done()
    return {stage: planes.numpy() for stage, planes in maps.items()}, seconds  # arrays, like the job's own
