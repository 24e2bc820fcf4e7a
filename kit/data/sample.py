"""A picture with the names of what it shows and, where known, the truth."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kit.images import load_image
from kit.words import check_class, class_name


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and its image-level labels, which is all that weak supervision knows; the rest is for judging.

    image uint8 (H, W, 3) RGB; names: the classes in the picture, each once, maybe none;
    truth uint8 (H, W): label per pixel, 0 background, 255 not judged; stuff uint8 (H, W): what the background is (drawn scenes only);
    notes: what is doubtful about the files they come from.
    Raises ValueError if one of them is something else or the sizes differ.
    """

    image: np.ndarray
    names: tuple[str, ...]
    truth: np.ndarray | None = None
    stuff: np.ndarray | None = None
    id: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"expected image uint8 (H, W, 3), got {_describe(image)}; load_image makes one")
        if not isinstance(self.names, tuple) or not all(isinstance(name, str) and name.strip() for name in self.names):
            raise ValueError(f'expected names as a tuple of words such as ("cat", "sofa"), got {self.names!r}; put them into a tuple')
        for name in self.names:
            check_class(name)
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"expected every name once, got {', '.join(self.names)}; remove the repeated ones")
        if not isinstance(self.id, str):
            raise ValueError(f"expected id as a string, got {self.id!r}; write str(...) around it")
        for field, plane in (("truth", self.truth), ("stuff", self.stuff)):
            if plane is None:
                continue
            if not isinstance(plane, np.ndarray) or plane.dtype != np.uint8 or plane.shape != image.shape[:2]:
                size = ", ".join(map(str, image.shape[:2]))
                raise ValueError(f"expected {field} uint8 ({size}) like the image, got {_describe(plane)}; resize or convert it")


Picture = Any  # a Sample, a path, a PIL image or an array uint8 (H, W, 3)


def sample_of(picture: Picture, names: Sequence[str] | None = None) -> Sample:
    """A picture with the names of what it shows, as a sample; those given go before a sample's own, and are spelled as VOC or COCO does.

    Raises ValueError without names, ImageError for a file or an array that is no picture.
    """
    if isinstance(names, str):
        raise ValueError(f'expected names as a list of words such as ("cat", "sofa"), got the single text {names!r}: put it into a list')
    names = None if names is None else tuple(class_name(name) if isinstance(name, str) else name for name in names)
    if isinstance(picture, Sample):
        return picture if names is None else replace(picture, names=names)
    if names is None:
        raise ValueError('expected names of what the picture shows, such as names=("cat", "sofa"), got none')
    id = os.path.splitext(os.path.basename(picture))[0] if isinstance(picture, str | os.PathLike) else ""
    return Sample(load_image(picture), names, id=id)


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} ({', '.join(map(str, value.shape))})"
    return type(value).__name__
