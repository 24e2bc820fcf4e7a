"""Refiners against brute force, against their libraries, and on planted pictures."""

import sys
from collections import deque

import numpy as np
import pytest
import torch

from kit import refine
from kit.shapes import ShapeError

needs_crf = pytest.mark.skipif(not refine.has_dense_crf(), reason="pydensecrf2 is not installed (it needs a C++ compiler)")


def random_attention(batch=2, layers=3, count=7, seed=0):
    return torch.rand(batch, layers, count, count, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_affinity_by_hand():
    """Every step of the paper in numpy, one image at a time."""
    attention = random_attention()
    for image, got in zip(attention.double().numpy(), refine.attention_affinity(attention), strict=True):
        affinity = image.mean(0)[1:, 1:]
        for _ in range(3):
            affinity = affinity / affinity.sum(0, keepdims=True)
            affinity = affinity / affinity.sum(1, keepdims=True)
        affinity = (affinity + affinity.T) / 2
        np.testing.assert_allclose(got.numpy(), affinity @ affinity, rtol=1e-5)


def test_affinity_is_symmetric_and_doubly_stochastic():
    affinity = refine.attention_affinity(random_attention(), sinkhorn=50, power=1)
    torch.testing.assert_close(affinity, affinity.transpose(1, 2))
    torch.testing.assert_close(affinity.sum(1), torch.ones(2, 6))
    torch.testing.assert_close(affinity.sum(2), torch.ones(2, 6))
    torch.testing.assert_close(refine.attention_affinity(random_attention(), sinkhorn=50, power=4).sum(2), torch.ones(2, 6))


def test_affinity_without_sinkhorn_is_the_mean_attention_made_symmetric():
    attention = random_attention()
    patches = attention.mean(1)[:, 1:, 1:]
    torch.testing.assert_close(refine.attention_affinity(attention, sinkhorn=0, power=1), (patches + patches.transpose(1, 2)) / 2)


def test_patches_that_only_look_at_the_class_token_give_no_nan():
    attention = torch.zeros(1, 1, 4, 4)
    attention[..., 0] = 1
    assert not refine.attention_affinity(attention).any()
    assert torch.isfinite(refine.attention_affinity(attention)).all()


@pytest.mark.parametrize("knobs", [{"sinkhorn": -1}, {"power": 0}])
def test_affinity_refuses_knobs_out_of_range(knobs):
    with pytest.raises(ValueError, match="expected sinkhorn >= 0 and power >= 1"):
        refine.attention_affinity(random_attention(), **knobs)


def test_affinity_refuses_no_layers_and_wrong_axes():
    with pytest.raises(ValueError, match="at least one layer, got none"):
        refine.attention_affinity(torch.zeros(1, 0, 5, 5))
    with pytest.raises(ShapeError, match="attention"):
        refine.attention_affinity(torch.zeros(1, 5, 5))


def brute_boxes(cam: np.ndarray, threshold: float, exact: bool) -> np.ndarray:
    """Flood fill in eight directions, and the box of every flooded blob."""
    level = np.trunc(cam.astype(np.float32) * np.float32(255)).astype(int)
    above = level > int(threshold * level.max())
    height, width = above.shape
    seen, mask = np.zeros_like(above), np.zeros_like(above)
    for start in zip(*np.nonzero(above), strict=True):
        if seen[start]:
            continue
        blob, queue = [], deque([start])
        seen[start] = True
        while queue:
            row, column = queue.popleft()
            blob.append((row, column))
            for near in [(row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)]:
                if 0 <= near[0] < height and 0 <= near[1] < width and above[near] and not seen[near]:
                    seen[near] = True
                    queue.append(near)
        (top, left), (bottom, right) = np.min(blob, 0), np.max(blob, 0) + 1
        if not exact:
            bottom, right = min(bottom, height - 1), min(right, width - 1)
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.7, 1.0])
def test_boxes_equal_a_flood_fill(exact, threshold):
    rng = np.random.default_rng(1)
    maps = rng.random((2, 30, 7, 9)).astype(np.float32) ** rng.integers(1, 9, (2, 30, 1, 1))
    maps[1, :3] = 0
    maps = maps.astype(np.float32)
    got = refine.box_mask(torch.from_numpy(maps), threshold=threshold, exact=exact).numpy()
    expected = np.stack([[brute_boxes(map_, threshold, exact) for map_ in image] for image in maps])
    assert got.dtype == bool and np.array_equal(got, expected)


