"""Class maps from tokens and text: siblings of one signature, (tokens, text, targets) -> (B, C, h, w).

`text` (T, D) are unit vectors; `targets` are the rows of `text` whose maps are wanted. The maps are signed and raw; `normalised_cam` makes
of them what the papers show. `done` is the pass through the last block where it has been made already (`last_block.last_pass`).
For training there is `masked_softmax_grad_cam`, whose targets are the classes of each image. All maps have a graph to `text`.
"""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.encode import Tokens
from kit.last_block import LastPass, last_pass, mean_gradient, pass_of, patch_embeddings
from kit.shapes import check_shape

EPSILON = 1e-7  # CLIP-ES, released code
SOFTMAX_EPSILON = 1e-5  # FMA-WSSS, released code


def class_logits(tokens: Tokens, text: Tensor, *, done: LastPass | None = None) -> Tensor:
    """What CLIP answers when it looks at the mean of the patches: scaled cosines.

    text (T, D) -> (B, T).   Source: CLIP-ES, released code.
    """
    check_shape(text, "T D", "text", D=tokens.block.projection.shape[1])
    done = done or last_pass(tokens)
    vector = F.normalize(done.feature @ tokens.block.projection, dim=-1)  # (B, E) x (E, D) -> (B, D)
    return tokens.block.logit_scale * vector @ text.T


def class_probabilities(tokens: Tokens, text: Tensor, *, done: LastPass | None = None) -> Tensor:
    """Softmax over all given texts.   text (T, D) -> (B, T), rows sum to 1.   Source: CLIP-ES, section 3.2."""
    return class_logits(tokens, text, done=done).softmax(-1)


def grad_cam(tokens: Tokens, text: Tensor, targets: Sequence[int], *, done: LastPass | None = None) -> Tensor:
    """Grad-CAM of each target's *logit*: what raises its score, whether or not it raises the others' as well.

    text (T, D), C targets -> (B, C, h, w), signed.   Source: Selvaraju et al. 2017 on CLIP's last ln_1.
    """
    _check_text(tokens, text, targets)
    done = done or last_pass(tokens)
    per_logit = torch.eye(len(text), dtype=text.dtype, device=text.device)[list(targets)].expand(len(tokens), -1, -1)  # (B, C, T)
    return _cam_of_logits(tokens, done, text, per_logit)


def softmax_grad_cam(tokens: Tokens, text: Tensor, targets: Sequence[int], *, done: LastPass | None = None) -> Tensor:
    """Grad-CAM of each target's *probability* among all texts: whatever also raises another text is subtracted.

    The derivative of a softmax is s_c (delta_cj - s_j), so other classes and background words enter with a minus sign. text (T, D) holds
    the present classes and the background words.
    -> (B, C, h, w), signed.   Source: CLIP-ES, section 3.2 and released code.
    """
    _check_text(tokens, text, targets)
    done = done or last_pass(tokens)
    probability = class_probabilities(tokens, text, done=done)  # (B, T)
    chosen = probability[:, list(targets)]  # (B, C)
    one_hot = torch.eye(len(text), dtype=text.dtype, device=text.device)[list(targets)]  # (C, T)
    per_logit = chosen[..., None] * (one_hot - probability[:, None])  # (B, C, T)
    return _cam_of_logits(tokens, done, text, per_logit)


def masked_softmax_grad_cam(
    tokens: Tokens, text: Tensor, present: Tensor, *, released_softmax: bool = False, done: LastPass | None = None
) -> Tensor:
    """Softmax Grad-CAM of the classes that each image has, against these and all backgrounds; absent classes take no part.

    text (T, D): one row for each of the C classes, then the backgrounds; present (B, C) 0 or 1 -> (P, h, w), signed: a map for each pair
    (image, class), row by row of `present`. Each map equals `softmax_grad_cam` with the image's own texts.
    `released_softmax` adds 1e-5 to the sum, after the largest logit of all texts was subtracted: maps shrink where an absent class leads.
    Raises ValueError.   Source: FMA-WSSS, released code.
    """
    check_shape(text, "T D", "text", D=tokens.block.projection.shape[1])
    check_shape(present, "B C", "present", B=len(tokens))
    present = present.bool()
    if present.shape[1] > len(text):
        raise ValueError(f"expected a text for each of {present.shape[1]} classes, backgrounds after them, got {len(text)} texts")
    done = done or last_pass(tokens)
    images, classes = present.nonzero(as_tuple=True)  # (P,) row by row
    part = F.pad(present, (0, len(text) - present.shape[1]), value=True)[images]  # (P, T) the texts that compete
    logits = class_logits(tokens, text, done=done)[images]
    one_hot = F.one_hot(classes, len(text))
    if released_softmax:
        leader = logits.amax(-1, keepdim=True)
        powers = (logits - leader).exp() * part
        total = powers.sum(-1, keepdim=True) + SOFTMAX_EPSILON
        probability = powers / total
        through_leader = SOFTMAX_EPSILON / total * F.one_hot(logits.argmax(-1), len(text))  # the released gradient flows there as well
    else:
        probability = logits.masked_fill(~part, -torch.inf).softmax(-1)
        through_leader = 0
    per_logit = probability.gather(1, classes[:, None]) * (one_hot - probability - through_leader)  # (P, T)
    return _cam_of_pairs(tokens, done, text, per_logit, present)


