"""Weakly supervised semantic segmentation with CLIP: how a text prompt becomes a mask, to understand and to try.

>>> clip = kit.load("tiny")                                                                           # doctest: +SKIP
>>> kit.ClipEs(clip, box_threshold=0.4).segment("dog.jpg", names=("dog", "sofa")).labels              # doctest: +SKIP
"""

import functools
import importlib
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kit.data import Sample
    from kit.data.coco import coco_data as coco
    from kit.data.folder import folder_data as folder
    from kit.data.toy import toy_data as toy
    from kit.data.voc import voc_data as voc
    from kit.encode import Clip
    from kit.evaluate import evaluate, evaluate_masks
    from kit.fit import fit, fit_steps
    from kit.generate import generate, generate_steps
    from kit.method import Comparison, Lesson, Method, Preset, Result, Stage, Words
    from kit.methods import METHODS, ClipEs, ClipEsSettings, FmaWsss, FmaWsssSettings
    from kit.settings import Settings
    from kit.sweep import encode_all, sweep

    load = Clip.load

_AT = {
    "load": "kit.encode:Clip.load",
    **dict.fromkeys(("METHODS", "ClipEs", "ClipEsSettings", "FmaWsss", "FmaWsssSettings"), "kit.methods"),
    **dict.fromkeys(("Comparison", "Lesson", "Method", "Preset", "Result", "Stage", "Words"), "kit.method"),
    "Settings": "kit.settings",
    "Sample": "kit.data",
    **{name: f"kit.data.{name}:{name}_data" for name in ("toy", "voc", "coco", "folder")},
    **dict.fromkeys(("evaluate", "evaluate_masks"), "kit.evaluate"),
    **dict.fromkeys(("encode_all", "sweep"), "kit.sweep"),
    **dict.fromkeys(("generate", "generate_steps"), "kit.generate"),
    **dict.fromkeys(("fit", "fit_steps"), "kit.fit"),
}  # where each public name lives; it is imported when it is first asked for

__all__ = [
    "METHODS", "ClipEs", "ClipEsSettings", "Comparison", "FmaWsss", "FmaWsssSettings", "Lesson", "Method", "Preset", "Result", "Sample",
    "Settings", "Stage", "Words", "coco", "encode_all", "evaluate", "evaluate_masks", "fit", "fit_steps", "folder", "generate",
    "generate_steps", "load", "sweep", "toy", "voc",
]  # fmt: skip


def _found(name: str) -> Any:
    module, _, path = _AT[name].partition(":")
    return functools.reduce(getattr, (path or name).split("."), importlib.import_module(module))


def _of(module: ModuleType) -> Any:
    return _found(module.__name__.rpartition(".")[2])


class _Called(ModuleType):
    """A module that is called like its function: `kit.fit(...)` learns, and `kit.fit.FitError` is there as well."""

    __doc__ = property(lambda self: _of(self).__doc__)
    __signature__ = property(lambda self: inspect.signature(_of(self)))

    def __call__(self, *values: Any, **options: Any) -> Any:
        return _of(self)(*values, **options)


class _Kit(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _AT and isinstance(value, ModuleType):  # kit/fit.py was imported, and is kit.fit from now on
            value.__class__ = _Called
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _AT:
        raise AttributeError(f"module 'kit' has no attribute {name!r}")
    value = _found(name)
    return globals().setdefault(name, value)  # where importing has put the module there, that is it


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Kit
