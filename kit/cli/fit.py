"""`python -m kit fit`: what a method learns."""

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
    from kit.method import Pipeline

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
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE.py", help="A method, or a Python file with one of your own.  [default: the first that learns]"),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Which lessons of the method; one that builds on another needs it as --weights.  [default: all]"),
    ] = None,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="What was learned before and stays.", show_default=False)] = None,
    model: options.Model = "tiny",
    device: options.Device = None,
    precision: options.Precision = "float32",
    parts: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pieces a batch is cut into, for less memory.  [default: the settings']")
    ] = None,
    sam: options.Sam = None,
    changes: options.Settings = None,
    restart: Annotated[bool, typer.Option("--restart", help="Learn anew, even if FILE or FILE.work is there already.")] = False,
) -> None:
    """Learn what a method learns; a run that was stopped or killed goes on where it was when the same command is given again.

    \b
    python -m kit fit --out prompts.safetensors
    python -m kit fit --data voc --root VOC2012 --split train_aug --out voc.safetensors --model ViT-B-16-quickgelu:openai
    torchrun --nproc-per-node 4 -m kit fit --data coco --root COCO2014 --out coco.safetensors --model ViT-B-16-quickgelu:openai

    \b
    Only image-level labels are learned from. Steps, learning rates and the rest are settings: --set coarse.steps=600 --set seed=1.
    FILE knows its CLIP, classes, data, split and settings; evaluate, generate and segment take it as --weights FILE.

    Under torchrun the processes share every batch, each on the GPU of its number. Exit code 1 if learning failed, 2 for a wrong
    option, 130 or 143 after Ctrl-C or a signal to end.
    """
    from kit.fit import fit_steps
    from kit.methods import METHODS
    from kit.shard import Shard

    with options.refusal():
        shard = Shard.from_environment()
        quiet = shard.rank > 0
        if method is None and weights is None:
            method = next(name for name, known in METHODS.items() if known.lessons)
        choice = options.the_only(
            options.choices(method, str(weights or options.NO_WEIGHTS), changes, model=model, data=data, sam=("proposals", sam))
        )
        lessons = choice.method.lessons
        if not lessons:
            able = ", ".join(name for name, known in METHODS.items() if known.lessons)
            raise options.OptionError(f"--method {method}: it learns nothing, its words are used as they are; --method {able} learns")
        options.check_file("--out", out)
        chosen = tuple(lessons) if tasks is None else options.listed(tasks, "--tasks")
        if parts is not None:
            choice.changes.update({f"{lesson.learning}.parts": parts for lesson in lessons.values()})
            choice.check(model, data)
        named_split = split or (None if data == "folder" else "train")
        pictures = options.opened_data(data, root=root, split=named_split, labels=labels, images=images, size=size, skip_bad=skip_bad)
        if skip_bad:
            pictures = _readable(pictures, quiet=quiet)
        own = options.own_device(shard) if device is None else device
        pipeline = choice.pipeline(options.loaded_clip(model, own, precision=precision, data=data, quiet=quiet), data)
        _check_parts(pipeline, len(pictures), shard.world)
        steps = fit_steps(pipeline, pictures, out, lessons=chosen, rank=shard.rank, world=shard.world)
    use = ["python", "-m", "kit", "evaluate", "--weights", str(out)]
    use += ["--method", method] if choice.method.name not in METHODS else []
    use += [*(["--model", model] if model != "tiny" else []), *([] if data == "toy" else ["--data", data, "--root", str(root)])]
    with options.refusal(), shard.together():
        there = shard.agreed(lambda: _begun(out, steps.pipeline, pictures, chosen, restart))
        if there:
            if not quiet:
                print(f"{there}; to use it: {shlex.join(use)}")
            return
        clock = time.monotonic()
        seen = _run(iter(steps), quiet=quiet, hint=not skip_bad)
    if not quiet:
        _summary(out, pictures, seen, time.monotonic() - clock, shlex.join(use))


