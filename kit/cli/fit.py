"""`python -m kit fit`: the prompts of a method that learns."""

import dataclasses
import itertools
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kit.cli import options, output

if TYPE_CHECKING:
    from kit.data import DataSet
    from kit.fit import FitStep
    from kit.methods import FmaWsss

OF_LEARNING = ("*.safetensors", "*.way", "seeds/*.png")  # what FILE.work may hold
READERS = 8  # threads that try pictures before they are learned from


def fit(
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="What is learned goes here, as safetensors; FILE.work beside it while it runs.")
    ],
    data: options.Data = "toy",
    root: options.Root = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="What to learn from.  [default: train; a folder has none]")] = None,
    labels: options.Labels = None,
    images: options.Images = None,
    size: options.Size = None,
    skip_bad: options.SkipBad = False,
    method: Annotated[str, typer.Option(metavar="NAME", help="Which method.")] = "fma-wsss",
    tasks: Annotated[
        str, typer.Option(metavar="A,B", help="classification, segmentation or both; the second alone needs the first as --weights.")
    ] = "classification,segmentation",
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="What was learned before and stays.", show_default=False)] = None,
    model: options.Model = "tiny",
    device: options.Device = None,
    precision: options.Precision = "float32",
    parts: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pieces a batch is cut into, for less memory.  [default: the settings']")
    ] = None,
    changes: options.Settings = None,
    restart: Annotated[bool, typer.Option("--restart", help="Learn anew, even if FILE or FILE.work is there already.")] = False,
) -> None:
    """Learn a method's prompts; a run that was stopped or killed goes on where it was when the same command is given again.

    \b
    python -m kit fit --out prompts.safetensors
    python -m kit fit --data voc --root VOC2012 --split train_aug --out voc.safetensors --model ViT-B-16-quickgelu:openai
    torchrun --nproc-per-node 4 -m kit fit --data coco --root COCO2014 --out coco.safetensors --model ViT-B-16-quickgelu:openai

    \b
    Only image-level labels are learned from. Steps, learning rates and the rest are settings: --set steps=600 --set seed=1.
    FILE knows its CLIP, classes, data, split and settings; evaluate, generate and segment take it as --weights FILE.

    Under torchrun the processes share every batch, each on the GPU of its number. Exit code 1 if learning failed, 2 for a wrong
    option, 130 or 143 after Ctrl-C or a signal to end.
    """
    from kit.methods import METHODS
    from kit.shard import Shard

    with options.refusal():
        shard = Shard.from_environment()
        quiet = shard.rank > 0
        options.settings_class(method)
        if not hasattr(METHODS[method], "fit"):
            raise options.OptionError(f"--method {method}: it learns nothing, its words are used as they are; --method fma-wsss learns")
        options.check_file("--out", out)
        chosen_tasks = options.listed(tasks, "--tasks")
        sizes = {} if parts is None else {"parts": parts, "fine_parts": parts}
        chosen_settings = options.chosen_settings(method, changes, model=model, data=data, weights=weights, **sizes)
        named_split = split or (None if data == "folder" else "train")
        pictures = options.opened_data(data, root=root, split=named_split, labels=labels, images=images, size=size, skip_bad=skip_bad)
        if skip_bad:
            pictures = _readable(pictures, quiet=quiet)
        own = options.own_device(shard) if device is None else device
        chosen = options.chosen_method(
            method, model, own, chosen_settings, weights=weights, precision=precision, data=data, quiet=quiet
        )  # fmt: skip
        options.check_layers(chosen)
        _check_parts(chosen, len(pictures), shard.world)
    use = ["python", "-m", "kit", "evaluate", "--weights", str(out), *(["--model", model] if model != "tiny" else [])]
    use += [] if data == "toy" else ["--data", data, "--root", str(root)]
    with options.refusal(), shard.together():
        there = shard.agreed(lambda: _begun(out, chosen, pictures, chosen_tasks, restart))
        if there:
            if not quiet:
                print(f"{there}; to use it: {shlex.join(use)}")
            return
        clock, course = time.monotonic(), Course()
        steps = chosen.fit(pictures, out, tasks=chosen_tasks, rank=shard.rank, world=shard.world)
        _run(steps, course, quiet=quiet, hint=not skip_bad)
    if not quiet:
        _summary(out, pictures, course, time.monotonic() - clock, shlex.join(use))


@dataclasses.dataclass
class Course:
    """The first and the last step of every task that had something to learn from."""

    first: dict[str, "FitStep"] = dataclasses.field(default_factory=dict)
    last: dict[str, "FitStep"] = dataclasses.field(default_factory=dict)

    def note(self, step: "FitStep") -> None:
        if step.losses:
            self.first.setdefault(step.task, step)
            self.last[step.task] = step


