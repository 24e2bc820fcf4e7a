"""Which file is meant: case, accents, endings, slashes, hidden files, folders outside; the same answer for every reader."""

import os
import unicodedata

import numpy as np
import pytest

from kit.data import DataError, folder_data, open_data
from kit.data.found import Files, folded, id_of, key_of
from kit.evaluate import evaluate_masks
from kit.images import save_image, save_mask

PICTURE, NFD = np.full((6, 9, 3), 90, np.uint8), unicodedata.normalize("NFD", "café")


def made(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return Files(root)


@pytest.mark.parametrize("asked", ["a.JPG", "a.jpg", "A", "a", "./a.jpg", "a.Jpg"])
def test_endings_in_capitals(tmp_path, asked):
    assert made(tmp_path, "a.JPG").find(asked) == tmp_path / "a.JPG"


@pytest.mark.parametrize("asked", ["Fotos/café.jpg", f"fotos\\{NFD}.jpg", f"fotos/{NFD}", "FOTOS/CAFÉ"])
def test_accents_are_written_in_two_ways_and_slashes_too(tmp_path, asked):
    assert made(tmp_path, f"fotos/{NFD}.jpg").find(asked).name == f"{NFD}.jpg"


def test_the_exact_name_goes_first_and_what_may_be_two_is_asked(tmp_path):
    there = made(tmp_path, "a.jpg", "a.png", "b.jpg", "b.JPG")
    assert there.find("a.png") == tmp_path / "a.png" and there.find("b.JPG") == tmp_path / "b.JPG"
    with pytest.raises(DataError, match="this may be a.jpg or a.png; write the whole name"):
        there.find("a")
    with pytest.raises(DataError, match="this may be b.JPG or b.jpg"):
        there.find("B.Jpg")
    assert there.find("c") is None and there.find("none/c") is None


@pytest.mark.parametrize("asked", ["../a.jpg", "/etc/passwd", "C:\\a.jpg", "x/../../a.jpg", "..", "a\n.jpg", ""])
def test_nothing_outside_is_meant(tmp_path, asked):
    with pytest.raises(DataError, match="is no file within"):
        made(tmp_path, "a.jpg").find(asked)


def test_hidden_files_are_not_looked_at(tmp_path):
    there = made(tmp_path, "a.jpg", "._a.jpg", ".thumbs/a.jpg", "b/c.jpg", "b/.DS_Store")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in there.all()) == ["a.jpg", "b/c.jpg"]
    assert there.find("._a.jpg") is None
    os.symlink(tmp_path, tmp_path / "b" / "loop")
    assert len(list(Files(tmp_path).all())) == 2


def test_keys_and_ids():
    assert folded("CAFÉ") == folded(NFD) and key_of(f".\\x\\{NFD}.JPG") == "x/café" and key_of("a.b") == "a.b"
    assert [id_of(line) for line in ("a.jpg,cat", '"a.PNG"', "x/a", "a 1", "a;1")] == ["a"] * 5


def test_every_reader_gives_the_same_answer(tmp_path):
    """A list with endings in other letters and another accent, pictures and truth in capitals, hidden copies beside them."""
    mine, voc = tmp_path / "mine", tmp_path / "VOC2012"
    for folder in (mine / "masks", voc / "JPEGImages", voc / "SegmentationClass", voc / "ImageSets/Segmentation", tmp_path / "made"):
        folder.mkdir(parents=True)
    for root, pictures, masks in ((mine, mine, mine / "masks"), (voc, voc / "JPEGImages", voc / "SegmentationClass")):
        save_image(pictures / f"{NFD}.jpg", PICTURE)
        (pictures / f"{NFD}.jpg").rename(pictures / f"{NFD}.JPG")
        (pictures / f"._{NFD}.JPG").write_bytes(b"\0\5\x16\7")
        save_mask(masks / f"{NFD}.png", np.full((6, 9), 8))
        (masks / f"{NFD}.png").rename(masks / f"{NFD}.PNG")
        assert root.is_dir()
    (mine / "labels.csv").write_text("café.jpeg,cat\n".replace("jpeg", "jpg"), encoding="utf-8")
    (voc / "ImageSets/Segmentation/val.txt").write_text("café.jpg,1\n", encoding="utf-8")
    for data in (folder_data(mine), open_data("voc", root=voc, split="val", labels="masks")):
        (entry,) = data.entries
        assert entry.names() == ("cat",) and (entry.sample(truth=True).truth == 8).all(), data.name
        save_mask(tmp_path / "made" / "CAFÉ.png", np.full((6, 9), 8), is_pseudo=True)
        assert evaluate_masks(tmp_path / "made", data).stages["sure"].miou == 1


def test_what_is_left_aside_is_named(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        save_image(tmp_path / name, PICTURE)
    for name in ("c.heic", "d.TIFF", "notes.txt", ".e.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "labels.csv").write_text("a.jpg,cat")
    assert folder_data(tmp_path).notes == (
        "2 pictures are left aside, of a kind that is not read: c.heic, d.TIFF",
        "1 picture is left aside, not in the list: b.jpg",
    )
