"""What a step of learning costs, beside what it is made of: the text, an encoder pass, and the last block's second-order pass.

    python tests/benchmarks/fit.py [--model tiny] [--batch 8] [--repeats 7] [--threads 2] [--device cpu] [--precision float32]

Drawn scenes of 160 x 160 pixels for the tiny CLIP, pieces of 224 x 224 for others. Nothing is downloaded; ARCHITECTURE:random has untrained
weights, of which times do not depend.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kit.cam import masked_softmax_grad_cam  # noqa: E402
from kit.data import toy_samples  # noqa: E402
from kit.encode import Clip  # noqa: E402
from kit.last_block import last_pass  # noqa: E402
from kit.losses import activation_loss, multi_label_contrastive_loss  # noqa: E402
from kit.methods.fma_wsss import FmaWsss, prompt_context  # noqa: E402
from kit.views import embedding, label_rows  # noqa: E402
from kit.words import VOC_CLASSES  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description="Times a step of learning and its parts.")
    parser.add_argument("--model", default="tiny", help="tiny (default), or one like ViT-B-16:random")
    parser.add_argument("--batch", type=int, default=8, help="pictures a step (default 8)")
    parser.add_argument("--repeats", type=int, default=7, help="repetitions, all parts taken in turn (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="threads PyTorch may use on the CPU (default 2)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    parser.add_argument("--precision", default="float32", help="float32 (default) or bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clip = Clip.load(options.model, device=options.device, precision=options.precision)
    seconds = measured(clip, options.batch, options.repeats)
    report(seconds, options)


def measured(clip: Clip, batch: int, repeats: int) -> dict[str, float]:
    """Median seconds of each part, of the two kinds of step as they are with cached tokens, and with the encoder's pass in each step."""
    settings = FmaWsss(clip, learned=None).settings
    samples = list(toy_samples("train", batch, size=160 if clip.is_tiny else 224))
    pixels = torch.stack([clip.prepare(sample.image) for sample in samples]).to(clip.device)
    seeds = torch.stack([torch.from_numpy(sample.truth).long() for sample in samples]).to(clip.device)
    labels = label_rows([sample.names for sample in samples], VOC_CLASSES).to(clip.device)
    tokens = clip.encode(pixels, layers=())
    vectors, scale = embedding(tokens), clip.last_block().logit_scale
    coarse, fine = (prompt_context(clip, settings, VOC_CLASSES, lesson).to(clip.device) for lesson in FmaWsss.lessons)
    rows = fine.text(clip).detach()

    def text_only() -> None:
        fine.text(clip).sum().backward()

    def second_order() -> None:
        text = rows.clone().requires_grad_()
        sum(activation_loss(masked_softmax_grad_cam(tokens, text, labels), labels, seeds)).backward()

    def classification_step(seen: torch.Tensor) -> None:
        text = coarse.text(clip)[: len(VOC_CLASSES)]
        multi_label_contrastive_loss(scale * seen @ text.T, labels).backward()

    def segmentation_step(seen) -> None:
        sum(activation_loss(masked_softmax_grad_cam(seen, fine.text(clip), labels), labels, seeds)).backward()

    parts: dict[str, Callable[[], object]] = {
        "encoder pass": lambda: clip.encode(pixels, layers=()),
        "text, forwards and backwards": text_only,
        "last block forwards": lambda: last_pass(tokens),
        "maps and their second-order pass": second_order,
        "classification step, cached": lambda: classification_step(vectors),
        "classification step, encoded anew": lambda: classification_step(embedding(clip.encode(pixels, layers=()))),
        "segmentation step, cached": lambda: segmentation_step(tokens),
        "segmentation step, encoded anew": lambda: segmentation_step(clip.encode(pixels, layers=())),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(repeats + 1):
        for name, part in parts.items():
            clock = time.perf_counter()
            part()
            if clip.device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - clock)
    return {name: statistics.median(some) for name, some in times.items()}


def report(seconds: dict[str, float], options: argparse.Namespace) -> None:
    print(f"{options.model} ({options.precision}), batches of {options.batch}, {options.device}, {options.threads} threads, medians\n")
    print(f"{'':36}{'ms':>10}{'x encoder pass':>16}{'images/s':>10}")
    for name, spent in seconds.items():
        print(f"{name:36}{1000 * spent:10.0f}{spent / seconds['encoder pass']:16.2f}{options.batch / spent:10.1f}")
    structure = seconds["text, forwards and backwards"] + seconds["maps and their second-order pass"]
    print(
        f"\na cached segmentation step is {seconds['segmentation step, cached'] / structure:.2f} x its text and second-order pass together,"
    )
    anew = structure + seconds["encoder pass"]
    print(f"one that encodes anew {seconds['segmentation step, encoded anew'] / anew:.2f} x these and an encoder pass;")
    gain = seconds["segmentation step, encoded anew"] / seconds["segmentation step, cached"]
    print(f"cached tokens make it {gain:.2f} times as fast")


if __name__ == "__main__":
    main()