def _check_parts(method: "FmaWsss", count: int, world: int) -> None:
    """Refuses, before pictures are encoded, batches that cannot be cut so."""
    for name in ("", "fine_"):
        batch, parts = (getattr(method.settings, f"{name}{what}") for what in ("batch", "parts"))
        most = min(batch, count)
        if (parts := max(parts, world)) % world or parts > most:
            several = f"a multiple of the {world} processes, " if world > 1 else ""
            pictures = output.counted(most, "pictures")
            raise options.OptionError(f"{name}parts {parts}: expected {several}at most the {pictures} of a batch")


def _begun(out: Path, method: "FmaWsss", pictures: "DataSet", tasks: tuple[str, ...], restart: bool) -> str:
    """Makes room for what is learned anew; else says what there is already, "" if there is something to do.

    Raises OptionError if the file that is there is another one.
    """
    from kit.learned import LearnedError, load_learned
    from kit.manifest import differences

    work = out.with_name(f"{out.name}.work")
    if restart:
        if out.is_file():
            load_learned(out)  # nothing else is removed
            out.unlink()
        for path in itertools.chain.from_iterable(work.glob(pattern) for pattern in OF_LEARNING):
            path.unlink()
        return ""
    before = [] if method.learned is None else list(method.learned.contexts)
    wanted = {
        "settings": method.settings.to_dict(), "clip": method.clip.fingerprint, "precision": method.clip.precision,
        "classes": list(pictures.classes), "data": pictures.name, "split": pictures.split, "labels_from": pictures.labels_from,
        "images": len(pictures),
    }  # fmt: skip
    for there, tasks_too in ((out, {"tasks": list(dict.fromkeys([*before, *tasks]))}), (work / f"{tasks[0]}.safetensors", {})):
        if not there.exists():
            continue
        try:
            _, made = load_learned(there)
        except LearnedError as error:
            raise options.OptionError(f"--out {error}; choose another --out") from error
        now = {**wanted, **tasks_too}
        if other := differences({name: made.get(name) for name in now}, now):
            raise options.OptionError(f"{there} is there already, learned with {'; '.join(other[:3])}: choose another --out or --restart")
    return f"{out} is there already, learned with just these settings; --restart learns anew" if out.exists() else ""


def _readable(pictures: "DataSet", *, quiet: bool) -> "DataSet":
    """The pictures that can be read, each tried once; the others are named."""
    from concurrent.futures import ThreadPoolExecutor

    def reason(entry) -> str:
        try:
            entry.sample()
        except ValueError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(READERS) as pool, output.progress("reading", len(pictures), quiet=quiet) as advance:
        reasons = []
        for why in pool.map(reason, pictures.entries):
            reasons.append(why)
            advance()
    refused = tuple((entry.id, why) for entry, why in zip(pictures.entries, reasons, strict=True) if why)
    kept = tuple(itertools.compress(pictures.entries, [not why for why in reasons]))
    return dataclasses.replace(pictures, entries=kept, refused=(*pictures.refused, *refused))


def _run(steps: Iterator["FitStep"], course: Course, *, quiet: bool, hint: bool) -> None:
    """All steps, or as many as somebody lets it make; what was learned so far is kept."""
    begun = False
    with _told_to_stop() as told, output.learning(quiet=quiet) as tell, closing(steps):
        try:
            for step in steps:
                begun = True
                course.note(step)
                tell(step)
                if told:
                    break
        except RuntimeError:
            if not told:  # the other process of torchrun stopped a step earlier
                raise
        except ValueError:
            if not begun:
                raise  # it is an option's fault, and nothing was done
            with output.failure(hint=hint):
                raise
    if told:
        if not quiet:
            output.say("stopped; run the same command again to go on")
        raise typer.Exit(128 + told[0])


@contextmanager
def _told_to_stop() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are noted, for the step under way is finished first; at the second one everything ends at once."""
    told: list[int] = []
    before = {}

    def note(number: int, _) -> None:
        told.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(out: Path, pictures: "DataSet", course: Course, seconds: float, use: str) -> None:
    from kit.learned import load_learned

    for name, why in pictures.refused[: output.SHOWN]:
        output.say(f"left out: {name} ({why})")
    if len(pictures.refused) > output.SHOWN:
        output.say(f"left out: {len(pictures.refused) - output.SHOWN:,} more")
    contexts, _ = load_learned(out)
    of_split = f"split {pictures.split} of " if pictures.split else ""
    print(
        f"learned from {output.counted(len(pictures), 'images')} of {of_split}{pictures.name}, labels: {pictures.labels_from}, "
        f"in {output.in_words(seconds)}"
    )
    for task, vectors in contexts.items():
        words = "learned before"
        if task in course.last:
            first, last = course.first[task], course.last[task]
            words = f"loss {first.loss:.4f} at step {first.step:,}, {last.loss:.4f} at step {last.step:,}"
        print(f"  {task}: {' x '.join(map(str, vectors.shape))} numbers, {words}")
    print(f"{out} holds it; to use it: {use}")
