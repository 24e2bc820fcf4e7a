"""What was learned, and its files: safetensors that know which CLIP, classes, split and settings they belong to."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from kit.encode import Clip
from kit.files import from_json, mistaken_file, write_whole

BELONGS = "belongs_to"  # the entry of safetensors' header that holds the description


class LearnedError(ValueError):
    """A file of something learned that cannot be read or does not fit, told in one sentence."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What a method learned: tensors by the name of their lesson, and what they belong to, in plain values."""

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]
    _made: dict = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: str | os.PathLike, *, method: str | None = None, clip: Clip | None = None) -> "Learned":
        """What `save` wrote.   Raises LearnedError for another file, or one of another method or CLIP."""
        tensors, about = load_learned(path)
        if method is not None:
            check_belongs(path, about, method=method)
        if clip is not None:
            check_belongs(path, about, clip_name=clip.name, clip=clip.fingerprint)
        return cls(tensors, about)

    def save(self, path: str | os.PathLike) -> None:
        save_learned(path, self.tensors, self.about)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.about["classes"])

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell these tensors from others."""
        digest = hashlib.sha256()
        for name, values in self.tensors.items():
            digest.update(name.encode() + values.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes for values in self.tensors.values())

    def only(self, *names: str) -> "Learned":
        """Some of the tensors, which belong to the same."""
        return replace(self, tensors={name: self.tensors[name] for name in names}, _made={})

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is made of these tensors, made once and kept with them."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def told(self) -> str:
        """From what it was learned, in a sentence."""
        about = self.about
        if "data" not in about:
            return f"Prompts ({', '.join(self.tensors)}), fingerprint {self.fingerprint}."
        split = f"split {about['split']} of " if about["split"] else ""
        return (
            f"Prompts ({', '.join(self.tensors)}) learned from {about['images']:,} images of {split}{about['data']}, "
            f"labels: {about['labels_from']}; fingerprint {self.fingerprint}."
        )


def save_learned(path: str | os.PathLike, tensors: Mapping[str, Tensor], about: Mapping) -> None:
    """Write what was learned with what it belongs to; the file appears whole or not at all.

    tensors: name -> tensor, any device; about: plain values, ready for JSON.   Raises LearnedError if the file cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    data = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {BELONGS: json.dumps(about, allow_nan=False)}
    )
    try:
        write_whole(path, data)
    except OSError as error:
        raise LearnedError(f"{path}: the file cannot be written ({error.strerror or error}); check the folder") from error


def load_learned(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """What `save_learned` wrote: the tensors and what they belong to.   Raises LearnedError for any other file."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise LearnedError(f"{path}: there is no such file; learn one with python -m kit fit")
    try:
        with safe_open(path, framework="pt") as file:
            about = from_json((file.metadata() or {})[BELONGS])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
            if not isinstance(about, dict):
                raise ValueError
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        what = mistaken_file(path) or "this is no file of something the kit has learned; learn one with python -m kit fit"
        raise LearnedError(f"{path}: {what}") from error
    if strange := [name for name, values in tensors.items() if not values.isfinite().all()]:
        raise LearnedError(f"{path}: {strange[0]} holds numbers that are none (NaN or infinite); learn it anew with python -m kit fit")
    return tensors, about


def check_belongs(path: str | os.PathLike, about: Mapping, *, clip_name: str = "", **expected) -> None:
    """Refuses a learned file whose description differs from what is expected.   Raises LearnedError that names the first difference.

    clip_name: what the CLIP is called here, said beside the fingerprint `clip` if the file has a name for its own.
    """
    for name, wanted in expected.items():
        if (made := about.get(name)) == wanted:
            continue
        then, here = f"{name.replace('_', ' ')} {_short(made)}", _short(wanted)
        if name == "clip" and clip_name and "model" in about:
            then, here = f"{about['model']} ({str(made)[:4]}…)", f"{clip_name} ({wanted[:4]}…)"
        raise LearnedError(
            f"{path}: this was learned with {then}, here it is {here}; take the file that fits, or learn one with python -m kit fit"
        )


def _short(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
