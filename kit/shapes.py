"""The alphabet of axes, written once, and the check that a tensor has them.

B images, C classes, K clusters, M masks, L layers, P templates or prompts, N = h*w patches (row by row), T = 1 + N tokens (the class token
first), D joint width, E the encoder's width;
H W pixels, h w patch grid. Sizes are (rows, columns); only a name that ends in `_xy` is x-first.
"""

from torch import Tensor


class ShapeError(ValueError):
    """A tensor does not have the axes a stage asked for."""


def check_shape(tensor: Tensor, axes: str, name: str = "tensor", **sizes: int) -> Tensor:
    """The same tensor, once its axes are the expected ones.

    `axes` are names separated by blanks; a name given in `sizes`, or written as a number, must have that size, and a name that occurs twice
    must have one size.

    >>> import torch
    >>> check_shape(torch.zeros(2, 196, 512), "B N D", "tokens", N=196).shape
    torch.Size([2, 196, 512])
    """
    names = axes.split()
    known = dict(sizes)
    fits = tensor.ndim == len(names)
    if fits:
        for axis, size in zip(names, tensor.shape, strict=True):
            expected = int(axis) if axis.isdigit() else known.setdefault(axis, size)
            fits = fits and expected == size
    if not fits:
        wanted = " ".join(f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in names)
        raise ShapeError(f"expected {name} ({wanted}), got {tuple(tensor.shape)}")
    return tensor
