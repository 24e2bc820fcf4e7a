"""MS COCO 2014: instances, image-level labels, and VOC-style masks."""

import contextlib
import io
import math
import re
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from kit.data.dataset import DataError, DataSet, Entry, collected
from kit.data.found import Files, folded, key_of
from kit.data.labels import LabelList, names_of_labels, read_truth
from kit.data.voc import listed_ids
from kit.files import from_json, mistaken
from kit.images import MAX_PIXELS, MAX_SIDE, image_size, load_image, orientation
from kit.words import COCO_CLASSES

SPLITS = {"train": "train2014", "val": "val2014", "train2014": "train2014", "val2014": "val2014"}
SOURCE = "MS COCO 2014 is the archives train2014.zip, val2014.zip and annotations_trainval2014.zip, unpacked side by side"


def coco_data(
    root: str | PathLike,
    split: str = "train",
    *,
    labels: str | PathLike | None = None,
    count: int | None = None,
    skip_bad: bool = False,
) -> DataSet:
    """COCO 2014's train or val with its 80 classes.

    root holds train2014 or val2014 (or images/val2014) and annotations/instances_val2014.json; a list val.txt in root restricts the split,
    otherwise pictures without any object are left out, as in the lists of this field. labels: None or "instances" for the categories
    annotated in a picture, crowds included; "masks" for those in the truth; else the path of a list. Truth: the masks in SegmentationClass
    if it holds any of this split (label = place of the class + 1), else the instances painted one over the other, see `painted`.
    Raises DataError naming the file that is missing or wrong; with skip_bad what concerns one picture goes to `refused` instead.
    """
    root, labels = Path(root), labels or "instances"
    if split not in SPLITS:
        raise DataError(f"expected a split among train, val, got {split!r}; choose one of those")
    split = SPLITS[split].removesuffix("2014")
    instances = root / "annotations" / f"instances_{split}2014.json"
    folder = _pictures(root, split, instances)
    coco, label_of = _instances(instances)
    by_id = {key_of(image["file_name"]).rpartition("/")[2]: image for image in coco.dataset["images"]}
    ids, left_out = _listed(root, split, coco, by_id)
    pictures, masks = Files(folder), _masks(root, split)
    listed = None if labels in ("instances", "masks") else LabelList.read(labels, COCO_CLASSES, ids=ids)

    def entry(id: str) -> Entry:
        if id not in by_id:
            raise DataError(f"{instances}: it has no picture {id}, though the list {split}.txt names it; correct the list")
        picture = pictures.find(Path(by_id[id]["file_name"]).name)
        if picture is None:
            raise DataError(f"{folder / Path(by_id[id]['file_name']).name}: there is no such file; unpack the pictures again")
        annotations = coco.imgToAnns.get(by_id[id]["id"], [])
        present = sorted({label_of[annotation["category_id"]] for annotation in annotations})
        mask = next(filter(None, (files.find(id, (".png",)) for files in masks)), None)
        if mask is not None:
            truth = partial(_shipped, mask, frozenset(present), frozenset(annotation["category_id"] for annotation in annotations))
        else:
            truth = None if masks else partial(painted, coco, by_id[id], label_of)
        if listed is not None:
            number = re.search(r"\d*$", id)[0]  # some lists write only the number of the picture, with or without its zeros
            names = partial(tuple, listed.names(id, number, number.lstrip("0")))
        elif labels == "masks":
            if truth is None:
                raise DataError(f"{id}: there is no mask to take its labels from; choose other labels")
            names = partial(_names_in, truth)
        else:
            names = partial(tuple, [COCO_CLASSES[label - 1] for label in present])
        return Entry(id, names, partial(image_size, picture), partial(load_image, picture), truth, partial(orientation, picture))

    entries, refused = collected(ids, entry, count=count, skip_bad=skip_bad)
    without = f"; pictures without objects left out: {left_out:,}" if left_out else ""
    labels_from = {"instances": f"{instances.name} (crowds included{without})", "masks": f"the truth masks{without}"}
    return DataSet("coco", split, COCO_CLASSES, labels_from.get(labels, str(labels)), entries, refused)


