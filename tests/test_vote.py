"""The vote of masks, on masks whose answer is known and against the official code."""

import numpy as np
import pytest
import torch

from kit.mask import IGNORE
from kit.propose import Proposals
from kit.vote import NO_MASK, mask_vote, mean_in_masks, oracle_vote, stretched

SIZE = (4, 6)
LEFT, RIGHT = torch.zeros(SIZE, dtype=torch.bool), torch.zeros(SIZE, dtype=torch.bool)
LEFT[:, :2] = True
RIGHT[:, 3:] = True


def proposals(*masks, levels=None):
    stacked = torch.stack(masks) if masks else torch.zeros(0, *SIZE, dtype=torch.bool)
    return Proposals(stacked, torch.tensor(levels or [0] * len(masks), dtype=torch.long), "by hand")


def heat(*values):
    """Maps that are constant on LEFT, in the gap and on RIGHT."""
    maps = torch.zeros(len(values), *SIZE)
    for plane, (left, gap, right) in zip(maps, values, strict=True):
        plane[:, :2], plane[:, 2], plane[:, 3:] = left, gap, right
    return maps


@pytest.fixture(scope="module")
def golden(official_arrays):
    return official_arrays("fma_wsss.npz")


@pytest.mark.parametrize("power", [0.6, 1.0])
def test_fma_seeding_is_the_official_one(golden, power):
    found = Proposals(torch.from_numpy(golden["seeding/masks"]), torch.from_numpy(golden["seeding/levels"]), "golden")
    vote = mask_vote(torch.from_numpy(golden["seeding/cam"]), found, power=power)
    names = np.array([0, *(golden["seeding/class_ids"] + 1)])
    assert (names[vote.labels.numpy()] == golden[f"seeding/labels_gamma_{power}"]).all()


def test_fma_seeding_can_fail(golden):
    """The control: levels the other way round and the labels no longer agree."""
    found = Proposals(torch.from_numpy(golden["seeding/masks"]), 2 - torch.from_numpy(golden["seeding/levels"]), "golden")
    vote = mask_vote(torch.from_numpy(golden["seeding/cam"]), found, power=0.6)
    names = np.array([0, *(golden["seeding/class_ids"] + 1)])
    assert (names[vote.labels.numpy()] != golden["seeding/labels_gamma_0.6"]).any()


def test_masks_take_the_class_beneath_them():
    vote = mask_vote(heat((0.8, 0.0, 0.1), (0.2, 0.0, 0.6)), proposals(LEFT, RIGHT))
    assert vote.mask_labels.tolist() == [1, 2]
    assert vote.labels[0].tolist() == [1, 1, 0, 2, 2, 2]
    assert vote.mask[0].tolist() == [0, 0, NO_MASK, 1, 1, 1]
    assert vote.confidence[0].tolist() == pytest.approx([1, 1, 0, 1, 1, 1], abs=1e-5)


def test_the_scores_are_those_worked_out_by_hand():
    middle = torch.zeros(SIZE, dtype=torch.bool)
    middle[:, 2] = True
    vote = mask_vote(heat((0.9, 0.3, 0.1)), proposals(LEFT, middle, RIGHT), power=0.5)
    share = (0.3 - 0.1) / (0.9 - 0.1)
    expected = [[0.0, 1.0], [(1 - share) ** 0.5, share], [1.0, 0.0]]
    assert torch.allclose(vote.mask_scores, torch.tensor(expected), atol=1e-3)
    assert vote.mask_labels.tolist() == [1, 0, 0]
    assert mask_vote(heat((0.9, 0.6, 0.1)), proposals(LEFT, middle, RIGHT), power=8).mask_labels.tolist() == [1, 1, 0]


def test_negative_values_count_as_nothing():
    vote = mask_vote(heat((0.5, 0.0, -9.0)), proposals(LEFT, LEFT | RIGHT, RIGHT, levels=[2, 0, 1]))
    assert vote.mask_scores[1, 1] == pytest.approx(0.5 * 8 / 20 / 0.5, abs=1e-5)


def test_wholes_paint_over_parts_and_the_surer_over_the_others():
    heated = heat((1.0, 0.0, 0.0))
    everything = torch.ones(SIZE, dtype=torch.bool)
    assert mask_vote(heated, proposals(LEFT, everything, levels=[1, 2])).labels.sum() == 0, "a whole that is background covers its parts"
    assert mask_vote(heated, proposals(LEFT, everything, levels=[2, 1])).labels[0].tolist() == [1, 1, 0, 0, 0, 0]
    corner = torch.zeros(SIZE, dtype=torch.bool)
    corner[0, :3] = True  # two thirds of it are hot
    vote = mask_vote(heated, proposals(LEFT, corner, RIGHT, levels=[1, 1, 1]), power=2)
    assert vote.mask[0].tolist() == [0, 0, 1, 2, 2, 2] and vote.labels[0].tolist() == [1, 1, 1, 0, 0, 0]


