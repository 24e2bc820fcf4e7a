"""What visitors send in, taken apart with care: pictures, one zip of pictures, one list of labels. Nothing a file claims is believed."""

import io
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.data.found import PICTURES
from kit.files import told_bytes
from kit.ui.ask import PHOTO_BYTES
from kit.ui.session import Refused

MAX_PICTURES = 200
MAX_ENTRIES = 1_000  # of a zip: pictures, folders and what is left aside
DIRECTORY_BYTES = 1_000_000  # of a zip's table of contents, which is read in one go
PACKED_BYTES = 100_000_000  # of all files as they are sent
UNPACKED_BYTES = 300_000_000  # of all pictures as they come out
PICTURE_BYTES = PHOTO_BYTES  # of one picture file
LABELS_BYTES = 1_000_000
RATIO, RATIO_FROM = 200, 1_000_000  # a file that grows more than 200 times beyond a megabyte is no picture
CHUNK = 65_536
NAME_LENGTH = 80

LABELS = ".csv"
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst", ".lz4", ".cab", ".iso", ".jar")
ARCHIVE_HEADS = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x28\xb5\x2f\xfd")
LEFT_ASIDE = ("__macosx", ".ds_store", "thumbs.db", "desktop.ini")  # what systems put into a folder without being asked
WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Upload:
    """A file as it was sent: the name the visitor gave it, and where the server put it."""

    name: str
    path: Path


@dataclass(frozen=True)
class Picture:
    """A picture to work on. name: as it was sent, inside a zip with its folders; id: safe and used once; path: where it lies."""

    name: str
    id: str
    path: Path


@dataclass(frozen=True)
class Bundle:
    """The pictures by name, the text of the list of labels and its name ("" without one), and (name, reason) of every other file.

    refused: files that might have been used but for a limit; ignored: those that are neither a picture nor the list. Folders and the zip
    itself are no files here.
    """

    pictures: tuple[Picture, ...]
    labels: str
    labels_name: str = ""
    refused: tuple[tuple[str, str], ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()


def unpacked(uploads: Sequence[Upload], folder: Path) -> Bundle:
    """Take the files apart: pictures as they are, those of a zip into `folder`, at most one CSV for the labels.

    Raises Refused, in one sentence, for what breaks a limit or looks like a trick; the limits are the constants of this file.
    """
    sizes = [_size(upload) for upload in uploads]
    if sum(sizes) > PACKED_BYTES:
        raise Refused(f"expected at most {told_bytes(PACKED_BYTES)} in all, got {told_bytes(sum(sizes))}: send fewer pictures at a time")
    zips = [upload for upload in uploads if Path(upload.name).suffix.lower() == ".zip"]
    if len(zips) > 1:
        raise Refused(f"expected one zip at a time, got {len(zips)}")
    found: list[tuple[str, Path]] = []
    refused: list[tuple[str, str]] = []
    for upload, size in zip(uploads, sizes, strict=True):
        if upload in zips:
            found += _members(upload, folder)
        elif not _is_kept(upload.name):
            found.append((upload.name, NOTHING))
        elif size > _limit(upload.name):
            refused.append((upload.name, f"larger than {told_bytes(_limit(upload.name))}"))
        else:
            found.append((upload.name, upload.path))
    ignored = sorted((name, HIDDEN if _is_left_aside(name) else NO_PICTURE) for name, path in found if path is NOTHING)
    found = [(name, path) for name, path in found if path is not NOTHING]
    lists = [(name, path) for name, path in found if name.lower().endswith(LABELS)]
    if len(lists) > 1:
        raise Refused(f"expected at most one CSV with labels, got {len(lists)}")
    pictures = sorted((name, path) for name, path in found if not name.lower().endswith(LABELS))
    if len(pictures) > MAX_PICTURES:
        raise Refused(f"expected at most {MAX_PICTURES} pictures at a time, got {len(pictures)}")
    ids = safe_names([name for name, _ in pictures])
    kept = tuple(Picture(name, id_, path) for id_, (name, path) in zip(ids, pictures, strict=True))
    labels_name, labels = (lists[0][0], _text(lists[0][1])) if lists else ("", "")
    return Bundle(kept, labels, labels_name, tuple(sorted(refused)), tuple(ignored))


NO_PICTURE = f"no picture: expected {', '.join(ending[1:].upper() for ending in PICTURES if ending != '.jpeg')}"
HIDDEN = "no picture: a system hid it there"
NOTHING = Path()  # in the place of a file that is only to be named


def safe_names(names: Iterable[str]) -> list[str]:
    """For each name one that any system can store, without folders and ending, no two alike however capitals are seen."""
    taken, safe = set(), []
    for name in names:
        stem = unicodedata.normalize("NFC", Path(name).stem)
        stem = re.sub(r"[^\w.-]+", "_", stem).strip("._-")[:NAME_LENGTH].rstrip("._-") or "picture"
        stem = f"_{stem}" if WINDOWS_DEVICES.match(stem) else stem
        free = (f"{stem}-{number}" if number > 1 else stem for number in range(1, len(taken) + 2))
        safe.append(next(candidate for candidate in free if candidate.casefold() not in taken))
        taken.add(safe[-1].casefold())
    return safe


class _Measured(io.FileIO):
    """A zip file of which nobody can read much at once: its table of contents has to be small before it is taken apart."""

    def read(self, size: int = -1) -> bytes:
        data = super().read(DIRECTORY_BYTES + 1 if size < 0 else min(size, DIRECTORY_BYTES + 1))
        if len(data) > DIRECTORY_BYTES:
            raise Refused("the zip's table of contents is far too large for a zip of pictures")
        return data


def _members(upload: Upload, folder: Path) -> Iterator[tuple[str, Path]]:
    """What is in a zip, pictures and labels written into the folder under numbers; NOTHING in the place of other files."""
    left = UNPACKED_BYTES
    try:
        with _Measured(upload.path) as file, zipfile.ZipFile(file) as archive:
            for number, entry in enumerate(_checked_entries(archive)):
                if not _is_kept(entry.filename):
                    if not _is_left_aside(entry.filename):
                        _check_no_archive(archive, entry)
                    yield entry.filename, NOTHING
                    continue
                target = folder / f"{number:06d}"
                left -= _copied(archive, entry, target, left)
                yield entry.filename, target
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError, ValueError, OverflowError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"{shown(upload.name)} is no zip, or a damaged one: pack the pictures again") from error


