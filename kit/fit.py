"""One loop for everything learnable: steps that a page or a cell can draw, pause and stop, with checkpoints, on one process or several."""

import difflib
import hashlib
import io
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kit import __version__
from kit.data import DataSet
from kit.files import write_whole
from kit.learned import Learned, check_belongs, load_learned, save_learned
from kit.method import Lesson, Pipeline
from kit.settings import Learning, Settings

SAVE_EVERY = 20.0  # seconds between two checkpoints


class FitError(ValueError):
    """Something that cannot be learned as it was asked for, told in one sentence."""


class Task(Protocol):
    """What can be learned: some parameters, and the losses of a few of `count` pictures.

    losses(indices, random) -> name -> scalar with graph: their weighted sum is descended. All that is random comes from `random`; an
    empty dict says that these pictures teach nothing.   tensors() -> what is to be kept of it, by name.
    """

    count: int

    def parameters(self) -> Iterable[nn.Parameter]: ...

    def losses(self, indices: Sequence[int], random: torch.Generator) -> dict[str, Tensor]: ...

    def tensors(self) -> dict[str, Tensor]: ...


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
    """One step made: its number from 1, the losses (weighted), the rate, the seconds it took, and the part of learning it belongs to."""

    step: int
    steps: int
    losses: dict[str, float]
    rate: float
    seconds: float
    task: str = ""

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


@dataclass
class Study:
    """What a lesson is prepared with.

    pipeline: with what was learned before; work: a folder that stays until all is learned; rank, world: which of the processes this is;
    names: the pictures' image-level labels, once they were read; shared: what lessons keep for each other.
    """

    pipeline: Pipeline
    data: DataSet
    work: Path
    rank: int = 0
    world: int = 1
    names: list[tuple[str, ...]] | None = None
    shared: dict[str, Any] = field(default_factory=dict)

    def shared_out(self, part: str, count: int, make: Callable[[int], None]) -> Iterator[FitStep]:
        """make(index) for each of `count` pictures, a picture a step; every process takes its share and waits for the others."""
        share = range(self.rank, count, self.world)
        for done, index in enumerate(share, start=1):
            clock = time.perf_counter()
            make(index)
            yield FitStep(done, len(share), {}, 0.0, time.perf_counter() - clock, part)
        self.barrier()

    def barrier(self) -> None:
        """All processes wait for each other."""
        if self.world > 1:
            torch.distributed.barrier()

    def all_see(self, file: Path) -> bool:
        """Whether the file is there, looked at by all processes before one of them can go on and make it."""
        self.barrier()
        there = file.exists()
        self.barrier()
        return there

    def list_hash(self) -> str:
        return list_hash(self.data, self.names)


def list_hash(data: DataSet, names: Sequence[Sequence[str]] | None = None) -> str:
    """16 hexadecimal digits of the list of pictures and their labels, which may be known already."""
    names = names or [entry.names() for entry in data.entries]
    listed = "\n".join(f"{entry.id}: {', '.join(own)}" for entry, own in zip(data.entries, names, strict=True))
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


