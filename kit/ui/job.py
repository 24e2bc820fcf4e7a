"""A batch: every picture of an order through the method, one at a time, and what comes of it packed into one zip."""

import csv
import io
import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from kit.data import DataError, DataSet, Entry
from kit.data.found import folded, key_of
from kit.data.labels import names_of_cells, written_rows
from kit.files import told_bytes
from kit.generate import generate_steps
from kit.images import ImageError, image_size
from kit.method import Pipeline
from kit.ui import ask
from kit.ui.bundle import LABELS_BYTES, Bundle, Picture, Upload, shown, unpacked
from kit.ui.session import Refused, Studio
from kit.words import NOTHING, VOC_CLASSES

LISTED, SAME, SUGGESTED = "as the CSV says", "the same for all pictures", "as the model suggests for each"
LABELLING = (SUGGESTED, SAME, LISTED)
IF_LISTED = "as a CSV says if there is one, else as the model suggests"  # programs need not know what is in their zip
MAX_NAMES = 100  # different classes in one batch
RESULT_BYTES = 500_000_000  # of masks and overlays, which then become the zip
DONE, REFUSED, IGNORED, LEFT, NAMED = "done", "refused", "ignored", "not done", "classes suggested"
LIST_USED, LIST_NOT_USED = "no picture: the list of classes, which was used", "no picture: a list of classes, which was not used"
REPORT_HEAD = ("file", "state", "classes", "scores", "seconds", "mask", "reason")


@dataclass(frozen=True)
class Order:
    """What is to be done: the files as they were sent, where their classes come from, the method as set, whether overlays are wanted."""

    uploads: tuple[Upload, ...]
    labelling: str
    classes: tuple[str, ...]  # of all pictures; empty unless labelling is SAME
    pipeline: Pipeline
    overlays: bool = True
    labels: str = ""  # the text of a CSV; goes before one among the files

    def __post_init__(self) -> None:
        if self.labelling not in (*LABELLING, IF_LISTED):
            raise Refused(f"expected classes {', '.join(LABELLING)}, got {self.labelling!r}"[:200])
        if not self.uploads:
            raise Refused("choose pictures, or one zip of pictures, first")
        if self.labelling == SAME:
            object.__setattr__(self, "classes", ask.asked_classes(list(self.classes)))
        if len(self.labels) > LABELS_BYTES:
            raise Refused(f"expected a CSV of at most {told_bytes(LABELS_BYTES)}, got {told_bytes(len(self.labels))}")
        if not isinstance(self.overlays, bool):
            raise Refused(f"expected overlays as true or false, got {self.overlays!r}"[:200])


@dataclass(frozen=True)
class Row:
    """What became of one file. id: its picture's, empty for what is none; scores: the classes' probabilities where they were suggested."""

    file: str
    state: str
    id: str = ""
    classes: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    seconds: float = 0.0
    reason: str = ""


