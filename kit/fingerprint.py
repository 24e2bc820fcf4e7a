"""A fingerprint of code that is not the kit's: masks made by another function are another method's masks."""

import functools
import hashlib
import inspect
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

import numpy as np
from torch import Tensor


def is_of_the_kit(part: Any) -> bool:
    module = getattr(inspect.unwrap(getattr(part, "func", part)), "__module__", None) or type(part).__module__
    return module.split(".")[0] == "kit"


def source_fingerprint(part: Any) -> str:
    """16 hexadecimal digits that change with a function's code, its defaults, what it encloses, and its neighbours that it calls."""
    digest, seen = hashlib.sha256(), set[int]()

    def add(thing: Any) -> None:
        if isinstance(thing, str | int | float | bytes | None):
            digest.update(repr(thing).encode())
        elif isinstance(thing, tuple | list):
            for inner in thing:
                add(inner)
        elif isinstance(thing, set | frozenset):
            digest.update(repr(sorted(map(repr, thing))).encode())  # their order differs from process to process
        elif isinstance(thing, Tensor | np.ndarray):
            digest.update(np.ascontiguousarray(thing.detach().cpu() if isinstance(thing, Tensor) else thing).tobytes())
        elif isinstance(thing, CodeType):
            digest.update(thing.co_code + " ".join(thing.co_names).encode())
            add(thing.co_consts)
        elif id(thing) not in seen:
            seen.add(id(thing))
            add_object(thing)

    def add_object(thing: Any) -> None:
        if isinstance(thing, functools.partial):
            add((thing.func, thing.args, sorted(thing.keywords.items())))
        elif isinstance(thing, FunctionType):
            add((thing.__code__, thing.__defaults__, sorted((thing.__kwdefaults__ or {}).items())))
            add([cell.cell_contents for cell in thing.__closure__ or ()])
            add([thing.__globals__[name] for name in _names_in(thing.__code__) if _is_neighbour(thing.__globals__, name)])
        elif isinstance(thing, dict):
            add(sorted(thing.items(), key=repr))
        elif isinstance(thing, type):
            own = [name for name in sorted(vars(thing)) if not name.startswith("__") or name == "__call__"]
            add([getattr(vars(thing)[name], "__func__", vars(thing)[name]) for name in own])
        else:
            digest.update(f"{type(thing).__module__}.{type(thing).__qualname__}".encode())
            if not is_of_the_kit(thing) and isinstance(type(thing).__dict__.get("__call__"), FunctionType):
                add((type(thing), dict(getattr(thing, "__dict__", {}))))

    add(part)
    return digest.hexdigest()[:16]


def _names_in(code: CodeType) -> list[str]:
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names_in(constant)]
    return [*code.co_names, *inner]


def _is_neighbour(names: Mapping[str, Any], name: str) -> bool:
    """Whether a name is a constant of the same file, or a function or class written there."""
    value = names.get(name)
    plain = isinstance(value, str | int | float | tuple | list | dict | Tensor | np.ndarray) and not name.startswith("__")
    return plain or (isinstance(value, FunctionType | type) and value.__module__ == names.get("__name__"))
