"""PASCAL VOC 2012 as it is unpacked, with the train_aug list if somebody put it there."""

import itertools
import re
import xml.etree.ElementTree as ElementTree
from functools import partial
from os import PathLike
from pathlib import Path

from kit.data.dataset import DataError, DataSet, Entry, collected
from kit.data.found import Files, id_of
from kit.data.labels import LabelList, checked_names, names_in, read_truth
from kit.files import mistaken
from kit.images import image_size, load_image, orientation
from kit.words import VOC_CLASSES

SOURCE = "PASCAL VOC 2012 is the archive VOCtrainval_11-May-2012.tar, which unpacks to VOCdevkit/VOC2012"
AUGMENTED = (
    "it is no part of the official download: the list is customarily called train_aug.txt (10,582 names), its masks come from SBD "
    "(the Semantic Boundaries Dataset of Hariharan et al. 2011) and lie in SegmentationClassAug"
)
LISTS = {
    "train": ("Segmentation/train.txt",),
    "val": ("Segmentation/val.txt",),
    "trainval": ("Segmentation/trainval.txt",),
    "train_aug": tuple(f"{folder}/{file}" for folder in ("Segmentation", "SegmentationAug") for file in ("train_aug.txt", "trainaug.txt")),
}
LABELS_FROM = {"xml": "the XML annotations (difficult objects included)", "masks": "the truth masks"}
LARGEST_XML = 1_000_000  # bytes, far above any of VOC's


def voc_data(
    root: str | PathLike,
    split: str = "train",
    *,
    labels: str | PathLike | None = None,
    count: int | None = None,
    skip_bad: bool = False,
) -> DataSet:
    """A list of VOC 2012: train, val, trainval or train_aug.

    root: the folder VOC2012, or one that holds it (also within VOCdevkit). labels: None or "xml" for the names in Annotations, difficult
    objects included as in CLIP-ES's released code; "masks" for those in the truth; else the path of a list. No mask: no truth.
    Raises DataError naming the file that is missing or wrong; with skip_bad what concerns one picture goes to `refused` instead.
    """
    root, split, labels = _found(Path(root)), {"trainaug": "train_aug"}.get(split, split), labels or "xml"
    if split not in LISTS:
        raise DataError(f"expected a split among {', '.join(LISTS)}, got {split!r}; choose one of those")
    ids = _listed(root, split)
    pictures, annotations = Files(root / "JPEGImages"), Files(root / "Annotations")
    masks = _masks(root, split)
    listed = None if labels in LABELS_FROM else LabelList.read(labels, VOC_CLASSES, ids=ids)

    def entry(id: str) -> Entry:
        picture, mask = pictures.find(id), next(filter(None, (folder.find(id, (".png",)) for folder in masks)), None)
        if picture is None:
            named = pictures.root / f"{id}.jpg"
            raise DataError(f"{named}: there is no such file, though the list {split} names it; unpack the pictures again")
        if listed is not None:
            names = partial(tuple, listed.names(id, id.replace("_", "")))  # some lists write 2007_000032 as the number 2007000032
        elif labels == "masks":
            if mask is None:
                raise DataError(f"{id}: there is no mask to take its labels from; choose other labels, or another split")
            names = partial(names_in, mask, VOC_CLASSES)
        else:
            annotation = annotations.find(id, (".xml",))
            if annotation is None:
                raise DataError(f"{annotations.root / id}.xml: there is no such file; unpack the annotations again, or choose other labels")
            names = partial(xml_names, annotation)
        truth = None if mask is None else partial(read_truth, mask, VOC_CLASSES)
        return Entry(id, names, partial(image_size, picture), partial(load_image, picture), truth, partial(orientation, picture))

    entries, refused = collected(ids, entry, count=count, skip_bad=skip_bad)
    return DataSet("voc", split, VOC_CLASSES, LABELS_FROM.get(labels, str(labels)), entries, refused)


def xml_names(path: Path) -> tuple[str, ...]:
    """The classes of a VOC annotation in the order of the file, each once, difficult objects included.

    Raises DataError for a file that cannot be read, is no annotation, declares a document type, or names a class VOC does not have.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_XML + 1)
        if what := mistaken(data):
            raise DataError(f"{path}: {what}")
        # The parser itself knows no encodings of several bytes.
        declared = re.match(rb"""<\?xml[^>]*\sencoding=["']([\w.-]+)["']""", data)
        text = data if declared is None else data.decode(declared[1].decode())
        # Entities that stand for more entities can make a small file enormous; no annotation needs a document type.
        if len(data) > LARGEST_XML or "<!DOCTYPE" in (text if isinstance(text, str) else data.replace(b"\0", b"").decode("latin1")):
            raise DataError(f"{path}: this is no VOC annotation (too long, or with a document type); download it again")
        annotation = ElementTree.fromstring(text)
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror}); check the path and its permissions") from error
    except (ValueError, LookupError, ElementTree.ParseError) as error:  # the parser knows not every encoding that can be declared
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: this is no readable XML ({error}); download it again") from error
    if annotation.tag != "annotation":
        raise DataError(f"{path}: expected an <annotation> as VOC writes them, got <{annotation.tag}>; download it again")
    # The direct children only: an object's parts (head, hand, foot of a person) have names as well.
    return checked_names((found.findtext("name", "").strip() for found in annotation.findall("object")), VOC_CLASSES, str(path))


def _found(root: Path) -> Path:
    """The folder with JPEGImages: this one, or VOC2012 somewhere below it."""
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise DataError(f"{root}: expected the folder VOC2012 with JPEGImages, Annotations, ImageSets and SegmentationClass; {SOURCE}")


def _listed(root: Path, split: str) -> list[str]:
    """The ids of a list; its lines are ids, or "/JPEGImages/ID.jpg /SegmentationClassAug/ID.png"."""
    for path in (root / "ImageSets" / file for file in LISTS[split]):
        if path.is_file():
            return listed_ids(path)
    wanted = root / "ImageSets" / LISTS[split][0]
    others = (name for name, files in LISTS.items() if any((root / "ImageSets" / file).is_file() for file in files))
    hint = "".join(f"; {name} is there: --split {name}" for name in itertools.islice(others, 1))
    raise DataError(f"{wanted}: there is no such list; {AUGMENTED if split == 'train_aug' else SOURCE}{hint}")


def listed_ids(path: Path) -> list[str]:
    """The pictures of every line that is not empty, see `id_of`.   Raises DataError for a file that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list cannot be read ({error}); save or download it again") from error
    return [id_of(line) for line in lines if line.strip()]


def _masks(root: Path, split: str) -> list[Files]:
    """The folders that hold masks; of train_aug SBD's first, for they are what its list means."""
    folders = ("SegmentationClassAug", "SegmentationClass") if split == "train_aug" else ("SegmentationClass",)
    return [Files(root / folder) for folder in folders if (root / folder).is_dir()]
