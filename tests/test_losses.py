"""Losses against sums written out, and on inputs whose loss is known."""

import math

import pytest
import torch

from kit.losses import activation_loss, multi_label_contrastive_loss
from kit.shapes import ShapeError


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# multi-label contrastive loss


def contrastive_by_hand(logits, labels):
    terms = []
    for scores, present in zip(logits.tolist(), labels.tolist(), strict=True):
        rivals = sum(math.exp(score) for score, there in zip(scores, present, strict=True) if not there)
        if rivals:
            terms += [math.log(1 + rivals / math.exp(score)) for score, there in zip(scores, present, strict=True) if there]
    return sum(terms) / len(terms)


def test_contrastive_loss_equals_the_sum():
    logits = 3 * draw(5, 6)
    labels = torch.tensor([[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0], [1] * 6, [0] * 6, [1, 1, 1, 1, 1, 0]])
    assert multi_label_contrastive_loss(logits, labels).item() == pytest.approx(contrastive_by_hand(logits, labels), rel=1e-12)
    assert torch.equal(multi_label_contrastive_loss(logits, labels.bool()), multi_label_contrastive_loss(logits, labels))


def test_contrastive_loss_of_one_positive_is_the_cross_entropy():
    logits, classes = 3 * draw(4, 7), torch.tensor([2, 0, 6, 2])
    labels = torch.nn.functional.one_hot(classes, 7)
    torch.testing.assert_close(multi_label_contrastive_loss(logits, labels), torch.nn.functional.cross_entropy(logits, classes))


def test_an_images_other_classes_are_no_rivals():
    labels = torch.tensor([[1, 1, 0]])
    one, two = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[2.0, 9.0, 0.0]])
    first = [math.log(1 + math.exp(-score)) for score in (2.0, 1.0, 9.0)]
    assert multi_label_contrastive_loss(one, labels).item() == pytest.approx((first[0] + first[1]) / 2)
    assert multi_label_contrastive_loss(two, labels).item() == pytest.approx((first[0] + first[2]) / 2)


def test_every_positive_counts_once_however_many_its_image_has():
    labels = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 1]])
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [5.0, 5.0, 5.0, 0.0]])
    lonely = math.log(1 + 3 * math.exp(5))
    assert multi_label_contrastive_loss(logits, labels).item() == pytest.approx((3 * math.log(2) + lonely) / 4)


@pytest.mark.parametrize("labels", [[[1, 1, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]])
def test_a_batch_without_contrast_gives_zero_with_a_graph(labels):
    logits = draw(2, 3).requires_grad_(True)
    loss = multi_label_contrastive_loss(logits, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_an_image_without_contrast_changes_nothing_and_gets_no_gradient():
    logits = draw(2, 3).requires_grad_(True)
    loss = multi_label_contrastive_loss(logits, torch.tensor([[1, 0, 0], [1, 1, 1]]))
    loss.backward()
    assert torch.isfinite(logits.grad).all() and logits.grad[0].abs().max() > 0.1 and not logits.grad[1].any()
    assert loss.item() == pytest.approx(multi_label_contrastive_loss(logits[:1], torch.tensor([[1, 0, 0]])).item())


def test_contrastive_loss_survives_large_logits():
    logits = torch.tensor([[-300.0, 300.0], [300.0, -300.0]]).requires_grad_(True)
    loss = multi_label_contrastive_loss(logits, torch.tensor([[1, 0], [1, 0]]))
    loss.backward()
    assert loss.item() == pytest.approx(300) and torch.isfinite(logits.grad).all()  # 600 for the first, nothing for the second


def test_contrastive_loss_refuses_labels_of_another_shape():
    with pytest.raises(ShapeError, match=r"labels \(B=2 C=3\), got \(2, 4\)"):
        multi_label_contrastive_loss(draw(2, 3), torch.ones(2, 4))


def activation_by_hand(maps, present, seed):
    """Pixel by pixel, for maps that already have the seed's size."""
    pairs = [(image, label) for image, row in enumerate(present.tolist()) for label, there in enumerate(row) if there]
    foreground = background = pixels = 0
    for plane, (image, label) in zip(maps.tolist(), pairs, strict=True):
        cells = [
            (value, kind) for row, kinds in zip(plane, seed[image].tolist(), strict=True) for value, kind in zip(row, kinds, strict=True)
        ]
        highest = max([0.0] + [value for value, kind in cells if kind == label + 1])
        foreground += sum(abs(highest - value) for value, kind in cells if kind == label + 1)
        background += sum(max(value, 0) for value, kind in cells if kind not in (label + 1, 255))
        pixels += sum(kind != 255 for _, kind in cells)
    return foreground / pixels, background / pixels


PRESENT = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0]])


