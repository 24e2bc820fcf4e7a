"""CLIP, seen from outside: the only file that knows open_clip.

Nothing of open_clip is forked or changed: the blocks of the model are run one by one, attention is computed from their own weights, and the
position table is interpolated into a returned
tensor, so that after a call the model equals the model before it.
"""

import contextlib
import functools
import hashlib
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from kit.checkpoint import CheckpointError, check_fits, is_of_openai, weights_in
from kit.files import from_json
from kit.shapes import check_shape
from kit.weights import WeightsError, hub_file

TINY = Path(__file__).parent / "toy" / "model" / "tiny_clip.safetensors"
MAX_PATCHES = 4096  # attention grows with the square: 4,096 patches are 64 MB a map and layer
TEXT_CACHE = 4096  # prompts remembered by one Clip
TEXT_BATCH = 256
PRECISIONS = ("float32", "bfloat16")
HUB_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # open_clip's for a repository without a file in its tag
ANCHOR = "visual.conv1.weight"  # a name that only a ViT of CLIP's kind has


class ClipError(ValueError):
    """A CLIP that cannot be loaded or cannot do what was asked."""


@dataclass(frozen=True)
class LastBlock:
    """The weights of CLIP's last block and of what follows it: all that is needed to run it again, or backwards."""

    ln_1: nn.LayerNorm
    attention: nn.MultiheadAttention
    ln_2: nn.LayerNorm
    mlp: nn.Sequential
    ln_post: nn.LayerNorm
    projection: Tensor  # (E, D)
    logit_scale: float  # what cosines are multiplied by before the softmax


@dataclass(frozen=True)
class Tokens:
    """What CLIP saw in a batch of images of one size.

    last_input (B, T, E): the tokens before the last block, class token first.  attention (B, L, T, T): one map for each of `layers`, heads
    averaged, rows = queries, each row sums to 1.
    mask (T, T) or None: what the last block's attention scores are given on top.
    """

    last_input: Tensor
    attention: Tensor
    layers: tuple[int, ...]
    grid: tuple[int, int]
    block: LastBlock = field(repr=False)
    mask: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        tokens = 1 + self.grid[0] * self.grid[1]
        check_shape(self.last_input, "B T E", "last_input", T=tokens)
        check_shape(self.attention, "B L T T", "attention", B=len(self.last_input), L=len(self.layers), T=tokens)

    def __len__(self) -> int:
        return len(self.last_input)

    def attention_of(self, blocks: Sequence[int]) -> Tensor:
        """The attention maps of these blocks.   -> (B, L, T, T).   Raises ClipError for tokens that were encoded without them."""
        if any(block not in self.layers for block in blocks):
            raise ClipError(f"expected tokens with the attention of blocks {list(blocks)}, got {list(self.layers)}: encode again")
        return self.attention[:, [self.layers.index(block) for block in blocks]]

    def image(self, index: int) -> "Tokens":
        """One image of the batch, as a batch of one."""
        one = slice(index, index + 1)
        return replace(self, last_input=self.last_input[one], attention=self.attention[one])