def similarity_cam(tokens: Tokens, text: Tensor, targets: Sequence[int], *, done: LastPass | None = None) -> Tensor:
    """The cosine of every patch with each target: no gradient at all.

    text (T, D), C targets -> (B, C, h, w) in [-1, 1].   Source: CLIP Surgery, MaskCLIP and others compare with it.
    """
    _check_text(tokens, text, targets)
    patches = patch_embeddings(tokens, done=done)
    maps = patches @ text[list(targets)].T  # (B, N, D) x (D, C) -> (B, N, C)
    return _on_grid(maps.transpose(1, 2), tokens)


def normalised_cam(cam: Tensor) -> Tensor:
    """Only what speaks for the class, stretched to [0, 1]: ReLU, minus the minimum, divided by the maximum.

    cam (B, C, h, w) -> the same, in [0, 1); a map without a positive value becomes all zero.   Source: CLIP-ES, released code, which
    stretches twice: small maps need it, because of the 1e-7.
    """
    return stretched(stretched(cam.relu()))


def stretched(maps: Tensor) -> Tensor:
    """Each map minus its minimum, divided by its maximum (+1e-7).   (..., h, w) -> the same, in [0, 1]."""
    maps = maps - maps.amin((-2, -1), keepdim=True)
    return maps / (maps.amax((-2, -1), keepdim=True) + EPSILON)


def _check_text(tokens: Tokens, text: Tensor, targets: Sequence[int]) -> None:
    check_shape(text, "T D", "text", D=tokens.block.projection.shape[1])
    rows = range(len(text))
    if (
        not isinstance(targets, Sequence)
        or not len(targets)
        or any(not isinstance(target, int) or target not in rows for target in targets)
    ):
        raise ValueError(f"expected targets to be a list of rows of text (0 to {len(text) - 1}), got {targets!r}")


def _cam_of_logits(tokens: Tokens, done: LastPass, text: Tensor, per_logit: Tensor) -> Tensor:
    """The CAM of a score whose derivative by the logits is known.   per_logit (B, C, T) -> (B, C, h, w)."""
    joint = done.feature @ tokens.block.projection  # (B, D)
    length = joint.norm(dim=-1, keepdim=True)
    unit = joint / length
    at_unit = tokens.block.logit_scale * per_logit @ text  # (B, C, T) x (T, D) -> (B, C, D)
    at_joint = (at_unit - (at_unit * unit[:, None]).sum(-1, keepdim=True) * unit[:, None]) / length[:, None]
    channels = mean_gradient(tokens, done, at_joint @ tokens.block.projection.T)  # (B, C, E)
    maps = channels @ done.activation[:, 1:].transpose(1, 2)  # (B, C, E) x (B, E, N) -> (B, C, N)
    return _on_grid(maps, tokens)


def _cam_of_pairs(tokens: Tokens, done: LastPass, text: Tensor, per_logit: Tensor, present: Tensor) -> Tensor:
    """The CAMs of pairs (image, class): images with equally many classes share one pass, so that none is computed in vain.

    per_logit (P, T), pairs row by row of present bool (B, C) -> (P, h, w).
    """
    if not len(per_logit):
        return per_logit.sum() * text.new_zeros(0, *tokens.grid)  # a batch without any class has a graph all the same
    counts = present.sum(1)  # (B,)
    of_pair = counts.repeat_interleave(counts)  # (P,)
    maps, places = [], []
    for count in counts[counts > 0].unique().tolist():
        images, pairs = (counts == count).nonzero()[:, 0], (of_pair == count).nonzero()[:, 0]
        some = dataclasses.replace(tokens, last_input=tokens.last_input[images], attention=tokens.attention[images, :0], layers=())
        cams = _cam_of_logits(some, pass_of(done, images), text, per_logit[pairs].unflatten(0, (len(images), count)))
        maps.append(cams.flatten(0, 1))  # (B', count, h, w) -> (P', h, w)
        places.append(pairs)
    return torch.cat(maps)[torch.cat(places).argsort()]


def _on_grid(maps: Tensor, tokens: Tokens) -> Tensor:
    return maps.unflatten(-1, tokens.grid)
