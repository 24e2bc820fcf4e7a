"""The papers' losses as plain functions of tensors; each is a sum in words, and zero with a graph where there is nothing to sum."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.shapes import check_shape


def multi_label_contrastive_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Each class of an image against the classes that the image does not have; its other classes are neither friend nor foe.

    logits (B, C), labels (B, C) 0 or 1 -> scalar: the mean over all pairs (b, p) with labels[b, p] = 1 of
    -log( exp(s_bp) / (exp(s_bp) + sum over j with labels[b, j] = 0 of exp(s_bj)) ).
    Images with all classes or with none have no contrast and are left out.   Source: FMA-WSSS, released code ("pos_mean").
    """
    check_shape(logits, "B C", "logits")
    labels = check_shape(labels, "B C", "labels", **dict(zip("BC", logits.shape, strict=True))).bool()
    contrast = labels.any(1) & ~labels.all(1)
    if not contrast.any():
        return logits.sum() * 0
    logits, labels = logits[contrast], labels[contrast]
    rivals = logits.masked_fill(labels, -torch.inf).logsumexp(1, keepdim=True)  # (B, 1)
    return F.softplus(rivals - logits)[labels].mean()


def activation_loss(cam: Tensor, present: Tensor, seed: Tensor, *, ignore: int = 255) -> tuple[Tensor, Tensor]:
    """A class's map should be as high everywhere on its seed as at its highest place there, and nowhere above 0 outside.

    cam (P, h, w) signed, one map for each pair (image, class) of `present` (B, C), row by row; seed int (B, H, W): 0 background, class
    index + 1, `ignore` to be left out -> two scalars, foreground and background. With the maps enlarged to (H, W), bilinear:
    foreground = sum of |m - cam| / Z over the pairs and the pixels of their seed, background = sum of max(cam, 0) / Z over the pairs and
    all other pixels (other classes' too); m is a pair's highest value on its seed, at least 0 and not differentiated, Z the number of all
    these pixels.
    Source: FMA-WSSS, released code.
    """
    check_shape(present, "B C", "present")
    check_shape(seed, "B H W", "seed", B=len(present))
    images, classes = present.nonzero(as_tuple=True)  # (P,) row by row
    check_shape(cam, "P h w", "cam", P=len(images))
    if not len(images):
        return cam.sum() * 0, cam.sum() * 0
    maps = F.interpolate(cam[:, None], size=seed.shape[1:], mode="bilinear", align_corners=False)[:, 0]  # (P, H, W)
    labels = seed[images]
    inside = labels == (classes + 1)[:, None, None]
    outside = ~inside & (labels != ignore)
    highest = (maps.detach() * inside).amax((1, 2), keepdim=True).clamp_min(0)
    pixels = (inside.sum() + outside.sum()).clamp_min(1)
    return ((highest - maps).abs() * inside).sum() / pixels, (maps.relu() * outside).sum() / pixels
