"""Masks without a class vote with the class maps beneath them: SAM's borders, CLIP's names. Also an oracle's vote that knows the truth."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kit.mask import IGNORE, label_map, leftover_background, with_background
from kit.propose import Proposals
from kit.refine import upsampled
from kit.shapes import check_shape

NO_MASK = -1


@dataclass(frozen=True, eq=False)
class Vote:
    """What the masks decided, and which of them decided at each pixel.

    labels int64 (H, W): 0 background, c + 1 the c-th map, 255 not judged; confidence (H, W) in [0, 1]: the winner's score in the mask that
    painted the pixel, 0 where none did; mask int64 (H, W): the index of that mask, or NO_MASK.
    mask_labels int64 (M,) and mask_scores (M, 1 + C) in [0, 1], background first: the vote of every mask, seen or painted over.
    """

    labels: Tensor
    confidence: Tensor
    mask: Tensor
    mask_labels: Tensor
    mask_scores: Tensor

    def __post_init__(self) -> None:
        check_shape(self.labels, "H W", "labels")
        height, width = self.labels.shape
        check_shape(self.confidence, "H W", "confidence", H=height, W=width)
        check_shape(self.mask, "H W", "mask", H=height, W=width)
        check_shape(self.mask_scores, "M K", "mask_scores", M=len(self.mask_labels))


def mask_vote(cam: Tensor, proposals: Proposals, *, power: float = 0.6, uncovered: int = 0) -> Vote:
    """Each mask takes the class whose map is strongest in it on average, or background; then the masks are painted over one another.

    cam (C, h, w): signed maps of the classes in the picture, of any size; they are enlarged to the masks' -> Vote. Negative values count
    as 0, the means of a class are stretched to [0, 1] over the masks, background scores (1 - the largest) ** power. Wholes paint over parts
    and the surer mask over others of its level, background too. Pixels without a mask get `uncovered`: 0, or 255 for "not judged".
    Where the released code fails: a class that is equally strong in every mask (there is one mask, say) has 1 in each instead of 0, and
    without any mask each pixel votes for itself.
    Source: FMA-WSSS, released code (SAMS seeding); power 0.6 for its coarse seeds on VOC, 0.7 for the fine ones, on COCO 0.3 to 0.5 and 1.
    """
    check_shape(cam, "C h w", "cam")
    if len(cam) < 1 or not cam.isfinite().all():
        raise ValueError(f"expected finite maps of at least one class, got {tuple(cam.shape)}; name a class, and look for nan in its map")
    if power <= 0 or uncovered not in (0, IGNORE):
        raise ValueError(f"expected power above 0 and uncovered 0 or {IGNORE}, got {power} and {uncovered}")
    size = tuple(proposals.masks.shape[1:])
    cam = upsampled(cam.detach().float()[None], size)[0].clamp_min(0)  # (C, H, W)
    background = functools.partial(leftover_background, power=power)
    if not len(proposals):
        scores = with_background(stretched(cam.flatten(1)).unflatten(1, size)[None], background=background)  # (1, 1 + C, H, W)
        nobody = torch.full(size, NO_MASK, device=cam.device)
        none = torch.zeros(0, dtype=torch.long, device=cam.device)
        return Vote(label_map(scores)[0], scores[0].amax(0), nobody, none, scores.new_zeros(0, scores.shape[1]))
    share = stretched(mean_in_masks(cam, proposals.masks))  # (C, M)
    scores = with_background(share[None, :, :, None], background=background)  # (1, 1 + C, M, 1)
    return _painted(proposals, label_map(scores)[0, :, 0], scores[0, :, :, 0].T, uncovered)


def painted_scores(vote: Vote) -> Tensor:
    """At each pixel the vote of the mask that painted it: its largest plane is the vote's label.

    -> (1 + C, H, W) in [0, 1]; where no mask painted, all are 0: background, as sure as nothing.
    """
    if not len(vote.mask_labels):  # each pixel voted for itself
        return F.one_hot(vote.labels, vote.mask_scores.shape[1]).permute(2, 0, 1) * vote.confidence
    scores = vote.mask_scores[vote.mask.clamp_min(0)].permute(2, 0, 1)  # (H, W, 1 + C) -> (1 + C, H, W)
    return scores.masked_fill(vote.mask == NO_MASK, 0)


def mean_in_masks(maps: Tensor, masks: Tensor, *, chunk: int = 32) -> Tensor:
    """The average of each map in each mask.   maps (C, H, W), masks bool (M, H, W), none empty -> (C, M)."""
    check_shape(maps, "C H W", "maps")
    check_shape(masks, "M H W", "masks", H=maps.shape[1], W=maps.shape[2])
    flat, means = maps.flatten(1), []
    for some in masks.to(maps.device).split(chunk):
        some = some.flatten(1).to(flat.dtype)
        means.append(flat @ some.T / some.sum(1))  # (C, H*W) x (H*W, m) -> (C, m)
    return torch.cat(means, 1)


def stretched(strength: Tensor) -> Tensor:
    """Each row from its smallest to its largest value as 0 to 1; a row that is the same everywhere is 1, or 0 if it has nothing.

    strength (C, M) >= 0 -> (C, M).   Source: FMA-WSSS, released code, except for rows without a difference, which are 0 there.
    """
    low, high = strength.amin(1, keepdim=True), strength.amax(1, keepdim=True)
    same = high - low <= 1e-6 * high  # rounding is no difference
    return torch.where(same, (high > 0).to(strength), (strength - low) / (high - low + 1e-7))


def oracle_vote(truth: np.ndarray, proposals: Proposals) -> Vote:
    """The best that masks allow: each takes the label that most of its pixels have in truth. For experiments only, as it knows the truth.

    truth uint8 (H, W), 255 not judged -> Vote with the truth's labels; for one level give `chosen(proposals, proposals.levels == 2)`.
    """
    labels = torch.from_numpy(truth).long()
    check_shape(labels, "H W", "truth", H=proposals.masks.shape[1], W=proposals.masks.shape[2])
    known = int(labels[labels != IGNORE].max()) + 1 if (labels != IGNORE).any() else 1
    planes = (labels == torch.arange(known)[:, None, None]).float()  # (K, H, W)
    share = mean_in_masks(planes, proposals.masks.cpu()).T if len(proposals) else torch.zeros(0, known)
    share = share / share.sum(1, keepdim=True).clamp_min(1e-12)
    return _painted(proposals, share.max(1).indices, share, 0)


def _painted(proposals: Proposals, labels: Tensor, scores: Tensor, uncovered: int) -> Vote:
    """The masks painted by level, then by how sure they are; later ones cover earlier ones.   labels (M,), scores (M, K)."""
    confidence = scores.amax(1)
    order = np.lexsort((confidence.cpu().numpy(), proposals.levels.cpu().numpy()))  # stable
    painter = torch.full(proposals.masks.shape[1:], NO_MASK, device=labels.device)
    for index in order.tolist():
        painter.masked_fill_(proposals.masks[index].to(labels.device), index)
    nobody = painter == NO_MASK
    if not len(proposals):
        return Vote(torch.full_like(painter, uncovered), scores.new_zeros(painter.shape), painter, labels, scores)
    return Vote(labels[painter].masked_fill(nobody, uncovered), confidence[painter].masked_fill(nobody, 0), painter, labels, scores)
