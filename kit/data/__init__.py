"""Samples and data sets: the drawn world, VOC, COCO, a folder of your own."""

from os import PathLike

from kit.data.coco import coco_data
from kit.data.dataset import DataError, DataSet, Entry
from kit.data.folder import folder_data
from kit.data.sample import Sample
from kit.data.toy import toy_data, toy_samples
from kit.data.voc import voc_data

__all__ = ["DataError", "DataSet", "Entry", "Sample", "coco_data", "folder_data", "open_data", "toy_data", "toy_samples", "voc_data"]

NAMES = ("toy", "voc", "coco", "folder")
OWN_LABELS = {"xml": "voc", "instances": "coco"}  # which data set has labels of this name


def open_data(
    name: str,
    *,
    root: str | PathLike | None = None,
    split: str | None = None,
    labels: str | PathLike | None = None,
    count: int | None = None,
    size: int | tuple[int, int] = 160,
    skip_bad: bool = False,
) -> DataSet:
    """The data set of that name: toy, voc, coco or folder; its pictures are read when they are asked for.

    root: its folder (not for toy); split: None is val for toy, train for voc and coco, and a folder has none; labels: None is the data
    set's own, "masks" the labels in the truth, else the path of a CSV, JSON or npy list; count: only the first so many (toy: 200);
    size: of drawn scenes, in pixels; skip_bad: what cannot be used is left out and listed in `refused` instead of raising.
    Raises DataError for an unknown name, for what does not go with this data set, and for files that are missing or wrong.
    """
    if name not in NAMES:
        raise DataError(f"expected a data set among {', '.join(NAMES)}, got {name!r}; choose one of those")
    if count is not None and count < 1:
        raise DataError(f"expected a count of pictures of at least 1, got {count}; leave it out for all of them")
    if name == "toy":
        for argument, value in (("root", root), ("labels", labels)):
            if value is not None:
                raise DataError(f"the drawn world takes no {argument}, got {value!r}; leave it out, or choose voc, coco or folder")
        return toy_data(split or "val", 200 if count is None else count, size=size)
    if root is None:
        raise DataError(f"{name} needs root, the folder it lies in; give its path")
    if labels in OWN_LABELS and OWN_LABELS[labels] != name:
        own = "".join(f"{value}, " for value, owner in OWN_LABELS.items() if owner == name)
        raise DataError(
            f"--labels {labels} belongs to {OWN_LABELS[labels]}; {name} takes {own}masks, or a list that ends in .csv, .txt, .json or .npy"
        )
    if name == "folder":
        if split is not None:
            raise DataError(f"a folder has no splits, got split {split!r}; leave it out and give each split a folder of its own")
        return folder_data(root, labels=labels, count=count, skip_bad=skip_bad)
    reader = voc_data if name == "voc" else coco_data
    return reader(root, split or "train", labels=labels, count=count, skip_bad=skip_bad)