def painted(coco: Any, image: dict, label_of: dict[int, int]) -> np.ndarray:
    """A VOC-style mask from a picture's instances: crowds first, then from the largest to the smallest, so that nothing small is covered.

    COCO does not say what lies in front where instances overlap, and converters differ: some keep the first annotation of the file.
    -> uint8 (H, W), label = place of the class + 1.   Raises DataError for an outline that does not fit the picture.
    """
    rows, columns = image["height"], image["width"]
    truth = np.zeros((rows, columns), np.uint8)
    planes = [(annotation, _pixels(coco, annotation, rows, columns)) for annotation in coco.imgToAnns.get(image["id"], [])]

    def order(painted: tuple[dict, np.ndarray]) -> tuple[bool, float]:
        annotation, pixels = painted
        area = annotation.get("area")  # other tools leave it out: it is only an order here
        return not annotation.get("iscrowd", 0), -(np.count_nonzero(pixels) if area is None else area)

    for annotation, pixels in sorted(planes, key=order):
        truth[pixels] = label_of[annotation["category_id"]]
    return truth


def _pixels(coco: Any, annotation: dict, rows: int, columns: int) -> np.ndarray:
    """The pixels of an instance, bool (H, W).   Raises DataError for an outline that is none: pycocotools is C and believes all numbers."""
    where = f"annotation {annotation['id']} of picture {annotation['image_id']}"
    outline = annotation.get("segmentation")
    if not outline:
        lacks = "an empty outline" if outline is not None else "a box and no outline" if "bbox" in annotation else "no outline"
        raise DataError(f"{where} has {lacks}, which makes no truth; draw it, take it out, or generate masks from the labels alone")
    if isinstance(outline, dict):
        counts = outline.get("counts")
        try:
            lengths = counts if isinstance(counts, list) else _lengths(counts.encode("ascii") if isinstance(counts, str) else counts)
            if outline.get("size") != [rows, columns] or min(lengths) < 0 or sum(lengths) != rows * columns:
                raise ValueError
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(
                f"{where}: its run lengths are not those of {rows} x {columns} pixels; download the annotations again"
            ) from error
    else:
        _check_polygons(outline, rows, columns, where)
    try:
        return coco.annToMask(annotation).astype(bool)
    except Exception as error:  # pycocotools raises almost anything for an outline that is none
        raise DataError(f"{where}: its outline cannot be read; download the annotations again") from error


def _check_polygons(outline: Any, rows: int, columns: int, where: str) -> None:
    """Raises DataError unless these are lists x, y, x, y, ... of three points or more, on the picture or within its size around it."""
    if not isinstance(outline, list):
        raise DataError(f"{where}: its outline is {type(outline).__name__}, not a list of polygons; download the annotations again")
    for polygon in outline:
        if (
            not isinstance(polygon, list)
            or len(polygon) < 6
            or len(polygon) % 2
            or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in polygon)
        ):
            raise DataError(f"{where}: expected polygons as lists x, y, x, y, ... of at least three points, got {str(polygon)[:60]}")
        strange = [
            value for place, value in enumerate(polygon) if not -(side := (columns, rows)[place % 2]) <= value <= 2 * side
        ]  # also what is no number: it compares as neither
        if strange:
            raise DataError(f"{where}: its outline has {strange[0]:g}, far outside the picture of {rows} x {columns} pixels; correct it")