class Job:
    """An order on its way: unpacked when made, one picture further with each step, packed at any time.

    folder: an empty one of its own, which holds everything and is the caller's to delete. Raises Refused for an order that cannot be done.
    """

    def __init__(self, studio: Studio, order: Order, folder: Path):
        self.studio, self.order, self.folder = studio, order, folder
        (folder / "in").mkdir()
        self.bundle: Bundle = unpacked(order.uploads, folder / "in")
        if not self.bundle.pictures:
            raise Refused(f"there is no picture among the files{self._first_reason()}")
        self.labels = order.labels or self.bundle.labels
        self.labelling = order.labelling if order.labelling != IF_LISTED else LISTED if self.labels else SUGGESTED
        self.notes: list[str] = []
        self.rows = {picture.id: Row(picture.name, LEFT, picture.id) for picture in self.bundle.pictures}
        self.classes = VOC_CLASSES  # as the masks number them from 1 on; those of the pictures follow when all are known
        self.others = [Row(name, REFUSED, reason=reason) for name, reason in self.bundle.refused]
        self.others += [Row(name, IGNORED, reason=reason) for name, reason in self.bundle.ignored]
        if self.bundle.labels_name:
            is_used = self.labelling == LISTED and not order.labels
            self.others.append(Row(self.bundle.labels_name, IGNORED, reason=LIST_USED if is_used else LIST_NOT_USED))
        self._label()

    def __len__(self) -> int:
        return len(self.bundle.pictures)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def steps(self) -> Iterator[Row]:
        """One picture after the other, the model locked only while it is asked; classes that are to be suggested come first."""
        yield from (row for row in self.rows.values() if row.state == REFUSED)
        if self.labelling == SUGGESTED:
            for picture in self.bundle.pictures:
                yield self._kept(self._with_suggestions(picture))
        yield from self._masks()

    def _masks(self) -> Iterator[Row]:
        data, written = self.data(), 0
        if not len(data):
            return
        self.classes = data.classes
        steps = generate_steps(
            self.order.pipeline, data, self.out, overlays=self.order.overlays, batch=1, skip_bad=True, lock=self.studio.lock
        )  # fmt: skip
        try:
            for step in steps:
                state, reason = (
                    REFUSED if step.state == "refused" else DONE,
                    step.why.removeprefix(f"{step.id}: ") or self.rows[step.id].reason,
                )
                row = self._kept(replace(self.rows[step.id], state=state, seconds=step.seconds, reason=reason))
                written += sum(path.stat().st_size for path in self.pictures_of(row.id).values())
                yield row
                if written > RESULT_BYTES:
                    self.notes.append("The result is as large as it may be; what is left of the pictures was not done.")
                    return
        finally:
            steps.close()  # writes the manifest of what is done

    def data(self) -> DataSet:
        """The pictures whose classes are known, as a data set: VOC's classes as VOC numbers them, then the others."""
        pictures = [picture for picture in self.bundle.pictures if self.rows[picture.id].state != REFUSED]
        names = [self.rows[picture.id].classes for picture in pictures]
        others = tuple(dict.fromkeys(name for each in names for name in each if name not in VOC_CLASSES))
        if len(others) > MAX_NAMES:
            raise Refused(f"expected at most {MAX_NAMES} classes that VOC does not have, got {len(others)}")
        return DataSet("folder", "batch", VOC_CLASSES + others, self.labelling, tuple(map(entry, pictures, names)))

    def pictures_of(self, id: str) -> dict[str, Path]:
        """The files that are there for a picture: folder in the zip -> path."""
        places = {"masks": self.out / "SegmentationClass" / f"{id}.png", "overlays": self.out / "overlays" / f"{id}.png"}
        return {folder: path for folder, path in places.items() if path.exists()}

    def count(self, state: str) -> int:
        return sum(row.state == state for row in self.all_rows())

    def counts(self) -> dict[str, int]:
        """How many files were read, and what became of each: at any time `read` is the sum of the others."""
        counts = {"done": self.count(DONE), "refused": self.count(REFUSED), "ignored": self.count(IGNORED)}
        return {"read": len(self.all_rows()), **counts, "not_done": self.count(LEFT) + self.count(NAMED)}

    def all_rows(self) -> list[Row]:
        """The pictures' rows, then those of files that are no pictures."""
        return [*self.rows.values(), *self.others]

    def pack(self, target: Path) -> Path:
        """What there is by now as a zip: masks, overlays, settings.json, report.csv, manifest.json; always in the same order."""
        with zipfile.ZipFile(target, "w") as archive:

            def put(name: str, content: bytes, packing: int) -> None:
                archive.writestr(zipfile.ZipInfo(name), content, packing)  # a ZipInfo without a date: 1980, the same each time

            for picture in self.bundle.pictures:
                for folder, path in self.pictures_of(picture.id).items():
                    put(f"{folder}/{picture.id}.png", path.read_bytes(), zipfile.ZIP_STORED)
            put("settings.json", self.settings_json().encode(), zipfile.ZIP_DEFLATED)
            put("report.csv", self.report_csv().encode("utf-8-sig"), zipfile.ZIP_DEFLATED)  # the mark tells spreadsheets that it is UTF-8
            if (self.out / "manifest.json").exists():
                put("manifest.json", self.manifest_json().encode(), zipfile.ZIP_DEFLATED)
        return target

    def manifest_json(self) -> str:
        """What the masks were made with, and the counts of all files, also of those that no mask was asked of."""
        return json.dumps({"files": self.counts(), **json.loads((self.out / "manifest.json").read_text(encoding="utf-8"))}, indent=2)

    def settings_json(self) -> str:
        """The settings as Explore loads them."""
        asked = {"classes": list(self.order.classes)} if self.order.classes else {}
        return json.dumps({**asked, **self.order.pipeline.about()}, indent=2)

    def report_csv(self) -> str:
        with io.StringIO(newline="") as text:
            table = csv.writer(text)
            table.writerow(REPORT_HEAD)
            for row in self.all_rows():
                scores = ";".join(f"{score:.4f}" for score in row.scores)
                mask = f"masks/{row.id}.png" if row.state == DONE else ""
                seconds = f"{row.seconds:.3f}" if row.state == DONE else ""
                cells = (row.file, row.state, ";".join(row.classes), scores, seconds, mask, row.reason)
                table.writerow([no_formula(cell) for cell in cells])
            return text.getvalue()

    def reread(self, id: str) -> np.ndarray:
        """A picture from the files as they were sent, because what was unpacked goes with the batch.   -> uint8 (H, W, 3)."""
        with tempfile.TemporaryDirectory(prefix="kit-batch-") as folder:
            pictures = {picture.id: picture for picture in unpacked(self.order.uploads, Path(folder)).pictures}
            return pixels(pictures[id])

    def _first_reason(self) -> str:
        return "".join(f": {shown(name)} is {reason}" for name, reason in (*self.bundle.refused, *self.bundle.ignored)[:1])

    def _label(self) -> None:
        """The classes that are known before the model is asked."""
        if self.labelling == LISTED:
            if not self.labels:
                raise Refused("expected a CSV with the classes (a line each: file,classes), got none: add one to the files or to the zip")
            path = self.folder / "labels.csv"
            path.write_text(self.labels, encoding="utf-8")
            for id, names in listed_names(path, self.bundle.pictures, self.studio.vocabulary).items():
                known = {"state": REFUSED, "reason": str(names)} if isinstance(names, Refused) else {"classes": names}
                self._kept(replace(self.rows[id], **known))
        elif self.labels:
            self.notes.append("There is a CSV among the files; it was not used.")
        if self.labelling == SAME:
            self.rows = {id: replace(row, classes=self.order.classes) for id, row in self.rows.items()}
        self.rows = {id: self._askable(row) for id, row in self.rows.items()}

    def _with_suggestions(self, picture: Picture) -> Row:
        row = self.rows[picture.id]
        try:
            image = pixels(picture)
            with self.studio.lock:
                names, shares = ask.suggested(self.studio, self.order.pipeline.encode(image), self.order.pipeline.settings.template)
        except ValueError as error:
            return replace(row, state=REFUSED, reason=str(error))
        return self._askable(replace(row, state=NAMED, classes=names, scores=tuple(shares[name] for name in names)))

    def _askable(self, row: Row) -> Row:
        """The row without classes that the prompts were not learned for, as in Explore; refused where no other is left."""
        learned = self.order.pipeline.learned
        kept = [place for place, name in enumerate(row.classes) if learned is None or name in learned.classes]
        if len(kept) == len(row.classes) or row.state == REFUSED:
            return row
        others = [name for name in row.classes if name not in learned.classes]
        told = f"the prompts were learned for {len(learned.classes)} classes, not for {', '.join(others)}"
        if not kept:
            return replace(row, state=REFUSED, reason=f"{told}: hand-crafted prompts take any word")
        classes, scores = (tuple(values[place] for place in kept) if values else () for values in (row.classes, row.scores))
        return replace(row, classes=classes, scores=scores, reason=f"{told}, left out")

    def _kept(self, row: Row) -> Row:
        self.rows[row.id] = row
        return row


