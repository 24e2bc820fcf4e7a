"""Weakly supervised semantic segmentation with CLIP: how a text prompt becomes a mask, to understand and to try."""

__version__ = "0.1.0"
