"""Image-level labels: from a truth mask, or from a list somebody wrote."""

import csv
import difflib
import io
import math
import pickle
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kit.data.dataset import DataError
from kit.data.found import PICTURES, key_of
from kit.files import from_json, mistaken
from kit.images import PALETTE, LabelFile, read_labels
from kit.words import NOTHING, class_name

NOT_JUDGED = 255
_HEADER_FILE = ("file", "filename", "file_name", "image", "img", "picture", "path", "id", "name")
_HEADER_CLASSES = r"(class|classes|labels?|names|category|categories)[ _-]?\d*"

Cell = str | int
Row = tuple[str, str, list[Cell]]  # where it stands, picture, classes


def read_truth(path: Path, classes: Sequence[str]) -> np.ndarray:
    """The labels in a mask that is the truth, uint8 (H, W).

    Raises DataError for one beyond the classes other than 255, for colours that contradict the numbers, and for a pseudo mask of the
    kit's; ImageError for no label map.
    """
    file = read_labels(path)
    if file.is_pseudo:
        raise DataError(f"{path}: the kit made this mask, it is no truth; keep masks that were made apart from the data set")
    return checked_labels(file, classes, path)


def checked_labels(file: LabelFile, classes: Sequence[str], path: Path) -> np.ndarray:
    """The labels of a file that claims to have these classes, uint8 (H, W).   Raises DataError if its numbers or its colours do not."""
    found = np.unique(file.labels).tolist()
    if strange := [label for label in found if len(classes) < label != NOT_JUDGED]:
        some = ", ".join(map(str, strange[:5]))
        raise DataError(f"{path}: expected labels 0..{len(classes)} and 255, got {some}; the mask is of another data set or damaged")
    if file.colours is not None:
        number_of = {tuple(colour): label for label, colour in enumerate(PALETTE[: 1 + len(classes)].tolist())}
        number_of[tuple(PALETTE[NOT_JUDGED].tolist())] = NOT_JUDGED
        coloured = [label for label in found if label != NOT_JUDGED and label < len(file.colours)]
        meant = {label: number_of.get(tuple(file.colours[label].tolist())) for label in coloured}
        other = {label: number for label, number in meant.items() if number != label}
        if other and None not in other.values():  # all are VOC's colours, and some are those of other numbers
            label, number = next(iter(other.items()))
            name = "not judged" if number == NOT_JUDGED else ["background", *classes][number]
            raise DataError(
                f"{path}: the label {label} has the colour of {number} ({name}): its palette is in another order than its numbers; "
                "save the mask with VOC's palette, or as grey if the numbers are right"
            )
    return file.labels


