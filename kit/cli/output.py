"""What a command says on the way, and how it writes its files."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kit.files import write_whole

if TYPE_CHECKING:
    from tqdm import tqdm

    from kit.fit import FitStep

SHOWN = 10  # refused pictures that are named on the screen
LINE_EVERY = 10.0  # seconds between two lines of progress where there is no terminal
LINE = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left{postfix}"


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def counted(count: int, things: str) -> str:
    """A number of things, one of them without the s.

    >>> counted(1, "images"), counted(2000, "images")
    ('1 image', '2,000 images')
    """
    return f"{count:,} {things.removesuffix('s') if count == 1 else things}"


def name_refused(refused: list[tuple[str, str]], word: str, more: str = "") -> None:
    """The first pictures that were refused, with the reason of each."""
    for name, why in refused[:SHOWN]:
        say(f"{word}: {name} ({why})")
    if len(refused) > SHOWN:
        say(f"{word}: {len(refused) - SHOWN:,} more{more}")


@contextmanager
def progress(title: str, total: int, *, unit: str = "images", quiet: bool = False) -> Iterator["tqdm"]:
    """A bar on a terminal, else a line every ten seconds, on stderr; yields the bar."""
    from tqdm import tqdm

    class Lines(tqdm):
        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            if msg is None:  # else it is the empty line over a bar that has ended
                print(self, file=sys.stderr, flush=True)

    on_lines = {"delay": LINE_EVERY, "mininterval": LINE_EVERY, "miniters": 1, "bar_format": LINE}
    kind, how = (tqdm, {}) if sys.stderr.isatty() else (Lines, on_lines)
    with kind(total=total, desc=title, unit=unit.removesuffix("s"), disable=quiet, file=sys.stderr, leave=False, **how) as bar:
        yield bar


@contextmanager
def learning(*, quiet: bool = False) -> Iterator[Callable[["FitStep"], None]]:
    """How far learning is, on stderr, one part after the other; yields what to call with each step."""
    with ExitStack() as opened:
        part = bar = None

        def tell(step: "FitStep") -> None:
            nonlocal part, bar
            if step.task != part:
                opened.close()
                part, bar = step.task, opened.enter_context(progress(step.task, step.steps, unit="steps", quiet=quiet))
            bar.set_postfix_str(f"loss {step.loss:.4f}" if step.losses else "", refresh=False)
            bar.update(step.step - bar.n)

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


def write_or_stop(path: Path | None, make: Callable[[], bytes]) -> None:
    """A file that was asked for; if it cannot be written, one sentence and exit code 1."""
    if path is None:
        return
    try:
        write_whole(path, make())
    except OSError as error:
        say(f"Error: {path}: the file cannot be written ({error.strerror or error})")
        raise typer.Exit(1) from None
