"""Which file is meant: one answer for every reader, however a list, another system or another tool writes its name."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from kit.data.dataset import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif")
OTHER_PICTURES = (".tif", ".tiff", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".tga")  # named where they are left out


def folded(name: str) -> str:
    """A name as systems compare it that do not tell upper from lower case, nor the two ways of writing an accent."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def key_of(file: str) -> str:
    """A picture's name in a list, however it is written: with forward slashes and without the ending of a picture."""
    file = unicodedata.normalize("NFC", file.strip().replace("\\", "/").removeprefix("./"))
    stem, dot, ending = file.rpartition(".")
    return stem if f"{dot}{ending}".lower() in PICTURES else file


def id_of(line: str) -> str:
    """The picture of a line in a list of a split: its first word, without folders and without an ending.

    >>> id_of("/JPEGImages/2007_000032.JPG /SegmentationClassAug/2007_000032.png"), id_of("2007_000032,1")
    ('2007_000032', '2007_000032')
    """
    return key_of(re.split(r"[\s,;]", line.strip())[0].strip('"')).rpartition("/")[2]


class Files:
    """The files in a folder and in those below it, found by name; hidden ones (.thumbs, ._a.jpg) are not looked at."""

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self._there: dict[Path, tuple[_Names, _Names]] = {}  # folder -> its files, its folders

    def find(self, name: str, endings: Sequence[str] = PICTURES) -> Path | None:
        """The file of this name, whose ending may be left out; None if there is none.

        The exact name goes first, then one that differs in case or in how accents are written.
        Raises DataError if it may mean several files, or lies outside the folder, or the folder cannot be read.
        """
        name = name.replace("\\", "/").removeprefix("./")
        *folders, last = PurePosixPath(name).parts or ("",)
        outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in folders or last == ".."
        if outside or not name.isprintable() or not last:
            raise DataError(f"{name!r} is no file within {self.root}; write its path from there on")
        at = self.root
        for folder in folders:
            if (found := _one(self.listed(at)[1], at, folder, ("",))) is None:
                return None
            at = found
        return _one(self.listed(at)[0], at, last, ("", *endings))

    def listed(self, folder: Path) -> tuple["_Names", "_Names"]:
        """The files and the folders in one folder: folded name -> the names that are there.   Raises DataError if it cannot be read."""
        if folder not in self._there:
            files, folders = defaultdict(list), defaultdict(list)
            try:
                with os.scandir(folder) as found:
                    for item in found:
                        if not item.name.startswith(".") and (item.is_file() or item.is_dir()):
                            (files if item.is_file() else folders)[folded(item.name)].append(item.name)
            except OSError as error:
                raise DataError(f"{folder}: the folder cannot be read ({error.strerror}); check the path") from error
            self._there[folder] = dict(files), dict(folders)
        return self._there[folder]

    def seen(self) -> Iterator[Path]:
        """Every file in the folders that were looked into so far."""
        return (folder / name for folder, (files, _) in tuple(self._there.items()) for alike in files.values() for name in alike)

    def all(self, folder: Path | None = None) -> Iterator[Path]:
        """Every file here and below."""
        folder = self.root if folder is None else folder
        files, folders = self.listed(folder)
        yield from (folder / name for alike in files.values() for name in alike)
        for name in (name for alike in folders.values() for name in alike):
            if not (folder / name).is_symlink():  # it may lead back here
                yield from self.all(folder / name)


_Names = dict[str, list[str]]


def _one(there: _Names, folder: Path, name: str, endings: Sequence[str]) -> Path | None:
    alike = [found for ending in endings for found in there.get(folded(name + ending), ())]
    for chosen in ([found for found in alike if found == name], [found for found in alike if found.startswith(name)], alike):
        if len(chosen) > 1:
            raise DataError(f"{folder / name}: this may be {' or '.join(sorted(chosen))}; write the whole name as it is")
        if chosen:
            return folder / chosen[0]
    return None