def names_in(path: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that have pixels in a mask, in the order of `classes`."""
    return names_of_labels(read_truth(path, classes), classes)


def names_of_labels(labels: np.ndarray, classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(classes[label - 1] for label in np.unique(labels).tolist() if label not in (0, NOT_JUDGED))


def checked_names(names: Iterable[str], classes: Sequence[str], where: str) -> tuple[str, ...]:
    """The names in their order, each once, as the classes are spelled.   Raises DataError if one is no class."""
    names = tuple(dict.fromkeys(class_name(name, classes) for name in names))
    for name in names:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, 1)
            hint = f" (the nearest is {near[0]!r})" if near else ""
            raise DataError(f"{where}: {name!r} is no class of this data set{hint}; correct the name")
    return names


def names_of_cells(cells: Sequence[Cell], classes: Sequence[str], where: str) -> tuple[str, ...]:
    """The classes a row names: by name, or by number from 0 as the lists of this field count.   Raises DataError for any other."""
    names, numbers = [], []
    for cell in cells:
        cell = class_name(cell, classes) if isinstance(cell, str) else cell
        if isinstance(cell, str) and cell not in classes and cell.lower() in NOTHING:
            continue
        if isinstance(cell, str) and re.fullmatch(r"\d+\.0", cell):  # as pandas writes whole numbers beside empty cells
            cell = int(cell[:-2])
        if isinstance(cell, str) and (cell in classes or not cell.isdecimal()):
            words = [class_name(word, classes) for word in cell.split()]
            names += words if cell not in classes and len(words) > 1 and all(word in classes for word in words) else [cell]
        elif int(cell) in range(len(classes)):
            numbers.append(int(cell))
            names.append(classes[int(cell)])
        else:
            raise DataError(f"{where}: expected the number of a class, 0..{len(classes) - 1}, got {cell}; correct it or write the name")
    if len(set(numbers)) < len(numbers):  # a row of zeros and ones, one a class, would otherwise pass as classes 0 and 1
        raise DataError(f"{where}: a class number stands there twice; write the number or the name of each class in the picture once")
    return checked_names(names, classes, where)


@dataclass(frozen=True)
class LabelList:
    """Image-level labels by picture, from a file; a row that cannot be used keeps its reason until somebody asks for it."""

    path: Path
    rows: dict[str, tuple[str, ...] | DataError]

    @classmethod
    def read(cls, path: str | PathLike, classes: Sequence[str], *, ids: Sequence[str]) -> "LabelList":
        """A CSV (or txt), JSON or npy list; `ids` are the pictures an npy array without names is about.

        CSV: a picture, then its classes behind ; or , or spaces. JSON: {picture: [classes]}. npy: a dict {picture: 0 or 1 for every
        class}, or an array (pictures, classes) in the order of `ids`. Classes by name or by number from 0.
        Raises DataError for a file that is none of these.
        """
        path, known = Path(path), set(ids)
        rows: dict[str, tuple[str, ...] | DataError] = {}
        table = _npy_rows(path, classes, ids) if path.suffix.lower() == ".npy" else written_rows(path)
        for where, file, cells in table:
            key = key_of(file)
            key = key if key in known else key.rpartition("/")[2]
            try:
                if key in rows:
                    raise DataError(f"{where}: {key} stands there a second time; keep one of them")
                rows[key] = names_of_cells(cells, classes, where)
            except DataError as error:
                rows[key] = error
        return cls(path, rows)

    def names(self, *spellings: str) -> tuple[str, ...]:
        """The labels of a picture, whose name may be written in several ways.   Raises DataError if its row is missing or wrong."""
        for spelling in spellings:
            if (found := self.rows.get(spelling)) is not None:
                if isinstance(found, DataError):
                    raise found
                return found
        raise DataError(f"{self.path}: {spellings[0]} is not in this list; add it")


def written_rows(path: Path) -> list[Row]:
    """What a CSV or JSON list says, row by row.   Raises DataError for an unreadable file."""
    readers = {".csv": _csv_rows, ".txt": _csv_rows, ".json": _json_rows}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: expected a list that ends in .csv, .txt, .json or .npy; save it as one of those")
    try:
        data = path.read_bytes()
        if data and (what := mistaken(data)):
            raise DataError(f"{path}: {what}")
        return readers[path.suffix.lower()](path, data.decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: this is not UTF-8 text; save the list again as UTF-8") from error


def _csv_rows(path: Path, text: str) -> list[Row]:
    """The rows of a CSV, however its columns are separated; with a heading those columns count that it calls classes."""
    separator, text = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        table = [(f"{path}, line {reader.line_num}", [field.strip() for field in found]) for found in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: this is no CSV ({error}); save the list again") from error
    table = [(where, _fields(fields[0]) if len(fields) == 1 else fields) for where, fields in table if any(fields)]
    try:
        columns = _Columns.of([fields for _, fields in table])
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    rows = []
    for where, fields in table[columns.has_heading :]:
        if not fields[0]:
            raise DataError(f"{where}: the name of the picture is missing; write it in front of the classes")
        rows.append((where, fields[0], columns.cells(fields, where)))
    return rows


def _separator(text: str) -> tuple[str, str]:
    """What stands between columns, and the text to read: by Excel's line "sep=;", else by what follows the first heading or picture."""
    said = re.match(r'\s*"?sep=(.)"?[;,\t]*[ \t]*(?=\r?\n|$)', text, re.IGNORECASE)
    if said is not None:
        return said[1], text[said.end() :]
    pictures = "|".join(map(re.escape, PICTURES))
    first = re.match(rf'\s*"?(?:{"|".join(_HEADER_FILE)}|[^;,\t|"\n]*(?:{pictures}))"?[ ]*([;,\t|])', text, re.IGNORECASE)
    return ("," if first is None else first[1]), text


def _fields(line: str) -> list[str]:
    """A line without the separator: a picture alone, or its classes behind the first semicolon or space."""
    if key_of(line) != line:
        return [line]
    first = re.search(r"[;\s]", line)
    if first is None:
        return [line]
    return line.split(";") if first[0] == ";" else line.split()


@dataclass(frozen=True)
class _Columns:
    """Which columns hold a picture's classes: those `at` these places (None: all behind the first), or one for each class, 0 or 1."""

    has_heading: bool = False
    count: int = 0
    at: tuple[int, ...] | None = None
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, table: Sequence[Sequence[str]]) -> "_Columns":
        """Those of a table's first row.   Raises DataError for a heading without classes."""
        heading = [field.lower() for field in table[0]] if table else []
        if len(heading) < 2 or heading[0] not in _HEADER_FILE:
            return cls()
        at = tuple(place for place, name in enumerate(heading) if place and re.fullmatch(_HEADER_CLASSES, name))
        if at:
            return cls(True, len(heading), None if at == (1,) and len(heading) == 2 else at)
        if len(table) > 1 and all(len(row) == len(heading) and {*row[1:]} <= {"0", "1"} for row in table[1:]):
            return cls(True, len(heading), flags=tuple(table[0][1:]))
        if len(heading) > 2:
            raise DataError("its heading names no column of classes; call it classes, or write 0 and 1 in a column for each class")
        return cls()

    def cells(self, fields: Sequence[str], where: str) -> list[Cell]:
        if self.flags:
            return [name for name, flag in zip(self.flags, fields[1:], strict=True) if flag == "1"]
        if self.at is not None and any(fields[self.count :]):
            raise DataError(f"{where}: it has more columns than the heading; put the classes into quotes, or ; between them")
        text = ",".join(fields[1:] if self.at is None else [fields[place] for place in self.at if place < len(fields)])
        text = text.strip(" ,;")
        is_list = text[:1] + text[-1:] in ("[]", "()", "{}")  # as Python and JSON write one
        cells = [cell.strip() for cell in re.split("[;,|]", text[1:-1] if is_list else text)]
        return [cell for cell in (cell.strip("'\"") if is_list else cell for cell in cells) if cell]


