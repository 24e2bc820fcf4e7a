"""How many pictures a second `generate` finishes, beside a plain loop over single pictures.

    python tests/benchmarks/generate.py [--model tiny] [--images 48] [--workers 2] [--batch 16] [--repeats 3] [--threads 2] [--device cpu]

Drawn scenes: 160 x 160 pixels for the tiny CLIP, else 375 x 500 and 500 x 375 by turns. Nothing is downloaded; ARCHITECTURE:random has
untrained weights, of which times do not depend.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kit import refine  # noqa: E402
from kit.data import DataSet, Entry, toy_samples  # noqa: E402
from kit.encode import Clip  # noqa: E402
from kit.generate import generate_steps  # noqa: E402
from kit.images import load_image, load_mask, save_image, save_mask  # noqa: E402
from kit.method import Pipeline  # noqa: E402
from kit.methods import ClipEs  # noqa: E402
from kit.words import VOC_CLASSES  # noqa: E402

VOC_SIZES = ((375, 500), (500, 375))


def main() -> None:
    parser = argparse.ArgumentParser(description="Times `generate` beside a plain loop.")
    parser.add_argument("--model", default="tiny", help="tiny (default), or one like ViT-B-16:random")
    parser.add_argument("--images", type=int, default=48, help="pictures (default 48)")
    parser.add_argument("--workers", type=int, default=2, help="processes that refine and write (default 2)")
    parser.add_argument("--batch", type=int, default=16, help="pictures encoded together (default 16)")
    parser.add_argument("--refiner", default="crf", help="crf (default), pixel-adaptive, none")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions, taken in turn (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads PyTorch may use on the CPU (default 2)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    parser.add_argument("--precision", default="float32", help="float32 (default) or bfloat16")
    options = parser.parse_args()
    if options.refiner == "crf" and not refine.has_dense_crf():
        raise SystemExit("the dense CRF needs pydensecrf2: install it, or give --refiner pixel-adaptive")
    torch.set_num_threads(options.threads)

    clip = Clip.load(options.model, device=options.device, precision=options.precision)
    pipeline = ClipEs(clip, refiner=options.refiner, smoothing=0.01 if clip.is_untrained else 0.0)  # a pixel may have no score at all
    with tempfile.TemporaryDirectory() as folder:
        data = drawn(Path(folder), options.images, ((160, 160),) if clip.is_tiny else VOC_SIZES)
        loops, runs, starts = [], [], []
        for turn in range(options.repeats + 1):
            alone, together = Path(folder) / f"loop{turn}", Path(folder) / f"generate{turn}"
            loop = looped(pipeline, data, alone)
            run, start = generated(pipeline, data, together, options)
            equal = equal_pixels(alone, together / "SegmentationClass", data)
            if turn > 0:  # the first turn warms up
                loops.append(loop)
                runs.append(run)
                starts.append(start)
    report(loops, runs, starts, equal, options)


def drawn(folder: Path, count: int, sizes: tuple[tuple[int, int], ...]) -> DataSet:
    """Scenes as JPEG files, so that reading them is part of the work."""

    def entry(index: int) -> Entry:
        size = sizes[index % len(sizes)]
        sample = next(toy_samples("val", 1, size=size, start=index))
        path = folder / f"{sample.id}.jpg"
        save_image(path, sample.image)
        return Entry(sample.id, lambda: sample.names, lambda: size, lambda: load_image(path))

    return DataSet("toy", "val", VOC_CLASSES, "what is drawn", tuple(entry(index) for index in range(count)))


def looped(pipeline: Pipeline, data: DataSet, out: Path) -> float:
    """The plain way: one picture after the other, from file to file.   -> seconds."""
    out.mkdir()
    start = time.perf_counter()
    for sample in data.samples():
        labels = pipeline.segment(sample).pseudo_mask.cpu().numpy()
        numbers = np.full(256, 255, np.uint8)
        numbers[: 1 + len(sample.names)] = [0, *(VOC_CLASSES.index(name) + 1 for name in sample.names)]
        save_mask(out / f"{sample.id}.png", numbers[labels])
    return time.perf_counter() - start


def generated(pipeline: Pipeline, data: DataSet, out: Path, options: argparse.Namespace) -> tuple[float, float]:
    """`generate`.   -> seconds, and those of them before the first picture was done: processes start, the first batch is encoded."""
    start, first = time.perf_counter(), None
    for _ in generate_steps(pipeline, data, out, batch=options.batch, workers=options.workers):
        first = first or time.perf_counter()
    return time.perf_counter() - start, first - start


def equal_pixels(alone: Path, together: Path, data: DataSet) -> float:
    """The share of pixels whose label is the same both ways."""
    pairs = [(load_mask(alone / f"{entry.id}.png"), load_mask(together / f"{entry.id}.png")) for entry in data.entries]
    return sum(int((one == other).sum()) for one, other in pairs) / sum(one.size for one, _ in pairs)


def report(loops: list[float], runs: list[float], starts: list[float], equal: float, options: argparse.Namespace) -> None:
    loop, run, start = map(statistics.median, (loops, runs, starts))
    print(f"{options.model} ({options.precision}), {options.images} pictures, refiner {options.refiner}")
    print(
        f"{options.device}, {options.threads} threads, {options.workers} workers, batches of {options.batch}, medians of {options.repeats}"
    )
    print(f"labels equal both ways: {'all' if equal == 1 else f'{100 * equal:.4f} % of the pixels'}\n")
    print(f"{'':36}{'images/s':>10}{'x plain loop':>14}")
    for name, seconds in (("plain loop", loop), ("generate", run), ("generate without its start", run - start)):
        print(f"{name:36}{options.images / seconds:10.2f}{loop / seconds:14.2f}")
    print(f"\nstart: {start:.1f} s before the first picture is done, once a run")


if __name__ == "__main__":
    main()
