"""Counted by hand, and against the plainest other way to count."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kit.score import Confusion

NAMES = ("background", "cat", "sofa", "boat")

PLANES = arrays(np.uint8, (6, 7), elements=st.integers(0, 3))


def test_a_table_counted_by_hand():
    confusion = Confusion(NAMES)
    confusion.add(np.array([[0, 0, 1, 1, 255]], np.uint8), np.array([[0, 1, 1, 0, 2]], np.uint8))
    assert confusion.matrix.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    iou = confusion.iou()
    assert list(iou) == list(NAMES)
    assert iou["background"] == iou["cat"] == pytest.approx(1 / 3)
    assert math.isnan(iou["sofa"]) and math.isnan(iou["boat"])
    assert confusion.miou() == pytest.approx(1 / 3)


def test_a_class_that_only_the_labels_claim_is_left_out_but_costs_the_others():
    confusion = Confusion(NAMES)
    confusion.add(np.array([[0, 0, 1, 1]]), np.array([[0, 3, 1, 1]]))
    assert math.isnan(confusion.iou()["boat"])
    assert confusion.iou()["background"] == 0.5
    assert confusion.miou() == 0.75


def test_a_class_that_is_missed_altogether_counts_as_nought():
    confusion = Confusion(NAMES)
    confusion.add(np.array([[0, 2]]), np.array([[0, 0]]))
    assert confusion.iou()["sofa"] == 0 and confusion.miou() == 0.25


def test_the_score_is_of_the_whole_set_and_no_mean_of_pictures():
    confusion = Confusion(("background", "cat"))
    confusion.add(np.array([[1]]), np.array([[0]]))
    confusion.add(np.ones((1, 9), int), np.ones((1, 9), int))
    assert confusion.iou()["cat"] == 0.9


def test_nothing_to_score_is_nan():
    confusion = Confusion(NAMES)
    assert math.isnan(confusion.miou())
    confusion.add(np.full((2, 2), 255), np.zeros((2, 2), int))
    assert math.isnan(confusion.miou())


@given(PLANES, PLANES)
@settings(deadline=None, max_examples=50)
def test_it_agrees_with_sets_of_pixels(truth, labels):
    confusion = Confusion(NAMES)
    confusion.add(truth, labels)
    for index, name in enumerate(NAMES):
        if (truth == index).any():
            expected = ((truth == index) & (labels == index)).sum() / ((truth == index) | (labels == index)).sum()
            assert confusion.iou()[name] == pytest.approx(expected)
        else:
            assert math.isnan(confusion.iou()[name])


@given(PLANES, PLANES)
@settings(deadline=None, max_examples=30)
def test_a_sum_is_one_count_over_both(first, second):
    one, other, both = Confusion(NAMES), Confusion(NAMES), Confusion(NAMES)
    one.add(first, second)
    other.add(second, first)
    both.add(np.stack([first, second]), np.stack([second, first]))
    before = one.matrix
    assert torch.equal((one + other).matrix, both.matrix)
    assert torch.equal(one.matrix, before)
    assert torch.equal((one + Confusion(NAMES)).matrix, before)


def test_the_table_given_out_is_a_copy():
    confusion = Confusion(NAMES)
    confusion.matrix.fill_(7)
    assert not confusion.matrix.any()


@pytest.mark.filterwarnings("error")
def test_arrays_tensors_and_read_only_arrays_count_alike():
    truth, labels = np.array([[0, 1, 255]], np.uint8), np.array([[0, 2, 1]], np.uint8)
    truth.flags.writeable = False
    from_arrays, from_tensors = Confusion(NAMES), Confusion(NAMES)
    from_arrays.add(truth, labels)
    from_tensors.add(torch.tensor([[0, 1, 255]]), torch.tensor([[0, 2, 1]], dtype=torch.int32))
    assert torch.equal(from_arrays.matrix, from_tensors.matrix)


@pytest.mark.parametrize(
    ("truth", "labels", "told"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), r"\(2, 2\), got \(2, 3\)"),
        (np.zeros((2, 2), int), np.full((2, 2), 4), r"labels 0\.\.3, got 4\.\.4"),
        (np.zeros((2, 2), int), np.full((2, 2), 255), "unsure"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), r"got -1\.\.-1"),
        (np.full((2, 2), 4), np.zeros((2, 2), int), "truth 0..3"),
        (np.full((2, 2), -1), np.zeros((2, 2), int), "truth 0..3"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "whole numbers"),
        (np.zeros((2, 2), int), torch.zeros(2, 2), "whole numbers"),
        (np.zeros((0, 2), int), np.zeros((0, 2), int), "at least one pixel"),
    ],
)
def test_what_cannot_be_counted_is_refused_and_leaves_no_trace(truth, labels, told):
    confusion = Confusion(NAMES)
    with pytest.raises(ValueError, match=told):
        confusion.add(truth, labels)
    assert not confusion.matrix.any()


@pytest.mark.parametrize("names", [(), ("background",), ("background", "cat", "cat"), tuple(map(str, range(256)))])
def test_names_must_be_usable(names):
    with pytest.raises(ValueError, match="different names"):
        Confusion(names)


def test_only_like_is_added_to_like():
    with pytest.raises(ValueError, match="same names"):
        Confusion(NAMES) + Confusion(NAMES[:2])
    with pytest.raises(TypeError):
        Confusion(NAMES) + 1


def test_two_hundred_pictures_are_counted_to_the_pixel():
    planes = np.random.default_rng(0).integers(0, 21, (200, 160, 160)).astype(np.uint8)
    confusion = Confusion(tuple(map(str, range(21))))
    for plane in planes:
        confusion.add(plane, plane)
    assert confusion.miou() == 1
    assert confusion.matrix.diagonal().tolist() == np.bincount(planes.ravel(), minlength=21).tolist()
