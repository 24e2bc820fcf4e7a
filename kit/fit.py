"""One loop for everything learnable: a generator of steps, so that a page or a cell can draw, pause and stop."""

import io
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from kit.files import write_whole

SAVE_EVERY = 20.0  # seconds between two checkpoints


class FitError(ValueError):
    """Something that cannot be learned as it was asked for, told in one sentence."""


class Task(Protocol):
    """What can be learned: some parameters, and the losses of a few of `count` pictures.

    losses(indices, random) -> name -> scalar with graph, weights included: their sum is descended. All that is random comes from
    `random`; an empty dict says that these pictures teach nothing.
    """

    count: int

    def parameters(self) -> Iterable[nn.Parameter]: ...

    def losses(self, indices: Sequence[int], random: torch.Generator) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Schedule:
    """The learning rate: constant and small for the warm-up, then a cosine from `rate` that would reach 0 at step `horizon` (None: steps).

    Source: FMA-WSSS, released code (warm_rate 1e-5; on COCO it stops long before the horizon); CoOp's schedule.
    """

    steps: int
    rate: float
    warm_up: int = 0
    warm_rate: float = 1e-5
    horizon: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.warm_up < self.steps:
            raise FitError(f"expected at least one step after the warm-up, got {self.steps} steps and {self.warm_up} of warm-up")
        if not (self.rate > 0 and self.warm_rate >= 0 and math.isfinite(self.rate) and math.isfinite(self.warm_rate)):
            raise FitError(f"expected a learning rate above 0, got {self.rate} (warm-up {self.warm_rate})")
        if self.horizon is not None and self.horizon < self.steps:
            raise FitError(f"expected a horizon of at least the {self.steps} steps, got {self.horizon}")

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.warm_rate
        return self.rate / 2 * (1 + math.cos(math.pi * (step - self.warm_up) / ((self.horizon or self.steps) - self.warm_up)))


@dataclass(frozen=True)
class FitStep:
    """One step made: its number from 1, the losses (weighted), the rate, the seconds it took, and the task it belongs to."""

    step: int
    steps: int
    losses: dict[str, float]
    rate: float
    seconds: float
    task: str = ""

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


