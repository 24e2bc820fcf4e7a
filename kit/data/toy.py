"""The drawn world as samples and as a data set."""

import functools
from collections.abc import Iterator

from kit.data.dataset import DataError, DataSet, Entry
from kit.data.sample import Sample
from kit.words import VOC_CLASSES

SPLITS = ("val", "held_out", "train", "web")
KEPT = 64  # scenes remembered, because a data set asks for the picture and for its truth


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


def toy_data(split: str, count: int, *, size: int | tuple[int, int] = 160) -> DataSet:
    """The first `count` scenes of a split of the drawn world as a data set; nothing is drawn before it is read.

    Raises DataError if there is no such split or it has fewer scenes.
    """
    from kit.toy.scene import checked_size

    try:
        rows_columns = checked_size(size)
        toy_samples(split, count, size=size)
    except ValueError as error:
        raise DataError(str(error)) from error

    @functools.lru_cache(maxsize=KEPT)
    def scene(index: int) -> Sample:
        return next(toy_samples(split, 1, size=size, start=index))

    def entry(index: int) -> Entry:
        return Entry(
            id=f"{split}-{index:06d}",
            names=lambda: scene(index).names,
            size=lambda: rows_columns,
            image=lambda: scene(index).image,
            truth=lambda: scene(index).truth,
        )

    return DataSet("toy", split, VOC_CLASSES, "what is drawn", tuple(entry(index) for index in range(count)))