def _checked_entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files in the zip, without its folders.   Raises Refused if any entry is a trick."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise Refused(f"expected at most {MAX_ENTRIES:,} files in the zip, got {len(entries):,}")
    seen: set[str] = set()
    for entry in entries:
        name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
        if entry.flag_bits & 0x1:
            raise Refused("the zip is encrypted: pack the pictures without a password")
        if re.search(r"[\x00-\x1f\x7f\\]", name) or name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
            raise Refused(f"the zip holds the path {shown(name)}, which leads out of its folder or is no plain name: pack it again")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Refused(f"the zip holds {shown(name)}, which is a link and no file: pack the pictures themselves")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused("the zip is packed in a rare way: expected plain zip (stored or deflated)")
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in seen:
            raise Refused(f"the zip holds {shown(name)} twice, or two names that differ in capitals only: rename one")
        seen.add(folded)
    _check_overlaps(archive, entries)
    files = [entry for entry in entries if not entry.is_dir()]
    sent = [entry for entry in files if not _is_left_aside(entry.filename)]
    if sum(entry.filename.lower().endswith(PICTURES) for entry in sent) > MAX_PICTURES:
        raise Refused(f"expected at most {MAX_PICTURES} pictures in the zip, got more")
    nested = [entry.filename for entry in sent if entry.filename.lower().endswith(ARCHIVES)]
    if nested:
        raise Refused(f"the zip holds an archive, {shown(nested[0])}: take its pictures out, archives inside are not opened")
    return files


def _check_overlaps(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> None:
    """Two entries with the same bytes are how a small zip becomes a huge folder."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    starts = [*(entry.header_offset for entry in ordered[1:]), archive.start_dir]
    for entry, next_start in zip(ordered, starts, strict=False):
        if entry.header_offset + zipfile.sizeFileHeader + len(entry.orig_filename) + entry.compress_size > next_start:
            raise Refused("the zip's files overlap, as in a zip bomb: pack the pictures again")


def _check_no_archive(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    with archive.open(entry) as file:
        head = file.read(512)
    if head.startswith(ARCHIVE_HEADS) or head[257:262] == b"ustar":
        raise Refused(f"the zip holds an archive, {shown(entry.filename)}: take its pictures out, archives inside are not opened")


def _copied(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Write one entry -> its bytes, counted as they come, because the zip's own numbers may lie."""
    count, limit = 0, _limit(entry.filename)
    with archive.open(entry) as packed, open(target, "wb") as file:
        while chunk := packed.read(CHUNK):
            count += len(chunk)
            if count > left:
                raise Refused(f"the zip holds more than {told_bytes(UNPACKED_BYTES)} once it is unpacked: send fewer pictures at a time")
            if count > limit:
                raise Refused(f"{shown(entry.filename)} in the zip is larger than {told_bytes(limit)}: make the picture smaller")
            if count > RATIO_FROM and count > RATIO * max(1, entry.compress_size):
                raise Refused(f"{shown(entry.filename)} in the zip grows more than {RATIO} times, as in a zip bomb")
            file.write(chunk)
    return count


def _is_left_aside(name: str) -> bool:
    parts = name.lower().split("/")
    return any(part in LEFT_ASIDE or part.startswith(".") for part in parts if part != ".")


def _is_kept(name: str) -> bool:
    return name.lower().endswith((*PICTURES, LABELS)) and not _is_left_aside(name)


def _limit(name: str) -> int:
    return LABELS_BYTES if name.lower().endswith(LABELS) else PICTURE_BYTES


def _size(upload: Upload) -> int:
    try:
        return upload.path.stat().st_size
    except OSError as error:
        raise Refused(f"{shown(upload.name)} is no longer on the server: choose it again") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("the CSV with labels is not UTF-8 text: save it again") from error


def shown(name: str) -> str:
    """A stranger's file name inside a sentence: short, and nothing in it that a terminal or page would obey."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    return repr(plain if len(plain) <= 60 else f"{plain[:57]}...")
