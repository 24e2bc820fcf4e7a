"""A folder of your own: pictures, labels.csv and, if you have them, masks."""

import difflib
import re
from collections.abc import Mapping, Sequence, Set
from functools import partial
from os import PathLike
from pathlib import Path

from kit.data.dataset import DataError, DataSet, Entry, collected
from kit.data.found import OTHER_PICTURES, PICTURES, Files, key_of
from kit.data.labels import Cell, LabelList, Row, names_in, names_of_cells, read_truth, written_rows
from kit.files import mistaken
from kit.images import image_size, load_image, orientation
from kit.words import BACKGROUND_NAMES, COCO_CLASSES, NOTHING, VOC_CLASSES, VOID_NAMES, check_class, class_name

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
    masks/ID.png or SegmentationClass/ID.png; the id of a/b.jpg is a_b. Classes: those of classes.txt, see `classes_in`; without it VOC's or
    COCO's if these have all the names, else, where there are no masks, the names in the order in which they appear.
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
    classes, there = _classes(root), Files(root)
    masks = next((folder for folder in (root / "masks", root / "SegmentationClass") if folder.is_dir()), None)
    rows: dict[str, tuple[str, list[Cell]]] = {}
    repeated: dict[str, str] = {}
    listed = None
    if path is None or path.suffix.lower() == ".npy":
        if classes is None:
            raise DataError(f"{root / 'classes.txt'}: there is no such file, but only it can name the numbers; write one class a line")
        files = _all_pictures(there, masks)
        listed = None if path is None else LabelList.read(path, classes, ids=[key_of(file) for file in files])
    else:
        table = written_rows(path) if names is None else given
        files = [file for _, file, _ in table]
        rows = {file: (where, cells) for where, file, cells in reversed(table)}
        repeated = {file: where for where, file, _ in reversed(table) if where != rows[file][0]}
        classes = classes or _classes_of(table, path, root, masks)
    owner: dict[str, str] = {}
    pictures: set[Path] = set()

    def entry(file: str) -> Entry:
        picture = _picture(there, file, path)
        id = key_of(picture.relative_to(root).as_posix()).replace("/", "_")
        if owner.setdefault(id.casefold(), file) != file:
            raise DataError(f"{picture}: its mask would have the same name as that of {owner[id.casefold()]}; rename one of the two")
        mask = None if masks is None else there.find(f"{masks.name}/{id}", (".png",))
        pictures.add(picture)
        if file in rows:
            own = partial(tuple, names_of_cells(rows[file][1], classes, rows[file][0]))
        elif listed is not None:
            own = partial(tuple, listed.names(key_of(file)))
        elif mask is None:
            raise DataError(f"{picture}: there is no mask to take its labels from; add one or leave the picture out")
        else:
            own = partial(names_in, mask, classes)
        truth = None if mask is None else partial(read_truth, mask, classes)
        return Entry(id, own, partial(image_size, picture), partial(load_image, picture), truth, partial(orientation, picture))

    entries, refused = collected(files, entry, count=count, skip_bad=skip_bad, repeated=repeated)
    labels_from = "the names given" if names is not None else "the truth masks" if path is None else str(labels or "labels.csv")
    unlisted = _left_aside(there, masks, pictures, everything=path is None) if count is None else ()
    return DataSet("folder", root.resolve().name, classes, labels_from, entries, refused, unlisted)


def _given_rows(names: Mapping[str, Sequence[str]]) -> list[Row]:
    """The rows of names that were given as a value.   Raises DataError."""
    if not isinstance(names, Mapping) or not names:
        raise DataError(f'expected names as {{"cat1.jpg": ["cat", "sofa"], ...}}, got {names!r}; give each picture its classes')
    for file, own in names.items():
        if isinstance(own, str) or not all(isinstance(name, str) and name.strip() for name in own):
            raise DataError(f'expected the names of {file} as a list such as ["cat", "sofa"], got {own!r}; put them into a list')
    return [(f"names, {file}", file, [name.strip() for name in own]) for file, own in names.items()]


def _picture(there: Files, file: str, path: Path | None) -> Path:
    """Where a picture of the list lies; its ending may be left out.   Raises DataError if it is not there or lies elsewhere."""
    try:
        found = there.find(file)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if found is None:
        raise DataError(f"{there.root / file}: there is no such picture, though {path} names it; correct the list or add the picture")
    return found