class Clip:
    """A CLIP and what belongs to it: its name, its way of preparing pixels, its words.

    `Clip.load` fetches one by name; `Clip(model, tokenizer)` takes a model that you have: an open_clip `CLIP` with a ViT that has a class
    token. It is put into evaluation mode and frozen. `radius` is for models whose blocks attend locally (the tiny CLIP): one entry a
    block, the distance in patches that a patch sees, None for everything. `precision` is said at `load`.
    """

    def __init__(self, model: nn.Module, tokenizer, *, name: str = "clip", radius: Sequence[int | None] | None = None, mean=None, std=None):
        _check_vision_transformer(model, name)
        from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.blocks = list(model.visual.transformer.resblocks)
        self.radius = tuple(radius) if radius is not None else (None,) * len(self.blocks)
        if len(self.radius) != len(self.blocks):
            raise ClipError(f"expected one radius for each of the {len(self.blocks)} blocks, got {len(self.radius)}")
        self.mean = torch.tensor(mean or OPENAI_DATASET_MEAN).view(3, 1, 1)
        self.std = torch.tensor(std or OPENAI_DATASET_STD).view(3, 1, 1)
        self.precision = "float32"
        self.calls = 0  # how often the image encoder ran: a slider must not raise it
        self._text: OrderedDict[str, Tensor] = OrderedDict()

    @classmethod
    def load(
        cls,
        name: str = "tiny",
        tag: str | os.PathLike | None = None,
        *,
        device: str | torch.device | None = None,
        precision: str = "float32",
    ) -> "Clip":
        """A CLIP by name: "tiny", an architecture with a tag, a file or "random", or "hf-hub:ORGANISATION/NAME".

        Architectures and tags are open_clip's: load("ViT-B-16-quickgelu", "openai") and load("ViT-B-16-quickgelu:openai") are the same and
        come from the Hugging Face hub once, then from its cache. A file is a checkpoint of open_clip's (.pt, .safetensors) or OpenAI's
        archive. "random" has untrained weights: it is for measuring time and for tests, its masks mean nothing.
        `precision` "bfloat16" computes all blocks before the last one with fewer digits: faster, and not bit for bit the same; what
        is returned, the last block and the text stay float32.   Raises ClipError with one sentence.
        """
        chosen = choose_device(device)
        _check_precision(precision, chosen)
        name = _whole_name(name, tag)
        clip = load_tiny() if name == "tiny" else _load_open_clip(name)
        clip.precision = precision
        return clip.to(chosen)

    @property
    def device(self) -> torch.device:
        return self.model.visual.proj.device

    @property
    def patch(self) -> int:
        return self.model.visual.patch_size[0]

    @property
    def is_tiny(self) -> bool:
        return isinstance(self.tokenizer, CutTokenizer)

    @property
    def is_untrained(self) -> bool:
        """Whether the weights are random, so that masks mean nothing."""
        return self.name.endswith(":random")

    @property
    def layer_count(self) -> int:
        return len(self.blocks)

    def chosen_blocks(self, layers: int | Sequence[int]) -> list[int]:
        """The last so many blocks, or those named, counted from 0.   Raises ClipError for blocks that are not there."""
        count = self.layer_count
        chosen = list(range(count))[-min(layers, count) :] if isinstance(layers, int) else list(layers)
        if not chosen or any(not 0 <= layer < count for layer in chosen):
            raise ClipError(f"{self.name} has blocks 0 to {count - 1}, got layers {layers}")
        return chosen

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this model from others, whatever it is called: of its weights and of all else that it computes
        with but its precision. Computed once: a model that is trained further needs another Clip.
        """
        activations = [type(module).__name__ for module in self.model.modules() if "GELU" in type(module).__name__]
        digest = hashlib.sha256(repr((self.radius, self.mean.flatten().tolist(), self.std.flatten().tolist(), activations)).encode())
        for name, weights in sorted(self.model.named_parameters()):
            digest.update(f"{name} {tuple(weights.shape)}".encode())
            digest.update(weights.detach().cpu().contiguous().reshape(-1).numpy())
        return digest.hexdigest()[:16]

    def to(self, device: str | torch.device) -> "Clip":
        """Moves the model.   Raises ClipError for a device that is not here."""
        device = choose_device(device)
        _check_precision(self.precision, device)
        self.model.to(device)
        self._text.clear()
        return self

    def prepare(self, image: np.ndarray, *, side: int | None = None) -> Tensor:
        """The picture as the encoder wants it: bicubic to a multiple of the patch size (rounded up), normalised.

        image (H, W, 3) uint8 -> (3, h*patch, w*patch). `side` scales the longer side to that many pixels first; None keeps the picture's
        own size.   Source: CLIP-ES, released code.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ClipError(f"expected a picture uint8 (H, W, 3), got {got}; load_image makes one")
        rows, columns = self.grid(image.shape[:2], side=side)
        resized = Image.fromarray(image).resize((columns * self.patch, rows * self.patch), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std

    def grid(self, size: tuple[int, int], *, side: int | None = None) -> tuple[int, int]:
        """How many rows and columns of patches `prepare` makes of a picture of this size, without its pixels.

        size (H, W) -> (h, w).   Raises ClipError for more than MAX_PATCHES.
        """
        height, width = size
        scale = 1.0 if side is None else side / max(height, width)
        rows, columns = (max(1, math.ceil(round(length * scale, 6) / self.patch)) for length in (height, width))
        if rows * columns > MAX_PATCHES:
            raise ClipError(
                f"a picture of {height} x {width} pixels makes {rows} x {columns} patches, more than {MAX_PATCHES:,}: make it smaller first"
            )
        return rows, columns

    @torch.no_grad()
    def encode(self, pixels: Tensor, *, layers: Sequence[int] | None = None) -> Tokens:
        """Every block but the last, once: what all maps are made from.

        pixels (B, 3, H, W) normalised, sides multiples of the patch size; `layers`: whose attention to keep, counted from 0 (None: all).
        Source: CLIP-ES, released code.
        """
        check_shape(pixels, "B 3 H W", "pixels")
        if any(length < self.patch or length % self.patch for length in pixels.shape[2:]):
            raise ClipError(f"expected sides that are multiples of {self.patch} pixels, got {tuple(pixels.shape[2:])}; prepare makes them")
        blocks = range(self.layer_count)
        if layers is not None and (
            not isinstance(layers, Sequence) or any(not isinstance(layer, int) or layer not in blocks for layer in layers)
        ):
            raise ClipError(f"expected a list of layers from 0 to {self.layer_count - 1}, got {layers!r}")
        wanted = tuple(blocks if layers is None else layers)
        self.calls += 1
        visual = self.model.visual
        tokens, grid = embed_patches(visual, pixels.to(self.device, visual.conv1.weight.dtype))
        maps = {}
        for index, block in enumerate(self.blocks):
            last = index == self.layer_count - 1
            mask = local_mask(grid, self.radius[index], tokens.device)
            fewer_digits = self.precision == "bfloat16" and not last
            with torch.autocast(tokens.device.type, torch.bfloat16, enabled=fewer_digits):  # sums, norms and softmax stay float32
                if index in wanted:
                    normal = block.ln_1(tokens)
                    weights, value = attention_weights(block.attn, normal, mask)
                    maps[index] = weights.mean(1).float()
                    if not last:
                        mixed = merge_heads(weights @ value)
                        tokens = tokens + block.attn.out_proj(mixed)
                        tokens = tokens + block.mlp(block.ln_2(tokens))
                elif not last:
                    tokens = run_block(block, tokens, mask)
        attention = (
            torch.stack([maps[layer] for layer in wanted], 1)
            if wanted
            else tokens.new_zeros(len(tokens), 0, tokens.shape[1], tokens.shape[1])
        )
        return Tokens(tokens.float(), attention, wanted, grid, self.last_block(), local_mask(grid, self.radius[-1], tokens.device))

    def last_block(self) -> LastBlock:
        block, visual = self.blocks[-1], self.model.visual
        return LastBlock(block.ln_1, block.attn, block.ln_2, block.mlp, visual.ln_post, visual.proj, float(self.model.logit_scale.exp()))

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts as unit vectors of the joint space; each prompt is encoded once and remembered.

        P strings -> (P, D), rows of length 1.   Source: CLIP.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not all(isinstance(prompt, str) for prompt in prompts):
            raise ClipError(f"expected a list of prompts, got {prompts!r}")
        rows = {prompt: self._text.get(prompt) for prompt in prompts}  # kept here: another visitor's words may push ours out of the cache
        new = [prompt for prompt, row in rows.items() if row is None]
        self._check_length(new)
        for start in range(0, len(new), TEXT_BATCH):
            part = new[start : start + TEXT_BATCH]
            vectors = self.model.encode_text(self.tokenizer(part).to(self.device), normalize=True).float()
            rows.update(zip(part, vectors, strict=True))
            self._text.update(zip(part, vectors, strict=True))
        if not prompts:
            return torch.zeros(0, self.model.visual.proj.shape[1], device=self.device)
        while len(self._text) > TEXT_CACHE:
            self._text.popitem(last=False)
        return torch.stack([rows[prompt] for prompt in prompts])

    def _check_length(self, prompts: Sequence[str]) -> None:
        """What does not fit would be cut without a word."""
        if not hasattr(self.tokenizer, "encode"):  # tokenizers of other models cut by rules of their own
            return
        room = self.tokenizer.context_length - 2  # start and end
        for prompt in prompts:
            if len(self.tokenizer.encode(prompt)) > room:
                raise ClipError(f"a prompt may have {room} tokens with {self.name}, this one is longer: {prompt[:60]!r}...; shorten it")

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that the model has never seen: only the tiny CLIP can say so, CLIP's own vocabulary spells everything."""
        return self.tokenizer.unknown_words(text) if self.is_tiny else []

    def token_embeddings(self, ids: Tensor) -> Tensor:
        """The vectors that stand for tokens, for prompts that are partly learned.

        ids (...) -> (..., E) float32.   Raises ClipError for text models that do not read like CLIP's.
        """
        if getattr(self.model, "text_pool_type", None) != "argmax" or self.model.attn_mask is None:
            raise ClipError(f"{self.name} has a text model of another kind: learning prompts needs CLIP's own, which looks back only")
        return self.model.token_embedding.weight.detach()[ids.to(self.device)].float()

    def text_of_embeddings(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        """Prompts given as token vectors instead of words, through the frozen text transformer, with a graph back to the vectors.

        embeddings (P, S, E), start and end among them; ends (P,): the end's place -> (P, D), rows of length 1. S may be as short as the
        longest prompt: tokens look back only, so that nothing after an end counts.   Source: CLIP.
        """
        model = self.model
        length = embeddings.shape[1]
        check_shape(embeddings, "P S E", "embeddings", E=model.positional_embedding.shape[1])
        positions = model.positional_embedding[:length]
        tokens = embeddings.to(positions.dtype) + positions
        tokens = model.ln_final(model.transformer(tokens, attn_mask=model.attn_mask[:length, :length]))
        pooled = tokens[torch.arange(len(tokens), device=tokens.device), ends]  # (P, S, E) -> (P, E)
        projection = model.text_projection
        joint = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
        return F.normalize(joint.to(embeddings.dtype), dim=-1)

    def vocabulary(self) -> tuple[list[str], Tensor]:
        """Every token as it reads, a piece of a word with "-" after it, and its vector; start, end and unknown are not among them.

        -> V texts, (V, E).   Raises ClipError for other tokenizers.
        """
        base = self.tokenizer._base if self.is_tiny else self.tokenizer
        if not hasattr(base, "decoder"):
            raise ClipError(f"{self.name} has a tokenizer of another kind: only CLIP's own can name its tokens")
        tokens = self.tokenizer.tokens if self.is_tiny else [token for token in base.decoder if token not in base.all_special_ids]
        rows = range(len(tokens)) if self.is_tiny else tokens
        texts = [base.decode([token]) for token in tokens]
        return [text[:-1] if text.endswith(" ") else f"{text}-" for text in texts], self.token_embeddings(torch.tensor(rows))


def embed_patches(visual: nn.Module, pixels: Tensor, *, keep: Tensor | None = None) -> tuple[Tensor, tuple[int, int]]:
    """Pixels become tokens: patches, positions for this grid, the class token in front.

    pixels (B, 3, H, W) -> (B, T, E) and the grid (h, w). `keep` (B, n): the patches to keep (training drops some).
    """
    patches = visual.conv1(pixels)  # (B, E, h, w)
    grid = (patches.shape[2], patches.shape[3])
    patches = patches.flatten(2).transpose(1, 2)  # (B, E, h, w) -> (B, N, E)
    positions = interpolated_positions(visual, grid).to(patches.dtype)
    patches = patches + positions[1:]
    if keep is not None:
        patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[2]))
    class_token = (visual.class_embedding.to(patches.dtype) + positions[0]).expand(len(patches), 1, -1)
    return visual.ln_pre(torch.cat([class_token, patches], 1)), grid


