"""The drawn world: small scenes with exact truth, and the tiny CLIP that is trained on them."""

from kit.toy.places import PLACES
from kit.toy.scene import SPLITS, STYLES, Scene, draw, split_seed, world_hash

__all__ = ["PLACES", "SPLITS", "STYLES", "Scene", "draw", "split_seed", "world_hash"]
