"""What visitors send in: tricks are refused in one sentence, and what comes out has names that every system can store."""

import io
import stat
import struct
import zipfile

import pytest
from PIL import Image

from kit.ui import bundle
from kit.ui.bundle import Upload, safe_names, unpacked
from kit.ui.session import Refused


def picture(colour="red", kind="PNG") -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (8, 6), colour).save(file, kind)
        return file.getvalue()


def packed(path, members, **options) -> Upload:
    """A zip with these members: name or ZipInfo -> bytes."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return Upload(path.name, path)


@pytest.fixture
def opened(tmp_path):
    """Unpack a zip with these members."""
    (tmp_path / "in").mkdir()

    def opened(members, **options):
        return unpacked([packed(tmp_path / "some.zip", members, **options)], tmp_path / "in")

    return opened


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def named(name: str) -> zipfile.ZipInfo:
    """An entry with just this name; writing one would make it harmless."""
    entry = zipfile.ZipInfo("harmless")
    entry.filename = name
    return entry


def patched(path, before: bytes, after: bytes) -> None:
    data = path.read_bytes()
    assert before in data and len(before) == len(after)
    path.write_bytes(data.replace(before, after))


def test_pictures_and_labels_come_out_and_the_rest_is_named(opened, tmp_path):
    members = {
        "photos/": b"", "photos/Beach 1.PNG": picture(), "photos/cat.jpg": picture(kind="JPEG"), "photos/labels.csv": "file,classes\n",
        "photos/notes.txt": "hello", "__MACOSX/photos/._cat.jpg": "x", "photos/.DS_Store": "x", "Thumbs.db": "x", "photos/._cat.jpg": "x",
    }  # fmt: skip
    found = opened(members)
    assert [(each.name, each.id) for each in found.pictures] == [("photos/Beach 1.PNG", "Beach_1"), ("photos/cat.jpg", "cat")]
    assert found.pictures[0].path.read_bytes() == picture() and all(each.path.parent == tmp_path / "in" for each in found.pictures)
    assert found.labels == "file,classes\n" and found.labels_name == "photos/labels.csv" and not found.refused
    assert dict(found.ignored) == {"photos/notes.txt": bundle.NO_PICTURE} | dict.fromkeys(
        ("__MACOSX/photos/._cat.jpg", "photos/.DS_Store", "Thumbs.db", "photos/._cat.jpg"), bundle.HIDDEN
    )


def test_loose_files_with_a_csv_and_a_zip_make_one_bundle(tmp_path):
    loose = tmp_path / "dog.png"
    loose.write_bytes(picture())
    (tmp_path / "list.csv").write_text("dog,dog\n", encoding="utf-8-sig")
    (tmp_path / "notes.txt").write_text("hello")
    uploads = [Upload("dog.png", loose), Upload("list.csv", tmp_path / "list.csv"), Upload("notes.txt", tmp_path / "notes.txt")]
    found = unpacked([*uploads, packed(tmp_path / "a.zip", {"dog.jpg": picture(kind="JPEG")})], tmp_path)
    assert [each.id for each in found.pictures] == ["dog", "dog-2"] and found.labels == "dog,dog\n"
    assert found.ignored == (("notes.txt", bundle.NO_PICTURE),) and not found.refused


@pytest.mark.parametrize(
    "name", ["../up.png", "a/../../up.png", "/root.png", "C:/disk.png", "c:disk.png", "a\\b.png", "..\\up.png", "a\x07.png", ".."]
)
def test_paths_that_lead_out_are_refused(opened, tmp_path, name):
    with pytest.raises(Refused, match="leads out of its folder"):
        opened([(named(name), picture())])
    assert not any((tmp_path / "in").iterdir())


def test_a_name_that_hides_its_end_is_refused(tmp_path):
    sent = packed(tmp_path / "some.zip", {"a.pngX../b": picture()})
    patched(sent.path, b"a.pngX../b", b"a.png\x00../b")
    with pytest.raises(Refused, match="leads out of its folder"):
        unpacked([sent], tmp_path)


def test_links_are_refused(opened):
    with pytest.raises(Refused, match="is a link"):
        opened([(link("passwords.png"), "/etc/passwd")])


@pytest.mark.parametrize("inner", ["inner.zip", "inner.tar.gz", "inner.7z"])
def test_archives_inside_are_refused_by_name(opened, inner):
    with pytest.raises(Refused, match="archives inside are not opened"):
        opened({"a.png": picture(), inner: "x"})


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x1f\x8b\x08", b"Rar!\x1a", b"7z\xbc\xaf\x27\x1c", b"\0" * 257 + b"ustar"])
def test_archives_inside_are_refused_by_content(opened, head):
    with pytest.raises(Refused, match="archives inside are not opened"):
        opened({"a.png": picture(), "innocent.txt": head})


@pytest.mark.parametrize("content", [b"", b"this is no zip", b"PK\x03\x04 cut off", b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "some.zip").write_bytes(content)
    with pytest.raises(Refused, match="no zip, or a damaged one"):
        unpacked([Upload("some.zip", tmp_path / "some.zip")], tmp_path)


def test_a_damaged_entry_is_refused(tmp_path):
    sent = packed(tmp_path / "some.zip", {"a.png": picture()})
    patched(sent.path, picture(), picture()[:-9] + b"different")
    with pytest.raises(Refused, match="damaged"):
        unpacked([sent], tmp_path)


def test_an_encrypted_zip_is_refused(tmp_path):
    sent = packed(tmp_path / "some.zip", {"a.png": picture()})
    data = bytearray(sent.path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    sent.path.write_bytes(data)
    with pytest.raises(Refused, match="without a password"):
        unpacked([sent], tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_rare_ways_of_packing_are_refused(opened, method):
    with pytest.raises(Refused, match="rare way"):
        opened({"a.png": picture()}, compression=method)


@pytest.mark.parametrize("names", [("a.png", "A.png"), ("a/b.png", "A/B.PNG"), ("e\u0301.png", "\u00e9.png")])
def test_names_that_some_systems_take_for_one_are_refused(opened, names):
    with pytest.raises(Refused, match="twice"):
        opened([(name, picture()) for name in names])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice_is_refused(opened):
    with pytest.raises(Refused, match="twice"):
        opened([("a.png", picture()), ("a.png", picture("blue"))])


def test_files_that_overlap_are_refused(tmp_path):
    """Two entries of the table of contents that point at the same bytes."""
    sent = packed(tmp_path / "some.zip", {"a.png": picture(), "b.png": picture()})
    data = bytearray(sent.path.read_bytes())
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    data[second + 42 : second + 46] = struct.pack("<L", 0)
    sent.path.write_bytes(data)
    with pytest.raises(Refused, match="overlap"):
        unpacked([sent], tmp_path)


def test_a_bomb_is_refused_before_it_fills_the_disk(opened, tmp_path):
    with pytest.raises(Refused, match="as in a zip bomb"):
        opened({"bomb.bmp": bytes(15_000_000)}, compression=zipfile.ZIP_DEFLATED)
    assert sum(path.stat().st_size for path in (tmp_path / "in").iterdir()) < 4_000_000


def test_real_bytes_are_counted(opened, monkeypatch):
    monkeypatch.setattr(bundle, "UNPACKED_BYTES", 200_000)
    with pytest.raises(Refused, match="200 kB once it is unpacked"):
        opened({f"{number}.bmp": bytes(90_000) for number in range(3)}, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(bundle, "PICTURE_BYTES", 80_000)
    with pytest.raises(Refused, match="larger than 80 kB"):
        opened({"a.bmp": bytes(90_000)}, compression=zipfile.ZIP_DEFLATED)


def test_a_header_that_lies_about_the_size_does_not_help(tmp_path):
    sent = packed(tmp_path / "some.zip", {"a.bmp": bytes(50_000)}, compression=zipfile.ZIP_DEFLATED)
    patched(sent.path, struct.pack("<L", 50_000), struct.pack("<L", 10))
    with pytest.raises(Refused, match="damaged"):
        unpacked([sent], tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir() if path != sent.path) <= 10


def test_counts_and_sizes_are_limited(opened, tmp_path, monkeypatch):
    with pytest.raises(Refused, match="at most 1,000 files"):
        opened({f"{number}.txt": "" for number in range(1_001)})
    monkeypatch.setattr(bundle, "MAX_PICTURES", 3)
    with pytest.raises(Refused, match="at most 3 pictures"):
        opened({f"{number}.png": "" for number in range(4)})
    monkeypatch.setattr(bundle, "PACKED_BYTES", 50)
    with pytest.raises(Refused, match="at most 0 kB in all"):
        opened({"a.png": picture()})


def test_a_table_of_contents_for_millions_is_not_read(opened):
    with pytest.raises(Refused, match="table of contents"):
        opened([(f"{number:0500}.txt", b"") for number in range(2_000)])


def test_one_zip_and_one_list(tmp_path):
    with pytest.raises(Refused, match="one zip at a time"):
        unpacked([packed(tmp_path / f"{name}.zip", {"a.png": picture()}) for name in "ab"], tmp_path)
    with pytest.raises(Refused, match="at most one CSV"):
        unpacked([packed(tmp_path / "c.zip", {"a.csv": "", "b.csv": ""})], tmp_path)
    with pytest.raises(Refused, match="UTF-8"):
        unpacked([packed(tmp_path / "d.zip", {"a.csv": "häuser".encode("latin-1")})], tmp_path)
    with pytest.raises(Refused, match="no longer on the server"):
        unpacked([Upload("gone.png", tmp_path / "gone.png")], tmp_path)


def test_names_are_safe_and_used_once():
    names = [
        "a/Cat.png",
        "b/cat.jpg",
        "con.png",
        "..png",
        "é è?.png",
        "=1+1.png",
        "x" * 300 + ".png",
        "COM1.x.png",
        ".hidden.png",
        "cat-2.gif",
    ]
    safe = safe_names(names)
    assert safe[:6] == ["Cat", "cat-2", "_con", "picture", "é_è", "1_1"] and len(safe[6]) == 80
    assert safe[7:] == ["_COM1.x", "hidden", "cat-2-2"]
    assert len({name.casefold() for name in safe}) == len(names)
