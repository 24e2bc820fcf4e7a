"""CLIP's last block, run again from the tokens before it, and its gradient averaged over the patches.

A Grad-CAM needs only the *mean over patches* of the gradient at the block's normalised input. Most of a backward pass then collapses: sums
over patches move inside the matrix products, rows of a softmax's gradient sum to zero, and what does not depend on the class is computed
once. What remains for each class is one product through the MLP, one through the output projection and one with the attention. Everything
is plain tensor arithmetic, so autograd can differentiate it once more where a CAM stands in a loss.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit.encode import LastBlock, Tokens, merge_heads, split_heads
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
    scores = (query[:, :, 1:] * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, heads, N, T): nothing needs the class token's row
    if tokens.mask is not None:
        scores = scores + tokens.mask[1:]
    weights = scores.softmax(-1)
    mixed = weights @ value
    after_attention = tokens.last_input[:, 1:] + block.attention.out_proj(merge_heads(mixed))
    x_hat_2, spread_2 = _normalised(after_attention, block.ln_2)
    hidden = block.mlp.c_fc(_scaled(x_hat_2, block.ln_2))
    after_mlp = after_attention + block.mlp.c_proj(block.mlp.gelu(hidden))
    x_hat_post, spread_post = _normalised(after_mlp, block.ln_post)
    feature = _scaled(x_hat_post, block.ln_post).mean(1)
    return LastPass(activation, query, key, value, weights, mixed, x_hat_2, spread_2, hidden, x_hat_post, spread_post, feature)


def pass_of(done: LastPass, images: Tensor) -> LastPass:
    """The same pass for some of the images.   images (n,), their numbers in the batch."""
    return LastPass(*(getattr(done, entry.name)[images] for entry in fields(done)))


def patch_embeddings(tokens: Tokens, *, done: LastPass | None = None) -> Tensor:
    """Every patch in the joint space of images and texts, unit length.   -> (B, N, D)."""
    done = done or last_pass(tokens)
    return F.normalize(_scaled(done.x_hat_post, tokens.block.ln_post) @ tokens.block.projection, dim=-1)


def value_embeddings(tokens: Tokens, *, done: LastPass | None = None) -> Tensor:
    """Every patch's own value in the joint space, unit length: the last block's value and output projection, without attention, MLP and
    residual.   -> (B, N, D).

    After its last block a patch says what the picture was read as; its value says what the patch itself adds to that.
    Source: MaskCLIP (Zhou et al., ECCV 2022), section 3.2; without MLP and residual as in CLIP Surgery (Li et al., 2023), section 3.
    """
    done = done or last_pass(tokens)
    values = tokens.block.attention.out_proj(merge_heads(done.value[:, :, 1:]))  # (B, N, E)
    return F.normalize(tokens.block.ln_post(values) @ tokens.block.projection, dim=-1)


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

    # ln_post and the mean: every patch gets the same gradient, up to its own normalisation; `spread` is multiplied in at the end
    direction = gradient * block.ln_post.weight  # (B, C, E)
    direction = direction - direction.mean(-1, keepdim=True)
    along = (direction @ done.x_hat_post.transpose(1, 2) / width)[..., None]  # (B, C, E) x (B, E, N) -> (B, C, N, 1)

    # the MLP: its outer weight sees a class only through `direction`, so the product with all patches is made once
    outer = block.mlp.c_proj.weight  # (E, 4E)
    at_hidden = torch.addcmul((direction @ outer)[:, :, None], along, (done.x_hat_post @ outer)[:, None], value=-1)  # (B, C, N, 4E)
    at_hidden.mul_(_slope(block.mlp.gelu, done.hidden)[:, None])
    through = (at_hidden @ block.mlp.c_fc.weight).mul_(block.ln_2.weight)  # (B, C, N, 4E) x (4E, E) -> (B, C, N, E)
    x_hat = done.x_hat_2[:, None]
    through = through - through.mean(-1, keepdim=True)
    through = through.addcmul(x_hat, (through * x_hat).mean(-1, keepdim=True), value=-1)
    residual = torch.addcmul(direction[:, :, None], along, done.x_hat_post[:, None], value=-1)  # (B, C, N, E)
    residual.addcmul_(through, done.spread_2[:, None]).mul_(done.spread_post[:, None] / patches)

    # attention, summed over the patches; classes stand beside the channels, so that all of them share one product with the weights
    at_mixed = residual @ block.attention.out_proj.weight  # (B, C, N, E)
    at_mixed = at_mixed.view(batch, classes, patches, heads, width // heads).permute(0, 3, 2, 1, 4)  # (B, heads, N, C, e)
    own = (at_mixed * done.mixed[:, :, :, None]).sum(-1, keepdim=True)  # (B, heads, N, C, 1): what softmax subtracts in every row
    at_mixed = torch.cat([at_mixed, own], -1)  # (B, heads, N, C, e + 1)
    value = F.pad(done.value, (0, 1), value=-1.0)  # (B, heads, T, e + 1): its product with at_mixed is then "minus own"
    gathered = (done.weights.transpose(-1, -2) @ at_mixed.flatten(3)).unflatten(-1, at_mixed.shape[3:])  # (B, heads, T, C, e + 1)
    columns = (gathered * value[:, :, :, None]).sum(-1)  # (B, heads, T, C): the scores' gradient, summed over the queries
    to_class = done.weights[..., :1] * (at_mixed * value[:, :, :1, None]).sum(-1)  # (B, heads, N, C): the same of the class token alone
    scale = (width // heads) ** -0.5
    at_query = columns.transpose(-1, -2) @ done.key * scale  # (B, heads, C, T) x (B, heads, T, e) -> (B, heads, C, e)
    # a row of the scores' gradient sums to 0: the patches' part is minus the class token's
    at_key = to_class.transpose(-1, -2) @ done.query[:, :, 1:] * -scale  # (B, heads, C, N) x (B, heads, N, e) -> (B, heads, C, e)
    at_value = gathered[:, :, 1:, :, :-1].sum(2)  # (B, heads, C, e)
    summed = torch.cat([merge_heads(at_query), merge_heads(at_key), merge_heads(at_value)], -1)  # (B, C, 3E)
    return summed @ block.attention.in_proj_weight / patches


def _normalised(x: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    spread = (variance + norm.eps).rsqrt()
    return (x - mean) * spread, spread


def _scaled(x_hat: Tensor, norm: nn.LayerNorm) -> Tensor:
    return x_hat * norm.weight + norm.bias


def _slope(activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative of an elementwise function, whichever it is (GELU, QuickGELU); differentiable where x is."""
    with torch.inference_mode(False), torch.enable_grad():
        inside = x if x.requires_grad else x.detach().clone().requires_grad_(True)  # a clone: x may come from inference mode
        return torch.autograd.grad(activation(inside).sum(), inside, create_graph=x.requires_grad)[0]