def test_boxes_at_the_border():
    cam = torch.zeros(1, 2, 4, 5)
    cam[0, 0, 1:3, 3:5] = 1  # touches the right border
    cam[0, 1, 3, 0:2] = 1  # only in the last row
    exact, released = refine.box_mask(cam, exact=True), refine.box_mask(cam)
    assert torch.equal(exact, cam > 0)
    assert released[0, 0].nonzero().tolist() == [[1, 3], [2, 3]]
    assert not released[0, 1].any()


def test_diagonal_neighbours_are_one_blob_and_apart_are_two():
    cam = torch.zeros(1, 1, 6, 6)
    cam[0, 0, 0, 0] = cam[0, 0, 1, 1] = cam[0, 0, 3, 4] = 1
    assert refine.box_mask(cam)[0, 0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [3, 4]]


def test_box_threshold_is_strict_and_truncated():
    cam = torch.tensor([[[[1.0, 0.4, 0.405], [0.0, 0.0, 0.0]]]]) * 0.9999  # levels 254, 101, 103: the threshold is 101
    assert refine.box_mask(cam, exact=True)[0, 0].tolist() == [[True, False, True], [False] * 3]


@pytest.mark.parametrize("value", [-0.1, 1.2])
def test_boxes_of_raw_maps_are_refused(value):
    cam = torch.full((1, 1, 3, 3), 0.5)
    cam[0, 0, 1, 1] = value
    with pytest.raises(ValueError, match=r"expected maps in \[0, 1\], got .*: boxes are drawn around normalised maps"):
        refine.box_mask(cam)


def test_one_patch_is_lost_by_the_released_boxes_only():
    one = torch.ones(1, 1, 1, 1)
    assert refine.box_mask(one, exact=True).all() and not refine.box_mask(one).any()


def test_spread_by_hand():
    cam = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    affinity = torch.arange(16.0).view(1, 4, 4)
    mask = torch.tensor([[[[True, False], [True, True]]]])
    expected = affinity[0] @ torch.tensor([1.0, 0.0, 3.0, 4.0])  # rows receive, masked sources give nothing
    assert torch.equal(refine.spread(cam, affinity, mask)[0, 0].flatten(), expected)
    assert torch.equal(refine.spread(cam, torch.eye(4)[None]), cam)


def test_an_empty_mask_spreads_from_every_patch():
    cam = torch.rand(1, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    affinity = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 2, 2, 3, dtype=torch.bool)
    mask[0, 1, 0, 0] = True
    got = refine.spread(cam, affinity, mask)
    assert torch.equal(got[:, :1], refine.spread(cam[:, :1], affinity))
    torch.testing.assert_close(got[0, 1].flatten(), affinity[0, :, 0] * cam[0, 1, 0, 0])


def test_spread_refuses_what_does_not_fit():
    cam, affinity = torch.zeros(1, 2, 2, 3), torch.zeros(1, 6, 6)
    with pytest.raises(ShapeError, match="affinity"):
        refine.spread(cam, affinity[:, :5, :5])
    with pytest.raises(ShapeError, match="mask"):
        refine.spread(cam, affinity, torch.ones(1, 1, 2, 3, dtype=torch.bool))
    with pytest.raises(ShapeError, match="cam"):
        refine.spread(cam[0], affinity)


def test_raw_maps_are_spread_with_their_signs():
    """FMA-WSSS spreads the signed map itself; what speaks against the class goes along, and stays out where the mask ends."""
    cam = torch.tensor([[[[2.0, -1.0, -7.0]]]])
    affinity = torch.tensor([[[0.5, 0.25, 0.0], [0.25, 0.5, 1.0], [0.0, 1.0, 0.5]]])
    mask = torch.tensor([[[[True, True, False]]]])
    torch.testing.assert_close(refine.spread(cam, affinity, mask), torch.tensor([[[[0.75, 0.0, -1.0]]]]))
    torch.testing.assert_close(refine.spread(cam, affinity), torch.tensor([[[[0.75, -7.0, -4.5]]]]))


