"""What is learned from: views of pictures, encoded once as they are, or augmented and encoded each time."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kit.data import DataSet
from kit.encode import Clip, Tokens
from kit.fit import FitError, FitStep
from kit.last_block import last_pass

CACHE_BYTES = 4_000_000_000  # of tokens kept in memory
READERS = 8  # threads that read and augment pictures
ENCODED_AT_ONCE = 32
LABELS_AT_ONCE = 256
JITTER = 0.5  # how likely each of the four changes of colour is
Seed = Callable[[int], np.ndarray]  # number of a picture -> its coarse seed, uint8 (H, W)


class Views(Protocol):
    """How the pictures of a data set are seen while prompts are learned: `count` of them, by their numbers."""

    count: int

    def embeddings(self, indices: Sequence[int], random: torch.Generator) -> Tensor:
        """-> (B, D), unit rows: what CLIP says of each view, without a graph."""

    def tokens_and_seeds(self, indices: Sequence[int], random: torch.Generator, seed: Seed) -> tuple[Tokens, Tensor]:
        """-> tokens of B views of one size, and their seeds, int64 (B, H, W), cut alike."""


class CachedViews:
    """Every picture as it is, encoded once and kept in memory: for small pictures of one size. `fill` comes first."""

    def __init__(self, clip: Clip, data: DataSet, *, prepare: Callable[[np.ndarray], Tensor], most_bytes: int = CACHE_BYTES):
        self.clip, self.data, self.prepare, self.most_bytes = clip, data, prepare, most_bytes
        self.count = len(data)
        self.names: list[tuple[str, ...]] = []
        self._tokens: Tokens | None = None
        self._embeddings: Tensor | None = None

    def fill(self) -> Iterator[FitStep]:
        """Read and encode all pictures, a few at a time.   Raises FitError for pictures of several sizes, or too many."""
        inputs, embeddings, shapes = [], [], set()
        for start in range(0, self.count, ENCODED_AT_ONCE):
            clock = time.perf_counter()
            samples = [entry.sample() for entry in self.data.entries[start : start + ENCODED_AT_ONCE]]
            pixels = [self.prepare(sample.image) for sample in samples]
            shapes |= {
                (*each.shape, *sample.image.shape[:2]) for each, sample in zip(pixels, samples, strict=True)
            }  # seeds are as large as pictures
            if len(shapes) > 1:
                raise FitError('cached views need pictures of one size, these are of several: take views "augmented"')
            tokens = self.clip.encode(torch.stack(pixels), layers=())
            if tokens.last_input[0].nbytes * self.count > self.most_bytes:
                raise FitError(
                    f"the tokens of {self.count:,} pictures need {tokens.last_input[0].nbytes * self.count / 1e9:.1f} GB, "
                    f'more than the {self.most_bytes / 1e9:.1f} GB allowed: take fewer pictures, or views "augmented"'
                )
            inputs.append(tokens.last_input)
            embeddings.append(embedding(tokens))
            self.names += [sample.names for sample in samples]
            done = len(self.names)
            yield FitStep(done, self.count, {}, 0.0, time.perf_counter() - clock, "encoding")
        whole = torch.cat(inputs)
        self._tokens = dataclasses.replace(tokens, last_input=whole, attention=whole.new_zeros(len(whole), 0, *[whole.shape[1]] * 2))
        self._embeddings = torch.cat(embeddings)

    def embeddings(self, indices: Sequence[int], random: torch.Generator) -> Tensor:
        return self._embeddings[list(indices)]

    def tokens_and_seeds(self, indices: Sequence[int], random: torch.Generator, seed: Seed) -> tuple[Tokens, Tensor]:
        seeds = np.stack([seed(index) for index in indices])
        return some_images(self._tokens, indices), torch.from_numpy(seeds).long().to(self._tokens.last_input.device)


class AugmentedViews:
    """A new square piece of each picture every time, at a random scale, in changed colours, mirrored or not; encoded each time.

    crop: its side in pixels, a multiple of the model's patch; scale: lowest and highest length of the picture's longer side before it is
    cut. `fill` comes first.   Source: FMA-WSSS, released code.
    """

    def __init__(self, clip: Clip, data: DataSet, *, crop: int, scale: tuple[int, int]):
        if crop % clip.patch:
            raise FitError(f"expected a crop that is a multiple of {clip.name}'s patch of {clip.patch} pixels, got {crop}")
        self.clip, self.data, self.crop, self.scale = clip, data, crop, scale
        self.count = len(data)
        self.names: list[tuple[str, ...]] = []

    def fill(self) -> Iterator[FitStep]:
        """Read the image-level labels of all pictures, many at a time: where they come from masks, that takes a while."""
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, self.count, LABELS_AT_ONCE):
                clock = time.perf_counter()
                self.names += pool.map(lambda entry: entry.names(), self.data.entries[start : start + LABELS_AT_ONCE])
                yield FitStep(len(self.names), self.count, {}, 0.0, time.perf_counter() - clock, "labels")

    def embeddings(self, indices: Sequence[int], random: torch.Generator) -> Tensor:
        pixels, _ = self._pieces(indices, random, None)
        return embedding(self.clip.encode(pixels, layers=()))

    def tokens_and_seeds(self, indices: Sequence[int], random: torch.Generator, seed: Seed) -> tuple[Tokens, Tensor]:
        pixels, seeds = self._pieces(indices, random, seed)
        return self.clip.encode(pixels, layers=()), seeds.to(self.clip.device)

    def _pieces(self, indices: Sequence[int], random: torch.Generator, seed: Seed | None) -> tuple[Tensor, Tensor]:
        chances = torch.randint(2**62, (len(indices),), generator=random).tolist()

        def piece(index: int, chance: int) -> tuple[Tensor, Tensor]:
            image = self.data.entries[index].image()
            labels = np.zeros(image.shape[:2], np.uint8) if seed is None else seed(index)
            view, cut = augmented(image, labels, crop=self.crop, scale=self.scale, random=np.random.default_rng(chance))
            return self.clip.prepare(view), torch.from_numpy(cut).long()

        with ThreadPoolExecutor(READERS) as pool:
            pieces = list(pool.map(piece, indices, chances))
        pixels, seeds = zip(*pieces, strict=True)
        return torch.stack(pixels), torch.stack(seeds)


def augmented(
    image: np.ndarray, labels: np.ndarray, *, crop: int, scale: tuple[int, int], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Colours changed, the longer side at a random length (the shorter at least `crop`), a random square, mirrored or not.

    image uint8 (H, W, 3), labels uint8 (H, W) -> uint8 (crop, crop, 3) bicubic, and (crop, crop) nearest, cut alike.
    Source: FMA-WSSS, released code (there colours below 0 are reflected; here they stay 0).
    """
    image = colour_jitter(image, random)
    height, width = image.shape[:2]
    ratio = max(int(random.integers(scale[0], scale[1] + 1)) / max(height, width), crop / min(height, width))
    rows, columns = max(crop, round(height * ratio)), max(crop, round(width * ratio))
    top, left = int(random.integers(rows - crop + 1)), int(random.integers(columns - crop + 1))
    mirrored = random.random() < 0.5

    def cut(plane: np.ndarray, method: Image.Resampling) -> np.ndarray:
        resized = np.array(Image.fromarray(plane).resize((columns, rows), method))[top : top + crop, left : left + crop]
        return np.ascontiguousarray(resized[:, ::-1] if mirrored else resized)

    return cut(image, Image.Resampling.BICUBIC), cut(labels, Image.Resampling.NEAREST)


