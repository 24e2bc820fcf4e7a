"""How long a slider's move takes in the app's Explore page, on the server's side: the redraw without the refiner, then the dense CRF.

    python tests/benchmarks/redraw.py [--repeats 200] [--threads 2] [--device cpu]

The page's own functions are called as the app calls them, from the slider's value to the HTML with its PNGs; no browser, no network.
"""

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kit import refine  # noqa: E402
from kit.encode import Clip  # noqa: E402
from kit.methods import METHODS  # noqa: E402
from kit.show import COLOUR_MAPS  # noqa: E402
from kit.ui.explore import Explore  # noqa: E402
from kit.ui.session import Studio  # noqa: E402

VISITOR = SimpleNamespace(session_hash="benchmark", query_params={})  # all the page reads of a request
HIGHEST_REDRAW = 150  # ms, p95 of redraws
CRF_RUNS = 20
PAUSE = 0.1  # seconds between the start of the CRF and the move that makes it pointless


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the redraws of the Explore page with the tiny CLIP.")
    parser.add_argument("--repeats", type=int, default=200, help="moves of a slider (default 200)")
    parser.add_argument("--threads", type=int, default=2, help="threads PyTorch may use on the CPU (default 2)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    parser.add_argument("--method", default=next(iter(METHODS)), choices=METHODS, help="default %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with gr.Blocks() as demo:
        page = Explore(Studio(Clip.load("tiny", device=options.device)), demo)
    hand = Hand(page, options.method, np.random.default_rng(0))
    height, width = page.studio.sample(VISITOR.session_hash, hand.key).image.shape[:2]
    print(f"Explore, tiny CLIP, drawn scene of {height} x {width} pixels with {', '.join(hand.names)}")
    print(f"{options.device}, {options.threads} threads")

    hand.redraw()  # warms up, and encodes the picture
    calls, moves, passes = 0, [], []
    for _ in range(options.repeats):
        passes.append(timed(hand.encode))
        before = page.clip.calls
        moves.append(timed(hand.move))
        calls += page.clip.calls - before
    yardstick = float(np.median(passes))
    report("encoder pass (the yardstick)", passes, yardstick)
    report("redraw without refiner", moves, yardstick, target=HIGHEST_REDRAW)
    print(f"encoder calls during these {options.repeats} moves: {calls} (must be 0)")
    if calls:
        raise SystemExit("a slider made the encoder run: its tokens should have come from the shelf")

    if not refine.has_dense_crf():
        print("no dense CRF: pydensecrf2 is not installed")
        return
    followed, dropped = [], []
    for _ in range(CRF_RUNS):
        hand.question()
        followed.append(timed(hand.refine))
        dropped.append(hand.refine_until_next_move())
    report("dense CRF that follows", followed, yardstick)
    print(f"the next move comes {1000 * PAUSE:.0f} ms after the CRF began")
    report("from that move to the CRF's end", dropped, yardstick)


class Hand:
    """A visitor's hand on the page: what the controls say, and moves of one of them at a time."""

    def __init__(self, page: Explore, method: str, rng: np.random.Generator):
        self.page, self.method, self.rng = page, method, rng
        self.key, _, _, _, *opened = page.open_first(VISITOR)
        self.names = dict(zip(page.controls, opened, strict=True))["classes"]
        self.values = {name: control.value for name, control in page.controls.items()}
        self.values |= {"classes": list(self.names), "words": [], "shown": self.names[0]}

    def encode(self) -> None:
        studio = self.page.studio
        studio.start(self.method).encode(studio.sample(VISITOR.session_hash, self.key).image)

    def redraw(self) -> None:
        self.page.redraw(VISITOR, self.key, {}, self.method, *self.values.values())

    def move(self) -> None:
        """Turn one knob that redraws live to a random place within its range."""
        knobs = [(name, control) for name, control in self.page.controls.items() if self.is_live(name, control)]
        name, control = knobs[self.rng.integers(len(knobs))]
        if isinstance(control, gr.Slider):
            value = float(self.rng.uniform(control.minimum, control.maximum))
            self.values[name] = round(value) if control.step == 1 else value
        elif isinstance(control, gr.Checkbox):
            self.values[name] = not self.values[name]
        else:
            self.values[name] = str(self.rng.choice(list(COLOUR_MAPS)))
        self.redraw()

    def is_live(self, name: str | tuple[str, str], control: gr.components.Component) -> bool:
        """Sliders and boxes of the method, but not the size that the encoder sees."""
        own = isinstance(name, tuple) and name[0] == self.method and name[1] != "side_limit"
        return name in ("opacity", "colour_map") or (own and isinstance(control, gr.Slider | gr.Checkbox))

    def question(self) -> None:
        """Ask something new, so that what follows has to start again."""
        self.values[self.method, "background_power"] = float(self.rng.uniform(0.1, 20))
        self.redraw()

    def refine(self) -> None:
        """The refiner after a move, to its end or until it is dropped."""
        self.page.refine(VISITOR, self.key)

    def refine_until_next_move(self) -> float:
        """The refiner, dropped by a move in another thread -> seconds from the move to the end."""
        self.question()
        moved = []

        def next_move() -> None:
            moved.append(time.perf_counter())
            self.question()

        timer = threading.Timer(PAUSE, next_move)
        timer.start()
        self.refine()
        ended = time.perf_counter()
        timer.join()
        return max(0.0, ended - moved[0])  # 0: it had finished before the move


def timed(act) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def report(name: str, seconds: Sequence[float], yardstick: float, *, target: float | None = None) -> None:
    middle, high = np.percentile(seconds, [50, 95])
    verdict = "" if target is None else f", target p95 at most {target} ms: {'met' if 1000 * high <= target else 'MISSED'}"
    print(f"{name:32} p50 {1000 * middle:5.0f} ms = {middle / yardstick:4.1f} passes   p95 {1000 * high:5.0f} ms{verdict}")


if __name__ == "__main__":
    main()
