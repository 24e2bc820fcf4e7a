"""Files of what was learned: safetensors that know which CLIP, classes, split and settings they belong to."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from kit.files import write_whole

BELONGS = "belongs_to"  # the entry of safetensors' header that holds the description


class LearnedError(ValueError):
    """A file of something learned that cannot be read or does not fit, told in one sentence."""


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
            about = json.loads((file.metadata() or {})[BELONGS])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118  no dict
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise LearnedError(f"{path}: this is no file of something the kit has learned; learn one with python -m kit fit") from error


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