class Fit:
    """A method on its way: iterate over it to go on; `so_far` is what it has learned by now."""

    def __init__(
        self, pipeline: Pipeline, data: DataSet, path: str | os.PathLike | None, lessons: tuple[str, ...], rank: int = 0, world: int = 1
    ):
        self.pipeline, self.data, self.lessons = pipeline, data, lessons
        self.path = None if path is None else Path(path)
        self.rank, self.world = rank, world
        self._under_way: tuple[Task, dict] | None = None

    def __iter__(self) -> Iterator[FitStep]:
        with _work_folder(self.path, self.rank) as work:
            study = Study(self.pipeline, self.data, work, self.rank, self.world)
            for name in self.lessons:
                yield from self._learn(study, name)
            if self.path is not None and self.rank == 0:
                self.pipeline.save(self.path)
            study.barrier()

    def so_far(self) -> Pipeline:
        """The method with what was learned by now; it may be asked while learning goes on."""
        if self._under_way is None:
            return self.pipeline
        task, about = self._under_way
        before = {name: values for name, values in self._before().items() if name not in task.tensors()}
        tensors = {name: values.detach().clone() for name, values in task.tensors().items()}
        return _with_learned(self.pipeline, {**before, **tensors}, about)

    def _before(self) -> dict[str, Tensor]:
        return {} if self.pipeline.learned is None else dict(self.pipeline.learned.tensors)

    def _about(self, study: Study) -> dict:
        clip, data = self.pipeline.clip, self.data
        code = {"code": self.pipeline.code} if self.pipeline.code else {}
        return {
            "method": self.pipeline.method.name, "model": clip.name, "clip": clip.fingerprint, "classes": list(data.classes),
            "data": data.name, "split": data.split, "labels_from": data.labels_from, "images": len(data),
            "settings": self.pipeline.settings.to_dict(), "precision": clip.precision, "kit": __version__, **code,
            "list": study.list_hash(),
        }  # fmt: skip

    def _learn(self, study: Study, name: str) -> Iterator[FitStep]:
        """The steps of one lesson, unless its file is there already; then the method asks what was learned."""
        settings, lesson = self.pipeline.settings, self.pipeline.method.lessons[name]
        learning: Learning = settings.value(lesson.learning)
        if name == self.lessons[0]:
            before = [other for other in lesson.needs if other not in self.lessons]
            self.pipeline = _with_learned(self.pipeline, {other: self._before()[other] for other in before}, self._kept_about(before))
            self._lay_out(study, before)
        study.pipeline = self.pipeline
        task = yield from lesson.prepare(study)
        before = {other: values for other, values in self._before().items() if other != name}
        parts = max(learning.parts, self.world)
        about = {**self._about(study), "tasks": [*before, name], f"{name} parts": parts}
        file, way = study.work / f"{name}.safetensors", study.work / f"{name}.way"
        if not study.all_see(file):
            schedule = Schedule(learning.steps, learning.rate, learning.warm_up, horizon=learning.horizon)
            self._under_way = task, about
            steps = descend(
                task, schedule, batch=learning.batch, parts=parts, weights=learning.losses,
                seed=getattr(settings, "seed", 0), checkpoint=way,
                about=about, name=name, rank=self.rank, world=self.world,
            )  # fmt: skip
            with closing(steps):
                yield from steps
            if self.rank == 0:
                save_learned(file, task.tensors(), about)
                way.unlink(missing_ok=True)  # not before: what was learned is in one of the two at any time
            study.barrier()
        tensors, made = load_learned(file)
        check_belongs(file, made, **about)
        self.pipeline, self._under_way = _with_learned(self.pipeline, {**before, **tensors}, about), None

    def _lay_out(self, study: Study, names: Sequence[str]) -> None:
        """Lays what was learned before into the work folder: whatever lies there must have been made with it."""
        for name in names:
            file, learned = study.work / f"{name}.safetensors", self.pipeline.learned.only(name)
            known = {**self._about(study), "fingerprint": learned.fingerprint}
            if study.all_see(file):
                check_belongs(file, load_learned(file)[1], **known)
            elif self.rank == 0:
                save_learned(file, learned.tensors, known)
            study.barrier()

    def _kept_about(self, names: Sequence[str]) -> dict:
        return {**self.pipeline.learned.about, "tasks": list(names)} if names else {}


