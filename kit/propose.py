"""Class-free masks of a picture: Segment Anything where it is at hand, superpixels as the offline stand-in.

The only file that knows SAM and scikit-image; it knows nothing of CLIP. Levels are SAM's: 0 a part of a part, 1 a part, 2 the whole.
"""

import dataclasses
import functools
import hashlib
import heapq
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from kit.files import from_json, write_whole
from kit.shapes import check_shape
from kit.weights import WeightsError, hub_file

LEVELS = ("part of a part", "part", "whole")
SUPERPIXELS = "superpixels"  # the source to be named wherever they stand in for SAM
CACHE = Path.home() / ".cache" / "clip-wsss-kit" / "proposals"
MAX_PIXELS = 2_000_000  # some 1,500 candidates a picture are held at one bit a pixel, the masks that remain at one byte
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EDGE = 20.0  # pixels; segment-anything: a mask that ends this near to a crop's edge is cut off


class ProposalError(ValueError):
    """Masks that cannot be made, or a SAM that cannot be loaded, told in one sentence."""


@dataclasses.dataclass(frozen=True, eq=False)
class Proposals:
    """Masks of one picture that belong to no class yet; they may overlap and leave pixels out, and there may be none.

    masks bool (M, H, W), each with at least one pixel; levels int (M,) in 0..2, see LEVELS; source: who made them, to be shown;
    ious, stability (M,): how good SAM thinks a mask is and how little it changes with the threshold, None for superpixels.
    Raises ValueError if one of them is something else.
    """

    masks: Tensor = dataclasses.field(repr=False)
    levels: Tensor = dataclasses.field(repr=False)
    source: str
    ious: Tensor | None = dataclasses.field(default=None, repr=False)
    stability: Tensor | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_shape(self.masks, "M H W", "masks")
        if self.masks.dtype != torch.bool or 0 in self.masks.shape[1:]:
            raise ValueError(f"expected masks bool (M, H, W), got {self.masks.dtype} {tuple(self.masks.shape)}; use a threshold")
        if not self.masks.flatten(1).any(1).all():
            raise ValueError("expected every mask to have a pixel, got an empty one; leave it out")
        for name, values in (("levels", self.levels), ("ious", self.ious), ("stability", self.stability)):
            if values is not None:
                check_shape(values, "M", name, M=len(self.masks))
        if self.levels.is_floating_point() or not ((self.levels >= 0) & (self.levels < len(LEVELS))).all():
            raise ValueError(f"expected levels as whole numbers 0, 1 or 2, got {self.levels.dtype} {sorted(set(self.levels.tolist()))}")
        if not self.source.strip():
            raise ValueError("expected the name of who made the masks, got an empty source")

    def __len__(self) -> int:
        return len(self.masks)


def chosen(proposals: Proposals, which: Tensor) -> Proposals:
    """Some of the masks: `which` is bool (M,) or the indices in the order wanted."""
    picked = {name: None if values is None else values[which] for name, values in _tensors(proposals).items()}
    return Proposals(source=proposals.source, **picked)


def _tensors(proposals: Proposals) -> dict[str, Tensor | None]:
    return {name: getattr(proposals, name) for name in ("masks", "levels", "ious", "stability")}


