"""From coarse maps to maps that follow the picture: attention affinity, box mask, dense CRF, pixel-adaptive refinement."""

import functools
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from kit.shapes import check_shape

CAFFE_MEAN_BGR = (104.008, 116.669, 122.675)  # what CLIP-ES' released code subtracts from the picture it hands to the CRF


def attention_affinity(attention: Tensor, *, sinkhorn: int = 3, power: int = 2) -> Tensor:
    """How strongly two patches belong together: attention averaged over layers, made doubly stochastic, symmetric, and walked `power`
    steps.

    attention (B, L, T, T), heads averaged, class token first -> (B, N, N), rows = the patch that receives.   Source: CLIP-ES, section 3.3;
    sinkhorn 3 and power 2 from the released code (FMA-WSSS: 1 and 2).
    """
    check_shape(attention, "B L T T", "attention")
    if attention.shape[1] < 1:
        raise ValueError("expected the attention of at least one layer, got none")
    if sinkhorn < 0 or power < 1:
        raise ValueError(f"expected sinkhorn >= 0 and power >= 1, got {sinkhorn} and {power}")
    affinity = attention.mean(1)[:, 1:, 1:]  # (B, N, N)
    tiny = torch.finfo(affinity.dtype).tiny  # a patch that nobody looks at divides zero by it
    for _ in range(sinkhorn):
        affinity = affinity / affinity.sum(1, keepdim=True).clamp_min(tiny)
        affinity = affinity / affinity.sum(2, keepdim=True).clamp_min(tiny)
    affinity = (affinity + affinity.transpose(1, 2)) / 2
    return torch.linalg.matrix_power(affinity, power)


def box_mask(cam: Tensor, *, threshold: float = 0.4, exact: bool = False) -> Tensor:
    """The bounding boxes of all blobs above a share of the maximum: where a class may spread from.

    cam (B, C, h, w) in [0, 1] -> bool (B, C, h, w). The released code cuts the last row and column of a box that touches the border, so
    that the mask can come out empty; `exact` keeps them.   Raises ValueError for maps or a threshold that are not in [0, 1].
    Source: CLIP-ES, section 3.3 and released code; threshold 0.4 on VOC, 0.7 on COCO (FMA-WSSS: 0.4 to 0.6).
    """
    check_shape(cam, "B C h w", "cam")
    if not 0 <= threshold <= 1:
        raise ValueError(f"expected a threshold in [0, 1], a share of the highest value, got {threshold}")
    if cam.numel() and (cam.min() < 0 or cam.max() > 1):
        raise ValueError(f"expected maps in [0, 1], got {cam.min():.3g} to {cam.max():.3g}: boxes are drawn around normalised maps")
    height, width = cam.shape[2:]
    last = (height, width) if exact else (height - 1, width - 1)
    levels = (cam.detach() * 255).to(torch.uint8).cpu().numpy()
    mask = np.zeros(levels.shape, bool)
    for level, boxes in zip(levels.reshape(-1, height, width), mask.reshape(-1, height, width), strict=True):
        above = level > int(threshold * level.max())
        blobs, _ = ndimage.label(above, structure=np.ones((3, 3)))
        for rows, columns in ndimage.find_objects(blobs):
            boxes[rows.start : min(rows.stop, last[0]), columns.start : min(columns.stop, last[1])] = True
    return torch.from_numpy(mask).to(cam.device)


