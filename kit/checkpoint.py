"""Weights out of a file, whoever wrote it and however they are wrapped; nothing that is in the file is ever run."""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kit.files import mistaken_file

OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")  # stand among the weights in OpenAI's archives
LEVELS = 3  # how deep in dictionaries weights are looked for
SHOWN = 3  # names in a sentence


class CheckpointError(ValueError):
    """A file without the weights that were looked for, told in half a sentence that follows the file's name."""


def weights_in(path: str | Path, wanted: Collection[str], anchor: str) -> dict[str, Tensor]:
    """The weights of one model in a checkpoint, by the names that the model has for them.

    A state dict, or one inside dictionaries as training programs save it, its names with anything in front (module., model., _orig_mod.,
    clip_model.); .pt, .safetensors or a TorchScript archive. wanted: the model's names; anchor: one of them that tells a model's weights
    from others'.   Raises CheckpointError for a file that is something else, that holds several such models or none.
    """
    try:
        content = _content(Path(path))
    except OSError as error:
        raise CheckpointError(f"it cannot be read ({error.strerror or error}); check the path and its permissions") from error
    states = list(_states(content))
    found = [(state, name.removesuffix(anchor)) for state in states for name in state if f".{name}".endswith(f".{anchor}")]
    if len(found) > 1:
        raise CheckpointError(f"it holds several models ({_few([prefix or '(no prefix)' for _, prefix in found])}); save the one alone")
    if not found:
        names = [name for state in states for name in state]
        if any(name.startswith(("text_model.", "vision_model.")) for name in names):
            raise CheckpointError(
                "its weights have the names of transformers (text_model., vision_model.), the kit reads open_clip's: give "
                "ARCHITECTURE:TAG, which fetches the same weights, or a checkpoint that open_clip saved"
            )
        raise CheckpointError(f"it holds {_few(names)}, no weights of this kind" if names else "there are no weights in it")
    state, prefix = found[0]
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    weights = {name: tensor for name, tensor in inside.items() if name not in OPENAI_SIZES}
    for name, tensor in weights.items():
        if name in wanted and tensor.is_floating_point() and not tensor.isfinite().all():
            what = "no numbers (NaN)" if tensor.isnan().any() else "infinite"
            raise CheckpointError(f"it holds numbers that are {what} in {prefix}{name}; take a checkpoint from before training diverged")
    return weights