def test_gradients_pass_through_the_spreading():
    cam = torch.rand(1, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    affinity = refine.attention_affinity(random_attention(1, 2, 5))
    refine.spread(cam, affinity, refine.box_mask(cam, exact=True)).sum().backward()
    assert cam.grad.abs().max() > 0


def test_upsampled_by_hand():
    """Pixel centres: a row of two becomes four, the outer ones are held."""
    maps = torch.tensor([[[[0.0, 1.0]]]])
    torch.testing.assert_close(refine.upsampled(maps, (2, 4)), torch.tensor([[[[0.0, 0.25, 0.75, 1.0]] * 2]]))
    assert refine.upsampled(maps, (1, 1)).item() == pytest.approx(0.5)


def planted_edge(height=24, width=40, edge=20, guess=25):
    """A picture whose colour changes at `edge`, and scores that change some pixels later."""
    image = np.full((height, width, 3), (200, 40, 40), np.uint8)
    image[:, edge:] = (30, 60, 210)
    left = (torch.arange(width) < guess).float().expand(height, width) * 0.4 + 0.3
    return image, torch.stack([left, 1 - left])


@needs_crf
@pytest.mark.parametrize(
    "knobs", [{}, {"bilateral_xy": 20, "bilateral_rgb": 7, "bilateral_weight": 2, "gaussian_xy": 3, "gaussian_weight": 1}]
)
def test_steps_equal_the_librarys_inference_bit_for_bit(knobs):
    import pydensecrf.densecrf as library

    rng = np.random.default_rng(0)
    image, scores = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8), torch.from_numpy(rng.random((3, 13, 17), np.float32))
    scores[0, 0, 0] = 0  # its logarithm is cut
    steps = list(refine.dense_crf(image, scores, iterations=4, **knobs))
    assert len(steps) == 4
    for count, step in enumerate(steps, 1):
        crf = library.DenseCRF2D(17, 13, 3)
        crf.setUnaryEnergy((-scores.clamp(1e-5, 1).log()).reshape(3, -1).numpy())
        crf.addPairwiseGaussian(sxy=knobs.get("gaussian_xy", 1), compat=knobs.get("gaussian_weight", 3))
        crf.addPairwiseBilateral(
            sxy=knobs.get("bilateral_xy", 67), srgb=knobs.get("bilateral_rgb", 3), rgbim=image, compat=knobs.get("bilateral_weight", 4)
        )
        assert np.array_equal(step.numpy(), np.array(crf.inference(count)).reshape(3, 13, 17))


@needs_crf
def test_the_crf_moves_a_label_to_the_colour_edge():
    image, scores = planted_edge()
    *_, last = refine.dense_crf(image, scores)
    expected = torch.ones(24, 40, dtype=torch.int64)
    expected[:, :20] = 0
    assert not torch.equal(scores.argmax(0), expected) and torch.equal(last.argmax(0), expected)
    torch.testing.assert_close(last.sum(0), torch.ones(24, 40))
    *_, flat = refine.dense_crf(np.full_like(image, 90), scores)
    assert not torch.equal(flat.argmax(0), expected)  # the control: without an edge there is nothing to move to


@needs_crf
def test_crf_steps_do_not_share_their_memory():
    first, second = list(refine.dense_crf(*planted_edge(), iterations=2))
    assert not torch.equal(first, second)


@needs_crf
def test_smoothing_makes_the_scores_sum_to_one():
    rng = np.random.default_rng(0)
    image, scores = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8), torch.from_numpy(rng.random((2, 6, 7), np.float32))
    by_hand = (scores + 0.2) / (scores + 0.2).sum(0, keepdim=True)
    smoothed, expected = (next(refine.dense_crf(image, *args)) for args in ((scores,), (by_hand,)))
    assert not torch.equal(smoothed, expected)
    assert torch.equal(next(refine.dense_crf(image, scores, smoothing=0.2)), expected)


@needs_crf
def test_the_released_picture_changes_the_result():
    rng = np.random.default_rng(0)
    image, scores = rng.integers(60, 160, (12, 12, 3), dtype=np.uint8), torch.from_numpy(rng.random((2, 12, 12), np.float32))
    plain, released = (next(refine.dense_crf(image, scores, released_image=choice)) for choice in (False, True))
    assert not torch.equal(plain, released)
    assert torch.equal(released, next(refine.dense_crf(refine.released_crf_image(image), scores)))


@needs_crf
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1)])
def test_crf_on_the_smallest_pictures(size):
    *_, last = refine.dense_crf(np.zeros((*size, 3), np.uint8), torch.full((2, *size), 0.5))
    assert last.shape == (2, *size) and torch.isfinite(last).all()


def test_released_crf_image_wraps_around():
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, 1] = (119, 113, 104)  # RGB; minus the mean of BGR: -0.008, -3.669, -3.675
    image[0, 2] = (255, 255, 255)
    assert refine.released_crf_image(image).tolist() == [[[152, 140, 134], [0, 253, 253], [150, 138, 132]]]


