"""From maps to labels, on numbers small enough to do by hand."""

import pytest
import torch

from kit import mask
from kit.shapes import ShapeError


def test_background_is_what_no_class_has_claimed():
    cam = torch.tensor([[[[0.2, 1.0]], [[0.7, 0.1]]]])  # two classes, two pixels
    torch.testing.assert_close(mask.leftover_background(cam), torch.tensor([[[[0.3, 0.0]]]]))
    torch.testing.assert_close(mask.leftover_background(cam, power=2), torch.tensor([[[[0.09, 0.0]]]]))
    scores = mask.with_background(cam)
    assert scores.shape == (1, 3, 1, 2) and torch.equal(scores[:, 1:], cam)
    assert mask.label_map(scores).tolist() == [[[2, 1]]]


def test_background_stays_a_number_where_a_map_passes_one():
    over = mask.leftover_background(torch.full((1, 1, 1, 1), 1.0000001), power=0.5)
    assert over.item() == 0


def test_a_constant_background_is_a_threshold():
    cam = torch.tensor([[[[0.2, 0.6, 0.5]]]])
    scores = mask.with_background(cam, background=lambda maps: mask.constant_background(maps, threshold=0.5))
    assert mask.label_map(scores).tolist() == [[[0, 1, 0]]]


def test_ties_go_to_the_background_then_to_the_first_class():
    scores = torch.tensor([[[[0.5, 0.1]], [[0.5, 0.4]], [[0.5, 0.4]]]])
    assert mask.label_map(scores).tolist() == [[[0, 1]]]


def test_confidence_is_the_winners_share():
    scores = torch.tensor([[[[0.2, 3.0, 0.0]], [[0.6, 1.0, 0.0]]]])
    torch.testing.assert_close(mask.confidence(scores), torch.tensor([[[0.75, 0.75, 0.0]]]))


def test_uncertain_pixels_are_ignored_by_the_loss():
    labels, sureness = torch.tensor([[[0, 1, 2]]]), torch.tensor([[[0.95, 0.9499, 1.0]]])
    kept = mask.without_uncertain(labels, sureness)
    assert kept.tolist() == [[[0, mask.IGNORE, 2]]] and kept.dtype == torch.int64
    assert labels.tolist() == [[[0, 1, 2]]]  # the labels given are not changed
    assert mask.without_uncertain(labels, sureness, threshold=0).tolist() == labels.tolist()
    logits = torch.randn(1, 3, 1, 3, generator=torch.Generator().manual_seed(0))
    by_hand = torch.nn.functional.cross_entropy(logits[..., [0, 2]], labels[..., [0, 2]])
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, kept, ignore_index=mask.IGNORE), by_hand)


def test_wrong_axes_are_refused():
    flat = torch.zeros(2, 3)
    for stage in (mask.with_background, mask.label_map, mask.confidence):
        with pytest.raises(ShapeError, match="got"):
            stage(flat)
    with pytest.raises(ShapeError, match="sureness"):
        mask.without_uncertain(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 4))
