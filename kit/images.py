"""The one safe way in for pictures and label maps, and the way out for both."""

import io
import os
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image, PngImagePlugin

from kit.files import mistaken, write_whole

Pixels = TypeVar("Pixels")
Source = str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray


class ImageError(ValueError):
    """A picture or label map that cannot be used, told in one sentence."""


def _voc_palette() -> np.ndarray:
    """VOC's 256 colours: the bits of a label, three at a time, become the high bits of red, green and blue."""
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((labels >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    palette.flags.writeable = False
    return palette


PALETTE = _voc_palette()

PSEUDO = ("Comment", "pseudo mask, made by the kit from words: no ground truth")  # what the PNG of one says

MAX_SIDE = 65_535  # pixels, as much as JPEG holds
MAX_PIXELS = 50_000_000

# Photographs and drawings, no more: Pillow reads forty formats, and some run a program (EPS) or hide a second picture (ICO).
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")
_ACCEPTED = "PNG, JPEG, WebP, GIF, BMP or AVIF"
Image.init()

# How to turn the pixels for each value of the EXIF orientation tag; 1 is upright.
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)

# Python's warning filters belong to the whole process: one thread at a time may change them and put them back.
_warning_filters = threading.Lock()


@contextmanager
def _pillow(name: str) -> Iterator[None]:
    """Pillow without its warnings, and with whatever it raises told as one ImageError."""
    with _warning_filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            yield
        except ImageError:
            raise
        except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
            raise ImageError(f"{name}the picture is damaged, cut off or of a rare kind; save it again as PNG or JPEG") from error


def load_image(source: Source, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture from anywhere, upright, opaque (on white) and in colour; of an animation its first frame.

    source: a path, the bytes of a file, a binary file, a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4).
    -> uint8 (H, W, 3), RGB, 0..255, a fresh array. The size is read before the pixels: more than `max_pixels` are refused undecoded.
    Raises ImageError, and nothing else, for whatever is no usable picture.
    """
    if isinstance(source, np.ndarray):
        return _rgb(_from_array(source, max_pixels), "")
    if isinstance(source, Image.Image):
        name = _prefix(getattr(source, "filename", ""))
        _check_size(name, source.size, max_pixels)
        with _pillow(name):
            return _rgb(source, name)
    return _read(source, max_pixels, _rgb)


def image_size(path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """The rows and columns that load_image would give, from the header of the file alone.

    Raises ImageError for what load_image refuses by its header; that the pixels are damaged only shows when they are read.
    """
    return _read(path, max_pixels, _rows_columns)


def orientation(path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> int:
    """The EXIF orientation by which load_image turns a picture: 1 for none, to 8.   Raises ImageError as image_size does."""
    return _read(path, max_pixels, lambda image, name: _orientation_of(image))


@dataclass(frozen=True, eq=False)
class LabelFile:
    """A label map as it was saved.

    labels uint8 (H, W); colours: its palette, uint8 (up to 256, 3), None for grey; is_pseudo: whether the kit made it.
    """

    labels: np.ndarray
    colours: np.ndarray | None
    is_pseudo: bool


def read_labels(source: Source, *, max_pixels: int = MAX_PIXELS) -> LabelFile:
    """What `load_mask` reads, with what the file says beside the numbers."""
    if isinstance(source, np.ndarray | Image.Image):
        raise ImageError(f"expected a PNG file with labels, got {type(source).__name__}; give its path or its bytes")
    return _read(source, max_pixels, _labels)


def load_mask(source: Source, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A label map as it was saved: the numbers in the file, not the colours they are shown in.

    source: a palette PNG or a grey PNG of 8 bit, or of 1 bit, as path, bytes or binary file -> uint8 (H, W); 255 means "not judged" by
    VOC's custom. Raises ImageError for everything else: colours and lossy files have no labels to read.
    """
    return read_labels(source, max_pixels=max_pixels).labels


def save_mask(path: str | os.PathLike, labels: np.ndarray, *, is_pseudo: bool = False) -> None:
    """Write a label map as a palette PNG in VOC's colours; the file appears whole or not at all.

    labels (H, W) of whole numbers 0..255; is_pseudo: the file says that the kit made it, and is never read as truth.
    Raises ImageError for other labels, another ending than .png, or a folder that is not there.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
        raise ImageError(f"expected labels (H, W) of whole numbers, got {_describe(labels)}; make a label map first")
    if labels.min() < 0 or labels.max() > 255:
        raise ImageError(f"expected labels 0..255, got {labels.min()}..{labels.max()}; a palette PNG holds no others")
    picture = Image.fromarray(np.ascontiguousarray(labels, np.uint8))
    picture.putpalette(PALETTE.tobytes())
    words = PngImagePlugin.PngInfo()
    if is_pseudo:
        words.add_text(*PSEUDO)
    _write(path, picture, {".png": "PNG"}, pnginfo=words)


def save_image(path: str | os.PathLike, rgb: np.ndarray) -> None:
    """Write a picture as PNG or, by its ending, as JPEG; the file appears whole or not at all.

    rgb uint8 (H, W, 3). Raises ImageError for other arrays, other endings, or a folder that is not there.
    """
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise ImageError(f"expected a uint8 picture (H, W, 3), got {_describe(rgb)}; load_image makes one of most things")
    _write(path, Image.fromarray(np.ascontiguousarray(rgb)), {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"})


def size_within(size: tuple[int, int], limit: int) -> tuple[int, int]:
    """The size of a picture whose longer side is at most the limit.   (H, W) -> (H, W)."""
    longest = max(size)
    if longest <= limit:
        return size
    height, width = (max(1, round(length * limit / longest)) for length in size)
    return height, width


def image_within(image: np.ndarray, limit: int, resampling: Image.Resampling = Image.Resampling.BICUBIC) -> np.ndarray:
    """The picture as it is, or made smaller to the limit.   (H, W, 3) uint8 -> the same."""
    height, width = size = size_within(image.shape[:2], limit)
    return image if size == image.shape[:2] else np.array(Image.fromarray(image).resize((width, height), resampling))


def resized_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map at another size, each pixel that of the nearest one.   uint8 (h, w) -> (H, W)."""
    if labels.shape == size:
        return labels
    return np.array(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))