def interpolated_positions(visual: nn.Module, grid: tuple[int, int]) -> Tensor:
    """The position table for another grid of patches, bilinear; the class token's row stays.

    (1 + h*w, E).   Source: CLIP-ES, released code (without its rounding to float16).
    """
    table, own = visual.positional_embedding, visual.grid_size
    if tuple(own) == tuple(grid):
        return table
    square = table[1:].T.reshape(1, -1, *own)  # (1 + N, E) -> (1, E, h, w)
    resized = F.interpolate(square.float(), size=grid, mode="bilinear", align_corners=False)
    return torch.cat([table[:1], resized.flatten(2)[0].T.to(table.dtype)])


@functools.lru_cache(maxsize=8)  # the largest is 64 MB
def local_mask(grid: tuple[int, int], radius: int | None, device: torch.device) -> Tensor | None:
    """What keeps attention local: added to the scores, 0 where a token may look and -inf where it may not; None without a radius.

    A patch sees the patches at most `radius` rows and columns away and not the class token; the class token sees everything.   (T, T).
    """
    if radius is None:
        return None
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return mask_of_positions(torch.stack([rows.flatten(), columns.flatten()], 1), radius).to(device)


def mask_of_positions(positions: Tensor, radius: int) -> Tensor:
    """The local mask for patches at the given rows and columns.   positions (..., N, 2) -> (..., T, T)."""
    far = (positions[..., :, None, :] - positions[..., None, :, :]).abs().amax(-1) > radius
    mask = torch.zeros(*far.shape[:-2], far.shape[-1] + 1, far.shape[-1] + 1)
    mask[..., 1:, 1:].masked_fill_(far, -math.inf)
    mask[..., 1:, 0] = -math.inf
    return mask


