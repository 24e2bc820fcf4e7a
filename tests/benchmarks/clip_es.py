"""How long CLIP-ES takes on a ViT-B/16, as multiples of a bare encoder pass, and beside the released code's way.

    python tests/benchmarks/clip_es.py [--repeats 5] [--threads 2] [--device cpu]

Weights are random: times do not depend on them, and nothing is downloaded.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kit import cam, mask, refine, words  # noqa: E402
from kit.data import Sample  # noqa: E402
from kit.encode import Clip, Tokens, embed_patches  # noqa: E402
from kit.last_block import last_pass  # noqa: E402
from kit.methods import ClipEs  # noqa: E402
from kit.prompt import prompts  # noqa: E402
from kit.toy.scene import draw  # noqa: E402

CLASSES = ("horse", "person", "dog")
SIZE = (375, 500)  # a usual picture of PASCAL VOC: 24 x 32 patches
HIGHEST_SHARE = 0.45  # of an encoder pass, for CAM and affinity together; aim 0.35
LOWEST_GAIN = 3.0  # against the released way


def main() -> None:
    parser = argparse.ArgumentParser(description="Times CLIP-ES on a ViT-B/16 with random weights.")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of everything, taken in turn (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads PyTorch may use on the CPU (default 2)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    clip = Clip.load("ViT-B-16:random", device=options.device)
    pipeline = ClipEs(clip, smoothing=0.01)  # with random weights a pixel may have no score at all
    sample = Sample(draw(0, size=SIZE).image, CLASSES)
    pixels = clip.prepare(sample.image)[None].to(clip.device)
    settings = pipeline.settings
    text = clip.text(prompts(settings.template, CLASSES, settings.synonyms) + prompts(settings.template, settings.background))
    tokens = pipeline.encode(sample.image)
    block = TrainableLastBlock(clip)

    ours = class_maps(tokens, text)
    worst = (ours - released_class_maps(block, tokens, text)).abs().max().item()
    if not worst <= 1e-4:
        raise SystemExit(f"expected both ways to give the same maps (1e-4), they differ by {worst:.1e}: times would mean nothing")
    finest = spread_maps(tokens, ours, sample.image.shape[:2])
    scores = mask.with_background(finest)[0]

    ways: dict[str, Callable[[], object]] = {
        "bare encoder pass": lambda: bare_encoder_pass(clip, pixels),
        "encode": lambda: pipeline.encode(sample.image),
        "CAM": lambda: class_maps(tokens, text),
        "affinity": lambda: spread_maps(tokens, ours, sample.image.shape[:2]),
        "released CAM": lambda: released_class_maps(block, tokens, text),
    }
    if refine.has_dense_crf():
        ways["dense CRF"] = lambda: list(refine.dense_crf(sample.image, scores, smoothing=settings.smoothing))
    seconds = medians(ways, options.repeats, clip.device)
    report(seconds, options, worst)


def class_maps(tokens: Tokens, text: Tensor) -> Tensor:
    """The kit's way, from tokens to normalised maps.   -> (1, C, h, w)."""
    return cam.normalised_cam(cam.softmax_grad_cam(tokens, text, range(len(CLASSES)), done=last_pass(tokens)))


def spread_maps(tokens: Tokens, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """What follows the CAM, up to the size of the picture.   (1, C, h, w) -> (1, C, H, W)."""
    affinity = refine.attention_affinity(tokens.attention[:, -8:])
    return refine.upsampled(cam.stretched(refine.spread(maps, affinity, refine.box_mask(maps))), size)


@torch.no_grad()
def bare_encoder_pass(clip: Clip, pixels: Tensor) -> Tensor:
    """open_clip's own blocks with fused attention and no attention map: what any use of CLIP at this size has to pay."""
    visual = clip.model.visual
    embedded, _ = embed_patches(visual, pixels)
    return visual.ln_post(visual.transformer(embedded)[:, 0]) @ visual.proj


class TrainableLastBlock:
    """A copy of the last block whose parameters take gradients, as they do in the released code."""

    def __init__(self, clip: Clip):
        self.block = copy.deepcopy(clip.blocks[-1]).requires_grad_(True)
        self.ln_post, self.projection = clip.model.visual.ln_post, clip.model.visual.proj
        self.logit_scale = clip.model.logit_scale.exp()


def released_class_maps(last: TrainableLastBlock, tokens: Tokens, text: Tensor) -> Tensor:
    """The released code's way: for every class the last block forwards and backwards, with its attention map and all its parameters'
    gradients.   -> (1, C, h, w).
    """
    block, maps = last.block, []
    for target in range(len(CLASSES)):
        activation = block.ln_1(tokens.last_input)
        activation.retain_grad()
        mixed, _ = block.attn(activation, activation, activation, need_weights=True)
        x = tokens.last_input + mixed
        x = x + block.mlp(block.ln_2(x))
        vector = F.normalize(last.ln_post(x)[:, 1:].mean(1) @ last.projection, dim=-1)
        probability = (last.logit_scale * vector @ text.T).softmax(-1)
        block.zero_grad()
        probability[0, target].backward()
        channels = activation.grad[:, 1:].mean(1, keepdim=True)  # (1, 1, E)
        maps.append((channels * activation.detach()[:, 1:]).sum(-1).unflatten(-1, tokens.grid))
    return cam.normalised_cam(torch.stack(maps, 1))


def medians(ways: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """The median seconds of each way. The ways take turns, so that a busy minute of the machine falls on all of them."""
    taken = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = _now(device)
            way()
            if turn > 0:  # the first turn warms up
                taken[name].append(_now(device) - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def report(seconds: Mapping[str, float], options: argparse.Namespace, worst: float) -> None:
    bare = seconds["bare encoder pass"]
    cam_affinity = seconds["CAM"] + seconds["affinity"]
    stages = [name for name in ("encode", "CAM", "affinity", "dense CRF") if name in seconds]
    rows = {
        "bare encoder pass": bare, **{name: seconds[name] for name in stages}, "total": sum(seconds[name] for name in stages),
        "CAM + affinity": cam_affinity, "released CAM": seconds["released CAM"],
        "released CAM + affinity": seconds["released CAM"] + seconds["affinity"],
    }  # fmt: skip
    print(f"CLIP-ES, ViT-B/16, {SIZE[0]} x {SIZE[1]} pixels, {len(CLASSES)} classes and {len(words.VOC_BACKGROUND)} background words")
    print(f"{options.device}, {options.threads} threads, medians of {options.repeats}; both ways' maps differ by at most {worst:.0e}\n")
    print(f"{'':26}{'ms':>8}{'x bare pass':>14}")
    for name, taken in rows.items():
        print(f"{name:26}{taken * 1000:8.0f}{taken / bare:14.2f}")
    if "dense CRF" not in seconds:
        print("(no dense CRF: pydensecrf2 is not installed)")
    share, gain = cam_affinity / bare, seconds["released CAM"] / seconds["CAM"]
    print(f"\nCAM + affinity: {share:.2f} of a bare pass, target at most {HIGHEST_SHARE} (aim 0.35): {_verdict(share <= HIGHEST_SHARE)}")
    print(f"released CAM / our CAM: {gain:.1f}, target at least {LOWEST_GAIN:.0f}: {_verdict(gain >= LOWEST_GAIN)}")
    print(f"with the affinity on both sides: {rows['released CAM + affinity'] / cam_affinity:.1f}")


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
