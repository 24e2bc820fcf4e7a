"""Work that a visitor starts, watches and stops: one at a time for each, a few for all."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from kit.ui import figures
from kit.ui.session import OURS, Refused, Studio


@dataclass(frozen=True, eq=False)
class Run:
    """A visitor's work from Start to its end; order: what is to be done."""

    order: Any
    ticket: threading.Lock = field(default_factory=threading.Lock)  # taken by whoever does the work, once and for all
    stopped: threading.Event = field(default_factory=threading.Event)
    paused: threading.Event = field(default_factory=threading.Event)  # until it is cleared
    skipped: threading.Event = field(default_factory=threading.Event)  # what comes after the work itself
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def is_going(self) -> bool:
        return self.ticket.locked() and not self.over.is_set()


class Desk:
    """Where orders of one kind are taken.

    name: of a visitor's run on the shelf; outputs: how many the page shows, the first one a sentence; busy: what is told to somebody who
    starts twice; failed: what an error's sentence begins with.
    """

    def __init__(self, studio: Studio, name: str, outputs: int, *, busy: str, failed: str):
        self.studio, self.name, self.outputs, self.busy, self.failed = studio, name, outputs, busy, failed

    def check_free(self, visitor: str) -> None:
        """Raises Refused while the visitor's last order is worked on."""
        before = self.run_of(visitor)
        if before is not None and before.is_going:
            raise Refused(self.busy)

    def take(self, visitor: str, order: Any) -> None:
        self.studio.shelf.put(visitor, self.name, Run(order), 1)

    def run_of(self, visitor: str) -> Run | None:
        return self.studio.shelf.get(visitor, self.name)

    def stop(self, visitor: str) -> None:
        if (run := self.run_of(visitor)) is not None:
            run.stopped.set()

    def skip(self, visitor: str) -> None:
        if (run := self.run_of(visitor)) is not None:
            run.skipped.set()

    def pause(self, visitor: str) -> bool:
        """Hold the work, or let it go on -> whether it is held now."""
        run = self.run_of(visitor)
        if run is None or not run.is_going:
            return False
        (run.paused.clear if run.paused.is_set() else run.paused.set)()
        return run.paused.is_set()

    def has_left(self, visitor: str, run: Run) -> bool:
        return self.run_of(visitor) is not run

    def work(self, visitor: str, steps: Callable[[Run], Iterator]) -> Iterator:
        """What the page shows while the order is worked on, once; our own errors are told before they are raised."""
        run = self.run_of(visitor)
        if run is None:
            raise Refused("your order is no longer on the server: press Start again")
        if not run.ticket.acquire(blocking=False):
            yield [gr.skip()] * self.outputs
            return
        try:
            yield from steps(run)
        except OURS as error:
            yield figures.told(f"{self.failed}: {error}."), *[gr.skip()] * (self.outputs - 1)
            raise
        finally:
            run.over.set()


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
