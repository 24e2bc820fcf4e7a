"""One paper, one file, each read from top to bottom like the paper's algorithm."""

from kit.methods.clip_es import ClipEs, ClipEsSettings
from kit.methods.result import Result

METHODS = {"clip-es": ClipEs}

__all__ = ["METHODS", "ClipEs", "ClipEsSettings", "Result"]