def colour_jitter(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue, each changed with probability JITTER, in random order.   uint8 (H, W, 3) -> the same.

    Source: FMA-WSSS, released code: brightness and hue up to 25 of 255, contrast 0.6 to 1.4, saturation 0.5 to 1.5.
    """
    for change in random.permutation(4).tolist():
        if random.random() >= JITTER:
            continue
        if change == 0:
            image = _clipped(image + random.uniform(-25, 25))
        elif change == 1:
            image = _clipped(image * random.uniform(0.6, 1.4))
        else:
            hsv = np.array(Image.fromarray(image).convert("HSV"))
            if change == 2:
                hsv[..., 1] = _clipped(hsv[..., 1] * random.uniform(0.5, 1.5))
            else:
                hsv[..., 0] += np.uint8(round(random.uniform(-25, 25)) % 256)  # a circle: uint8 wraps around
            image = np.array(Image.fromarray(hsv, "HSV").convert("RGB"))
    return image


def _clipped(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


@torch.no_grad()
def embedding(tokens: Tokens) -> Tensor:
    """What CLIP says of each picture when it looks at the mean of the patches.   -> (B, D), unit rows."""
    return F.normalize(last_pass(tokens).feature @ tokens.block.projection, dim=-1)


def some_images(tokens: Tokens, indices: Sequence[int]) -> Tokens:
    """Some images of a batch, in the order asked for."""
    chosen = list(indices)
    return dataclasses.replace(tokens, last_input=tokens.last_input[chosen], attention=tokens.attention[chosen])


def label_rows(names: Sequence[Sequence[str]], classes: Sequence[str]) -> Tensor:
    """Image-level labels as 0 and 1.   B tuples of names -> (B, C).   Raises FitError for a name that is no class."""
    rows = torch.zeros(len(names), len(classes))
    for row, present in zip(rows, names, strict=True):
        for name in present:
            if name not in classes:
                raise FitError(f"a picture shows {name}, which is none of the {len(classes)} classes of the data set: correct its labels")
            row[classes.index(name)] = 1
    return rows
