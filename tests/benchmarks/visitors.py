"""How long visitors of the app wait for a slider's move: one in a real browser, then eight at once, who speak to the server as browsers do.

    python tests/benchmarks/visitors.py [--visitors 8] [--seconds 10] [--no-browser]

Every visitor opens another drawn scene by its address and moves a slider as soon as the last answer is there. Each answer says of which
scene it is: an answer with somebody else's ends the benchmark. The baseline is one visitor alone in the same run.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kit.encode import Clip  # noqa: E402
from kit.ui import frame  # noqa: E402
from kit.ui.explore import SCENES, Explore  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
HIGHEST_ALONE, HIGHEST_TOGETHER = 300, 1000  # ms, p95: one visitor in the browser, all of them at the server
MOVES = 40  # in the browser


def main() -> None:
    parser = argparse.ArgumentParser(description="Times a slider's move for one visitor and for several at once, with the tiny CLIP.")
    parser.add_argument("--visitors", type=int, default=8, help="at once (default 8, at most 12)")
    parser.add_argument("--seconds", type=float, default=10, help="that each of them moves the slider (default 10)")
    parser.add_argument("--no-browser", action="store_true", help="leave out the visitor in Chromium")
    options = parser.parse_args()
    torch.set_num_threads(1)
    demo, pages = frame.build(Clip.load("tiny"))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **frame.LAUNCH)
    try:
        if not options.no_browser:
            in_browser(url)
        events = page_events(demo, pages["Explore"])
        alone = together(url, events, pages["Explore"], 1, options.seconds)
        report("one visitor at the server", alone, alone)
        everybody = together(url, events, pages["Explore"], options.visitors, options.seconds)
        report(f"{options.visitors} visitors at once", everybody, alone, target=HIGHEST_TOGETHER)
    finally:
        demo.close()


def page_events(demo: gr.Blocks, page: Explore) -> tuple[int, int]:
    """The numbers of the events that open the page and that a slider's move asks for."""
    load = next(number for number, event in demo.fns.items() if event.name == "open_first")
    slider = page.own[page.studio.default, "background_power"]
    move = next(number for number, event in demo.fns.items() if (slider._id, "input") in event.targets)
    return load, move


class Visitor:
    """A session of its own, as a browser keeps it."""

    def __init__(self, url: str, events: tuple[int, int], page: Explore, scene: int):
        self.url, self.scene, self.move_event, self.page = url, scene, events[1], page
        self.session, self.web = f"visitor{scene}", httpx.Client(timeout=60)
        _, _, _, _, *opened = self.ask(events[0], [])
        self.values = {name: control.value for name, control in page.controls.items()}
        self.values |= {name: value for name, value in zip(page.controls, opened, strict=True) if isinstance(value, str | list)}
        self.values["words"] = []

    def ask(self, event: int, data: list) -> list:
        """What an event answers."""
        where = {"scene": self.scene}
        body = {"data": data, "fn_index": event, "session_hash": self.session}
        asked = self.web.post(f"{self.url}gradio_api/queue/join", params=where, json=body).raise_for_status().json()["event_id"]
        with self.web.stream("GET", f"{self.url}gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                said = json.loads(line[5:]) if line.startswith("data:") else {}
                if said.get("event_id") == asked and said["msg"] == "process_completed":
                    if not said["success"]:
                        raise SystemExit(f"refused: {said['output']}")
                    return said["output"]["data"]
        raise SystemExit("the server ended the stream without an answer")

    def move(self, power: float) -> float:
        """Seconds from the slider's move to the answer, which must be of this visitor's scene."""
        self.values[self.page.studio.default, "background_power"] = power
        clock = time.perf_counter()
        strip = self.ask(self.move_event, [None, None, self.page.studio.default, *self.values.values()])[0]
        seconds = time.perf_counter() - clock
        if f"?scene={self.scene}&amp;" not in strip or f"background_power={power}" not in strip:
            raise SystemExit(f"the visitor of scene {self.scene} got another answer: {strip[-300:]}")
        return seconds


def together(url: str, events: tuple[int, int], page: Explore, count: int, seconds: float) -> list[float]:
    visitors = [Visitor(url, events, page, scene) for scene in SCENES[:count]]
    start = threading.Barrier(count)

    def moves(visitor: Visitor) -> list[float]:
        rng, taken = np.random.default_rng(visitor.scene), []
        start.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            taken.append(visitor.move(round(float(rng.uniform(0.5, 19)), 3)))
        return taken

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(moves, visitors), [])


def in_browser(url: str) -> None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("no browser: playwright is not installed")
        return
    if not CHROMIUM.exists():
        print(f"no browser: {CHROMIUM} is not there")
        return
    with sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.locator(".kit-strip figure", has_text="unsure").wait_for()
        taken = page.evaluate(MOVED, MOVES)
        browser.close()
    report("slider to redraw in the browser", [one / 1000 for one in taken], [one / 1000 for one in taken], target=HIGHEST_ALONE)


# The slider is moved a step, and the clock stops when the heat after it has been decoded.
MOVED = """async moves => {
  const slider = document.querySelector('[aria-label="range slider for Box threshold"]'), taken = [];
  const heat = () => document.querySelector('.kit-strip figure[data-stage="affinity"] img');
  for (let move = 0; move < moves; move++) {
    const before = heat().src, clock = performance.now();
    slider.value = String(0.25 + 0.5 * ((move * 7) % 11) / 11);
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    while (heat().src === before && performance.now() - clock < 5000) await new Promise(requestAnimationFrame);
    await heat().decode();
    taken.push(performance.now() - clock);
    await new Promise(done => setTimeout(done, 700));  // the refiner follows
  }
  return taken;
}"""


def report(name: str, seconds: Sequence[float], baseline: Sequence[float], *, target: float | None = None) -> None:
    middle, high = np.percentile(seconds, [50, 95])
    verdict = "" if target is None else f", target p95 at most {target} ms: {'met' if 1000 * high <= target else 'MISSED'}"
    ratio = middle / float(np.median(baseline))
    print(f"{name:32} {len(seconds):4} moves   p50 {1000 * middle:5.0f} ms = {ratio:4.1f} x alone   p95 {1000 * high:5.0f} ms{verdict}")


if __name__ == "__main__":
    main()
