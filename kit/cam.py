"""Class maps from tokens and text: siblings of one signature, (tokens, text, targets) -> (B, C, h, w).

`text` (T, D) are unit vectors; `targets` are the rows of `text` whose maps are wanted. The maps are signed and raw; `normalised_cam` makes
of them what the papers show. `done` is the pass through the last block where it has been made already (`last_block.last_pass`).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.encode import Tokens
from kit.last_block import LastPass, last_pass, mean_gradient, patch_embeddings
from kit.shapes import check_shape

EPSILON = 1e-7  # CLIP-ES, released code


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


def _on_grid(maps: Tensor, tokens: Tokens) -> Tensor:
    return maps.unflatten(-1, tokens.grid)