def _lengths(text: bytes) -> list[int]:
    """The run lengths in COCO's compressed text: five bits a letter, from the third on the difference to the one before the last."""
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("no run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("no run lengths")
    return lengths


def _shipped(path: Path, present: frozenset[int], categories: frozenset[int]) -> np.ndarray:
    """A mask of SegmentationClass, which must not be written in COCO's category ids (1..90, with gaps)."""
    labels = read_truth(path, COCO_CLASSES)
    found = frozenset(np.unique(labels).tolist()) - {0, 255}
    if not found <= present and found <= categories:
        raise DataError(f"{path}: its labels are COCO's category ids (1..90); write the place of the class among the 80 instead, from 1 on")
    return labels


def _names_in(truth: Any) -> tuple[str, ...]:
    return names_of_labels(truth(), COCO_CLASSES)


def _pictures(root: Path, split: str, instances: Path) -> Path:
    folders = (root / f"{split}2014", root / "images" / f"{split}2014")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None or not instances.is_file():
        missing = f"the folder {split}2014" if folder is None else f"annotations/{instances.name}"
        other = next(name for name in ("train", "val") if name != split)
        there = any((place / f"{other}2014").is_dir() for place in (root, root / "images"))
        hint = f"{other}2014 is there: --split {other}; " if there else ""
        raise DataError(f"{root}: expected {missing} there; {hint}{SOURCE}")
    return folder


def _instances(path: Path) -> tuple[Any, dict[int, int]]:
    """The instances as pycocotools' index, and the label of each category id.   Raises DataError if these are not COCO's 80 categories."""
    from pycocotools.coco import COCO

    try:
        data = path.read_bytes()
        if what := mistaken(data):
            raise DataError(f"{path}: {what}")
        content = from_json(data, levels=None)
        categories = {category["id"]: category["name"] for category in content["categories"]}
        known = {image["id"] for image in content["images"] if _is_picture(image)}
        strays = [
            annotation["id"]
            for annotation in content["annotations"]
            if annotation["image_id"] not in known or annotation["category_id"] not in categories or not _is_area(annotation.get("area"))
        ]
        coco = COCO()
        coco.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror}); check the path and its permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        lacks = f"an entry lacks {error.args[0]!r}" if isinstance(error, KeyError) else "it is built in another way or damaged"
        raise DataError(f"{path}: this is no instances file of COCO ({lacks}); download the annotations again") from error
    ordered = sorted(categories)
    names = tuple(categories[id] for id in ordered)
    if names != COCO_CLASSES:
        first = next((f"{mine!r} instead of {theirs!r}" for mine, theirs in zip(names, COCO_CLASSES, strict=False) if mine != theirs), "")
        got = f"{len(names)} categories{', ' if first else ''}{first}"
        raise DataError(f"{path}: expected COCO's 80 categories, got {got}; for classes of your own make a folder with labels.csv")
    if strays:
        raise DataError(
            f"{path}: annotation {strays[0]} belongs to no picture or category of the file, or its area is no number; "
            "download the annotations again"
        )
    return coco, {id: place + 1 for place, id in enumerate(ordered)}


def _is_picture(image: dict) -> bool:
    """Whether a picture has a name and a size that a picture can have."""
    sizes = image["height"], image["width"]
    sized = all(type(size) is int and 0 < size <= MAX_SIDE for size in sizes) and sizes[0] * sizes[1] <= MAX_PIXELS
    return sized and bool(Path(image["file_name"]).name)


def _is_area(area: Any) -> bool:
    return area is None or (isinstance(area, int | float) and 0 <= area < math.inf)


def _listed(root: Path, split: str, coco: Any, by_id: dict[str, dict]) -> tuple[list[str], int]:
    """The ids in the list of the split, or of all pictures with objects, and how many have none."""
    for path in (root / f"{split}.txt", root / f"{split}2014.txt"):
        if path.is_file():
            return listed_ids(path), 0
    ids = sorted(id for id, image in by_id.items() if coco.imgToAnns.get(image["id"]))
    return ids, len(by_id) - len(ids)


def _masks(root: Path, split: str) -> list[Files]:
    """The folders that hold masks of this split."""
    folders = [Files(folder) for folder in (root / "SegmentationClass" / f"{split}2014", root / "SegmentationClass") if folder.is_dir()]
    start = folded(f"COCO_{split}2014_")
    return [files for files in folders if any(name.startswith(start) for name in files.listed(files.root)[0])]