def fit_steps(
    pipeline: Pipeline,
    data: DataSet,
    path: str | os.PathLike | None = None,
    *,
    lessons: Sequence[str] | None = None,
    steps: int | None = None,
    rate: float | None = None,
    losses: Mapping[str, float] | None = None,
    rank: int = 0,
    world: int = 1,
    **changes: Any,
) -> Fit:
    """Learn what a method can learn from a data set's image-level labels: iterate over what comes back, a step at a time.

    lessons: names out of the method's, in their order (None: all); steps: of each lesson; rate: the first lesson's highest learning rate,
    to which the others keep their proportion; losses: weights by the losses' names; changes: settings by name. With a path the result goes
    there, and PATH.work beside it holds the way so far: a run that was left or killed goes on there, and it is removed at the end. `world`
    processes (torchrun, an initialised process group) need a path that all of them see.
    Raises FitError, SettingsError, and with the first step what the data set raises.
    """
    method = pipeline.method
    if not method.lessons:
        raise FitError(f"{method.name} learns nothing: its words are used as they are")
    chosen = tuple(method.lessons) if lessons is None else (lessons,) if isinstance(lessons, str) else tuple(lessons)
    if not chosen or [name for name in method.lessons if name in chosen] != list(chosen):
        raise FitError(f"expected lessons out of {', '.join(method.lessons)}, in this order, got {', '.join(chosen) or 'none'}")
    known = () if pipeline.learned is None else tuple(pipeline.learned.tensors)
    for name in chosen:
        for other in method.lessons[name].needs:
            if other not in chosen[: chosen.index(name)] and other not in known:
                raise FitError(f"{name} builds on {other}: learn that first, or both")
            if other not in chosen and pipeline.learned.classes != data.classes:
                raise FitError(f"{other} was learned for other classes than those of {data.name}: learn both")
    if world > 1 and path is None:
        raise FitError(f"expected a path, because {world} processes share what lessons are learned from: give the file to be written")
    if not len(data):
        raise FitError("expected pictures to learn from, got none")
    settings = _for_learning(pipeline.settings.changed(**changes), [method.lessons[name] for name in chosen], steps, rate, losses or {})
    needed = {other for name in chosen for other in method.lessons[name].needs} - set(chosen)
    learned = pipeline.learned.only(*[name for name in known if name in needed]) if needed else None
    return Fit(method(pipeline.clip, settings, learned=learned), data, path, chosen, rank, world)


def fit(pipeline: Pipeline, data: DataSet, path: str | os.PathLike | None = None, *, progress: bool = True, **options: Any) -> Pipeline:
    """The same to its end, with a progress bar: the method with what it has learned.   Options as in `fit_steps`.

    >>> better = kit.fit(kit.FmaWsss(clip), kit.toy("train", 48), steps=60)          # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    learning = fit_steps(pipeline, data, path, **options)
    with tqdm(disable=not progress) as bar:
        task = None
        for step in learning:
            if step.task != task:
                task = step.task
                bar.reset(step.steps)
                bar.set_description(task)
            bar.set_postfix_str(f"loss {step.loss:.4f}" if step.losses else "", refresh=False)
            bar.update(step.step - bar.n)
    return learning.so_far()


def _for_learning(
    settings: Settings, lessons: Sequence[Lesson], steps: int | None, rate: float | None, losses: Mapping[str, float]
) -> Settings:
    """Settings with these steps, rate and weights in the groups that the lessons read."""
    names = [name for lesson in lessons for name in lesson.losses]
    if strange := [name for name in losses if name not in names]:
        near = difflib.get_close_matches(strange[0], names, 1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise FitError(f"there is no loss {strange[0]} here, only {', '.join(names)}{guess}")
    first = settings.value(lessons[0].learning).rate
    for lesson in lessons:
        learning: Learning = settings.value(lesson.learning)
        if steps is not None:
            learning = learning.lasting(steps)
        if rate is not None:
            learning = learning.changed(rate=float(rate) * learning.rate / first)
        if own := {name: float(weight) for name, weight in losses.items() if name in lesson.losses}:
            learning = learning.changed(losses={**learning.losses, **own})
        settings = settings.changed(**{lesson.learning: learning})
    return settings


def _with_learned(pipeline: Pipeline, tensors: Mapping[str, Tensor], about: Mapping) -> Pipeline:
    return replace(pipeline, learned=Learned({name: values.detach() for name, values in tensors.items()}, about) if tensors else None)


@contextmanager
def _work_folder(path: Path | None, rank: int) -> Iterator[Path]:
    """A folder for the way so far: PATH.work, which stays if learning is left, or a temporary one."""
    if path is None:
        with tempfile.TemporaryDirectory(prefix="kit-fit-") as folder:
            yield Path(folder)
        return
    folder = work_folder_of(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FitError(f"{folder}: this folder cannot be made ({error.strerror or error}); choose another path") from error
    yield folder
    if rank == 0:
        clear_work(folder)


def work_folder_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.work")


def clear_work(folder: Path) -> None:
    """Remove what learning left there, and the folders if nobody put anything else into them."""
    for file in [path for pattern in ("*/*.png", "*.safetensors", "*.way") for path in folder.glob(pattern)]:
        file.unlink()
    for emptied in (*(path for path in folder.glob("*") if path.is_dir()), folder):
        with suppress(OSError):  # somebody put something there, or there never was a folder
            emptied.rmdir()


def momentum_sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 and weight decay 5e-4.   Source: FMA-WSSS, released code, after CoOp."""
    return torch.optim.SGD(parameters, lr=0.0, momentum=0.9, weight_decay=5e-4)