def random_seed(height, width):
    return torch.tensor([0, 1, 2, 3, 255])[torch.randint(5, (3, height, width), generator=torch.Generator().manual_seed(1))]


def test_activation_loss_equals_the_sum():
    maps, seed = draw(3, 6, 7), random_seed(6, 7)
    losses = activation_loss(maps, PRESENT, seed)
    assert [loss.item() for loss in losses] == pytest.approx(activation_by_hand(maps, PRESENT, seed), rel=1e-12)


def test_maps_are_enlarged_to_the_seed():
    maps, seed = draw(3, 3, 4), random_seed(12, 20)
    large = torch.nn.functional.interpolate(maps[None], size=(12, 20), mode="bilinear", align_corners=False)[0]
    losses = activation_loss(maps, PRESENT, seed)
    assert [loss.item() for loss in losses] == pytest.approx(activation_by_hand(large, PRESENT, seed), rel=1e-12)


def test_activation_loss_by_hand():
    """One map of four pixels: seed, seed, background, uncertain."""
    maps = torch.tensor([[[3.0, 1.0], [2.0, 100.0]]]).requires_grad_(True)
    seed = torch.tensor([[[1, 1], [0, 255]]])
    foreground, background = activation_loss(maps, torch.tensor([[1]]), seed)
    assert foreground.item() == pytest.approx(2 / 3) and background.item() == pytest.approx(2 / 3)
    (foreground + background).backward()
    expected = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]) / 3  # the highest place is a goal: it gets no gradient itself
    torch.testing.assert_close(maps.grad, expected)


def test_a_perfect_map_costs_nothing_and_its_opposite_costs():
    seed = torch.zeros(1, 4, 4, dtype=torch.long)
    seed[0, 1:3, 1:3] = 2
    perfect = torch.where(seed == 2, 0.7, -0.2)
    present = torch.tensor([[0, 1]])
    assert all(loss.item() == 0 for loss in activation_loss(perfect, present, seed))
    foreground, background = activation_loss(-perfect, present, seed)
    assert foreground.item() == pytest.approx(0.7 * 4 / 16) and background.item() == pytest.approx(0.2 * 12 / 16)


def test_other_classes_are_background():
    seed = torch.tensor([[[2, 2]]])
    foreground, background = activation_loss(torch.tensor([[[4.0, 2.0]]]), torch.tensor([[1, 0]]), seed)
    assert foreground.item() == 0 and background.item() == 3


def test_a_seed_below_zero_is_pulled_up_to_zero():
    foreground, background = activation_loss(torch.tensor([[[-4.0, -2.0]]]), torch.tensor([[1]]), torch.tensor([[[1, 1]]]))
    assert foreground.item() == 3 and background.item() == 0


def test_another_number_may_mean_uncertain():
    maps, seed = torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[0, 9]]])
    assert activation_loss(maps, torch.tensor([[1]]), seed, ignore=9)[1].item() == 1
    assert activation_loss(maps, torch.tensor([[1]]), seed)[1].item() == 3
    assert activation_loss(maps, torch.tensor([[1]]), seed.to(torch.uint8))[1].item() == 3


@pytest.mark.parametrize(("present", "seed"), [([[0, 0]], 0), ([[1, 0]], 255)])
def test_a_batch_with_nothing_to_judge_gives_zero_with_a_graph(present, seed):
    present = torch.tensor(present)
    maps = draw(int(present.sum()), 2, 2).requires_grad_(True)
    losses = activation_loss(maps, present, torch.full((1, 4, 4), seed))
    sum(losses).backward()
    assert [loss.item() for loss in losses] == [0, 0] and not maps.grad.any()


def test_activation_loss_refuses_maps_that_are_not_the_pairs():
    with pytest.raises(ShapeError, match=r"cam \(P=3 h w\), got \(2, 2, 2\)"):
        activation_loss(draw(2, 2, 2), PRESENT, random_seed(4, 4))
    with pytest.raises(ShapeError, match=r"seed \(B=3 H W\), got \(2, 4, 4\)"):
        activation_loss(draw(3, 2, 2), PRESENT, random_seed(4, 4)[:2])
