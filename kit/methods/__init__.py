"""One paper, one file, each a value that is read from top to bottom like the paper's algorithm."""

from kit.method import Method
from kit.methods.clip_es import ClipEs, ClipEsSettings
from kit.methods.fma_wsss import FmaWsss, FmaWsssSettings

METHODS: dict[str, Method] = {method.name: method for method in (ClipEs, FmaWsss)}  # the first one is what doors begin with

__all__ = ["METHODS", "ClipEs", "ClipEsSettings", "FmaWsss", "FmaWsssSettings"]