def _json_rows(path: Path, text: str) -> list[Row]:
    try:
        content = from_json(text)
    except ValueError as error:
        raise DataError(f"{path}: this is no JSON ({error}); save the list again") from error
    if not isinstance(content, dict):
        raise DataError(f'{path}: expected {{"picture": ["class", ...], ...}}, got {type(content).__name__}; write it like that')
    for file, cells in content.items():
        if not isinstance(cells, list) or not all(isinstance(cell, str | int) and not isinstance(cell, bool) for cell in cells):
            raise DataError(f"{path}, {file}: expected a list of names or numbers of classes, got {str(cells)[:60]}; write it like that")
    return [(f"{path}, {file}", file, cells) for file, cells in content.items()]


def _npy_rows(path: Path, classes: Sequence[str], ids: Sequence[str]) -> list[Row]:
    try:
        with open(path, "rb") as file:
            content = _npy(file, path.stat().st_size)
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror}); check the path") from error
    except Exception as error:  # a damaged pickle makes its reader raise almost anything
        wanted = "a plain array, or a pickled dict of plain arrays, the only pickle that is read because others can run programs"
        raise DataError(f"{path}: expected {wanted}; {error}; write the list as CSV or JSON") from error
    if isinstance(content, np.ndarray):
        if content.shape != (len(ids), len(classes)):
            raise DataError(f"{path}: expected an array ({len(ids)}, {len(classes)}), a row a picture, got {content.shape}; cut it to fit")
        content = dict(zip(ids, content, strict=True))
    rows = []
    for key, values in content.items():
        where, values = f"{path}, {key}", np.asarray(values)
        if values.shape != (len(classes),) or values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
            raise DataError(f"{where}: expected {len(classes)} values, each 0 or 1, got {values.dtype} {values.shape}; correct the list")
        rows.append((where, str(key), np.flatnonzero(values).tolist()))
    return rows


def _npy(file: BinaryIO, size: int) -> np.ndarray | dict:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.hasobject:
        return _pickled_dict(file)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError("the file is cut off")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _pickled_dict(file: BinaryIO) -> dict:
    """The dict that np.save pickled, read without numpy's own unpickling: every name in the pickle is answered by a stand-in made here."""

    class Dtype:
        def __init__(self, code: str, *_: Any) -> None:
            self.code, self.order = code, "|"

        def __setstate__(self, state: tuple) -> None:
            self.order = state[1]

        def numpy(self) -> np.dtype:
            if not re.fullmatch(r"[biuf][1248]|U\d{1,4}", self.code) or self.order not in ("<", ">", "|", "="):
                raise ValueError(f"an array of {self.code!r} is not expected there")
            return np.dtype(self.order + self.code)

    class Array:
        def __setstate__(self, state: tuple) -> None:
            _, self.shape, self.dtype, _, self.data = state

    def values(dtype: Dtype, data: bytes | str) -> np.ndarray:
        return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype.numpy())

    names = {("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): Dtype, ("_codecs", "encode"): lambda text, _: text.encode("latin1")}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[module, "_reconstruct"] = lambda *_: Array()
        names[module, "scalar"] = lambda dtype, data: values(dtype, data)[0].item()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in names:
                raise ValueError(f"it asks for {module}.{name}")
            return names[module, name]

    outer = Unpickler(file, encoding="latin1").load()
    if not isinstance(outer, Array) or outer.shape != () or not isinstance(outer.data, list) or not isinstance(outer.data[0], dict):
        raise ValueError("it holds no dict")
    return {key: values(value.dtype, value.data) if isinstance(value, Array) else value for key, value in outer.data[0].items()}