def check_fits(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError unless these are a model's weights, all of them and in its shapes."""
    if lacking := [name for name in wanted if name not in weights]:
        raise CheckpointError(f"it lacks {_few(lacking)}")
    if strange := [name for name in weights if name not in wanted]:
        raise CheckpointError(f"it has {_few(strange)} besides, which this model has not")
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            ours, theirs = (" x ".join(map(str, each.shape)) or "one" for each in (wanted[name], tensor))
            raise CheckpointError(f"{name} has {theirs} numbers, this model {ours}")


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive (a program with its weights), as OpenAI publishes its models."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def is_of_openai(path: str | Path) -> bool:
    """Whether a file is one of OpenAI's archives, which say their sizes among the weights."""
    if not is_torchscript(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return set(OPENAI_SIZES) <= set(_scripted(archive))
    except CheckpointError:
        return False


def _content(path: Path) -> Any:
    if what := mistaken_file(path):
        raise CheckpointError(what)
    if is_torchscript(path):
        with zipfile.ZipFile(path) as archive:
            return {name: stored.read(archive) for name, stored in _scripted(archive).items()}
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError("it is no file of safetensors, or is cut off; download or save it again") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own sentence advises to run it
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        beside = f"{foreign[1]} stands beside its weights" if foreign else "it is no file of tensors, or holds code as well"
        raise CheckpointError(
            f"{beside}, which is not run; load it where it was made and save the weights alone: "
            'torch.save(checkpoint["state_dict"], "weights.pt")'
        ) from error
    except Exception as error:  # torch raises almost anything for a file that is cut off
        raise CheckpointError("it is no file of tensors, or is cut off; download or save it again") from error


def _states(content: Any, level: int = 0) -> Iterator[dict[str, Tensor]]:
    """Every dictionary of tensors in it."""
    if not isinstance(content, Mapping) or level > LEVELS:
        return
    if state := {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}:
        yield state
    for value in content.values():
        yield from _states(value, level + 1)


def _few(names: Collection[str]) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


@dataclass(frozen=True)
class _Stored:
    """A tensor in an archive that was not read yet."""

    file: str
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self, archive: zipfile.ZipFile) -> Tensor:
        if archive.getinfo(self.file).compress_type != zipfile.ZIP_STORED:
            raise CheckpointError("it is packed in a way that torch does not; save it again")
        data = torch.frombuffer(bytearray(archive.read(self.file)), dtype=self.dtype)
        try:
            return data.as_strided(self.size, self.stride, self.offset).clone()
        except RuntimeError as error:
            raise CheckpointError("it is damaged: a tensor is larger than its numbers; download it again") from error


class _Part:
    """A module of the program in an archive, of which only the attributes are looked at."""

    code: tuple[str, str]

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _scripted(archive: zipfile.ZipFile) -> dict[str, _Stored]:
    """The parameters and buffers of a TorchScript archive by their names, without running the program in it.   Raises CheckpointError."""
    names = archive.namelist()
    root = next(name for name in names if name.endswith("/constants.pkl")).removesuffix("constants.pkl")
    parts: dict[tuple[str, str], type[_Part]] = {}

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.startswith("__torch__"):
                return parts.setdefault((module, name), type("_Part", (_Part,), {"code": (module, name)}))
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return lambda storage, offset, size, stride, *_: _Stored(*storage, offset, tuple(size), tuple(stride))
            if module == "torch" and name.endswith("Storage") and hasattr(torch, name.removesuffix("Storage").lower()):
                return getattr(torch, name.removesuffix("Storage").lower())
            if (module, name) == ("collections", "OrderedDict"):
                return OrderedDict
            if module == "torch.jit._pickle":
                return lambda *values: values  # lists of plain values, which hold no weights
            raise pickle.UnpicklingError(f"{module}.{name}")

        def persistent_load(self, key: Any) -> tuple[str, torch.dtype]:
            _, dtype, file, *_ = key
            if not isinstance(dtype, torch.dtype) or f"{root}data/{file}" not in names:
                raise pickle.UnpicklingError("a storage that is not there")
            return f"{root}data/{file}", dtype

    try:
        with archive.open(f"{root}data.pkl") as file:
            model = Reader(file).load()
        return dict(_walked(archive, root, model, ""))
    except (KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError("it is a damaged TorchScript archive; download it again") from error
    except Exception as error:  # a pickle that was not written by torch makes its reader raise almost anything
        raise CheckpointError("it is a TorchScript archive of a kind that is not read: save its state_dict with torch.save") from error


def _walked(archive: zipfile.ZipFile, root: str, part: Any, prefix: str) -> Iterator[tuple[str, _Stored]]:
    """What a module and those in it call parameters and buffers."""
    module, name = part.code
    code = archive.read(f"{root}code/{module.replace('.', '/')}.py").decode()
    own = re.search(rf"^class {re.escape(name)}\(Module\):\n((?: .*\n|\n)*?)(?=  def |class |\Z)", code, re.MULTILINE)
    listed = re.findall(r'"([^"]+)"', "".join(re.findall(r"^  __(?:parameters|buffers)__ = (\[.*\])", own[0] if own else "", re.MULTILINE)))
    for name, value in part.attributes.items():
        if isinstance(value, _Part):
            yield from _walked(archive, root, value, f"{prefix}{name}.")
        elif isinstance(value, _Stored) and name in listed:
            yield f"{prefix}{name}", value