def _prefix(path: str | os.PathLike) -> str:
    """How a refusal begins: with the file it is about, if it is about one."""
    return f"{path}: " if path else ""


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} ({', '.join(map(str, array.shape))})"


def _check_size(name: str, size_xy: tuple[int, int], max_pixels: int) -> None:
    width, height = size_xy
    if width < 1 or height < 1:
        raise ImageError(f"{name}the picture has no pixels ({width} wide, {height} high); choose another one")
    if max(width, height) > MAX_SIDE:  # Pillow keeps a pointer for every row
        raise ImageError(f"{name}the picture is {width:,} x {height:,} pixels, more than {MAX_SIDE:,} on one side; make it smaller first")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}the picture is {width:,} x {height:,} = {width * height:,} pixels, "
            f"more than the limit of {max_pixels:,}; make it smaller first"
        )


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        doing = []
        if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4):
            doing.append("array.transpose(1, 2, 0) puts the colours last")
        elif array.ndim == 4 and len(array) == 1:
            doing.append("array[0] is the one picture of the batch")
        if array.dtype != np.uint8 and array.size and array.dtype.kind in "fiub":
            low, high = array.min(), array.max()
            if low >= 0 and high <= 1:
                doing.append("(array * 255).round().astype(np.uint8) makes 0..1 to 0..255")
            elif low >= 0 and high <= 255:
                doing.append("array.round().astype(np.uint8) makes whole numbers" if array.dtype.kind == "f" else "array.astype(np.uint8)")
            else:
                doing.append(f"its values run from {low:.3g} to {high:.3g}: undo the normalising first")
        raise ImageError(
            f"expected a uint8 array (H, W), (H, W, 3) or (H, W, 4) with values 0..255, got {_describe(array)}; "
            + (", ".join(doing) or "give a picture")
        )
    _check_size("", (array.shape[1], array.shape[0]), max_pixels)
    return Image.fromarray(np.ascontiguousarray(array))


def _read(source: Source, max_pixels: int, pixels: Callable[[Image.Image, str], Pixels]) -> Pixels:
    """What `pixels` makes of the picture in a path, bytes or binary file."""
    if isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        name = _prefix(path)
        try:
            # Asked before opening: to open a named pipe is to wait for somebody to write into it.
            if not path.is_file():
                raise ImageError(f"{name}there is no such file; check the path")
            with open(path, "rb") as file:
                return _decoded(file, name, max_pixels, pixels)
        except OSError as error:
            raise ImageError(f"{name}the file cannot be read ({error.strerror}); check the path and its permissions") from error
    if isinstance(source, bytes | bytearray | memoryview):
        return _decoded(io.BytesIO(source), "", max_pixels, pixels)
    if hasattr(source, "read"):
        return _decoded(_seekable(source, max_pixels), "", max_pixels, pixels)
    raise ImageError(f"expected a path, bytes, a binary file, a PIL image or a uint8 array, got {type(source).__name__}; give one of those")


def _seekable(file: BinaryIO, max_pixels: int) -> BinaryIO:
    """The file itself if it can be rewound, else what it still holds, up to what the largest allowed picture needs."""
    try:
        if not isinstance(file.read(0), bytes):
            raise ImageError('the picture\'s file gives text instead of bytes; open it with mode "rb"')
        if file.seekable():
            return file
        most = 8 * max_pixels + 1_000_000  # four channels of 16 bit, uncompressed, and a generous header
        data = file.read(most + 1)
    except ImageError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ImageError("the picture's file cannot be read; is it open, and for reading?") from error
    if len(data) > most:
        raise ImageError(f"the picture's file is larger than {most:,} bytes; make the picture smaller first")
    return io.BytesIO(data)


