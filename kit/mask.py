"""From class maps to a label map: the background's score, the winner, how sure it is, and what to ignore."""

from collections.abc import Callable

import torch
from torch import Tensor

from kit.shapes import check_shape

IGNORE = 255  # VOC's "void"; losses and scores leave it out


def leftover_background(cam: Tensor, *, power: float = 1.0) -> Tensor:
    """Background is whatever no class has claimed: (1 - max over classes) ** power.

    cam (B, C, H, W) in [0, 1] -> (B, 1, H, W) in [0, 1].   Source: CLIP-ES, released code (power 1).
    """
    return (1 - cam.amax(1, keepdim=True)).clamp_min(0) ** power


def constant_background(cam: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Background has the same score everywhere: a threshold on the maps.   cam (B, C, H, W) -> (B, 1, H, W)."""
    return torch.full_like(cam[:, :1], threshold)


def with_background(cam: Tensor, *, background: Callable[[Tensor], Tensor] = leftover_background) -> Tensor:
    """The background's score in front of the classes'.

    cam (B, C, H, W) in [0, 1] -> (B, 1 + C, H, W); the planes need not sum to 1.   Source: CLIP-ES, released code.
    """
    check_shape(cam, "B C H W", "cam")
    return torch.cat([background(cam), cam], 1)


def label_map(scores: Tensor) -> Tensor:
    """The plane that wins at each pixel; the first one wins a tie, so that background does.

    scores (B, K, H, W) -> int64 (B, H, W) in 0..K-1, 0 = background.
    """
    check_shape(scores, "B K H W", "scores")
    return scores.max(1).indices  # the first of equals, as argmax, and ten times faster across planes


def confidence(scores: Tensor) -> Tensor:
    """How large the winner's share is.

    scores (B, K, H, W) >= 0 -> (B, H, W) in [0, 1].   Source: CLIP-ES, section 3.4 (there of the CRF's output, which sums to 1).
    """
    check_shape(scores, "B K H W", "scores")
    return scores.amax(1) / scores.sum(1).clamp_min(1e-12)


def without_uncertain(labels: Tensor, sureness: Tensor, *, threshold: float = 0.95) -> Tensor:
    """The label map with uncertain pixels set to 255, which a cross entropy with ignore_index leaves out: confidence-guided loss.

    labels int (B, H, W), sureness (B, H, W) in [0, 1] -> int (B, H, W).   Source: CLIP-ES, section 3.4 and released code (0.95).
    """
    check_shape(sureness, " ".join(f"{size}" for size in labels.shape), "sureness")
    return labels.masked_fill(sureness < threshold, IGNORE)
