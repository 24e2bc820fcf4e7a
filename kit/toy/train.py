"""Train the tiny CLIP that ships with the kit: `python -m kit.toy.train`.

It learns from pictures of the drawn *web* world and from sentences about them, as CLIP did from the web's: no mask, no label and no picture
of the data set the methods are tried on. What is particular about it:

- Every block but the last attends locally, and the last one reads every patch equally (its queries and keys are zero and stay zero), so
  class maps sit on the objects: Zhou et al. 2016 in a ViT.
- The contrastive loss has several captions per picture, and pictures that share a sentence share the positive. It is taken on the class
  token and on the mean of the patches.
- Half of the patches are dropped until late (Li et al. 2023, "FLIP"): twice the pictures per minute.

Everything random is drawn from (seed, step), so a run that is killed and continued ends with the same weights as one that was not.
"""

import argparse
import copy
import csv
import functools
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from kit.cam import class_logits, grad_cam, normalised_cam, softmax_grad_cam
from kit.encode import (
    TINY,
    Clip,
    CutTokenizer,
    attention_weights,
    build_small_clip,
    choose_device,
    embed_patches,
    local_mask,
    mask_of_positions,
    merge_heads,
)
from kit.files import write_whole
from kit.mask import constant_background, label_map, with_background
from kit.score import NOT_JUDGED, Confusion
from kit.toy.captions import all_texts, caption
from kit.toy.scene import draw, library_versions, split_seed, world_hash
from kit.words import VOC_BACKGROUND, VOC_CLASSES

CACHE = Path.home() / ".cache" / "clip-wsss-kit"
CHUNK = 250  # pictures rendered between two marks of progress
WATCHED_SIZE, WATCHED_SIDE = (
    160,
    128,
)  # pixels of the watched scenes, and pixels CLIP sees of them: more than in training, as the methods do
LARGEST_SCALE = 50.0
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
PIXEL_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
CLIP_VOCABULARY = 49408


class TrainingError(ValueError):
    """A training that cannot be started as asked."""


@dataclass(frozen=True)
class Settings:
    """All that decides the weights. Numbers without a source were found by trying, watching class maps of the training split."""

    steps: int = 5000
    batch: int = 64
    captions: int = 3  # sentences per picture
    pictures: int = 60000
    rendered: int = 112  # pixels a side; crops of 80 to 100 % become `size`
    size: int = 96
    patch: int = 8
    width: int = 160
    head_width: int = 32
    radius: tuple[int | None, ...] = (2, 2, 1, None)  # patches seen to each side, for each block; the last one reads all equally
    text_width: int = 128
    text_blocks: int = 2
    text_heads: int = 4
    context: int = 32
    joint: int = 128
    drop: float = 0.5  # of the patches; Li et al. 2023
    drop_until: float = 0.85  # share of the steps
    unknown: float = 0.02  # of the words, so that the embedding of unknown words is trained
    matrix_rate: float = 1.5e-3  # Muon
    rate: float = 1.5e-3  # AdamW
    weight_decay: float = 0.05
    warm_up: int = 60
    bfloat16: bool = True  # products in bfloat16, sums and weights in float32
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.captions, self.pictures) < 1 or self.pictures < self.batch:
            raise TrainingError(
                f"expected at least one step and as many pictures as a batch has, got {self.steps} steps, "
                f"{self.pictures} pictures, a batch of {self.batch}: change them"
            )
        if self.size % self.patch or self.rendered * 4 < self.size * 3 or self.width % self.head_width or self.width % 4:
            raise TrainingError(
                f"expected size to be a multiple of patch, width one of 4 and of head_width, rendered at least 3/4 of size, got size "
                f"{self.size}, patch {self.patch}, width {self.width}, head_width {self.head_width}, rendered {self.rendered}"
            )
        if len(self.radius) < 2 or self.radius[-1] is not None:
            raise TrainingError(f"expected a radius for each block and None for the last, got {self.radius}")

    def model(self, vocabulary_size: int) -> dict:
        """The configuration of open_clip's CLIP."""
        vision = {
            "image_size": self.size,
            "patch_size": self.patch,
            "width": self.width,
            "layers": len(self.radius),
            "head_width": self.head_width,
            "mlp_ratio": 4.0,
        }
        text = {
            "context_length": self.context,
            "vocab_size": vocabulary_size,
            "width": self.text_width,
            "heads": self.text_heads,
            "layers": self.text_blocks,
        }
        return {"embed_dim": self.joint, "vision_cfg": vision, "text_cfg": text}