def superpixels(image: np.ndarray, *, scale: float = 40.0, regions: Sequence[int] = (250, 80, 30)) -> Proposals:
    """Regions of one colour at three nested levels: the stand-in for SAM that needs no weights.

    image uint8 (H, W, 3) -> Proposals whose masks cover the picture once at each level; a region of level 1 is a union of regions of level
    0, one of level 2 a union of those of level 1. `regions` is the most a level may have, finest first; few colours make fewer.
    Source: Felzenszwalb and Huttenlocher 2004 for the first regions, Ward's criterion for merging neighbours; the numbers were
    chosen on scenes of the drawn world's training split, after a first look at some of its validation split.
    """
    from skimage import color, segmentation

    _check_image(image)
    if len(regions) != len(LEVELS) or list(regions) != sorted(regions, reverse=True) or min(regions) < 1:
        raise ValueError(f"expected three numbers of regions such as (250, 80, 30), finest first, got {tuple(regions)}")
    smallest = max(4, image.shape[0] * image.shape[1] // 2000)
    finest = segmentation.felzenszwalb(image, scale=scale, sigma=0.5, min_size=smallest)
    maps = merged_regions(finest, color.rgb2lab(image), regions)
    masks = [torch.from_numpy(labels)[None] == torch.arange(labels.max() + 1)[:, None, None] for labels in maps]
    levels = torch.arange(len(LEVELS)).repeat_interleave(torch.tensor([len(level) for level in masks]))
    return Proposals(torch.cat(masks), levels, SUPERPIXELS)


def merged_regions(labels: np.ndarray, features: np.ndarray, targets: Sequence[int]) -> list[np.ndarray]:
    """Neighbouring regions merged two by two, the least loss of detail first (Ward's criterion), seen at several numbers of regions.

    labels int (H, W) from 0 on, none left out; features (H, W, F) -> for each target an int (H, W) of at most that many regions, nested.
    """
    count = int(labels.max()) + 1
    sizes = np.bincount(labels.ravel(), minlength=count).tolist()
    sums = list(np.stack([np.bincount(labels.ravel(), plane.ravel(), count) for plane in np.moveaxis(features, -1, 0)], 1))
    neighbours: dict[int, set[int]] = {region: set() for region in range(count)}
    for first, second in _borders(labels):
        neighbours[first].add(second)
        neighbours[second].add(first)

    def loss(a: int, b: int) -> float:
        difference = sums[a] / sizes[a] - sums[b] / sizes[b]
        return sizes[a] * sizes[b] / (sizes[a] + sizes[b]) * float(difference @ difference)

    queue = [(loss(a, b), a, b) for a in neighbours for b in neighbours[a] if a < b]
    heapq.heapify(queue)
    parent: list[int] = [-1] * count
    while len(neighbours) > min(targets):
        _, a, b = heapq.heappop(queue)
        if a not in neighbours or b not in neighbours:
            continue  # merged with somebody else meanwhile
        union = len(parent)
        parent.append(-1)
        parent[a] = parent[b] = union
        sizes.append(sizes[a] + sizes[b])
        sums.append(sums[a] + sums[b])
        neighbours[union] = (neighbours.pop(a) | neighbours.pop(b)) - {a, b}
        for other in neighbours[union]:
            neighbours[other] = neighbours[other] - {a, b} | {union}
            heapq.heappush(queue, (loss(other, union), other, union))
    return [_roots(parent, count, max(count - target, 0))[labels] for target in targets]


def _borders(labels: np.ndarray) -> list[list[int]]:
    """Each pair of regions that touch, once."""
    across = np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], 1)
    down = np.stack([labels[:-1].ravel(), labels[1:].ravel()], 1)
    pairs = np.concatenate([across, down])
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1), axis=0).tolist()


def _roots(parent: Sequence[int], count: int, merges: int) -> np.ndarray:
    """Where each of the first regions stands after so many merges, numbered from 0 on."""
    roots = np.arange(count + merges)
    for region in range(count + merges - 1, -1, -1):
        if 0 <= parent[region] < count + merges:
            roots[region] = roots[parent[region]]
    return np.unique(roots[:count], return_inverse=True)[1]


