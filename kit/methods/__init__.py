"""One paper, one file, each read from top to bottom like the paper's algorithm."""

from kit.methods.clip_es import ClipEs, ClipEsSettings
from kit.methods.fma_wsss import FmaWsss, FmaWsssSettings
from kit.methods.result import Result

# name -> class: made from a Clip and its Settings, of which it has a preset for each world (toy, voc, coco)
METHODS = {"clip-es": ClipEs, "fma-wsss": FmaWsss}

Method = ClipEs | FmaWsss  # what they have in common is all that evaluate and generate know of them

__all__ = ["METHODS", "ClipEs", "ClipEsSettings", "FmaWsss", "FmaWsssSettings", "Method", "Result"]