def split_heads(attention: nn.MultiheadAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of every head.   (B, T, E) -> three (B, heads, T, E/heads)."""
    batch, count, width = x.shape
    heads = attention.num_heads
    qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = qkv.view(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    return query, key, value


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, T, E/heads) -> (B, T, E)."""
    return x.transpose(1, 2).flatten(2)


def attention_weights(attention: nn.MultiheadAttention, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Softmax attention written out, so that its weights can be seen.

    (B, T, E) -> weights (B, heads, T, T), values (B, heads, T, E/heads).
    """
    query, key, value = split_heads(attention, x)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return (scores if mask is None else scores + mask).softmax(-1, dtype=torch.float32), value


def run_block(block: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """One transformer block with fused attention; the mask may be (T, T) or (B, 1, T, T).   (B, T, E) -> (B, T, E)."""
    query, key, value = split_heads(block.attn, block.ln_1(x))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=None if mask is None else mask.to(query.dtype))
    x = x + block.attn.out_proj(merge_heads(mixed))
    return x + block.mlp(block.ln_2(x))


class CutTokenizer:
    """CLIP's byte-pair tokenizer cut to the tokens a small model was trained with; everything else becomes one "unknown" id.

    This is how the kit knows that the tiny CLIP never saw a word.
    """

    def __init__(self, tokens: Sequence[int], context_length: int = 32):
        from open_clip.tokenizer import SimpleTokenizer

        self.tokens = tuple(tokens)
        self.context_length = context_length
        self.unknown, self.start, self.end = (
            len(tokens),
            len(tokens) + 1,
            len(tokens) + 2,
        )  # the end must be the largest id: CLIP pools there
        self.vocabulary_size = len(tokens) + 3
        self._table = {token: index for index, token in enumerate(tokens)}
        self._base = SimpleTokenizer(context_length=context_length)

    def encode(self, text: str) -> list[int]:
        return [self._table.get(token, self.unknown) for token in self._base.encode(text)]

    def unknown_words(self, text: str) -> list[str]:
        words = [word.strip(".,;:!?\"'()") for word in text.split()]
        return [word for word in dict.fromkeys(words) if word and self.unknown in self.encode(word)]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """texts -> (P, context length) ids, padded with 0."""
        result = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(result, texts, strict=True):
            ids = [self.start, *self.encode(text)[: self.context_length - 2], self.end]
            row[: len(ids)] = torch.tensor(ids)
        return result


def build_small_clip(config: dict) -> nn.Module:
    """An untrained open_clip CLIP from a configuration: {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}."""
    from open_clip import CLIP

    return CLIP(**config)


def load_tiny(path: str | Path = TINY) -> Clip:
    """The tiny CLIP that ships with the kit: safetensors, with its configuration as a .json beside it."""
    from safetensors.torch import load_file

    weights, description = Path(path), Path(path).with_suffix(".json")
    for part in (weights, description):
        if not part.is_file():
            raise ClipError(
                f"the tiny CLIP's file {part.name} is missing: restore it from the repository, or train one with `python -m kit.toy.train`"
            )
    try:
        about = from_json(description.read_bytes())
        model = build_small_clip(about["model"])
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
        tokenizer, radius = CutTokenizer(about["tokens"], about["model"]["text_cfg"]["context_length"]), about["radius"]
    except Exception as error:  # json, safetensors and torch each raise their own
        raise ClipError(
            f"the tiny CLIP's files {weights.name} and {description.name} are damaged or do not belong together: restore both from the "
            f"repository ({_first_line(error)})"
        ) from error
    return Clip(model, tokenizer, name="tiny", radius=radius)


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the best one here; a device that is not here is refused."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ClipError(f"expected a device like cpu, cuda, cuda:1 or mps, got {device!r}") from error
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(chosen.type, False):
        here = [name for name, works in usable.items() if works]
        raise ClipError(f"this machine has no {chosen.type} device that PyTorch can use: choose {' or '.join(here)}")
    if chosen.type == "cuda" and chosen.index is not None and chosen.index >= torch.cuda.device_count():
        raise ClipError(f"expected a GPU from 0 to {torch.cuda.device_count() - 1}, got {chosen.index}")
    return chosen


def _check_precision(precision: str, device: torch.device) -> None:
    if precision not in PRECISIONS:
        raise ClipError(f"expected the precision {' or '.join(PRECISIONS)}, got {precision!r}")
    if precision == "bfloat16":
        try:
            one = torch.ones(1, 1, dtype=torch.bfloat16, device=device)
            with torch.autocast(device.type, torch.bfloat16):
                one @ one
        except (RuntimeError, TypeError) as error:
            raise ClipError(f"this {device.type} device cannot compute in bfloat16: leave precision at float32") from error


def _whole_name(name: str, tag: str | os.PathLike | None) -> str:
    """ARCHITECTURE and TAG in one string, as a Clip is named."""
    if isinstance(name, nn.Module):
        raise ClipError("load takes a model's name: a model that you have is used as Clip(model, tokenizer, name=...)")
    if not isinstance(name, str) or not isinstance(tag, str | os.PathLike | None):
        got = repr(name) if tag is None else f"{name!r} and {tag!r}"
        raise ClipError(f"expected a model's name such as tiny or ViT-B-16-quickgelu:openai, got {got}")
    if tag is None:
        return name
    if ":" in name or name == "tiny":
        raise ClipError(f"{name} needs no tag besides, got {os.fspath(tag)!r}: leave it out")
    return f"{name}:{os.fspath(tag)}"


def _load_open_clip(name: str) -> Clip:
    """A model of open_clip's: all that can be refused without its weights is refused before they are fetched."""
    import open_clip

    architecture, _, source = name.partition(":")
    if architecture == "hf-hub":
        built_from = f"local-dir:{_fetched(name, source, 'open_clip_config.json').parent}"  # open_clip's words for a folder with a model
    else:
        _check_names(architecture, source)
        built_from = architecture
    _check_vision_transformer(_untrained(built_from, name, device="meta"), name)  # "meta": shapes without numbers
    tag = open_clip.get_pretrained_cfg(architecture, source) if source in open_clip.list_pretrained_tags_by_model(architecture) else {}
    if architecture == "hf-hub":
        file = _fetched(name, source, *HUB_NAMES)
    elif tag:
        repository, filename = _place_on_hub(tag, name)
        file = _fetched(name, repository, *([filename] if filename else HUB_NAMES))
    else:
        file = None if source == "random" else Path(source)
    model = _untrained(built_from, name)
    if file is not None:
        _fill(model, file, name, advice="; delete it to fetch it anew" if tag or architecture == "hf-hub" else "")
    preprocess = open_clip.get_model_preprocess_cfg(model) | tag
    try:
        tokenizer = open_clip.get_tokenizer(built_from)
    except (OSError, ImportError, RuntimeError, ValueError) as error:  # some models use one of transformers, from the hub
        raise ClipError(
            f"the tokenizer of {name} could not be had: check the connection, or choose a model with CLIP's own, such as "
            f"ViT-B-16-quickgelu:openai ({_first_line(error)})"
        ) from error
    return Clip(model, tokenizer, name=name, mean=preprocess.get("mean"), std=preprocess.get("std"))


def _check_names(architecture: str, source: str) -> None:
    """Whether there is such an architecture and such weights, and whether both compute with the same activation."""
    import open_clip

    known = open_clip.list_models()
    if architecture not in known:
        close = [model for model in known if architecture and architecture.lower().replace("/", "-") in model.lower()][:5]
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        raise ClipError(f"open_clip has no model {architecture!r}{hint}: give tiny, or ARCHITECTURE:TAG such as ViT-B-16-quickgelu:openai")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not source:
        raise ClipError(
            f"{architecture} needs weights: write {architecture}:TAG with one of {', '.join(tags) or 'no known tag'}, "
            f"{architecture}:FILE, or {architecture}:random"
        )
    quick = bool(open_clip.get_model_config(architecture).get("quick_gelu"))
    if source in tags:
        if open_clip.get_pretrained_cfg(architecture, source).get("quick_gelu") and not quick:  # open_clip only warns
            raise ClipError(f"the weights {source} were trained with QuickGELU: write {architecture}-quickgelu:{source}")
    elif os.path.isfile(source):  # unlike Path.is_file, no error for a name that is too long
        if not quick and f"{architecture}-quickgelu" in known and is_of_openai(source):
            raise ClipError(f"{source} is one of OpenAI's archives, trained with QuickGELU: write {architecture}-quickgelu:{source}")
    elif os.path.isdir(source):
        saved = os.path.isfile(os.path.join(source, "config.json"))
        what = "a folder as transformers saves a model, the kit reads open_clip's checkpoints" if saved else "a folder"
        raise ClipError(f"{source} is {what}: give a file of weights in its place, or {architecture}:TAG with a known tag")
    elif source != "random":
        plain = architecture.removesuffix("-quickgelu")
        if plain != architecture and source in open_clip.list_pretrained_tags_by_model(plain):
            raise ClipError(f"the weights {source} were trained without QuickGELU: write {plain}:{source}")
        raise ClipError(f"{source[:200]!r} is neither a file nor a tag of {architecture}: known tags are {', '.join(tags) or 'none'}")


def _place_on_hub(tag: dict, name: str) -> tuple[str, str]:
    """Repository and file of a tag ("" for one of the usual names)."""
    repository, _, filename = tag.get("hf_hub", "").rpartition("/")
    if not repository:
        raise ClipError(f"{name} is not on the Hugging Face hub: fetch {tag.get('url')} and give the file in place of the tag")
    return repository, filename


def _fetched(name: str, repository: str, *filenames: str) -> Path:
    try:
        return hub_file(repository, *filenames)
    except WeightsError as error:
        raise ClipError(f"{name} could not be had: {error}") from error


def _untrained(architecture: str, name: str, *, device: str = "cpu") -> nn.Module:
    """A model with random weights, always the same ones; the caller's random numbers stay as they were."""
    import open_clip

    try:
        with torch.random.fork_rng(), torch.device(device), _without_warnings_of_open_clip():
            torch.manual_seed(0)
            return open_clip.create_model(architecture, device=device, load_weights=False, pretrained_text=False)
    except (OSError, RuntimeError, ImportError, AttributeError, ValueError) as error:  # text models and trunks of other packages
        raise ClipError(
            f"{name} cannot be built here: give a plain CLIP such as ViT-B-16-quickgelu:openai ({_first_line(error)})"
        ) from error


@contextlib.contextmanager
def _without_warnings_of_open_clip() -> Iterator[None]:
    """It warns that a model has no weights, which is known here; all other messages pass."""

    def passes(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in str(record.msg)

    logger = logging.getLogger()
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def _fill(model: nn.Module, path: Path, name: str, *, advice: str) -> None:
    """A checkpoint's weights, of whatever precision, become the model's; older ways to name them are open_clip's to know."""
    from open_clip.factory import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    wanted = model.state_dict()
    try:
        weights = convert_state_dict(model, weights_in(path, wanted, ANCHOR))
        if "positional_embedding" in weights and not hasattr(model, "positional_embedding"):
            weights = convert_to_custom_text_state_dict(weights)
        weights.pop("text.transformer.embeddings.position_ids", None)
        for made in {made for made, _ in model.named_buffers()} - set(wanted):  # masks, which TorchScript keeps and the model makes itself
            weights.pop(made, None)
        for scale in ("logit_scale", "logit_bias"):  # a number, or a list of one
            if scale in weights and scale in wanted and weights[scale].numel() == 1:
                weights[scale] = weights[scale].reshape(wanted[scale].shape)
        resize_pos_embed(weights, model)
        resize_text_pos_embed(weights, model)
        check_fits(weights, wanted)
        model.load_state_dict(weights)
    except CheckpointError as error:
        raise ClipError(f"{path} is not a checkpoint of {name.partition(':')[0]}: {error}{advice}") from error
    except (RuntimeError, ValueError, AttributeError, KeyError, AssertionError) as error:  # open_clip's conversions
        raise ClipError(f"{path} is not a checkpoint of {name.partition(':')[0]}: {_first_line(error)}{advice}") from error


def _first_line(error: Exception) -> str:
    lines = (str(error).strip() or type(error).__name__).splitlines()
    heading = len(lines) > 1 and lines[0].endswith(":")  # PyTorch's "Error(s) in loading state_dict for CLIP:"
    return lines[heading].strip()[:200]


def _check_vision_transformer(model: nn.Module, name: str) -> None:
    """Only a ViT with square patches, a class token, plain blocks and a projection can be listened to."""
    visual = getattr(model, "visual", None)
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        trunk = getattr(visual, "trunk", visual)  # timm's models stand inside
        no_token = hasattr(trunk, "cls_token") and trunk.cls_token is None
        lacks = "no class token, as all of SigLIP" if no_token else f"no vision transformer of open_clip's own ({type(trunk).__name__})"
    elif getattr(visual, "class_embedding", None) is None:
        lacks = "no class token"
    elif visual.attn_pool is not None or visual.proj is None:
        lacks = "attentional pooling (CoCa's) or no projection: its patches do not stand in the space of the texts"
    elif not all(isinstance(getattr(block, "attn", None), nn.MultiheadAttention) and _is_plain(block) for block in blocks):
        lacks = "blocks of another kind than CLIP's"
    elif not (visual.conv1.kernel_size == visual.conv1.stride == visual.patch_size and len(set(visual.patch_size)) == 1):
        lacks = "patches that are not square or overlap"
    elif {weights.dtype for weights in model.parameters()} != {torch.float32}:
        lacks = "weights that are not float32 (model.float() makes them so)"
    else:
        return
    raise ClipError(f"{name} has {lacks}: the kit needs a ViT with a class token, such as ViT-B-16-quickgelu:openai")


def _is_plain(block: nn.Module) -> bool:
    return isinstance(getattr(block, "ls_1", None), nn.Identity)