def _all_pictures(there: Files, masks: Path | None) -> list[str]:
    found = (path for path in there.all() if path.suffix.lower() in PICTURES and (masks is None or masks not in path.parents))
    return sorted(path.relative_to(there.root).as_posix() for path in found)


def _left_aside(there: Files, masks: Path | None, used: Set[Path], *, everything: bool) -> tuple[str, ...]:
    """What lies beside the pictures and is none of them, in sentences; everything: whether no list says which are meant."""
    beside = sorted(path for path in there.seen() if path not in used and (masks is None or masks not in path.parents))
    kinds = (
        ("of a kind that is not read", [path for path in beside if path.suffix.lower() in OTHER_PICTURES]),
        ("not in the list", [path for path in beside if path.suffix.lower() in PICTURES and not everything]),
    )
    return tuple(
        f"{len(paths):,} {'picture is' if len(paths) == 1 else 'pictures are'} left aside, {why}: "
        + ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
        for why, paths in kinds if paths
    )  # fmt: skip


def classes_in(lines: Sequence[str], path: Path) -> tuple[str, ...]:
    """The classes in the lines of a classes.txt, the first of which is label 1.

    As other tools write it too: with "background" as label 0 on top, labelme's __ignore__ above that, or every name behind its number.
    Raises DataError for what would shift the labels (one of these names elsewhere, numbers with gaps), and for no or too many names.
    """
    names = [line.strip() for line in lines if line.strip()]
    numbered = [re.fullmatch(r"(\d+)\s*[\s:.,;=)-]\s*(.*)", name) for name in names]
    if names and all(numbered):
        numbers, names = [int(found[1]) for found in numbered], [found[2] for found in numbered]
        has_background = names[0].lower() in BACKGROUND_NAMES
        if numbers != list(range(not has_background, len(names) + (not has_background))):
            raise DataError(
                f"{path}: its lines are numbered {', '.join(map(str, numbers[:4]))}..., but a mask has 0 for background and 1, 2, ... for "
                'the classes; begin with "0 background" or number them from 1 without gaps'
            )
    elif any(numbered):
        line = next(name for name, found in zip(names, numbered, strict=True) if found)
        raise DataError(f"{path}: {line!r} begins with a number and other lines do not; number all lines or none")
    if len(names) > 1 and names[0].lower() in VOID_NAMES and names[1].lower() in BACKGROUND_NAMES:
        names = names[1:]  # labelme's -1, which is 255 in a mask
    names = names[1:] if names and names[0].lower() in BACKGROUND_NAMES else names
    for name in names:
        if name.lower() in VOID_NAMES and name == names[0]:
            raise DataError(
                f"{path}: {name!r} on top would make every label one too high; write background there if it is label 0, leave it out if it "
                "is 255"
            )
        if name.lower() in ("class_name", "class_names", "classes", "labels", "names", "categories"):
            raise DataError(f"{path}: {name!r} looks like a heading, which would make every label one too high; take the line out")
        try:
            check_class(name)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
    if len(set(names)) < len(names) or not 0 < len(names) <= MOST:
        raise DataError(f"{path}: expected 1 to {MOST} classes, each once, one a line, got {len(names)} lines; correct the file")
    return tuple(names)


def _classes(root: Path) -> tuple[str, ...] | None:
    """The classes of classes.txt, None if there is no such file."""
    path = root / "classes.txt"
    if not path.is_file():
        return None
    try:
        data = path.read_bytes()
        lines = data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the classes cannot be read ({error.strerror}); check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: this is not UTF-8 text; save the classes again as UTF-8") from error
    if data and (what := mistaken(data)):
        raise DataError(f"{path}: {what}")
    return classes_in(lines, path)


def _classes_of(table: list[Row], path: Path, root: Path, masks: Path | None) -> tuple[str, ...]:
    """The classes of a list without classes.txt.   Raises DataError if their numbers would be a guess: a misspelt name, or masks."""
    names: dict[Cell, str] = {}  # with the line where each stands first
    for where, _, cells in table:
        for cell in cells:
            if not isinstance(cell, str) or cell.lower() not in NOTHING:
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
    for name, where in names.items():
        try:
            check_class(name)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from error
        classes += [] if class_name(name, classes) in classes else [name]
    if len(classes) > MOST:
        raise DataError(f"{path}: expected at most {MOST} classes, got {len(classes):,}; is the first column the picture?")
    return tuple(classes)
