"""What a command says on the way, and how it writes its files."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kit.files import write_whole

if TYPE_CHECKING:
    from kit.fit import FitStep

SHOWN = 10  # refused pictures that are named on the screen
LINE_EVERY = 10.0  # seconds between two lines of progress where there is no terminal


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


class Pace:
    """How far a run is and how long it still takes, in words: "1,240 of 10,582, 18.3 images/s, 8 min left".

    The clock starts when the first work is done: what it took had the start of the program in it.
    """

    def __init__(self, total: int, *, unit: str = "images", clock: Callable[[], float] = time.monotonic):
        self.total, self.unit, self.clock = total, unit, clock
        self.done = self.worked = 0  # worked: since the clock was started
        self.start: float | None = None

    def step(self, count: int = 1, *, worked: bool = True) -> None:
        """More is done; worked: whether it took work, for what was there already says nothing about the speed."""
        self.done += count
        self.total = max(self.total, self.done)  # a process of several knows only roughly how large its share is
        if worked and self.start is None:
            self.start = self.clock()
        elif worked:
            self.worked += count

    def __str__(self) -> str:
        so_far = f"{self.done:,} of {self.total:,}"
        seconds = 0.0 if self.start is None else self.clock() - self.start
        if not self.worked or seconds <= 0:
            return so_far
        rate = self.worked / seconds
        speed = f"{rate:.1f} {self.unit}/s" if rate >= 0.95 else f"{1 / rate:.1f} s/{self.unit.removesuffix('s')}"
        return f"{so_far}, {speed}, {in_words((self.total - self.done) / rate)} left"


def counted(count: int, things: str) -> str:
    """A number of things, one of them without the s.

    >>> counted(1, "images"), counted(2000, "images")
    ('1 image', '2,000 images')
    """
    return f"{count:,} {things.removesuffix('s') if count == 1 else things}"


def in_words(seconds: float) -> str:
    """A time as one says it.

    >>> in_words(42), in_words(480), in_words(9000)
    ('42 s', '8 min', '2 h 30 min')
    """
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Callable[[str, Pace, str], None]]:
    """A bar on a terminal, else a line every ten seconds; yields what to call with a title, its pace, and what else there is to say."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    terminal = sys.stderr.isatty() and not quiet
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[words]}", markup=False))
    said = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), disable=not terminal, transient=True) as bar:
        task = bar.add_task("", total=1, words="")

        def show(title: str, pace: Pace, more: str = "") -> None:
            nonlocal said
            bar.update(task, description=title, total=pace.total, completed=pace.done, words=f"{pace}{more}")
            if not terminal and not quiet and time.monotonic() - said >= LINE_EVERY:
                say(f"{title}: {pace}{more}")
                said = time.monotonic()

        yield show


@contextmanager
def progress(title: str, total: int, *, unit: str = "images", quiet: bool = False) -> Iterator[Callable[..., None]]:
    """How far the run is, on stderr; yields what to call after each step."""
    pace = Pace(total, unit=unit)
    with _shown(quiet=quiet) as show:

        def advance(*, worked: bool = True) -> None:
            pace.step(worked=worked)
            show(title, pace)

        yield advance


@contextmanager
def learning(*, quiet: bool = False) -> Iterator[Callable[["FitStep"], None]]:
    """How far learning is, on stderr, one task after the other; yields what to call with each step."""
    pace, task = Pace(1), None
    with _shown(quiet=quiet) as show:

        def tell(step: "FitStep") -> None:
            nonlocal pace, task
            if step.task != task:
                task, pace = step.task, Pace(step.steps, unit="steps" if step.rate else "images")
            pace.step(step.step - pace.done)  # the first one has what an earlier run did in it
            show(task, pace, f", loss {step.loss:.4f}" if step.losses else "")

        yield tell


@contextmanager
def failure(*, hint: bool = False) -> Iterator[None]:
    """What goes wrong in the middle of a run ends it with one sentence and exit code 1; hint: whether --skip-bad would have helped."""
    from concurrent.futures.process import BrokenProcessPool

    from kit.data import DataError
    from kit.images import ImageError

    try:
        yield
    except BrokenProcessPool:
        say("Error: a process of the refiner died, most likely for want of memory: take fewer with --workers 1")
        raise typer.Exit(1) from None
    except (ValueError, OSError) as error:
        say(f"Error: {error}")
        if hint and isinstance(error, DataError | ImageError):
            say("note: --skip-bad leaves such pictures out and names them")
        raise typer.Exit(1) from None


def json_bytes(values: dict) -> bytes:
    return json.dumps(values, indent=2, allow_nan=False).encode() + b"\n"


def write_or_stop(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        say(f"Error: {path}: the file cannot be written ({error.strerror or error})")
        raise typer.Exit(1) from None