def _decoded(file: BinaryIO, name: str, max_pixels: int, pixels: Callable[[Image.Image, str], Pixels]) -> Pixels:
    with _pillow(name):
        file.seek(0)
        prefix = file.read(16)
        if not prefix:
            raise ImageError(f"{name}{mistaken(prefix)}")
        # Not Image.open: its own size check warns or raises before ours can say how large the picture is.
        for reader, accepts in (Image.OPEN[format] for format in _FORMATS if format in Image.OPEN):
            if accepts(prefix) is True:
                file.seek(0)
                with reader(file, "") as image:
                    _check_size(name, image.size, max_pixels)
                    return pixels(image, name)
        file.seek(0)
        raise ImageError(f"{name}{mistaken(file.read(512)) or f'this is not a picture the kit can read; save it as {_ACCEPTED}'}")


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    image.load()
    _check_range(image, name)
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith("I;16"):
        image = _from_grey16(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        image = paper
    image = image.convert("RGB")
    return np.array(image if turn is None else image.transpose(turn))


def _check_range(image: Image.Image, name: str) -> None:
    if image.mode in ("I", "F"):
        raise ImageError(f"{name}pixels of 32 bit (Pillow's mode {image.mode}) have no fixed range; save the picture with 8 or 16 bit")


def _rows_columns(image: Image.Image, name: str) -> tuple[int, int]:
    _check_range(image, name)
    columns, rows = image.size
    return (columns, rows) if _orientation_of(image) in _ON_ITS_SIDE else (rows, columns)


def _orientation_of(image: Image.Image) -> int:
    """The orientation of a picture whose pixels were not read yet."""
    if image.format != "PNG":
        return _orientation(image)
    with Image.open(_same_words_on_one_pixel(image.fp)) as pixel:
        return _orientation(pixel)


def _same_words_on_one_pixel(file: BinaryIO) -> BinaryIO:
    """A PNG of one pixel with what a PNG says of itself, which may stand behind its pixels, where Pillow finds it only by decoding them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", bytes([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]))]
    file.seek(8)
    pixels = False
    while len(head := file.read(8)) == 8 and (kind := head[4:]) != b"IEND" and not (pixels and kind == b"fcTL"):  # fcTL: the next frame
        length = int.from_bytes(head[:4], "big")
        if kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            parts.append(chunk(kind, file.read(length)))
            file.seek(4, io.SEEK_CUR)
        else:
            pixels = pixels or kind == b"IDAT"
            file.seek(length + 4, io.SEEK_CUR)
    parts += [chunk(b"IDAT", zlib.compress(b"\0\0")), chunk(b"IEND", b"")]
    return io.BytesIO(b"".join(parts))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block, which may raise anything, says nothing about a picture that is fine
        return 1


def _from_grey16(image: Image.Image) -> Image.Image:
    """Grey of 16 bit as 8 bit: the high byte, which is also what Pillow keeps of 16-bit colours."""
    levels = np.asarray(image).astype(np.uint16)  # the file's byte order may not be ours
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    if (see_through := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(levels == see_through, 0, 255).astype(np.uint8)))
    return grey


def _labels(image: Image.Image, name: str) -> LabelFile:
    if image.format != "PNG":
        raise ImageError(f"{name}a label map must be a PNG, got {image.format}, which may change labels; save it with save_mask")
    # Grey of 2 or 4 bit is stretched to 0..255 when read, which would change the labels.
    stretched = image.mode == "L" and image.tile[0].args != "L"
    if image.mode not in ("P", "L", "1") or stretched:
        found = "grey of 2 or 4 bit" if stretched else f"{image.mode} pixels"
        raise ImageError(f"{name}expected labels (a palette PNG or an 8-bit grey PNG), got {found}; save the label map with save_mask")
    labels = np.array(image).astype(np.uint8)
    colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3) if image.mode == "P" else None
    return LabelFile(labels, colours, image.info.get(PSEUDO[0]) == PSEUDO[1])


def _write(path: str | os.PathLike, picture: Image.Image, formats: dict[str, str], **options: Any) -> None:
    path = Path(path)
    if path.suffix.lower() not in formats:
        raise ImageError(f"{path}: expected a name that ends in {' or '.join(formats)}; rename it")
    try:
        with io.BytesIO() as file:
            picture.save(file, format=formats[path.suffix.lower()], quality=95, **options)
            write_whole(path, file.getvalue())
    except OSError as error:
        raise ImageError(f"{path}: the file cannot be written ({error.strerror or error}); check the folder") from error
