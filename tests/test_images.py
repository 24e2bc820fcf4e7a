"""Every kind of picture that people bring, and every kind that must be refused in one sentence."""

import io
import os
import struct
import threading
import tracemalloc
import warnings
import zlib
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kit.images import PALETTE, ImageError, image_size, load_image, load_mask, save_image, save_mask

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(width, height, depth, colour_type, rows, *extra):
    """A PNG written by hand: the kinds that Pillow reads but does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


@cache
def photo():
    """Smooth enough that JPEG hardly changes it, and unlike itself under every flip and turn."""
    rows, columns = np.mgrid[:24, :40]
    return np.stack([rows * 10, columns * 6, (rows + columns) * 4], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "JPEG", "WEBP", "AVIF"])
def test_every_format_and_every_kind_of_source_gives_the_same_picture(format, tmp_path):
    lossless = format in ("PNG", "BMP")
    data = encoded(Image.fromarray(photo()), format, **({} if lossless else {"quality": 95}))
    path = tmp_path / "photo.bin"
    path.write_bytes(data)
    expected = load_image(data)
    assert expected.shape == (24, 40, 3) and expected.dtype == np.uint8
    assert np.abs(expected.astype(int) - photo()).max() <= (0 if lossless else 24)
    with open(path, "rb") as file:
        file.seek(7)
        assert np.array_equal(load_image(file), expected)
        assert not file.closed
    for source in (path, str(path), bytearray(data), memoryview(data), io.BytesIO(data), Image.open(path)):
        assert np.array_equal(load_image(source), expected)


def test_a_stream_that_cannot_be_rewound_is_read():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source:
        with os.fdopen(writing, "wb") as sink:
            sink.write(encoded(Image.fromarray(photo()), "PNG"))
        assert np.array_equal(load_image(source), photo())


def test_arrays():
    grey = photo()[..., 0]
    assert np.array_equal(load_image(grey), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(load_image(photo()), photo())
    assert np.array_equal(load_image(photo()[::-1, ::2]), photo()[::-1, ::2])
    half = np.dstack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 128, np.uint8)])
    assert np.all(load_image(half) == 127)
    assert load_image(np.zeros((1, 1), np.uint8)).shape == (1, 1, 3)


def test_the_result_is_ones_own():
    array = photo().copy()
    load_image(array)[:] = 0
    assert np.array_equal(array, photo())
    assert load_image(encoded(Image.fromarray(array), "PNG")).flags.writeable


def test_transparent_is_white():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    expected = [[WHITE, RED]]
    assert load_image(encoded(clear, "PNG")).tolist() == [list(map(list, expected[0]))]
    assert load_image(encoded(clear, "WEBP", lossless=True)).tolist() == [list(map(list, expected[0]))]

    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 255, *RED])
    palette.putpixel((1, 0), 1)
    for format, see_through in (("PNG", 0), ("PNG", b"\0\xff"), ("GIF", 0)):
        assert load_image(encoded(palette, format, transparency=see_through)).tolist() == [[list(WHITE), list(RED)]]

    grey_alpha = Image.merge("LA", (Image.new("L", (1, 1), 10), Image.new("L", (1, 1), 0)))
    assert load_image(encoded(grey_alpha, "PNG")).tolist() == [[list(WHITE)]]


def test_one_bit_and_grey():
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert load_image(encoded(bits, "PNG")).tolist() == [[[0] * 3, [255] * 3]]
    grey = load_image(encoded(Image.new("L", (8, 8), 77), "JPEG"))
    assert np.all(grey == 77) and grey.shape == (8, 8, 3)


def test_sixteen_bit_is_scaled_and_not_clipped():
    levels = np.array([[0, 255, 256, 32768, 40000, 65535]], np.uint16)
    expected = np.array([0, 0, 1, 128, 156, 255])
    grey = load_image(encoded(Image.fromarray(levels), "PNG"))
    assert np.array_equal(grey[0], np.repeat(expected[:, None], 3, axis=1))
    assert np.array_equal(load_image(Image.fromarray(levels)), grey)
    row = b"".join(struct.pack(">HHH", level, level, level) for level in levels[0])
    assert np.array_equal(load_image(png(6, 1, 16, 2, [row])), grey)
    swapped = Image.frombytes("I;16B", (6, 1), levels.astype(">u2").tobytes())
    assert np.array_equal(load_image(swapped), grey)


def test_the_see_through_level_of_sixteen_bit_grey_is_white():
    data = png(2, 1, 16, 0, [struct.pack(">HH", 1000, 2000)], (b"tRNS", struct.pack(">H", 1000)))
    assert load_image(data).tolist() == [[[255] * 3, [7] * 3]]


def test_cmyk_becomes_rgb():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(load_image(data).astype(int) - RED).max() <= 4


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue", "green")]
    for format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert np.all(load_image(data) == RED), format


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_applied(orientation, format):
    upright = Image.fromarray(photo())
    # How a camera held in that way would have stored the upright picture: the inverse of what a viewer must do.
    stored = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, -1),
    }[orientation](np.asarray(upright))  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    loaded = load_image(encoded(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **options))
    assert loaded.shape == photo().shape
    assert np.abs(loaded.astype(int) - photo()).max() <= (12 if format == "JPEG" else 0)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_the_size_alone_is_that_of_the_picture(orientation, format, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if format in ("GIF", "BMP") else {"exif": exif}
    data = encoded(Image.fromarray(photo()), format, **options)
    (tmp_path / "picture").write_bytes(data)
    turned = orientation >= 5 and bool(options)
    assert image_size(tmp_path / "picture") == load_image(data).shape[:2] == ((40, 24) if turned else (24, 40))


def exif_behind_the_pixels(orientation):
    """A PNG whose EXIF block stands after its pixels, which the format allows."""
    block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0\0\0\0\0"
    chunk = len(block).to_bytes(4, "big") + b"eXIf" + block + zlib.crc32(b"eXIf" + block).to_bytes(4, "big")
    data = encoded(Image.fromarray(photo()), "PNG")
    return data[:-12] + chunk + data[-12:]


def test_the_size_of_a_png_that_says_at_its_end_how_it_was_held():
    assert image_size(exif_behind_the_pixels(6)) == load_image(exif_behind_the_pixels(6)).shape[:2] == (40, 24)
    assert image_size(exif_behind_the_pixels(3)) == (24, 40)
    xmp = PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="8"/>')
    held = encoded(Image.fromarray(photo()), "PNG", pnginfo=xmp)
    assert image_size(held) == load_image(held).shape[:2] == (40, 24)


def test_the_size_needs_no_pixels():
    data = encoded(Image.fromarray(photo()), "PNG")
    assert image_size(data[: data.index(b"IDAT") + 6]) == (24, 40)
    with pytest.raises(ImageError):
        load_image(data[: data.index(b"IDAT") + 6])
    for source, told in (
        (b"no picture", "not a picture"),
        (b"", "empty"),
        ("/none/there.jpg", "no such file"),
        (png(20_000, 20_000, 8, 2, []), "400,000,000 pixels"),
    ):
        with pytest.raises(ImageError, match=told):
            image_size(source)


def test_a_broken_exif_block_does_not_spoil_a_picture():
    data = encoded(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09broken")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert load_image(data).shape == (24, 40, 3)
    assert not heard


def test_a_file_that_pillow_warns_about_is_quiet_in_many_threads():
    data = encoded(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09broken")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        threads = [threading.Thread(target=lambda: [load_image(data) for _ in range(20)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not heard and warnings.filters == before


def refusal(source, **options):
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 400
    return sentence


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_a_bomb_is_refused_by_its_header(side, tmp_path):
    row = bytes(-(-side // 8))
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 1, 0, [row] * side))
    assert path.stat().st_size < 60_000
    tracemalloc.start()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        sentence = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not heard and peak < 1_000_000  # decoded, it would be 18 MB at least
    assert f"{side:,} x {side:,} = {side * side:,} pixels" in sentence and "50,000,000" in sentence and "bomb.png" in sentence


def test_the_limit_holds_for_every_kind_of_source():
    picture = Image.new("RGB", (11, 10))
    files = [encoded(picture, format) for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")]
    for source in (*files, picture, np.asarray(picture)):
        assert "limit of 109" in refusal(source, max_pixels=109)
        assert load_image(source, max_pixels=110).shape == (10, 11, 3)


def test_a_stream_without_end_is_refused():
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = bytes(len(buffer))
            return len(buffer)

    assert "larger than" in refusal(io.BufferedReader(Endless()), max_pixels=1000)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"])
def test_cut_off_files(format, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), format)
    for share in (0.1, 0.5, 0.9):
        path = tmp_path / f"cut_{share}"
        path.write_bytes(data[: int(len(data) * share)])
        assert path.name in refusal(path)


def test_what_is_no_picture(tmp_path):
    assert "empty" in refusal(b"")
    assert "not a picture" in refusal(b"Dear kit, this is a letter.")
    assert "not a picture" in refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "not a picture" in refusal(encoded(Image.new("L", (4, 4)), "TIFF"))
    assert "no such file" in refusal(tmp_path / "nowhere.png")
    assert "no such file" in refusal(tmp_path)
    assert "no such file" in refusal("nul\0byte.png")
    assert "cannot be read" in refusal("x" * 260)
    assert "rb" in refusal(io.StringIO("text"))
    assert "NoneType" in refusal(None)
    assert "int" in refusal(3)
    closed = io.BytesIO(b"")
    closed.close()
    assert "cannot be read" in refusal(closed)
    (tmp_path / "empty.jpg").touch()
    assert "empty.jpg" in refusal(tmp_path / "empty.jpg")


def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "no such file" in refusal(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 0), np.uint8), np.zeros((0, 5, 3), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), bool),
        np.zeros((4, 4), int), np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 1), np.uint8), np.zeros((1, 4, 4, 3), np.uint8), np.zeros(4, np.uint8),
    ],
)  # fmt: skip
def test_arrays_that_are_no_pictures(array):
    refusal(array)


def test_pil_images_without_range_or_pixels():
    assert "32 bit" in refusal(Image.new("F", (2, 2)))
    assert "32 bit" in refusal(Image.new("I", (2, 2)))
    assert "no pixels" in refusal(Image.new("RGB", (0, 0)))


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=150)
def test_random_bytes_only_raise_image_errors(data):
    refusal(data)


SEEDS = {
    "png": encoded(Image.fromarray(photo()), "PNG"),
    "palette": encoded(Image.fromarray(photo()).quantize(16), "PNG", transparency=0),
    "jpeg": encoded(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "gif": encoded(Image.fromarray(photo()), "GIF"),
    "webp": encoded(Image.fromarray(photo()), "WEBP"),
    "bmp": encoded(Image.fromarray(photo()), "BMP"),
    "late": exif_behind_the_pixels(6),
}


@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8),
    st.none() | st.integers(0, 400),
)
@settings(deadline=None, max_examples=400)
def test_damaged_files_give_a_picture_or_an_image_error(kind, changes, length):
    data = bytearray(SEEDS[kind])
    for place, value in changes:
        data[place % len(data)] = value
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            picture = load_image(bytes(data[:length]), max_pixels=100_000)
            assert image_size(bytes(data[:length]), max_pixels=100_000) == picture.shape[:2]
        except ImageError:
            picture = np.zeros((1, 1, 3), np.uint8)
    assert not heard
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and 0 < picture.size <= 300_000


@given(arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))))
@settings(deadline=None, max_examples=60)
def test_labels_come_back_as_they_were(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("masks") / "mask.png"
    save_mask(path, labels)
    assert np.array_equal(load_mask(path), labels) and load_mask(path).dtype == np.uint8
    assert np.array_equal(load_image(path), PALETTE[labels])


def test_the_palette_is_vocs():
    assert PALETTE.shape == (256, 3) and PALETTE.dtype == np.uint8
    assert PALETTE[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert PALETTE[15].tolist() == [192, 128, 128] and PALETTE[255].tolist() == [224, 224, 192]
    assert len({tuple(colour) for colour in PALETTE.tolist()}) == 256
    with pytest.raises(ValueError):
        PALETTE[0] = 1


def test_a_mask_is_a_palette_png(tmp_path):
    save_mask(tmp_path / "mask.png", np.array([[0, 15, 255]], np.int64))
    with Image.open(tmp_path / "mask.png") as image:
        assert image.format == "PNG" and image.mode == "P" and image.getpalette() == PALETTE.flatten().tolist()


def test_grey_masks_are_read_and_others_are_refused():
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    grey = Image.fromarray(labels)
    assert np.array_equal(load_mask(encoded(grey, "PNG")), labels)
    bits = load_mask(encoded(Image.fromarray(labels > 0), "PNG"))
    assert bits.dtype == np.uint8 and bits.tolist() == [[0, 1, 1, 1]]  # one class, as tools for one class write it
    stretched = png(2, 1, 4, 0, [b"\x12"])  # two pixels of 4-bit grey, which Pillow would read as 17 and 34
    rgb = Image.fromarray(photo())
    for data, told in (
        (encoded(rgb, "PNG"), "RGB"),
        (encoded(rgb.convert("RGBA"), "PNG"), "RGBA"),
        (encoded(Image.new("I;16", (2, 2)), "PNG"), "I;16"),
        (encoded(grey, "JPEG"), "JPEG"),
        (encoded(grey, "GIF"), "GIF"),
        (encoded(grey, "WEBP", lossless=True), "WEBP"),
        (stretched, "2 or 4 bit"),
        (encoded(grey, "PNG")[:40], "damaged"),
        (grey, "Image"),
    ):
        with pytest.raises(ImageError, match=told):
            load_mask(data)
    with pytest.raises(ImageError, match="limit"):
        load_mask(encoded(grey, "PNG"), max_pixels=3)


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((2, 2)), np.zeros((2, 2), bool), np.full((2, 2), 256), np.full((2, 2), -1),
        np.zeros((2, 2, 3), np.uint8), np.zeros((0, 2), int),
    ],
)  # fmt: skip
def test_what_is_no_label_map_is_not_written(labels, tmp_path):
    with pytest.raises(ImageError, match="expected labels"):
        save_mask(tmp_path / "mask.png", labels)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    save_mask(path, np.ones((2, 2), np.uint8))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ImageError, match="No space left"):
        save_mask(path, np.zeros((2, 2), np.uint8))
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.png"]
    assert load_mask(path).all()


def test_where_nothing_can_be_written(tmp_path):
    labels = np.zeros((2, 2), np.uint8)
    (tmp_path / "file").touch()
    for path, told in (("mask.jpg", "ends in .png"), ("nowhere/mask.png", "cannot be written"), ("file/mask.png", "cannot be written")):
        with pytest.raises(ImageError, match=told):
            save_mask(tmp_path / path, labels)
    with pytest.raises(ImageError, match="ends in"):
        save_image(tmp_path / "picture.webp", photo())
    with pytest.raises(ImageError, match="expected a uint8 picture"):
        save_image(tmp_path / "picture.png", photo() / 255)


def test_pictures_come_back(tmp_path):
    save_image(tmp_path / "picture.png", photo())
    save_image(tmp_path / "picture.JPG", photo())
    assert np.array_equal(load_image(tmp_path / "picture.png"), photo())
    assert np.abs(load_image(tmp_path / "picture.JPG").astype(int) - photo()).max() < 24


def test_a_side_that_no_camera_makes_is_refused_by_its_header():
    """Pillow keeps a pointer for every row: 1 x 50,000,000 pixels are within the limit of pixels and would take a gigabyte."""
    tracemalloc.start()
    for wide in ((1, 50_000_000), (50_000_000, 1)):
        data = png(*wide, 8, 0, [b"\0"])
        for read in (load_image, image_size, load_mask):
            with pytest.raises(ImageError, match="more than 65,535 on one side; make it smaller first"):
                read(io.BytesIO(data))
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((3, 5, 7), np.uint8), r"array.transpose\(1, 2, 0\) puts the colours last"),
        (np.ones((5, 7, 3), np.float32) / 2, r"float32 \(5, 7, 3\); \(array \* 255\).round\(\).astype\(np.uint8\) makes 0..1 to"),
        (np.ones((3, 5, 7)) / 2, r"transpose\(1, 2, 0\) puts the colours last, \(array \* 255\)"),
        (np.full((5, 7, 3), 200), r"array.astype\(np.uint8\)$"),
        (np.full((5, 7, 3), 200.5), r"array.round\(\).astype\(np.uint8\)"),
        (np.linspace(-2, 2, 105).reshape(5, 7, 3), "its values run from -2 to 2: undo the normalising first"),
        (np.zeros((1, 5, 7, 3), np.uint8), r"array\[0\] is the one picture of the batch"),
        (np.zeros((5, 7, 5), np.uint8), "give a picture"),
    ],
)
def test_what_to_do_with_an_array_is_told(array, told):
    with pytest.raises(ImageError, match=told):
        load_image(array)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS, not the file itself; fetch it with git lfs pull"),
        (b"<!doctype html><html>", "this is a web page, not the file itself; download it again"),
    ],
)
def test_files_that_are_something_else_are_named(data, told):
    with pytest.raises(ImageError, match=told):
        load_image(data)
