"""The check of axes: it lets the right tensor through and says what it got otherwise."""

import pytest
import torch

from kit.shapes import ShapeError, check_shape


def test_the_same_tensor_comes_back():
    tensor = torch.zeros(2, 196, 512)
    assert check_shape(tensor, "B N D", "tokens", N=196) is tensor
    assert check_shape(torch.zeros(()), "").shape == ()


@pytest.mark.parametrize(
    ("shape", "axes", "sizes", "message"),
    [
        ((2, 197, 512), "B N D", {"N": 196}, "expected tokens (B N=196 D), got (2, 197, 512)"),
        ((2, 196), "B N D", {"N": 196}, "expected tokens (B N=196 D), got (2, 196)"),
        ((2, 4, 5), "B N N", {}, "expected tokens (B N N), got (2, 4, 5)"),
        ((2, 4, 4), "B N N", {"N": 5}, "expected tokens (B N=5 N=5), got (2, 4, 4)"),
        ((1, 4, 8, 8), "B 3 H W", {}, "expected tokens (B 3 H W), got (1, 4, 8, 8)"),
        ((), "B", {}, "expected tokens (B), got ()"),
    ],
)
def test_what_does_not_fit_is_told(shape, axes, sizes, message):
    with pytest.raises(ShapeError) as error:
        check_shape(torch.zeros(shape), axes, "tokens", **sizes)
    assert str(error.value) == message
    assert isinstance(error.value, ValueError)


def test_repeated_axes_and_numbers():
    check_shape(torch.zeros(2, 4, 4), "B N N")
    check_shape(torch.zeros(1, 3, 8, 9), "B 3 H W", H=8, W=9)
    check_shape(torch.zeros(0, 3), "B D", B=0)
