"""What the methods' settings share: checks of values, and what the common ones mean for a model and a picture."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from kit.encode import Clip, Tokens
from kit.prompt import PromptError

MAX_CLASSES = 100  # of one picture


class SettingsError(ValueError):
    """A setting out of its range, or one that does not exist."""


def check_names(values: Mapping, settings: type, method: str) -> None:
    """Refuses a name that is no field of a method's settings."""
    known = {entry.name for entry in dataclasses.fields(settings)}
    strange = sorted(str(name) for name in values if name not in known)
    if strange:
        raise SettingsError(f"unknown setting {', '.join(strange)}: {method} has {', '.join(sorted(known))}")


def check_choice(name: str, value, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SettingsError(f"expected {name} to be one of {', '.join(choices)}, got {value!r}")


def check_flag(name: str, value) -> None:
    if not isinstance(value, bool):
        raise SettingsError(f"expected {name} to be true or false, got {value!r}")


def checked_number(name: str, value, low, high) -> float:
    """The value, checked; 3.0 becomes 3 where a whole number is meant, as JSON may hold it."""
    whole = isinstance(low, int) and isinstance(high, int)
    fits = (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and low <= value <= high  # never true of NaN
        and (not whole or float(value).is_integer())
    )
    if not fits:
        raise SettingsError(f"expected {name} to be a {'whole ' if whole else ''}number from {low} to {high}, got {value!r}")
    return int(value) if whole else value


def checked_words(background, synonyms) -> tuple[tuple[str, ...], dict[str, str]]:
    """Background words and the classes' own words, as a tuple and a dict."""
    if not is_list(background, str):
        raise SettingsError(f"expected background to be a list of words, got {background!r}")
    if not isinstance(synonyms, Mapping) or not is_list([*synonyms, *synonyms.values()], str):
        raise SettingsError(f"expected synonyms to be class names with the words in their place, got {synonyms!r}")
    return tuple(background), dict(synonyms)


def checked_layers(layers) -> int | tuple[int, ...]:
    if is_list(layers, int) and len(layers):
        return tuple(layers)
    if not isinstance(layers, int) or isinstance(layers, bool) or layers < 1:
        raise SettingsError(f"expected layers to be how many of the last blocks, at least 1, or a list of blocks, got {layers!r}")
    return layers


def is_list(value, kind: type) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and all(isinstance(entry, kind) and not isinstance(entry, bool) for entry in value)


def plain_values(settings) -> dict:
    """A dataclass of settings as JSON holds it."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(settings).items()}


def from_plain_values(values: Mapping, settings: type, method: str, title: str):
    """Settings from plain values, a result's settings too (these also name method, model and what was learned); another name is refused."""
    if not isinstance(values, Mapping):
        raise SettingsError(f"expected settings as names with values, got {type(values).__name__}")
    if values.get("method", method) != method:
        raise SettingsError(f"expected settings of {method}, got those of {values['method']!r}")
    values = {name: value for name, value in values.items() if name not in ("method", "model", "learned")}
    check_names(values, settings, title)
    return settings(**values)


def check_classes(names: Sequence[str]) -> None:
    if not 1 <= len(names) <= MAX_CLASSES:
        raise PromptError(f"expected 1 to {MAX_CLASSES} classes, got {len(names)}" + ("" if names else ": choose at least one class"))


def chosen_blocks(layers: int | tuple[int, ...], clip: Clip) -> list[int]:
    """The blocks whose attention is asked for, counted from 0.   Raises SettingsError for blocks that are not there."""
    count = clip.layer_count
    chosen = list(range(count))[-min(layers, count) :] if isinstance(layers, int) else list(layers)
    if not chosen or any(not 0 <= layer < count for layer in chosen):
        raise SettingsError(f"{clip.name} has blocks 0 to {count - 1}, got layers {layers}")
    return chosen


def attention_of(tokens: Tokens, blocks: Sequence[int]) -> Tensor:
    """The attention maps of these blocks.   -> (B, L, T, T).   Raises SettingsError for tokens that were encoded without them."""
    if any(block not in tokens.layers for block in blocks):
        raise SettingsError(f"expected tokens with the attention of blocks {list(blocks)}, got {list(tokens.layers)}: encode again")
    return tokens.attention[:, [tokens.layers.index(block) for block in blocks]]


def competing_words(background: Sequence[str], names: Sequence[str], synonyms: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The background words that compete, and those left out: a word that asks for a class would suppress that class's own map."""
    asked = {word.strip().lower() for name in names for word in (name, *synonyms.get(name, name).split(","))}
    own = [word for word in background if word.strip() and word.strip().lower() in asked]
    return [word for word in background if word not in own], own


def shifted_words(classes: Sequence[str], words: Mapping[str, str]) -> dict[str, str]:
    """Each class with the words of the class after it: a method that listens to its words must do badly with them.

    >>> shifted_words(("cat", "dog"), {"dog": "dog hound"})
    {'cat': 'dog hound', 'dog': 'cat'}
    """
    following = (*classes[1:], *classes[:1])
    return {name: words.get(other, other) for name, other in zip(classes, following, strict=True)}


def size_within(size: tuple[int, int], limit: int) -> tuple[int, int]:
    """The size of a picture whose longer side is at most the limit.   (H, W) -> (H, W)."""
    longest = max(size)
    if longest <= limit:
        return size
    height, width = (max(1, round(length * limit / longest)) for length in size)
    return height, width


def image_within(image: np.ndarray, limit: int) -> np.ndarray:
    """The picture as it is, or made smaller to the limit.   (H, W, 3) uint8 -> the same."""
    height, width = size = size_within(image.shape[:2], limit)
    return image if size == image.shape[:2] else np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