def test_equally_sure_masks_are_painted_in_their_order():
    vote = mask_vote(heat((1.0, 1.0, 0.0)), proposals(LEFT, LEFT, RIGHT))
    assert (vote.mask[:, :2] == 1).all()


def test_one_mask_takes_the_class_it_has():
    """The released code makes it background, whatever the map says."""
    vote = mask_vote(heat((0.3, 0.0, 0.0)), proposals(LEFT))
    assert vote.labels[0].tolist() == [1, 1, 0, 0, 0, 0] and vote.confidence[0, 0] == 1
    assert mask_vote(heat((0.0, 0.0, 0.9)), proposals(LEFT)).labels.sum() == 0, "nothing is there, so background it is"


def test_without_masks_each_pixel_votes_for_itself():
    vote = mask_vote(heat((0.8, 0.4, 0.0), (0.0, 0.1, 0.5)), proposals(), power=1)
    assert vote.labels[0].tolist() == [1, 1, 0, 2, 2, 2]
    assert (vote.mask == NO_MASK).all() and len(vote.mask_labels) == 0 and vote.mask_scores.shape == (0, 3)
    assert vote.confidence[0, 0] == pytest.approx(1, abs=1e-5) and vote.confidence[0, 2] == pytest.approx(0.5, abs=1e-5)


def test_uncovered_pixels_are_background_or_not_judged():
    heated = heat((0.8, 0.9, 0.1))
    assert (mask_vote(heated, proposals(LEFT, RIGHT)).labels[:, 2] == 0).all()
    vote = mask_vote(heated, proposals(LEFT, RIGHT), uncovered=IGNORE)
    assert (vote.labels[:, 2] == IGNORE).all() and (vote.confidence[:, 2] == 0).all() and vote.labels[0, 0] == 1


def test_small_maps_are_enlarged_to_the_masks():
    vote = mask_vote(torch.tensor([[[1.0, 0.0]]]), proposals(LEFT, RIGHT))
    assert vote.mask_labels.tolist() == [1, 0]


def test_many_masks_are_averaged_in_parts():
    generator = torch.Generator().manual_seed(0)
    maps, masks = torch.rand(3, 9, 11, generator=generator), torch.rand(70, 9, 11, generator=generator) > 0.6
    expected = torch.stack([torch.stack([plane[mask].mean() for mask in masks]) for plane in maps])
    assert torch.allclose(mean_in_masks(maps, masks, chunk=16), expected, atol=1e-6)


def test_rounding_is_no_difference():
    rows = torch.tensor([[0.5, 0.5 + 5e-8, 0.5], [0.0, 0.0, 0.0], [0.2, 0.4, 0.3]])
    assert torch.allclose(stretched(rows), torch.tensor([[1.0, 1, 1], [0, 0, 0], [0, 1, 0.5]]), atol=1e-5)


@pytest.mark.parametrize(
    ("cam", "settings", "word"),
    [
        (torch.zeros(0, 4, 6), {}, "at least one class"),
        (torch.full((1, 4, 6), float("nan")), {}, "nan"),
        (torch.zeros(4, 6), {}, "cam"),
        (torch.zeros(1, 4, 6), {"power": 0}, "power"),
        (torch.zeros(1, 4, 6), {"uncovered": 7}, "uncovered"),
    ],
)
def test_a_vote_refuses_what_it_cannot_use(cam, settings, word):
    with pytest.raises(ValueError, match=word):
        mask_vote(cam, proposals(LEFT), **settings)


def test_the_oracle_takes_the_majority_and_leaves_void_out():
    truth = np.zeros(SIZE, np.uint8)
    truth[:, :2], truth[:, 3:] = 15, 255
    truth[0, 0], truth[0, 3] = 3, 7
    vote = oracle_vote(truth, proposals(LEFT, RIGHT))
    assert vote.labels[0].tolist() == [15, 15, 0, 7, 7, 7]
    assert vote.confidence[0, 0] == pytest.approx(7 / 8) and vote.confidence[0, 3] == 1
    assert oracle_vote(truth, proposals()).labels.sum() == 0
    assert oracle_vote(np.full(SIZE, 255, np.uint8), proposals(LEFT)).labels.sum() == 0