@dataclass(frozen=True)
class TrainingPicture:
    """What a caption may speak of: a scene without picture and truth, so that no mask can reach the training."""

    objects: tuple[tuple[str, str], ...]
    place: str
    present_stuff: tuple[str, ...]
    style: str


def render_pictures(settings: Settings, cache: Path, *, processes: int = 2) -> Path:
    """The web world's pictures on disk, rendered once.

    -> a folder with pictures.npy (P, H, W, 3) uint8 and, for every 250 of them, what captions may say.
    A killed rendering goes on where it was.
    """
    folder = cache / f"pictures-{the_world()[:12]}-{settings.rendered}px-{settings.pictures}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pictures.npy"
    if not path.exists():
        partial = path.with_suffix(".partial")
        np.lib.format.open_memmap(partial, "w+", np.uint8, (settings.pictures, settings.rendered, settings.rendered, 3)).flush()
        os.replace(partial, path)
    missing = [start for start in range(0, settings.pictures, CHUNK) if not _described(folder, start).exists()]
    began = time.monotonic()
    for done, _ in enumerate(_render_chunks(folder, missing, processes), start=1):
        left = (time.monotonic() - began) / done * (len(missing) - done)
        _say(f"rendered {done}/{len(missing)} times {CHUNK} pictures  {left / 60:.1f} min left")
    return folder


def _render_chunks(folder: Path, starts: Sequence[int], processes: int) -> Iterator[None]:
    if processes < 2 or len(starts) < 2:
        yield from (_render_chunk(folder, start) for start in starts)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(functools.partial(_render_chunk, folder), starts)


def _described(folder: Path, start: int) -> Path:
    return folder / f"scenes-{start:07d}.json"


def _render_chunk(folder: Path, start: int) -> None:
    pixels = np.lib.format.open_memmap(folder / "pictures.npy", "r+")
    described = []
    for index in range(start, min(start + CHUNK, len(pixels))):
        scene = draw(split_seed("web", index), size=pixels.shape[1], world="web")
        pixels[index] = scene.image
        described.append({"objects": scene.objects, "place": scene.place, "present_stuff": scene.present_stuff, "style": scene.style})
    pixels.flush()
    write_whole(_described(folder, start), json.dumps(described).encode())  # written last: its presence is the mark that the chunk is done


def load_descriptions(folder: Path) -> list[TrainingPicture]:
    """What can be said about each rendered picture, in the order of the pictures."""
    rows = [row for path in sorted(folder.glob("scenes-*.json")) for row in json.loads(path.read_text())]
    return [TrainingPicture(tuple(map(tuple, row["objects"])), row["place"], tuple(row["present_stuff"]), row["style"]) for row in rows]


def vocabulary(described: Sequence[TrainingPicture], *, sample: int = 4000) -> tuple[int, ...]:
    """The byte-pair tokens in use, in ascending order: those of every word a caption can hold and of a sample of captions."""
    rng = np.random.default_rng(0)
    texts = [*all_texts(), *(caption(rng, picture) for picture in described[:sample])]
    uncut = CutTokenizer(range(CLIP_VOCABULARY))
    return tuple(sorted({token for text in set(texts) for token in uncut.encode(text)}))


class Batch(NamedTuple):
    """One step's material: pixels and token ids, nothing else that a picture is made from."""

    pixels: Tensor  # (B, 3, size, size), normalised
    ids: Tensor  # (U, S) token ids of the batch's different captions, padded with 0
    positives: Tensor  # (B, U) how often a caption was said of a picture
    kept: Tensor  # (B, n) patches that are not dropped, or (B, 0): all of them