@dataclasses.dataclass(frozen=True)
class SamSettings:
    """How a picture is asked for all its masks; the defaults are FMA-WSSS's (released code, preset l2_nmsf_s1_rsw3).

    Raises ValueError for numbers that make no sense.
    """

    points_per_side: int = 32  # a grid of single points, each of which gives three masks
    crop_layers: int = 1  # layer n looks at 4 ** n crops besides
    crop_points_downscale: int = 2  # each layer has so many times fewer points a side
    crop_overlap: float = 512 / 1500
    iou: float = 0.86  # the least predicted IoU
    iou_offsets: tuple[float, float, float] = (0.0, 0.0, 0.1)  # added before: wholes pass from 0.76 on
    stability: float = 0.92
    stability_offset: float = 1.0  # of the logits
    box_overlap: float = 0.7  # of two boxes in a crop that overlap more, one stays
    level_bonus: tuple[float, float, float] = (0.0, 0.0, 1.0)  # ... the whole rather than the part, then the better one
    crop_box_overlap: float = 0.7  # the same across crops, where the smaller crop stays
    smallest: int = 100  # pixels: smaller holes are filled, smaller islands removed
    covered: float = 0.3  # rock, sand, water: a part stays if less of it lies in one larger mask
    points_per_batch: int = 32  # speed and memory only

    def __post_init__(self) -> None:
        fewest = self.points_per_side // max(self.crop_points_downscale, 1) ** max(self.crop_layers, 0)
        if min(self.crop_points_downscale, self.points_per_batch) < 1 or min(self.crop_layers, self.smallest) < 0 or fewest < 1:
            raise ValueError(
                f"expected at least one point a side in every crop, got points_per_side {self.points_per_side}, crop_layers "
                f"{self.crop_layers}, crop_points_downscale {self.crop_points_downscale}, points_per_batch {self.points_per_batch}, "
                f"smallest {self.smallest}"
            )

    def points(self, layer: int) -> int:
        """Points per side in the crops of a layer; layer 0 is the whole picture."""
        return self.points_per_side // self.crop_points_downscale**layer


PAPER = SamSettings()
LIGHT = SamSettings(points_per_side=16, crop_layers=0)  # an eighth of the prompts and a fifth of the encoder's work
PRESETS = {"paper": ("facebook/sam-vit-huge", PAPER), "light": ("facebook/sam-vit-base", LIGHT)}


@functools.lru_cache(maxsize=2)
def loaded_sam(name: str, device: torch.device) -> "Sam":
    """A SAM, loaded when it is first asked for.   Raises ProposalError."""
    return Sam.load(name, device=device)