def entry(picture: Picture, names: tuple[str, ...]) -> Entry:
    return Entry(
        picture.id,
        names=lambda: names,
        size=lambda: named(picture, lambda: image_size(picture.path, max_pixels=ask.MAX_PIXELS)),
        image=lambda: pixels(picture),
    )


def listed_names(path: Path, pictures: Sequence[Picture], vocabulary: Sequence[str]) -> dict[str, tuple[str, ...] | Refused]:
    """Picture id -> its classes in a CSV, or why it has none there. A picture may be written with or without its folder and ending.

    A number is one of VOC's classes, counted from 0, as everywhere in the kit; any other word is a class.
    Raises Refused for a file that is no list.
    """
    try:
        rows = written_rows(path)
    except DataError as error:
        raise Refused(told(error, path)) from error
    listed: dict[str, list[tuple[str, list]]] = {}
    for where, file, cells in rows:
        for name in dict.fromkeys((folded(file.replace("\\", "/").removeprefix("./")), folded(key_of(file)))):
            listed.setdefault(name, []).append((told(where, path), cells))
    bases = Counter(PurePosixPath(picture.name).name for picture in pictures)
    found: dict[str, tuple[str, ...] | Refused] = {}
    for picture in pictures:
        base = PurePosixPath(picture.name).name
        spellings = [picture.name, key_of(picture.name), *[base, key_of(base)] * (bases[base] == 1)]
        lines = next((listed[spelling] for spelling in map(folded, spellings) if spelling in listed), [])
        if len(lines) == 1:
            found[picture.id] = _classes_in(*lines[0], vocabulary)
        else:
            found[picture.id] = Refused(f"the CSV has {len(lines)} lines for it" if lines else "the CSV has no line for it")
    return found


def _classes_in(where: str, cells: Sequence[str], vocabulary: Sequence[str]) -> tuple[str, ...] | Refused:
    numbers = any(cell.isdecimal() for cell in cells)
    words = [cell for cell in cells if cell.lower() not in NOTHING]
    own = () if numbers else (cell for cell in words if not all(word in vocabulary for word in cell.split()))
    try:
        return ask.asked_classes(list(names_of_cells(cells, tuple(dict.fromkeys((*vocabulary, *own))), where)))
    except (DataError, Refused) as error:
        return Refused(str(error))


def told(error: Exception | str, path: Path) -> str:
    """What a reader of the CSV says, without where the server put it."""
    return str(error).replace(str(path), "the CSV")


def pixels(picture: Picture) -> np.ndarray:
    return named(picture, lambda: ask.photo(str(picture.path), ask.MAX_PIXELS))


def named(picture: Picture, read):
    """What `read` gives; its refusal names the picture as the visitor does, and not where the server put it."""
    try:
        return read()
    except ImageError as error:
        raise ImageError(str(error).removeprefix(f"{picture.path}: ")) from error


def no_formula(cell: str) -> str:
    """A cell that a spreadsheet takes for text: a file may be called =cmd()."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
