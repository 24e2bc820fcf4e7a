"""A data set: pictures that are read one at a time, with their image-level labels and, where known, their truth."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from kit.data.sample import Sample
from kit.words import check_class

UPRIGHT = 1  # EXIF's orientation of a picture that is stored as it is to be seen
TURNED = "its EXIF orientation turns the picture, its truth is taken to be made on the turned one, and other tools do not turn"


class DataError(ValueError):
    """A data set or one of its files that cannot be used, told in one sentence that names the file."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One picture of a data set that has not been read yet.

    id: unique, and the name of its mask. names() -> the classes in it, tuple of str; size() -> (rows, columns) without decoding the pixels;
    image() -> uint8 (H, W, 3); truth() -> uint8 (H, W), or None in its place where there is no truth; turned() -> the EXIF orientation by
    which image() was turned, 1 for none.   All raise DataError or ImageError, which name the file.
    """

    id: str
    names: Callable[[], tuple[str, ...]]
    size: Callable[[], tuple[int, int]]
    image: Callable[[], np.ndarray]
    truth: Callable[[], np.ndarray] | None = None
    turned: Callable[[], int] = lambda: UPRIGHT

    def sample(self, *, truth: bool = False) -> Sample:
        """The picture read, with its truth if asked for.   Raises DataError or ImageError for a file that cannot be used."""
        if truth and self.truth is None:
            raise DataError(f"{self.id} has no truth: only pictures with a known answer can be scored")
        image, labels = self.image(), self.truth() if truth else None
        if labels is None:
            return Sample(image, self.names(), id=self.id)
        turned = self.turned()
        if labels.shape != image.shape[:2]:
            sizes = "its truth has {} pixels, its picture {}".format(*(" x ".join(map(str, array.shape[:2])) for array in (labels, image)))
            if turned != UPRIGHT and labels.shape == image.shape[1::-1]:
                sizes = f"its truth was made before the picture was turned by its EXIF orientation {turned}: {sizes}"
                raise DataError(f"{self.id}: {sizes}; save the picture upright, without that entry, or turn the truth")
            raise DataError(f"{self.id}: {sizes}; one of the two files is wrong")
        return Sample(image, self.names(), labels, id=self.id, notes=() if turned == UPRIGHT else (TURNED,))


@dataclass(frozen=True, eq=False)
class DataSet:
    """Pictures of one split, in order.

    name: toy, voc, coco or folder; classes: what a label means, label = index + 1; labels_from: where the image-level labels come from, in
    words that stand in every result; refused: (id, reason) of what was left out when the list was read (with skip_bad only); notes: what
    else was left aside.   Raises DataError for a class that is none.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    labels_from: str
    entries: tuple[Entry, ...]
    refused: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            for name in self.classes:
                check_class(name)
        except ValueError as error:
            raise DataError(f"the classes of {self.name}: {error}") from error

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def has_truth(self) -> bool:
        return all(entry.truth is not None for entry in self.entries)

    def samples(self, *, truth: bool = False, refuse: Callable[[str, str], None] | None = None) -> Iterator[Sample]:
        """Every picture in order; what cannot be read raises its error or, with `refuse`, is told to it (id, reason) and left out."""
        for entry in self.entries:
            try:
                yield entry.sample(truth=truth)
            except ValueError as error:
                if refuse is None:
                    raise
                refuse(entry.id, str(error))


def collected(
    ids: Iterable[str],
    entry: Callable[[str], Entry],
    *,
    count: int | None = None,
    skip_bad: bool = False,
    repeated: Mapping[str, str] | None = None,
) -> tuple[tuple[Entry, ...], tuple[tuple[str, str], ...]]:
    """The first `count` entries that can be made (None: all), and (id, reason) of what was refused on the way.

    repeated: where an id stands the second time, if that is known: "labels.csv, line 4".
    Raises DataError for the first refusal unless skip_bad is set, and if nothing is left.
    """
    entries, refused, seen = [], [], set()
    for id in ids:
        if len(entries) == count:
            break
        try:
            if id in seen:
                raise DataError(f"{f'{repeated[id]}: ' if repeated else ''}{id} stands twice in the list; remove one of them")
            seen.add(id)
            entries.append(entry(id))
        except DataError as error:
            if not skip_bad:
                raise
            refused.append((id, str(error)))
    if not entries:
        first = f"; the first of {len(refused):,} that were refused: {refused[0][1]}" if refused else ""
        raise DataError(f"no picture is left in this data set{first or '; its list is empty'}")
    return tuple(entries), tuple(refused)