@pytest.mark.parametrize("refiner", [refine.dense_crf, refine.pixel_adaptive_refinement])
def test_refiners_refuse_what_does_not_fit(refiner, monkeypatch):
    if refiner is refine.dense_crf and not refine.has_dense_crf():
        pytest.skip("pydensecrf2 is not installed")
    scores = torch.zeros(2, 4, 5)
    with pytest.raises(ShapeError, match="scores"):
        next(refiner(np.zeros((5, 4, 3), np.uint8), scores))
    for image in (np.zeros((4, 5, 3)), np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), "boat.png"):
        with pytest.raises(ValueError, match=r"expected image uint8 \(H, W, 3\), got"):
            next(refiner(image, scores))


def test_without_pydensecrf_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    assert not refine.has_dense_crf()
    with pytest.raises(RuntimeError, match="pip install pydensecrf2.*or choose the pixel-adaptive refiner"):
        next(refine.dense_crf(np.zeros((2, 2, 3), np.uint8), torch.zeros(2, 2, 2)))


# pixel-adaptive refinement


def test_pixel_adaptive_snaps_to_the_colour_edge():
    image, scores = planted_edge(guess=23)
    expected = torch.ones(24, 40, dtype=torch.int64)
    expected[:, :20] = 0
    *_, last = refine.pixel_adaptive_refinement(image, scores, iterations=30)
    assert (scores.argmax(0) != expected).float().mean() > 0.07
    assert (last.argmax(0) != expected).float().mean() < 0.005
    *_, flat = refine.pixel_adaptive_refinement(np.full_like(image, 90), scores, iterations=30)
    assert (flat.argmax(0) != expected).float().mean() > 0.02


def test_pixel_adaptive_sums_to_one_and_leaves_uniform_scores_alone():
    rng = np.random.default_rng(0)
    image, scores = rng.integers(0, 256, (11, 9, 3), dtype=np.uint8), torch.from_numpy(rng.random((3, 11, 9), np.float32))
    steps = list(refine.pixel_adaptive_refinement(image, scores, iterations=3))
    assert len(steps) == 3 and all(step.shape == (3, 11, 9) for step in steps)
    for step in steps:
        torch.testing.assert_close(step.sum(0), torch.ones(11, 9))
    uniform = torch.full((3, 11, 9), 0.2)
    *_, same = refine.pixel_adaptive_refinement(image, uniform)
    torch.testing.assert_close(same, torch.full((3, 11, 9), 1 / 3))


def test_pixel_adaptive_step_by_hand():
    """One plane, one distance, every neighbour visited by a loop."""
    rng = np.random.default_rng(4)
    image, scores = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), rng.random((2, 4, 5))
    scores = scores / scores.sum(0)
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    lengths = np.array([np.hypot(*offset) for offset in around])
    near = np.exp(-((lengths / lengths.std(ddof=1) / 0.3) ** 2))
    expected = np.zeros_like(scores)
    for row, column in np.ndindex(4, 5):
        places = [(min(max(row + y, 0), 3), min(max(column + x, 0), 4)) for y, x in around]
        own, colours = image[row, column] / 255, np.array([image[place] / 255 for place in places])
        deviation = colours.std(0, ddof=1)
        alike = np.exp(-((np.abs(colours - own) / deviation / 0.3) ** 2).mean(1))
        weights = alike / alike.sum() + 0.01 * near / near.sum()
        expected[:, row, column] = sum(weight * scores[:, place[0], place[1]] for weight, place in zip(weights, places, strict=True))
    got = next(refine.pixel_adaptive_refinement(image, torch.from_numpy(scores), dilations=(1,)))
    np.testing.assert_allclose(got.numpy(), expected / expected.sum(0), rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (2, 2)])
def test_pixel_adaptive_on_the_smallest_pictures(size):
    *_, last = refine.pixel_adaptive_refinement(np.zeros((*size, 3), np.uint8), torch.rand(2, *size))
    assert last.shape == (2, *size) and torch.isfinite(last).all()


@pytest.mark.parametrize("threshold", [40, -0.1, float("nan")])
def test_a_threshold_of_boxes_is_a_share(threshold):
    with pytest.raises(ValueError, match=r"expected a threshold in \[0, 1\], a share of the highest value, got"):
        refine.box_mask(torch.rand(1, 1, 4, 4), threshold=threshold)
