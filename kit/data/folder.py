"""A folder of your own: pictures, labels.csv and, if you have them, masks."""

import difflib
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path, PurePosixPath, PureWindowsPath

from kit.data.dataset import DataError, DataSet, Entry, collected
from kit.data.labels import PICTURES, Cell, LabelList, Row, key_of, names_in, names_of_cells, read_truth, written_rows
from kit.images import image_size, load_image
from kit.words import COCO_CLASSES, VOC_CLASSES, class_name

LAYOUT = 'a folder with pictures and labels.csv, a line for each picture such as "cat1.jpg,cat;sofa"; masks/cat1.png is its truth, if known'
MOST = 254  # classes a mask has numbers for, besides 0 and 255
NEAR = 0.7  # how alike two names have to be for one to be the other misspelt; "wombat" and "cat" are 0.67


def folder_data(
    root: str | PathLike, *, names: Mapping[str, Sequence[str]] | None = None, labels: str | PathLike | None = None,
    count: int | None = None, skip_bad: bool = False,
) -> DataSet:  # fmt: skip
    """A folder with pictures, in the order of its labels.csv (columns file and classes, the classes separated by ; or ,).

    names: picture -> its classes, in place of a list. labels: None for labels.csv; "masks" for all pictures with the labels in their truth;
    else the path of another list. Truth:
    masks/ID.png or SegmentationClass/ID.png; the id of a/b.jpg is a_b. Classes: those of classes.txt, one a line (a first line "background"
    is label 0); without it VOC's or COCO's if these have all the names, else, where there are no masks, the names in the order in which
    they appear.
    Raises DataError naming the file that is missing or wrong; with skip_bad what concerns one picture goes to `refused` instead.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; the kit reads {LAYOUT}")
    path = root / "labels.csv" if labels is None else None if labels == "masks" else Path(labels)
    if names is not None:
        if labels is not None:
            raise DataError(f"expected the pictures' names or a list of labels, got both: leave out names or labels={str(labels)!r}")
        path, given = Path("what was given"), _given_rows(names)
    elif path is not None and not path.is_file():
        raise DataError(f"{path}: there is no such list; the kit reads {LAYOUT}")
    classes = _classes(root)
    masks = next((folder for folder in (root / "masks", root / "SegmentationClass") if folder.is_dir()), None)
    rows: dict[str, tuple[str, list[Cell]]] = {}
    repeated: dict[str, str] = {}
    listed = None
    if path is None or path.suffix.lower() == ".npy":
        if classes is None:
            raise DataError(f"{root / 'classes.txt'}: there is no such file, but only it can name the numbers; write one class a line")
        files = _all_pictures(root, masks)
        listed = None if path is None else LabelList.read(path, classes, ids=[key_of(file) for file in files])
    else:
        table = written_rows(path) if names is None else given
        files = [file for _, file, _ in table]
        rows = {file: (where, cells) for where, file, cells in reversed(table)}
        repeated = {file: where for where, file, _ in reversed(table) if where != rows[file][0]}
        classes = classes or _classes_of(table, path, root, masks)
    owner: dict[str, str] = {}

    def entry(file: str) -> Entry:
        picture = _picture(root, file, path)
        id = key_of(picture.relative_to(root).as_posix()).replace("/", "_")
        if owner.setdefault(id.casefold(), file) != file:
            raise DataError(f"{picture}: its mask would have the same name as that of {owner[id.casefold()]}; rename one of the two")
        mask = None if masks is None else masks / f"{id}.png"
        mask = mask if mask is not None and mask.is_file() else None
        if file in rows:
            own = partial(tuple, names_of_cells(rows[file][1], classes, rows[file][0]))
        elif listed is not None:
            own = partial(tuple, listed.names(key_of(file)))
        elif mask is None:
            raise DataError(f"{picture}: there is no mask to take its labels from; add one or leave the picture out")
        else:
            own = partial(names_in, mask, classes)
        truth = None if mask is None else partial(read_truth, mask, classes)
        return Entry(id, own, partial(image_size, picture), partial(load_image, picture), truth)

    entries, refused = collected(files, entry, count=count, skip_bad=skip_bad, repeated=repeated)
    labels_from = "the names given" if names is not None else "the truth masks" if path is None else str(labels or "labels.csv")
    return DataSet("folder", root.resolve().name, classes, labels_from, entries, refused)


def _given_rows(names: Mapping[str, Sequence[str]]) -> list[Row]:
    """The rows of names that were given as a value.   Raises DataError."""
    if not isinstance(names, Mapping) or not names:
        raise DataError(f'expected names as {{"cat1.jpg": ["cat", "sofa"], ...}}, got {names!r}; give each picture its classes')
    for file, own in names.items():
        if isinstance(own, str) or not all(isinstance(name, str) and name.strip() for name in own):
            raise DataError(f'expected the names of {file} as a list such as ["cat", "sofa"], got {own!r}; put them into a list')
    return [(f"names, {file}", file, [name.strip() for name in own]) for file, own in names.items()]


def _picture(root: Path, file: str, path: Path | None) -> Path:
    """Where a picture of the list lies; its ending may be left out.   Raises DataError if it is not there or lies elsewhere."""
    name = file.replace("\\", "/")
    outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in PurePosixPath(name).parts
    if outside or not name.isprintable():
        raise DataError(f"{path}: {file!r} is no picture within {root}; write its path from there on")
    found = [root / f"{name}{ending}" for ending in ("", *PICTURES) if (root / f"{name}{ending}").is_file()]
    if not found:
        raise DataError(f"{root / name}: there is no such picture, though {path} names it; correct the list or add the picture")
    return found[0]


def _all_pictures(root: Path, masks: Path | None) -> list[str]:
    found = (path for path in root.rglob("*") if path.suffix.lower() in PICTURES and (masks is None or masks not in path.parents))
    return sorted(path.relative_to(root).as_posix() for path in found)


def _classes(root: Path) -> tuple[str, ...] | None:
    """The classes of classes.txt, None if there is no such file."""
    path = root / "classes.txt"
    if not path.is_file():
        return None
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the classes cannot be read ({error}); save them again as UTF-8 text") from error
    names = [line for line in lines if line]
    names = names[1:] if names and names[0].lower() in ("background", "_background_", "__background__") else names
    if len(set(names)) < len(names) or not 0 < len(names) <= MOST:
        raise DataError(f"{path}: expected 1 to {MOST} classes, each once, one a line, got {len(names)} lines; correct the file")
    return tuple(names)


def _classes_of(table: list[Row], path: Path, root: Path, masks: Path | None) -> tuple[str, ...]:
    """The classes of a list without classes.txt.   Raises DataError if their numbers would be a guess: a misspelt name, or masks."""
    names: dict[Cell, str] = {}  # with the line where each stands first
    for where, _, cells in table:
        for cell in cells:
            names.setdefault(cell, where)
    if any(not isinstance(name, str) or name.isdecimal() for name in names):
        raise DataError(f"{path}: it has numbers for classes, and no classes.txt names them; write that file, one class a line")
    families = {"VOC": VOC_CLASSES, "COCO": COCO_CLASSES}
    for known in families.values():
        if {class_name(name, known) for name in names} <= set(known):
            return known
    for family, known in families.items():
        strange = [name for name in names if class_name(name, known) not in known]
        for name in strange if 2 * len(strange) <= len(names) else ():
            if near := difflib.get_close_matches(name.casefold(), known, 1, NEAR):
                raise DataError(
                    f"{names[name]}: {name!r} is no class of {family}, though other names of this list are; the nearest is {near[0]!r}: "
                    "correct the name, or write classes.txt with the order of your classes"
                )
    if masks is not None and any(masks.glob("*.png")):
        raise DataError(
            f"{root / 'classes.txt'}: there is no such file, but only it can say what the numbers in {masks.name} mean, for the names in "
            f"{path.name} are neither all VOC's nor all COCO's; write one class a line, in the order of the numbers"
        )
    classes: list[str] = []  # each in its first spelling
    for name in names:
        classes += [] if class_name(name, classes) in classes else [name]
    if len(classes) > MOST:
        raise DataError(f"{path}: expected at most {MOST} classes, got {len(classes):,}; is the first column the picture?")
    return tuple(classes)