def momentum_sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 and weight decay 5e-4.   Source: FMA-WSSS, released code, after CoOp."""
    return torch.optim.SGD(parameters, lr=0.0, momentum=0.9, weight_decay=5e-4)


def fit(
    task: Task,
    schedule: Schedule,
    *,
    batch: int = 16,
    parts: int = 1,
    seed: int = 0,
    optimiser: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = momentum_sgd,
    checkpoint: str | os.PathLike | None = None,
    about: dict | None = None,
    name: str = "",
    rank: int = 0,
    world: int = 1,
) -> Iterator[FitStep]:
    """Learn, a step at a time; what was learned so far is in the task's parameters whenever the generator is left.

    batch: pictures a step, each epoch in an order of its own; parts: pieces a batch is cut into, whose gradients are added up (less
    memory); their losses are means, so a step descends the mean of the parts. With `world` processes (torchrun, an initialised process
    group) each takes every `world`-th part: two processes learn what one learns with two parts. name: what the steps are called.
    checkpoint: a file that holds the way so far; with it a run that was killed goes on where it last saved, on the same course, and
    `about` (plain values) has to be the same. After the last step it holds all of it: who has saved the parameters elsewhere removes it.
    Raises FitError for what cannot be learned, also when the loss is no number any more.
    """
    batch = min(batch, task.count)
    if batch < 1 or parts < 1 or not 0 <= rank < world:
        raise FitError(f"expected pictures, and at least one part, got {task.count} pictures in batches of {batch} and {parts} parts")
    if parts % world or parts > batch:
        raise FitError(f"expected parts that {world} processes can share and {batch} pictures can be cut into, got {parts}")
    parameters = list(task.parameters())
    optimise = optimiser(parameters)
    file = None if checkpoint is None else Path(checkpoint)
    course = {"about": about or {}, "steps": schedule.steps, "batch": batch, "parts": parts, "seed": seed, "count": task.count}
    first = _restored(file, course, parameters, optimise) if file is not None and file.exists() else 0
    if world > 1:
        torch.distributed.barrier()  # nobody goes on before all have read where
    saved = time.monotonic()
    try:
        for step in range(first, schedule.steps):
            clock = time.perf_counter()
            for group in optimise.param_groups:
                group["lr"] = schedule.at(step)
            optimise.zero_grad(set_to_none=False)
            indices = batch_of_step(task.count, batch, step, seed)
            losses = _descend(task, indices, parts, seed, step, rank, world)
            if world > 1:
                losses = _shared(parameters, losses)
            if not all(math.isfinite(value) for value in losses.values()):
                raise FitError(f"the loss is no number any more at step {step + 1}: lower the learning rate")
            if losses:  # nothing to learn from: momentum alone shall not carry on
                optimise.step()
            if file is not None and rank == 0 and time.monotonic() - saved > SAVE_EVERY:
                _save(file, course, step + 1, parameters, optimise)
                saved = time.monotonic()
            yield FitStep(step + 1, schedule.steps, losses, schedule.at(step), time.perf_counter() - clock, name)
    except GeneratorExit:
        if file is not None and rank == 0:
            _save(file, course, step + 1, parameters, optimise)
        raise
    if file is not None and rank == 0:
        _save(file, course, schedule.steps, parameters, optimise)


def batch_of_step(count: int, batch: int, step: int, seed: int) -> list[int]:
    """The pictures of a step: each epoch is a shuffle of its own and its incomplete last batch is dropped."""
    epoch, place = divmod(step, count // batch)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_mixed(seed, epoch)))
    return order[place * batch : (place + 1) * batch].tolist()


def _descend(task: Task, indices: list[int], parts: int, seed: int, step: int, rank: int, world: int) -> dict[str, float]:
    """The gradients of this process's parts, added up, and their losses."""
    losses: dict[str, float] = {}
    for part in range(rank, parts, world):
        random = torch.Generator().manual_seed(_mixed(seed, step, part))
        terms = task.losses(indices[part::parts], random)
        if terms:
            (sum(terms.values()) / parts).backward()
        for name, value in terms.items():
            losses[name] = losses.get(name, 0.0) + float(value.detach()) / parts
    return losses


def _shared(parameters: list[nn.Parameter], losses: dict[str, float]) -> dict[str, float]:
    """Gradients summed over all processes in place, and the losses of all of them."""
    for parameter in parameters:
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        whole = gradient.cpu()  # gloo speaks of the processor's memory only
        torch.distributed.all_reduce(whole)
        parameter.grad = whole.to(parameter.device)
    everybody: list = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everybody, losses)
    return {name: sum(some.get(name, 0.0) for some in everybody) for name in dict.fromkeys(name for some in everybody for name in some)}


def _mixed(*numbers: int) -> int:
    """One seed of several numbers, far from that of their neighbours."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number * 7919 + 12_345) % (2**62)
    return mixed


def _save(file: Path, course: dict, step: int, parameters: list[nn.Parameter], optimise: torch.optim.Optimizer) -> None:
    way = {"course": course, "step": step, "parameters": [p.detach().cpu() for p in parameters], "optimiser": optimise.state_dict()}
    torch.save(way, data := io.BytesIO())
    try:
        write_whole(file, data.getvalue())
    except OSError as error:
        raise FitError(f"{file}: the way so far cannot be saved ({error.strerror or error}); check the folder") from error


def _restored(file: Path, course: dict, parameters: list[nn.Parameter], optimise: torch.optim.Optimizer) -> int:
    """Parameters and optimiser as they were saved -> the next step."""
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        made, step, values, state = (saved[name] for name in ("course", "step", "parameters", "optimiser"))
    except Exception as error:  # torch and pickle each raise their own
        raise FitError(f"{file}: this is no checkpoint of the kit's; remove it to begin again") from error
    if made != course or [tuple(value.shape) for value in values] != [tuple(p.shape) for p in parameters]:
        raise FitError(f"{file}: this checkpoint is of other settings; remove it to begin again, or take the settings it was made with")
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
    optimise.load_state_dict(state)
    return step
