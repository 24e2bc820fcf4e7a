"""Pictures with the names of what they show and, where known, the truth."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kit.words import VOC_CLASSES


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and its image-level labels, which is all that weak supervision knows; the rest is for judging.

    image uint8 (H, W, 3) RGB; names: the classes in the picture, each once, maybe none;
    truth uint8 (H, W): label per pixel, 0 background, 255 not judged; stuff uint8 (H, W): what the background is (drawn scenes only).
    Raises ValueError if one of them is something else or the sizes differ.
    """

    image: np.ndarray
    names: tuple[str, ...]
    truth: np.ndarray | None = None
    stuff: np.ndarray | None = None
    id: str = ""

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"expected image uint8 (H, W, 3), got {_describe(image)}; load_image makes one")
        if not isinstance(self.names, tuple) or not all(isinstance(name, str) and name.strip() for name in self.names):
            raise ValueError(f'expected names as a tuple of words such as ("cat", "sofa"), got {self.names!r}; put them into a tuple')
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


def toy_samples(split: str, count: int, *, size: int | tuple[int, int] = 160, start: int = 0) -> Iterator[Sample]:
    """Scenes of the drawn world, always the same ones: number `start` and the `count - 1` after it of a split.

    size: the side of the square, or (rows, columns), in pixels -> Samples with truth and stuff;
    their names are in VOC's order, their ids like "val-000012".
    Raises ValueError at once if there is no such split or it has fewer scenes.
    """
    from kit.toy.scene import SPLITS, draw, split_seed  # the drawing is only loaded by those who draw

    if split not in SPLITS:
        raise ValueError(f"expected a split among {', '.join(SPLITS)}, got {split!r}; choose one of those")
    scenes = len(SPLITS[split])
    if start < 0 or count < 0 or start + count > scenes:
        raise ValueError(f"expected scenes between 0 and {scenes:,} of {split!r}, got {count:,} from {start:,} on; ask for fewer")

    world = "web" if split == "web" else "voc"

    def sample(index: int) -> Sample:
        scene = draw(split_seed(split, index), size=size, world=world)
        seen = {name for name, _ in scene.objects}
        return Sample(scene.image, tuple(name for name in VOC_CLASSES if name in seen), scene.truth, scene.stuff, f"{split}-{index:06d}")

    return (sample(index) for index in range(start, start + count))


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} ({', '.join(map(str, value.shape))})"
    return type(value).__name__