def _check_parts(pipeline: "Pipeline", count: int, world: int) -> None:
    """Refuses, before pictures are encoded, batches that cannot be cut so."""
    for lesson in pipeline.method.lessons.values():
        learning = pipeline.settings.value(lesson.learning)
        parts, most = max(learning.parts, world), min(learning.batch, count)
        if parts % world or parts > most:
            several = f"a multiple of the {world} processes, " if world > 1 else ""
            pictures = output.counted(most, "pictures")
            raise options.OptionError(f"{lesson.learning}.parts {parts}: expected {several}at most the {pictures} of a batch")


def _begun(out: Path, pipeline: "Pipeline", pictures: "DataSet", tasks: tuple[str, ...], restart: bool) -> str:
    """Makes room for what is learned anew; else says what there is already, "" if there is something to do.

    Raises OptionError if the file that is there is another one.
    """
    from kit.fit import clear_work, list_hash, work_folder_of
    from kit.learned import LearnedError, load_learned
    from kit.manifest import differences

    work, lessons, clip = work_folder_of(out), pipeline.method.lessons, pipeline.clip
    if restart:
        if out.is_file():
            load_learned(out)  # nothing else is removed
            out.unlink()
        clear_work(work)
        return ""
    before = [need for name in tasks for need in lessons[name].needs if need not in tasks]
    wanted = {
        "method": pipeline.method.name, "code": pipeline.code, "settings": pipeline.settings.to_dict(), "clip": clip.fingerprint,
        "precision": clip.precision, "classes": list(pictures.classes), "data": pictures.name, "split": pictures.split,
        "labels_from": pictures.labels_from, "images": len(pictures), "list": list_hash(pictures),
    }  # fmt: skip
    for there, tasks_too in ((out, {"tasks": [*before, *tasks]}), (work / f"{tasks[0]}.safetensors", {})):
        if not there.exists():
            continue
        try:
            _, made = load_learned(there)
        except LearnedError as error:
            raise options.OptionError(f"--out {error}; choose another --out") from error
        now = {**wanted, **tasks_too}
        if other := differences({name: made.get(name) for name in now}, now, pipeline.method):
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

    reasons = []
    with ThreadPoolExecutor(READERS) as pool, output.progress("reading", len(pictures), quiet=quiet) as bar:
        for why in pool.map(reason, pictures.entries):
            reasons.append(why)
            bar.update()
    refused = tuple((entry.id, why) for entry, why in zip(pictures.entries, reasons, strict=True) if why)
    kept = tuple(itertools.compress(pictures.entries, [not why for why in reasons]))
    return dataclasses.replace(pictures, entries=kept, refused=(*pictures.refused, *refused))


def _run(steps: Iterator["FitStep"], *, quiet: bool, hint: bool) -> dict[str, list["FitStep"]]:
    """All steps, or as many as somebody lets it make; what was learned so far is kept.   -> first and last step of each lesson."""
    seen: dict[str, list[FitStep]] = {}
    begun = False
    with _told_to_stop() as told, output.learning(quiet=quiet) as tell, closing(steps):
        try:
            for step in steps:
                begun = True
                if step.losses:
                    seen[step.task] = [seen.get(step.task, [step])[0], step]
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
    return seen


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


def _summary(out: Path, pictures: "DataSet", seen: dict[str, list["FitStep"]], seconds: float, use: str) -> None:
    from kit.learned import load_learned

    output.name_refused(list(pictures.refused), "left out")
    of_split = f"split {pictures.split} of " if pictures.split else ""
    print(
        f"learned from {output.counted(len(pictures), 'images')} of {of_split}{pictures.name}, labels: {pictures.labels_from}, "
        f"in {seconds:,.0f} s"
    )
    for name, values in load_learned(out)[0].items():
        words = "learned before"
        if name in seen:
            first, last = seen[name]
            words = f"loss {first.loss:.4f} at step {first.step:,}, {last.loss:.4f} at step {last.step:,}"
        print(f"  {name}: {' x '.join(map(str, values.shape))} numbers, {words}")
    print(f"{out} holds it; to use it: {use}")