class Batches(Dataset):
    """The batch of every step, a function of (seed, step)."""

    def __init__(self, settings: Settings, folder: Path):
        self.settings, self.folder = settings, folder
        self.described = load_descriptions(folder)
        self.tokenizer = CutTokenizer(vocabulary(self.described), settings.context)
        self._ids: dict[str, list[int]] = {}
        self._pixels: np.ndarray | None = None  # opened where it is read: a memory map does not travel to another process

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.settings.seed, step])
        chosen = self._chosen(step)
        ids, positives = self._captions(rng, chosen)
        return Batch(self._augmented(rng, chosen), ids, positives, self._kept(rng, step))

    def _chosen(self, step: int) -> np.ndarray:
        """Every picture once an epoch."""
        per_epoch = self.settings.pictures // self.settings.batch
        epoch, place = divmod(step, per_epoch)
        start = place * self.settings.batch
        return _epoch_order(self.settings.seed, epoch, self.settings.pictures)[start : start + self.settings.batch]

    def _augmented(self, rng: np.random.Generator, chosen: np.ndarray) -> Tensor:
        """Flips, crops of 80 to 100 % and a little noise in contrast and tint; colours stay, they are evidence here."""
        if self._pixels is None:
            self._pixels = np.load(self.folder / "pictures.npy", mmap_mode="r")
        side = self._pixels.shape[1]
        crop = int(rng.integers(math.ceil(0.8 * side), side + 1))
        row, column = rng.integers(0, side - crop + 1, 2)
        pixels = torch.from_numpy(self._pixels[chosen, row : row + crop, column : column + crop]).permute(0, 3, 1, 2).float() / 255
        pixels = F.interpolate(pixels, size=(self.settings.size, self.settings.size), mode="bilinear", antialias=True)
        flipped = torch.from_numpy(rng.random(len(chosen)) < 0.5)
        pixels[flipped] = pixels[flipped].flip(3)
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_DEVIATION))
        contrast = 1 + 0.1 * torch.from_numpy(rng.standard_normal((len(chosen), 1, 1, 1), np.float32))
        tint = 0.1 * torch.from_numpy(rng.standard_normal((len(chosen), 3, 1, 1), np.float32))
        return (pixels - mean) / deviation * contrast + tint

    def _captions(self, rng: np.random.Generator, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        texts: dict[str, int] = {}
        spoken = [
            [texts.setdefault(caption(rng, self.described[index]), len(texts)) for _ in range(self.settings.captions)] for index in chosen
        ]
        positives = torch.zeros(len(chosen), len(texts))
        for row, columns in zip(positives, spoken, strict=True):
            for column in columns:
                row[column] += 1
        rows = [self._worded(rng, text) for text in texts]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, content in zip(ids, rows, strict=True):
            row[: len(content)] = torch.tensor(content)
        return ids, positives

    def _worded(self, rng: np.random.Generator, text: str) -> list[int]:
        if text not in self._ids:
            self._ids[text] = self.tokenizer.encode(text)[: self.settings.context - 2]
        words = self._ids[text]
        unknown = rng.random(len(words)) < self.settings.unknown
        return [self.tokenizer.start, *np.where(unknown, self.tokenizer.unknown, words), self.tokenizer.end]

    def _kept(self, rng: np.random.Generator, step: int) -> Tensor:
        if not is_dropping(self.settings, step):
            return torch.zeros(self.settings.batch, 0, dtype=torch.long)
        patches = (self.settings.size // self.settings.patch) ** 2
        order = rng.random((self.settings.batch, patches)).argsort(1)
        return torch.from_numpy(order[:, : round(patches * (1 - self.settings.drop))])


@functools.cache
def the_world() -> str:
    """The world's fingerprint, drawn once a run."""
    return world_hash()


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, pictures: int) -> np.ndarray:
    return np.random.default_rng([seed, 1_000_000_007, epoch]).permutation(pictures)  # a stream that no step has


def is_dropping(settings: Settings, step: int) -> bool:
    """Whether patches are dropped at this step: not at the end, where the model meets whole pictures."""
    return settings.drop > 0 and step < settings.drop_until * settings.steps


def new_model(settings: Settings, vocabulary_size: int) -> nn.Module:
    """An untrained tiny CLIP whose attention starts as "look near and alike".

    Source: Trockman and Kolter 2023, "Mimetic initialization of self-attention layers".
    """
    torch.manual_seed(settings.seed)
    model = build_small_clip(settings.model(vocabulary_size))
    for block in model.visual.transformer.resblocks:
        _mimetic_attention(block.attn)
    table = model.visual.positional_embedding.data
    table[0] = 0
    table[1:] = 0.5 * _sine_cosine_positions(settings.size // settings.patch, settings.width)
    read_equally(model)
    return model


def _mimetic_attention(attention: nn.MultiheadAttention) -> None:
    width, heads = attention.embed_dim, attention.num_heads
    each = width // heads
    weight, identity = attention.in_proj_weight.data, torch.eye(width)
    left, strength, right = torch.linalg.svd(0.4 * torch.randn(width, width) / math.sqrt(width) - 0.4 * identity)
    weight[2 * width :] = (left * strength.sqrt()).T
    attention.out_proj.weight.data.copy_((strength.sqrt()[:, None] * right).T)
    for head in range(heads):
        left, strength, right = torch.linalg.svd(0.7 * torch.randn(width, width) / math.sqrt(width) + 0.7 * identity)
        rows = slice(head * each, (head + 1) * each)
        weight[:width][rows] = (left[:, :each] * strength[:each].sqrt()).T
        weight[width : 2 * width][rows] = (right[:each].T * strength[:each].sqrt()).T
    attention.in_proj_bias.data.zero_()
    attention.out_proj.bias.data.zero_()


def _sine_cosine_positions(grid: int, width: int) -> Tensor:
    """(grid*grid, width): a quarter each for sine and cosine of columns and rows."""
    frequency = 1.5 / 50.0 ** (torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(grid).float(), torch.arange(grid).float(), indexing="ij")
    across, down = columns.reshape(-1, 1) * frequency, rows.reshape(-1, 1) * frequency
    return torch.cat([across.sin(), across.cos(), down.sin(), down.cos()], 1)


@torch.no_grad()
def read_equally(model: nn.Module) -> None:
    """The last block's queries and keys become zero: every token takes the mean of all values, as in the CAM of old."""
    attention = model.visual.transformer.resblocks[-1].attn
    attention.in_proj_weight[: 2 * attention.embed_dim] = 0
    attention.in_proj_bias[: 2 * attention.embed_dim] = 0


def image_vectors(model: nn.Module, pixels: Tensor, kept: Tensor, radius: Sequence[int | None]) -> tuple[Tensor, Tensor]:
    """What the class token says, and what the patches say on average.   pixels (B, 3, H, W), kept (B, n) or (B, 0) -> two (B, D)."""
    visual = model.visual
    dropping = kept.shape[1] > 0
    tokens, grid = embed_patches(visual, pixels, keep=kept if dropping else None)
    if dropping:
        positions = torch.stack([kept // grid[1], kept % grid[1]], -1).cpu()  # where encode builds its masks
        masks = {reach: mask_of_positions(positions, reach)[:, None] for reach in set(radius) if reach is not None}  # (B, 1, T, T)
    else:
        masks = {reach: local_mask(grid, reach, pixels.device) for reach in set(radius) if reach is not None}
    masks = {reach: mask.to(pixels.device, tokens.dtype) for reach, mask in masks.items()}
    tokens = tokens.float()
    for block, reach in zip(visual.transformer.resblocks, radius, strict=True):
        tokens = _run_block(block, tokens, masks.get(reach))
    tokens = visual.ln_post(tokens)
    return (tokens[:, 0] @ visual.proj).float(), (tokens[:, 1:].mean(1) @ visual.proj).float()


def text_vectors(model: nn.Module, ids: Tensor) -> Tensor:
    """Captions in the joint space, computed no longer than the longest of them.   ids (U, S) -> (U, D), rows of length 1."""
    length = ids.shape[1]
    tokens = model.token_embedding(ids) + model.positional_embedding[:length]
    causal = model.attn_mask[:length, :length]
    if torch.is_autocast_enabled(ids.device.type):
        causal = causal.bfloat16()
    for block in model.transformer.resblocks:
        tokens = _run_block(block, tokens, causal)
    ends = model.ln_final(tokens[torch.arange(len(ids), device=ids.device), ids.argmax(1)])  # the end has the largest id
    return F.normalize((ends @ model.text_projection).float(), dim=-1)


def _run_block(block: nn.Module, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """`encode.run_block` with attention written out: fused, its backward pass in bfloat16 on a CPU is seven times slower.

    (B, T, E) -> (B, T, E).
    """
    weights, value = attention_weights(block.attn, block.ln_1(tokens), mask)
    tokens = tokens + block.attn.out_proj(merge_heads(weights @ value))
    return tokens + block.mlp(block.ln_2(tokens))


def contrastive_loss(image: Tensor, text: Tensor, positives: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in both directions, with several positives.

    image (B, D), text (U, D) of length 1, positives (B, U) counts -> scalar.
    Source: Radford et al. 2021; several positives as in Khosla et al. 2020.
    """
    logits = scale * F.normalize(image, dim=-1) @ text.T  # (B, D) x (D, U) -> (B, U)
    of_picture = positives / positives.sum(1, keepdim=True)
    of_text = positives / positives.sum(0, keepdim=True)
    return -0.5 * ((of_picture * logits.log_softmax(1)).sum(1).mean() + (of_text * logits.log_softmax(0)).sum(0).mean())


def batch_loss(model: nn.Module, batch: Batch, settings: Settings) -> Tensor:
    """The loss on the class token plus the same on the mean of the patches: class maps read the mean."""
    with torch.autocast(batch.pixels.device.type, torch.bfloat16, enabled=settings.bfloat16):
        class_token, mean = image_vectors(model, batch.pixels, batch.kept, settings.radius)
        text = text_vectors(model, batch.ids)
    scale = model.logit_scale.exp()
    return contrastive_loss(class_token, text, batch.positives, scale) + contrastive_loss(mean, text, batch.positives, scale)


def new_optimisers(model: nn.Module, settings: Settings) -> tuple[torch.optim.Optimizer, ...]:
    """Muon (Jordan et al. 2024) for the blocks' matrices, AdamW for the rest; no decay for biases, norms and embeddings."""
    matrices, decayed, free = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "resblocks" in name:
            matrices.append(parameter)
        elif parameter.ndim >= 2 and "embedding" not in name:
            decayed.append(parameter)
        else:
            free.append(parameter)
    muon = torch.optim.Muon(
        matrices, lr=settings.matrix_rate, weight_decay=settings.weight_decay, momentum=0.95, ns_steps=4, adjust_lr_fn="match_rms_adamw"
    )
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return muon, torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def rate_factor(settings: Settings, step: int) -> float:
    """A short warm-up, then a cosine down to 1 %."""
    return min(1, (step + 1) / settings.warm_up) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / settings.steps)))


class Training:
    """A model on its way: what one step changes, and what has to be kept to go on another day."""

    def __init__(self, settings: Settings, tokenizer: CutTokenizer, device: torch.device):
        self.settings, self.tokenizer, self.device = settings, tokenizer, device
        self.model = new_model(settings, tokenizer.vocabulary_size).to(device).train()
        self.optimisers = new_optimisers(self.model, settings)
        self.rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict] = []

    def advance(self, batch: Batch) -> Tensor:
        """One step of training; returns the loss, still on its device."""
        batch = Batch(*(part.to(self.device) for part in batch))
        factor = rate_factor(self.settings, self.step)
        for optimiser, rates in zip(self.optimisers, self.rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        loss = batch_loss(self.model, batch, self.settings)
        self.model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        read_equally(self.model)
        self.model.logit_scale.data.clamp_(max=math.log(LARGEST_SCALE))
        self.step += 1
        return loss.detach()

    def clip(self) -> Clip:
        """A frozen copy to look at, as the kit's methods would meet it."""
        return Clip(copy.deepcopy(self.model), self.tokenizer, name="tiny", radius=self.settings.radius)

    def save(self, folder: Path) -> None:
        """The checkpoint, replaced in one move, and beside it the weights so far."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        partial = folder / "checkpoint.partial"
        torch.save(state, partial)
        os.replace(partial, folder / "checkpoint.pt")
        write_model(self, folder)

    def load(self, folder: Path) -> None:
        state = torch.load(folder / "checkpoint.pt", map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]


def train(
    settings: Settings,
    cache: Path = CACHE,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    until_step: int | None = None,
    restart: bool = False,
    processes: int = 2,
    loaders: int = 1,
    watched: int = 40,  # scenes whose maps are looked at
    watch_seconds: float = 240,
    save_seconds: float = 180,
) -> tuple[Training, Path]:
    """Train, or go on training, until the settings' steps are done, `minutes` are over or `until_step` is reached.

    -> the training and the folder of its checkpoint.   The run with the same settings and the same world is continued unless `restart`.
    """
    folder = render_pictures(settings, cache, processes=processes)
    batches = Batches(settings, folder)
    training = Training(settings, batches.tokenizer, choose_device(device))
    run = cache / f"run-{_fingerprint(settings)}"
    if restart and run.exists():
        shutil.rmtree(run)
    run.mkdir(parents=True, exist_ok=True)
    if (run / "checkpoint.pt").exists():
        training.load(run)
        _say(f"continuing at step {training.step} of {settings.steps}")
    end = min(settings.steps, until_step or settings.steps)
    scenes = [draw(split_seed("train", index), size=WATCHED_SIZE) for index in range(watched)]
    loader = DataLoader(
        batches, batch_size=None, sampler=range(training.step, end), num_workers=loaders, prefetch_factor=4 if loaders else None
    )
    began = said = looked = saved = time.monotonic()
    before, said_step = training.seconds, training.step
    losses: list[Tensor] = []
    for batch in loader:
        losses.append(training.advance(batch))
        now = time.monotonic()
        training.seconds = before + now - began
        over = training.step == end or (minutes is not None and now - began > minutes * 60)
        if now - said > 10 or over:
            _say(_progress(training, losses, (now - said) / (training.step - said_step)))
            said, said_step = now, training.step
        if scenes and (now - looked > watch_seconds or over):
            training.history.append(_row(training, losses, scenes))
            _say("  ".join(f"{name} {value}" for name, value in training.history[-1].items()))
            losses, looked = [], now
            said = time.monotonic()
        if now - saved > save_seconds or over:
            training.save(run)
            saved = now
        if over:
            break
    return training, run


def _progress(training: Training, losses: list[Tensor], seconds_a_step: float) -> str:
    settings = training.settings
    loss = torch.stack(losses[-50:]).mean().item()
    whole = sum(not is_dropping(settings, step) for step in range(training.step, settings.steps))
    left = (
        settings.steps - training.step + (whole if is_dropping(settings, training.step) else 0)
    ) * seconds_a_step  # whole pictures take about twice as long
    rate = settings.batch / seconds_a_step
    scale = training.model.logit_scale.exp().item()
    return f"step {training.step}/{settings.steps}  loss {loss:.3f}  scale {scale:.1f}  {rate:.0f} pictures/s  {left / 60:.1f} min left"


def _row(training: Training, losses: list[Tensor], scenes: Sequence) -> dict:
    seen = {"minutes": round(training.seconds / 60, 2), "step": training.step, "pictures": training.step * training.settings.batch}
    seen |= {"loss": round(torch.stack(losses).mean().item(), 4), "scale": round(training.model.logit_scale.exp().item(), 2)}
    return seen | {name: round(value, 4) for name, value in watched_maps(training.clip(), scenes).items()}


@torch.no_grad()
def watched_maps(clip: Clip, scenes: Sequence) -> dict[str, float]:
    """How good classes and class maps are on some scenes of the training split: class accuracy alone says nothing about maps.

    -> class_map (mean average precision of "which classes are here"), plain and softmax (mIoU of the two Grad-CAMs with threshold 0.5 over
    21 classes); all 0..1.
    """
    text = clip.text([f"a photo of {'an' if name[0] in 'aeiou' else 'a'} {name}." for name in VOC_CLASSES])
    background = clip.text([f"a photo of the {word}." for word in VOC_BACKGROUND if not clip.unknown_words(word)])
    scores, present = [], []
    confusion = {name: Confusion(("background", *VOC_CLASSES)) for name in ("plain", "softmax")}
    for scene in scenes:
        tokens = clip.encode(clip.prepare(scene.image, side=WATCHED_SIDE)[None])
        scores.append(class_logits(tokens, text)[0].cpu().numpy())
        here = [int(label) for label in np.unique(scene.truth) if 0 < label <= 20]
        present.append(np.isin(np.arange(1, 21), here))
        if here:
            own = text[[label - 1 for label in here]]
            for name, maps in (
                ("plain", grad_cam(tokens, own, range(len(here)))),
                ("softmax", softmax_grad_cam(tokens, torch.cat([own, background]), range(len(here)))),
            ):
                confusion[name].add(np.where(scene.truth <= 20, scene.truth, NOT_JUDGED), voc_labels(maps, here, scene.truth.shape))
    means = {name: counted.miou() for name, counted in confusion.items()}
    return {"class_map": _mean_average_precision(np.array(scores), np.array(present)), **means}


def voc_labels(maps: Tensor, here: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """What maps (1, C, h, w) of the classes with these numbers say about every pixel, with half as the bar.   -> int (H, W)."""
    large = normalised_cam(F.interpolate(maps.relu(), size=size, mode="bilinear", align_corners=False))
    return np.array([0, *here])[label_map(with_background(large, background=constant_background))[0].cpu().numpy()]


def _mean_average_precision(scores: np.ndarray, present: np.ndarray) -> float:
    """scores (S, C), present (S, C) bool -> 0..1, over the classes that occur."""
    ranked = np.take_along_axis(present, (-scores).argsort(0), 0)
    precision = ranked.cumsum(0) / np.arange(1, len(ranked) + 1)[:, None]
    occurs = ranked.any(0)
    return float(((precision * ranked).sum(0)[occurs] / ranked.sum(0)[occurs]).mean())


def write_model(training: Training, folder: Path) -> None:
    """tiny_clip.safetensors (float16), tiny_clip.json and training_log.csv: what `encode.load_tiny` reads, and how it came to be."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.half().contiguous().cpu() for name, tensor in training.model.state_dict().items()}
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": importlib.metadata.version("open_clip_torch"),
        **library_versions(),
    }
    about = {
        "model": training.settings.model(training.tokenizer.vocabulary_size),
        "tokens": list(training.tokenizer.tokens),
        "radius": list(training.settings.radius),
        "world": the_world(),
        "training": asdict(training.settings)
        | {
            "step": training.step,
            "pictures_seen": training.step * training.settings.batch,
            "minutes": round(training.seconds / 60, 1),
            "device": str(training.device),
            "versions": versions,
        },
    }
    write_whole(folder / TINY.name, save(state))
    write_whole(folder / TINY.with_suffix(".json").name, json.dumps(about).encode())
    if training.history:
        with open(folder / "training_log.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, training.history[0])
            writer.writeheader()
            writer.writerows(training.history)


def _fingerprint(settings: Settings) -> str:
    return hashlib.sha256(json.dumps([asdict(settings), the_world()]).encode()).hexdigest()[:12]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def keep_freed_memory() -> None:
    """Tell Linux' malloc to keep large blocks: it gives them back and asks for them again at every step, which costs a third on a CPU."""
    if platform.libc_ver()[0] != "glibc":
        return
    import ctypes

    libc = ctypes.CDLL(None)
    trim_threshold, top_pad, map_maximum = -1, -2, -4  # malloc.h
    libc.mallopt(map_maximum, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 2**28)


def main(arguments: Sequence[str] | None = None) -> None:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m kit.toy.train",
        description="Train the tiny CLIP on captions of the drawn world.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=default.steps, help="steps of the whole run; the schedule goes by them")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes; the same command goes on from there")
    parser.add_argument("--pictures", type=int, default=default.pictures, help="pictures rendered once, before training")
    parser.add_argument("--batch", type=int, default=default.batch)
    parser.add_argument("--width", type=int, default=default.width, help="of the image side")
    parser.add_argument(
        "--radius",
        type=int,
        nargs="+",
        default=list(default.radius[:-1]),
        help="of the local blocks, in patches; one more block reads all patches equally",
    )
    parser.add_argument("--float32", action="store_true", help="for processors that are slow in bfloat16")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--loaders", type=int, default=1, help="processes that prepare batches; more for a GPU")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the rendered pictures and the checkpoints")
    parser.add_argument("--out", type=Path, default=TINY.parent, help="folder of the finished model")
    parser.add_argument("--restart", action="store_true", help="forget the checkpoint of the same settings")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    try:
        settings = Settings(
            steps=asked.steps,
            pictures=asked.pictures,
            batch=asked.batch,
            width=asked.width,
            radius=(*asked.radius, None),
            bfloat16=not asked.float32,
            seed=asked.seed,
        )
        training, run = train(
            settings, asked.cache, device=asked.device, minutes=asked.minutes, restart=asked.restart, loaders=asked.loaders
        )
    except ValueError as error:
        parser.error(str(error))
    if training.step < settings.steps:
        _say(f"stopped at step {training.step} of {settings.steps}; the weights so far are in {run}, the same command goes on")
        return
    write_model(training, asked.out)
    _say(f"wrote {asked.out / TINY.name}")


if __name__ == "__main__":
    main()
