"""CLIP's last block, run again from the tokens before it, and its gradient averaged over the patches.

A Grad-CAM needs only the *mean over patches* of the gradient at the block's normalised input. Most of a backward pass then collapses: sums
over patches move inside the matrix products, rows of a softmax's gradient sum to zero, and what does not depend on the class is computed
once. What remains for each class is one product through the MLP, one through the output projection and one with the attention. Everything
is plain tensor arithmetic, so autograd can differentiate it once more where a CAM stands in a loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit.encode import LastBlock, Tokens, attention_weights, merge_heads, split_heads
from kit.shapes import check_shape

MAX_ELEMENTS = 50_000_000  # of a hidden layer's gradient at one time: classes beyond it wait their turn


@dataclass(frozen=True)
class LastPass:
    """One forward pass through the last block, with what its gradient needs.

    Axes as in `kit.shapes`; x_hat are layer norms before weight and bias.
    """

    activation: Tensor  # (B, T, E) output of ln_1: Grad-CAM's activation
    query: Tensor  # (B, heads, T, E/heads)
    key: Tensor
    value: Tensor
    weights: Tensor  # (B, heads, N, T) attention of the patches
    mixed: Tensor  # (B, heads, N, E/heads) attention's output for the patches
    x_hat_2: Tensor  # (B, N, E)
    spread_2: Tensor  # (B, N, 1) 1 / standard deviation
    hidden: Tensor  # (B, N, 4E) before the activation function
    x_hat_post: Tensor  # (B, N, E)
    spread_post: Tensor  # (B, N, 1)
    feature: Tensor  # (B, E) mean over patches of ln_post


def last_pass(tokens: Tokens) -> LastPass:
    """The last block, ln_post and the mean over the patches (the class token left out).   Source: CLIP-ES, released code."""
    block = tokens.block
    activation = block.ln_1(tokens.last_input)
    query, key, value = split_heads(block.attention, activation)
    weights, value = attention_weights(block.attention, activation, tokens.mask)
    weights = weights[:, :, 1:]
    mixed = weights @ value
    after_attention = tokens.last_input[:, 1:] + block.attention.out_proj(merge_heads(mixed))
    x_hat_2, spread_2 = _normalised(after_attention, block.ln_2)
    hidden = block.mlp.c_fc(_scaled(x_hat_2, block.ln_2))
    after_mlp = after_attention + block.mlp.c_proj(block.mlp.gelu(hidden))
    x_hat_post, spread_post = _normalised(after_mlp, block.ln_post)
    feature = _scaled(x_hat_post, block.ln_post).mean(1)
    return LastPass(activation, query, key, value, weights, mixed, x_hat_2, spread_2, hidden, x_hat_post, spread_post, feature)


def patch_embeddings(tokens: Tokens, *, done: LastPass | None = None) -> Tensor:
    """Every patch in the joint space of images and texts, unit length.   -> (B, N, D)."""
    done = done or last_pass(tokens)
    return F.normalize(_scaled(done.x_hat_post, tokens.block.ln_post) @ tokens.block.projection, dim=-1)


def mean_gradient(tokens: Tokens, done: LastPass, gradient: Tensor) -> Tensor:
    """From a gradient at the mean patch feature to its mean over patches at the block's activation: linear in `gradient`.

    gradient (B, C, E) at `done.feature` -> (B, C, E), the mean over the patches (class token left out) of the gradient at
    `done.activation`. Equal to autograd's (tested); differentiable itself.
    """
    check_shape(gradient, "B C E", "gradient", B=len(tokens), E=done.feature.shape[1])
    step = max(1, MAX_ELEMENTS // done.hidden.numel())
    return torch.cat([_mean_gradient(tokens.block, done, part) for part in gradient.split(step, 1)], 1)


def _mean_gradient(block: LastBlock, done: LastPass, gradient: Tensor) -> Tensor:
    batch, classes, width = gradient.shape
    patches = done.hidden.shape[1]
    heads = block.attention.num_heads

    # ln_post and the mean: every patch gets the same gradient, up to its own normalisation
    direction = gradient * block.ln_post.weight  # (B, C, E)
    direction = direction - direction.mean(-1, keepdim=True)
    along = direction @ done.x_hat_post.transpose(1, 2) / width  # (B, C, E) x (B, E, N) -> (B, C, N)
    spread = (done.spread_post / patches)[:, None]  # (B, 1, N, 1)
    residual = spread * (direction[:, :, None] - along[..., None] * done.x_hat_post[:, None])  # (B, C, N, E)

    # the MLP: its outer weight sees a class only through `direction`, so the product with all patches is made once
    outer = block.mlp.c_proj.weight  # (E, 4E)
    at_hidden = spread * ((direction @ outer)[:, :, None] - along[..., None] * (done.x_hat_post @ outer)[:, None])  # (B, C, N, 4E)
    at_hidden = at_hidden * _slope(block.mlp.gelu, done.hidden)[:, None]
    through = (at_hidden @ block.mlp.c_fc.weight) * block.ln_2.weight  # (B, C, N, 4E) x (4E, E) -> (B, C, N, E)
    x_hat = done.x_hat_2[:, None]
    through = through - through.mean(-1, keepdim=True) - x_hat * (through * x_hat).mean(-1, keepdim=True)
    residual = residual + done.spread_2[:, None] * through

    # attention, summed over the patches
    at_mixed = residual @ block.attention.out_proj.weight  # (B, C, N, E)
    at_mixed = at_mixed.view(batch, classes, patches, heads, width // heads).transpose(2, 3)  # (B, C, heads, N, e)
    query, key, value, weights = (x[:, None] for x in (done.query, done.key, done.value, done.weights))  # a class axis before the heads
    own = (at_mixed * done.mixed[:, None]).sum(-1, keepdim=True)  # (B, C, heads, N, 1): what softmax subtracts in every row
    to_class = weights[..., :1]  # (B, 1, heads, N, 1)
    at_value = ((1 - to_class) * at_mixed).sum(-2)  # (B, C, heads, e): the patches' weights in a row sum to 1 - the class token's
    at_score_class = to_class * ((at_mixed * value[..., :1, :]).sum(-1, keepdim=True) - own)
    # a row of the scores' gradients sums to 0: the patches' part is minus the class token's
    at_key = -(at_score_class * query[..., 1:, :]).sum(-2)  # (B, C, heads, e)
    gathered = weights.transpose(-1, -2) @ torch.cat([at_mixed, own], -1)  # (B, C, heads, T, e + 1)
    columns = (gathered[..., :-1] * value).sum(-1, keepdim=True) - gathered[..., -1:]
    at_query = (columns * key).sum(-2)  # (B, C, heads, e)
    scale = (width // heads) ** -0.5
    summed = torch.cat([(at_query * scale).flatten(2), (at_key * scale).flatten(2), at_value.flatten(2)], -1)  # (B, C, 3E)
    return summed @ block.attention.in_proj_weight / patches


def _normalised(x: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + norm.eps).rsqrt()
    return centred * spread, spread


def _scaled(x_hat: Tensor, norm: nn.LayerNorm) -> Tensor:
    return x_hat * norm.weight + norm.bias


def _slope(activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative of an elementwise function, whichever it is (GELU, QuickGELU)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(activation(x).sum(), x)[0]