def descend(
    task: Task,
    schedule: Schedule,
    *,
    batch: int,
    parts: int = 1,
    weights: Mapping[str, float] | None = None,
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
    memory); their losses are means, so a step descends the mean of the parts; weights: of losses by name, 1 where not named. With `world`
    processes (torchrun, an initialised process group) each takes every `world`-th part: two processes learn what one learns with two
    parts. name: what the steps are called. checkpoint: a file that holds the way so far; with it a run that was killed goes on where it
    last saved, and
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
    identity = {
        "about": about or {},
        "steps": schedule.steps,
        "batch": batch,
        "weights": dict(weights or {}),
        "parts": parts,
        "seed": seed,
        "count": task.count,
    }
    first = _restored(file, identity, parameters, optimise) if file is not None and file.exists() else 0
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
            losses = _descend(task, indices, parts, weights or {}, seed, step, rank, world)
            if world > 1:
                losses = _shared(parameters, losses)
            if not all(math.isfinite(value) for value in losses.values()):
                raise FitError(f"the loss is no number any more at step {step + 1}: lower the learning rate")
            if losses:  # nothing to learn from: momentum alone shall not carry on
                optimise.step()
            if file is not None and rank == 0 and time.monotonic() - saved > SAVE_EVERY:
                _save(file, identity, step + 1, parameters, optimise)
                saved = time.monotonic()
            yield FitStep(step + 1, schedule.steps, losses, schedule.at(step), time.perf_counter() - clock, name)
    except GeneratorExit:
        if file is not None and rank == 0:
            _save(file, identity, step + 1, parameters, optimise)
        raise
    if file is not None and rank == 0:
        _save(file, identity, schedule.steps, parameters, optimise)


def batch_of_step(count: int, batch: int, step: int, seed: int) -> list[int]:
    """The pictures of a step: each epoch is a shuffle of its own and its incomplete last batch is dropped."""
    epoch, place = divmod(step, count // batch)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_mixed(seed, epoch)))
    return order[place * batch : (place + 1) * batch].tolist()


def _descend(
    task: Task, indices: list[int], parts: int, weights: Mapping[str, float], seed: int, step: int, rank: int, world: int
) -> dict[str, float]:
    """The gradients of this process's parts, added up, and their losses."""
    losses: dict[str, float] = {}
    for part in range(rank, parts, world):
        random = torch.Generator().manual_seed(_mixed(seed, step, part))
        terms = {name: weights.get(name, 1) * value for name, value in task.losses(indices[part::parts], random).items()}
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


def _save(file: Path, identity: dict, step: int, parameters: list[nn.Parameter], optimise: torch.optim.Optimizer) -> None:
    way = {"identity": identity, "step": step, "parameters": [p.detach().cpu() for p in parameters], "optimiser": optimise.state_dict()}
    torch.save(way, data := io.BytesIO())
    try:
        write_whole(file, data.getvalue())
    except OSError as error:
        raise FitError(f"{file}: the way so far cannot be saved ({error.strerror or error}); check the folder") from error


def _restored(file: Path, identity: dict, parameters: list[nn.Parameter], optimise: torch.optim.Optimizer) -> int:
    """Parameters and optimiser as they were saved -> the next step."""
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        made, step, values, state = (saved[name] for name in ("identity", "step", "parameters", "optimiser"))
    except Exception as error:  # torch and pickle each raise their own
        raise FitError(f"{file}: this is no checkpoint of the kit's; remove it to begin again") from error
    if made != identity or [tuple(value.shape) for value in values] != [tuple(p.shape) for p in parameters]:
        raise FitError(f"{file}: this checkpoint is of other settings; remove it to begin again, or take the settings it was made with")
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
    optimise.load_state_dict(state)
    return step