@dataclasses.dataclass(frozen=True, eq=False)
class Sam:
    """A SAM of transformers with its way of preparing pictures, and its name."""

    model: nn.Module = dataclasses.field(repr=False)
    processor: object = dataclasses.field(repr=False)  # transformers' SamImageProcessor
    name: str

    @classmethod
    def load(cls, name: str = "facebook/sam-vit-base", *, device: str | torch.device = "cpu", precision: str = "float32") -> "Sam":
        """A SAM by its name on the Hugging Face hub, or by a folder as transformers saves it.

        precision: "float32", or "bfloat16", which many newer processors are several times faster with; a few masks differ then.
        Raises ProposalError if it cannot be had or is no SAM.
        """
        from transformers import SamImageProcessor, SamModel

        if precision not in PRECISIONS:
            raise ProposalError(f"expected a precision out of {', '.join(PRECISIONS)}, got {precision!r}; choose one of those")
        folder = Path(name) if Path(name).exists() else _from_hub(name)
        try:
            kind = from_json((folder / "config.json").read_bytes()).get("model_type")
        except (OSError, ValueError, AttributeError) as error:
            raise ProposalError(f"{name} holds no readable config.json; give a folder as transformers saves it, or a hub name") from error
        if kind != "sam":
            raise ProposalError(f"{name} is no SAM but {kind or 'of no kind that it names'}; try facebook/sam-vit-base, -large or -huge")
        try:
            model, report = SamModel.from_pretrained(folder, output_loading_info=True, local_files_only=True)
            processor = SamImageProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers and safetensors raise almost anything for a missing or damaged file
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ProposalError(f"{name} cannot be loaded ({first_line}); get its files again, or use superpixels") from error
        if lacking := sorted(report["missing_keys"]):
            raise ProposalError(f"{name} lacks {len(lacking)} of SAM's weights, among them {lacking[0]}; download it again")
        if strange := [part for part, values in model.named_parameters() if not values.isfinite().all()]:
            raise ProposalError(f"{name} holds numbers that are none (NaN or infinite) in {strange[0]}; download it again")
        return cls(model.eval().requires_grad_(False).to(device, PRECISIONS[precision]), processor, name)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def fingerprint(self) -> str:
        """What tells these weights from others: a hash over up to 256 numbers of every tensor."""
        digest = hashlib.sha256()
        for name, values in sorted(self.model.state_dict().items()):
            sampled = values.flatten()[:: max(1, values.numel() // 256)].float().cpu().numpy()
            digest.update(f"{name} {tuple(values.shape)}".encode() + sampled.tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class SamStep:
    """How far SAM is: points asked of all points, seconds still to go (an estimate), and at the end the masks."""

    done: int
    total: int
    seconds_left: float
    proposals: Proposals | None = None


class _Candidates(NamedTuple):
    packed: Tensor  # uint8 (K, ceil(H*W / 8)): one bit a pixel of the whole picture
    boxes: Tensor  # (K, 4): x0 y0 x1 y1, the last pixel included
    levels: Tensor
    ious: Tensor
    stability: Tensor
    crop_area: Tensor

    def at(self, which: Tensor) -> "_Candidates":
        return _Candidates(*(values[which] for values in self))


def sam_proposals(image: np.ndarray, sam: Sam, settings: SamSettings = PAPER, *, cache: Path | None = CACHE) -> Iterator[SamStep]:
    """All masks SAM finds in a picture, a step at a time: the first one says how long it will take, the last one has the Proposals.

    image uint8 (H, W, 3), each side at least 16, at most MAX_PIXELS in all. `cache` is a folder for results (the same pixels, settings and
    weights are found again; the oldest files go when it is larger than `cache_limit`), None for none.
    Raises ProposalError for a picture of another size.   Source: Kirillov et al. 2023, appendix B, and FMA-WSSS's released code. It is not
    transformers' "mask-generation" pipeline, which forgets the levels and cannot give crops fewer points; the parts are that library's.
    """
    _check_image(image)
    rows, columns = image.shape[:2]
    if rows * columns > MAX_PIXELS or min(rows, columns) < 16:
        raise ProposalError(
            f"expected sides of at least 16 and at most {MAX_PIXELS:,} pixels, got {rows} x {columns}; make the picture "
            f"{'larger' if min(rows, columns) < 16 else 'smaller'} first"
        )
    path = None if cache is None else _cached_path(cache, image, sam, settings)
    return _sam_steps(image, sam, settings, path)


def _sam_steps(image: np.ndarray, sam: Sam, settings: SamSettings, path: Path | None) -> Iterator[SamStep]:
    from torchvision.ops import nms  # takes seconds to import: not for those who have no SAM

    crops = [(box, points) for layer in range(settings.crop_layers + 1) for box, points in _crops(image, sam, settings, layer)]
    total, done = sum(len(points) for _, points in crops), 0
    if path is not None and (found := load_proposals(path)) is not None:
        yield SamStep(total, total, 0.0, found)
        return
    per_crop, per_point = _measured_seconds(sam, image.shape[:2])
    yield SamStep(0, total, per_crop * len(crops) + per_point * total)
    survivors = []
    for number, (box, points) in enumerate(crops, start=1):
        began = time.monotonic()
        prepared, embedding = _encoded(image, box, sam)
        per_crop = time.monotonic() - began
        found = []
        for batch in points.split(settings.points_per_batch):
            began = time.monotonic()
            found.append(_candidates(image.shape[:2], box, batch, prepared, embedding, sam, settings))
            per_point = (time.monotonic() - began) / len(batch)
            done += len(batch)
            yield SamStep(done, total, per_crop * (len(crops) - number) + per_point * (total - done))
        in_crop = _Candidates(*map(torch.cat, zip(*found, strict=True)))
        bonus = torch.tensor(settings.level_bonus)[in_crop.levels]
        survivors.append(in_crop.at(nms(in_crop.boxes, in_crop.ious + bonus, settings.box_overlap)))
    everything = _Candidates(*map(torch.cat, zip(*survivors, strict=True)))
    proposals = _settled(everything, image.shape[:2], len(crops), f"SAM {sam.name}", settings)
    if path is not None:
        save_proposals(path, proposals)
        _keep_below(path.parent, most=cache_limit(path.parent))
    yield SamStep(total, total, 0.0, proposals)


def _crops(image: np.ndarray, sam: Sam, settings: SamSettings, layer: int) -> list[tuple[tuple[int, ...], Tensor]]:
    """The crops of one layer: box (x0, y0, x1, y1) and its points (P, 2) in the frame of SAM's input."""
    boxes, points, _, _ = sam.processor.generate_crop_boxes(
        image,
        sam.processor.size["longest_edge"],
        crop_n_layers=layer,
        overlap_ratio=settings.crop_overlap,
        points_per_crop=settings.points(layer),
        crop_n_points_downscale_factor=1,
    )
    grids = points[0].unbind(1)
    return [(tuple(int(edge) for edge in box), grid) for box, grid in zip(boxes.tolist(), grids, strict=True)][-(4**layer) :]


@torch.no_grad()
def _encoded(image: np.ndarray, box: Sequence[int], sam: Sam) -> tuple[dict, Tensor]:
    x0, y0, x1, y1 = box
    prepared = sam.processor(images=np.ascontiguousarray(image[y0:y1, x0:x1]), return_tensors="pt")
    embedding = sam.model.get_image_embeddings(prepared.pop("pixel_values").to(sam.model.device, sam.model.dtype))
    return prepared, embedding


@torch.no_grad()
def _decoded(points: Tensor, embedding: Tensor, sam: Sam) -> tuple[Tensor, Tensor]:
    """points (P, 2) -> small logits (P, 3, h, w) and predicted IoU (P, 3), one plane a level."""
    asked = points[None, :, None].to(embedding.device)  # (1, P, 1, 2), in float32: bfloat16 would round pixels
    found = sam.model(
        image_embeddings=embedding, input_points=asked, input_labels=torch.ones_like(asked[..., 0], dtype=torch.long), multimask_output=True
    )
    return found.pred_masks[0].float(), found.iou_scores[0].float()


def _enlarged(logits: Tensor, prepared: dict, sam: Sam) -> Tensor:
    """Small logits (K, h, w) at the size of the crop, (K, H, W)."""
    sizes = prepared["original_sizes"], prepared["reshaped_input_sizes"]
    return sam.processor.post_process_masks([logits[:, None]], *sizes, binarize=False)[0][:, 0]


@torch.no_grad()
def _candidates(
    size: tuple[int, int], box: Sequence[int], points: Tensor, prepared: dict, embedding: Tensor, sam: Sam, settings: SamSettings
) -> _Candidates:
    """The masks of a batch of points that are good, stable and not cut off."""
    from torchvision.ops import masks_to_boxes

    logits, ious = _decoded(points, embedding, sam)
    good = ious + ious.new_tensor(settings.iou_offsets) > settings.iou  # before they are enlarged, which is most of the work
    levels = good.nonzero()[:, 1]
    enlarged, ious = _enlarged(logits[good], prepared, sam), ious[good]
    stability = stability_score(enlarged, offset=settings.stability_offset)
    masks = enlarged > 0
    stable = (stability >= settings.stability) & masks.flatten(1).any(1)
    masks, levels, ious, stability = masks[stable], levels[stable], ious[stable], stability[stable]
    x0, y0, x1, y1 = box
    boxes = masks_to_boxes(masks) + torch.tensor([x0, y0, x0, y0], device=masks.device)
    whole = ~cut_off(boxes, box, size)
    padded = F.pad(masks[whole], (x0, size[1] - x1, y0, size[0] - y1))
    packed = torch.from_numpy(_packed(padded.cpu().numpy()))
    area = torch.full((len(padded),), float((x1 - x0) * (y1 - y0)))
    return _Candidates(packed, boxes[whole].cpu(), levels[whole].cpu(), ious[whole].cpu().float(), stability[whole].cpu().float(), area)


def _settled(found: _Candidates, size: tuple[int, int], crops: int, source: str, settings: SamSettings) -> Proposals:
    """What remains of the candidates of all crops: doubles, small regions and covered parts go."""
    from torchvision.ops import masks_to_boxes, nms

    if crops > 1:
        found = found.at(nms(found.boxes, 1 / found.crop_area, settings.crop_box_overlap))
    masks = _unpacked(found.packed.numpy(), size)
    if settings.smallest and len(masks):
        cleaned = np.stack([without_small_regions(mask, settings.smallest) for mask in masks])
        unchanged = torch.from_numpy((cleaned == masks).reshape(len(masks), -1).all(1))
        boxes = masks_to_boxes(torch.from_numpy(cleaned))
        kept = nms(boxes, unchanged.float(), max(settings.box_overlap, settings.crop_box_overlap))
        found, masks = found.at(kept), cleaned[kept.numpy()]
    proposals = Proposals(torch.from_numpy(masks), found.levels, source, found.ious, found.stability)
    return chosen(proposals, rock_sand_water(proposals.masks, proposals.levels, covered=settings.covered))


@torch.no_grad()
def _measured_seconds(sam: Sam, size: tuple[int, int]) -> tuple[float, float]:
    """About how long a crop and a point take: one layer of either kind of the encoder, and four points whose masks are all enlarged."""
    vision = sam.model.config.vision_config
    side = vision.image_size // vision.patch_size
    tokens = torch.zeros(1, side, side, vision.hidden_size, device=sam.device, dtype=sam.model.dtype)
    everywhere = set(vision.global_attn_indexes)
    per_crop = 0.0
    for kind in (everywhere, set(range(vision.num_hidden_layers)) - everywhere):
        if kind:
            began = time.monotonic()
            sam.model.vision_encoder.layers[min(kind)](tokens)[0].sum().item()
            per_crop += (time.monotonic() - began) * len(kind)
    began = time.monotonic()
    embedding = torch.zeros(1, vision.output_channels, side, side, device=sam.device, dtype=sam.model.dtype)
    logits, _ = _decoded(torch.full((4, 2), vision.image_size / 2), embedding, sam)
    longest = max(size)
    scaled = [round(edge * vision.image_size / longest) for edge in size]
    _enlarged(logits.flatten(0, 1), {"original_sizes": [list(size)], "reshaped_input_sizes": [scaled]}, sam).sum().item()
    return per_crop, (time.monotonic() - began) / 4


def stability_score(logits: Tensor, *, threshold: float = 0.0, offset: float = 1.0) -> Tensor:
    """How little a mask changes when its threshold moves: the IoU of the mask above threshold + offset with that above threshold - offset.

    logits (K, H, W) -> (K,) in [0, 1], nan where even the larger one is empty.   Source: Kirillov et al. 2023, appendix B.
    """
    above = (logits > threshold + offset).flatten(1).sum(1)
    below = (logits > threshold - offset).flatten(1).sum(1)
    return above / below


def cut_off(boxes: Tensor, crop: Sequence[int], size: tuple[int, int], *, edge: float = EDGE) -> Tensor:
    """Which boxes end at the edge of a crop that is not the edge of the picture.

    boxes (K, 4) and crop: x0 y0 x1 y1 in pixels of the picture, size (H, W) -> bool (K,).   Source: segment-anything, released code.
    """
    near_crop = (boxes - boxes.new_tensor(crop)).abs() <= edge
    near_picture = (boxes - boxes.new_tensor([0, 0, size[1], size[0]])).abs() <= edge
    return (near_crop & ~near_picture).any(1)


def without_small_regions(mask: np.ndarray, smallest: int) -> np.ndarray:
    """A mask with its small holes filled, then its small islands removed; if all are small the largest stays.

    mask bool (H, W), smallest in pixels -> the same shape; diagonal neighbours belong together.   Source: segment-anything, released code.
    """
    around = np.ones((3, 3))
    holes, _ = ndimage.label(~mask, structure=around)
    small = np.bincount(holes.ravel()) < smallest
    small[0] = False
    mask = mask | small[holes]
    islands, _ = ndimage.label(mask, structure=around)
    sizes = np.bincount(islands.ravel())
    sizes[0] = 0
    return mask & ((sizes >= smallest) | (sizes == sizes.max()) & (np.arange(len(sizes)) == sizes.argmax()))[islands]


def rock_sand_water(masks: Tensor, levels: Tensor, *, covered: float = 0.3) -> Tensor:
    """Fill a jar with rocks, then sand, then water: all wholes stay, then the parts that lie in none of them, then the parts of parts.

    masks bool (M, H, W), levels (M,) -> indices of the masks kept, in the order they were filled in. A mask stays if the share of it inside
    any one mask kept from the levels above is below `covered`.   Source: FMA-WSSS, released code (0.3).
    """
    check_shape(masks, "M H W", "masks")
    check_shape(levels, "M", "levels", M=len(masks))
    flat = masks.flatten(1)
    kept = torch.zeros(0, dtype=torch.long, device=masks.device)
    for level in (2, 1, 0):
        grains = (levels == level).nonzero()[:, 0]
        if len(kept) and len(grains):
            inside = _largest_overlap(flat[grains], flat[kept]) / flat[grains].sum(1)
            grains = grains[inside < covered]
        kept = torch.cat([kept, grains])
    return kept


def _largest_overlap(some: Tensor, others: Tensor, *, chunk: int = 50) -> Tensor:
    """Pixels that each of some masks shares with that of the others which shares most.   bool (S, N), (O, N) -> (S,)."""
    rows = []
    for part in some.split(chunk):
        part = part.float()
        rows.append(torch.stack([(part @ other.float().T).amax(1) for other in others.split(chunk)]).amax(0))
    return torch.cat(rows)


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"expected image uint8 (H, W, 3), got {got}; load_image makes one")


def _from_hub(name: str) -> Path:
    """The folder of the local cache that holds a SAM's three files, fetched where they are missing."""
    try:
        files = [hub_file(name, file) for file in ("config.json", "preprocessor_config.json", "model.safetensors")]
    except WeightsError as error:
        raise ProposalError(f"{error}; superpixels need no files") from error
    return files[-1].parent


def save_proposals(path: Path, proposals: Proposals) -> None:
    """Write masks at one bit a pixel; the file appears whole or not at all.   Raises ProposalError if it cannot be written."""
    arrays = {name: values.cpu().numpy() for name, values in _tensors(proposals).items() if values is not None and name != "masks"}
    masks, file = proposals.masks.cpu().numpy(), io.BytesIO()
    np.savez_compressed(file, packed=_packed(masks), shape=masks.shape, source=proposals.source, **arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, file.getvalue())
    except OSError as error:
        raise ProposalError(f"{path}: masks cannot be written ({error.strerror or error}); check the folder, or use no cache") from error


def load_proposals(path: Path) -> Proposals | None:
    """Masks that save_proposals wrote, or None if there is no such file or it is damaged, so that they are computed again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            shape = tuple(int(size) for size in file["shape"])
            masks = _unpacked(file["packed"], shape[1:])
            rest = {name: torch.from_numpy(file[name]) for name in ("levels", "ious", "stability") if name in file}
            proposals = Proposals(torch.from_numpy(masks), source=str(file["source"]), **rest)
        os.utime(path)  # used just now: others go first
        return proposals
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _packed(masks: np.ndarray) -> np.ndarray:
    """bool (M, H, W) -> uint8 (M, ceil(H*W / 8))."""
    return np.packbits(masks.reshape(len(masks), masks.shape[1] * masks.shape[2]), axis=1)


def _unpacked(packed: np.ndarray, size: Sequence[int]) -> np.ndarray:
    return np.unpackbits(packed, axis=1, count=size[0] * size[1]).reshape(len(packed), *size).astype(bool)


def _cached_path(folder: Path, image: np.ndarray, sam: Sam, settings: SamSettings) -> Path:
    speed_only = {"points_per_batch"}
    asked = {name: value for name, value in dataclasses.asdict(settings).items() if name not in speed_only}
    key = json.dumps([1, image.shape, asked, sam.fingerprint, sam.name], sort_keys=True).encode()  # 1: how masks are made
    return Path(folder) / f"{hashlib.sha256(key + np.ascontiguousarray(image).tobytes()).hexdigest()[:32]}.npz"


def cache_limit(folder: Path = CACHE) -> int:
    """How many bytes of masks a folder may hold: half of what the disk has room for besides others' files."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return (shutil.disk_usage(there).free + sum(size for _, size, _ in _kept(folder))) // 2


def _kept(folder: Path) -> list[tuple[float, int, Path]]:
    """When each file of masks was used, and its bytes."""
    files = []
    for path in folder.glob("*.npz"):
        with suppress(OSError):  # another process may have removed it
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    return files


def _keep_below(folder: Path, *, most: int) -> None:
    """Remove the files that were not used for longest until the folder has at most so many bytes."""
    files = _kept(folder)
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most:
            break
        with suppress(OSError):
            path.unlink()
        total -= size