def spread(cam: Tensor, affinity: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each patch collects the map of the patches it belongs to, as far as these stand in the mask.

    cam (B, C, h, w), in [0, 1] or raw and signed, affinity (B, N, N), mask bool (B, C, h, w) -> (B, C, h, w). A map whose mask is empty
    spreads from every patch: the released code would lose its class without a word.
    Source: CLIP-ES, section 3.3; the released code masks the source. FMA-WSSS spreads raw maps, with the boxes of their positive part.
    """
    check_shape(cam, "B C h w", "cam")
    check_shape(affinity, "B N N", "affinity", B=len(cam), N=cam.shape[2] * cam.shape[3])
    source = cam
    if mask is not None:
        check_shape(mask, "B C h w", "mask", **dict(zip("BChw", cam.shape, strict=True)))
        empty = ~mask.flatten(2).any(-1)[..., None, None]  # (B, C, 1, 1)
        source = cam * (mask | empty)
    collected = source.flatten(2) @ affinity.transpose(1, 2)  # (B, C, N) x (B, N, N) -> (B, C, N)
    return collected.unflatten(-1, cam.shape[2:])


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps at another size, bilinear with pixel centres.   (B, C, h, w) -> (B, C, H, W).   Source: CLIP-ES, released code."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def has_dense_crf() -> bool:
    """Whether pydensecrf is installed; everything else runs without it."""
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError:
        return False
    return True


def dense_crf(
    image: np.ndarray,
    scores: Tensor,
    *,
    iterations: int = 10,
    gaussian_xy: float = 1,
    gaussian_weight: float = 3,
    bilateral_xy: float = 67,
    bilateral_rgb: float = 3,
    bilateral_weight: float = 4,
    smoothing: float = 0.0,
    released_image: bool = False,
) -> Iterator[Tensor]:
    """Fully connected CRF, one mean-field step at a time: pixels that are near and of one colour should carry one label.

    image (H, W, 3) uint8, scores (K, H, W) in [0, 1] (they need not sum to 1) -> yields (K, H, W) probabilities after each iteration; the
    last one is the result.
    `smoothing` is added to the scores before they are made to sum to 1 (0: the scores are taken as they are, as in the released code).
    `released_image` hands the CRF the released code's picture: BGR minus a mean, wrapped around below zero.   Raises RuntimeError without
    pydensecrf.
    Source: Kraehenbuehl and Koltun 2011; the weights are CLIP-ES's.
    """
    if not has_dense_crf():
        raise RuntimeError(
            "the dense CRF needs the package pydensecrf2 (pip install pydensecrf2, with a C++ compiler): "
            "install it, or choose the pixel-adaptive refiner, which needs nothing"
        )
    import pydensecrf.densecrf as pydensecrf

    height, width = _picture_size(image)
    check_shape(scores, "K H W", "scores", H=height, W=width)
    scores = scores.detach().float().cpu()
    if smoothing:
        scores = scores + smoothing
        scores = scores / scores.sum(0, keepdim=True)
    unary = -scores.clamp(1e-5, 1).log()
    crf = pydensecrf.DenseCRF2D(width, height, len(scores))
    crf.setUnaryEnergy(np.ascontiguousarray(unary.flatten(1).numpy()))
    crf.addPairwiseGaussian(sxy=gaussian_xy, compat=gaussian_weight)
    picture = np.ascontiguousarray(released_crf_image(image) if released_image else image)
    crf.addPairwiseBilateral(sxy=bilateral_xy, srgb=bilateral_rgb, rgbim=picture, compat=bilateral_weight)
    state = crf.startInference()
    for _ in range(iterations):
        crf.stepInference(*state)
        yield torch.from_numpy(np.array(state[0])).view(len(scores), height, width)


def released_crf_image(image: np.ndarray) -> np.ndarray:
    """The picture CLIP-ES' released code gives to its CRF: BGR minus a mean, cast to uint8 with wrap-around (here portably).

    (H, W, 3) uint8 -> the same.
    """
    shifted = image[..., ::-1].astype(np.float32) - np.array(CAFFE_MEAN_BGR, np.float32)
    return (np.trunc(shifted).astype(np.int32) & 255).astype(np.uint8)


def pixel_adaptive_refinement(
    image: np.ndarray,
    scores: Tensor,
    *,
    iterations: int = 10,
    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24),
    contrast: float = 0.3,
    position: float = 0.01,
) -> Iterator[Tensor]:
    """Each pixel takes the average of neighbours at several distances, weighted by how alike they are in colour: a refiner of plain torch,
    no compiler needed.

    image (H, W, 3) uint8, scores (K, H, W) in [0, 1] -> yields (K, H, W) after each iteration, made to sum to 1.   Source: Ru et al. 2022
    (AFA), section 3.4, its numbers; after Araslanov and Roth 2020.
    """
    height, width = _picture_size(image)
    check_shape(scores, "K H W", "scores", H=height, W=width)
    scores = scores.detach().float()
    scores = scores / scores.sum(0, keepdim=True).clamp_min(1e-12)
    picture = torch.from_numpy(np.ascontiguousarray(image)).to(scores.device).permute(2, 0, 1).float() / 255  # (3, H, W)
    neighbours = _neighbours(picture, dilations)  # (8 * dilations, 3, H, W)
    difference = (neighbours - picture).abs()
    deviation = neighbours.std(0, keepdim=True)
    alike = -((difference / (deviation + 1e-8) / contrast) ** 2).mean(1)  # (8 * dilations, H, W)
    distance = _distances(dilations, picture.device)
    near = -((distance / (distance.std() + 1e-8) / contrast) ** 2)
    weights = alike.softmax(0) + position * near.softmax(0)[:, None, None]
    for _ in range(iterations):
        scores = torch.stack([(weights * _neighbours(plane[None], dilations)[:, 0]).sum(0) for plane in scores])
        yield scores / scores.sum(0, keepdim=True)


def _picture_size(image: np.ndarray) -> tuple[int, int]:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"expected image uint8 (H, W, 3), got {got}")
    return image.shape[:2]


def _offsets(dilations: tuple[int, ...]) -> list[tuple[int, int]]:
    around = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]
    return [(row * step, column * step) for step in dilations for row, column in around]


def _neighbours(planes: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """Every plane shifted to each neighbour, the border repeated.   (C, H, W) -> (8 * dilations, C, H, W)."""
    height, width = planes.shape[-2:]
    reach = max(dilations)
    padded = F.pad(planes[None], (reach, reach, reach, reach), mode="replicate")[0]
    return torch.stack(
        [padded[:, reach + row : reach + row + height, reach + column : reach + column + width] for row, column in _offsets(dilations)]
    )


@functools.lru_cache(maxsize=8)
def _distances(dilations: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor([(row**2 + column**2) ** 0.5 for row, column in _offsets(dilations)], device=device)
