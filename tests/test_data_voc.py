"""VOC 2012's folders, built small; what is wrong in them is named."""

import numpy as np
import pytest
from PIL import Image

from kit.data import DataError, open_data
from kit.data.voc import xml_names
from kit.images import ImageError, save_image, save_mask
from kit.words import VOC_CLASSES

IDS = ["2007_000032", "2008_000100", "2011_003276"]
TRUTH = np.zeros((6, 9), np.uint8)
TRUTH[1:3] = 8  # cat
TRUTH[4] = 18  # sofa
TRUTH[0] = 255


def xml(*names, extra=""):
    found = "".join(f"<object><name>{name}</name><difficult>1</difficult><part><name>head</name></part></object>" for name in names)
    return f"<annotation><filename>x.jpg</filename>{found}{extra}</annotation>"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for id in IDS:
        save_image(root / "JPEGImages" / f"{id}.jpg", np.full((6, 9, 3), 90, np.uint8))
        save_mask(root / "SegmentationClass" / f"{id}.png", TRUTH)
        (root / "Annotations" / f"{id}.xml").write_text(xml("sofa", "cat", "sofa"))
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(IDS) + "\n")
    (root / "ImageSets/Segmentation/val.txt").write_text(f"{IDS[1]}\r\n")
    return root


def ids(data):
    return [entry.id for entry in data.entries]


def test_a_list_is_read(root):
    data = open_data("voc", root=root)
    assert (data.name, data.split, data.classes, data.refused, data.has_truth) == ("voc", "train", VOC_CLASSES, (), True)
    assert ids(data) == IDS and data.labels_from == "the XML annotations (difficult objects included)"
    sample = data.entries[0].sample(truth=True)
    assert sample.names == ("sofa", "cat") and np.array_equal(sample.truth, TRUTH) and sample.id == IDS[0]
    assert data.entries[0].size() == sample.image.shape[:2] == (6, 9)


def test_split_count_and_parents(root):
    assert ids(open_data("voc", root=root.parent, split="val")) == [IDS[1]]
    assert ids(open_data("voc", root=str(root.parent.parent), count=2)) == IDS[:2]
    assert len(open_data("voc", root=root, count=100)) == 3


def test_labels_from_masks_and_from_a_list(root, tmp_path):
    data = open_data("voc", root=root, labels="masks")
    assert data.entries[0].names() == ("cat", "sofa") and data.labels_from == "the truth masks"
    (tmp_path / "mine.csv").write_text("2007000032,dog\n2008_000100,person;car\n2011_003276\n")
    data = open_data("voc", root=root, labels=tmp_path / "mine.csv")
    assert [entry.names() for entry in data.entries] == [("dog",), ("person", "car"), ()]
    assert data.labels_from == str(tmp_path / "mine.csv")


@pytest.mark.parametrize("name", ["Segmentation/train_aug.txt", "Segmentation/trainaug.txt", "SegmentationAug/train_aug.txt"])
@pytest.mark.parametrize("line", ["{}", "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png"])
def test_train_aug(root, name, line):
    (root / "ImageSets" / name).parent.mkdir(exist_ok=True)
    (root / "ImageSets" / name).write_text("\n".join(line.format(id, id) for id in IDS))
    (root / "SegmentationClassAug").mkdir()
    Image.fromarray(TRUTH % 19).save(root / "SegmentationClassAug" / f"{IDS[0]}.png")  # an index PNG without a palette
    (root / "SegmentationClass" / f"{IDS[2]}.png").unlink()
    data = open_data("voc", root=root, split="train_aug")
    assert ids(data) == IDS and not data.has_truth
    assert np.array_equal(data.entries[0].truth(), TRUTH % 19)
    assert np.array_equal(data.entries[1].truth(), TRUTH)  # the official mask where SBD's is missing
    assert data.entries[2].truth is None and data.entries[2].sample().names == ("sofa", "cat")
    with pytest.raises(DataError, match=f"{IDS[2]} has no truth"):
        data.entries[2].sample(truth=True)
    with pytest.raises(DataError, match=f"{IDS[2]}: there is no mask"):
        open_data("voc", root=root, split="train_aug", labels="masks")


def test_where_the_data_comes_from(root, tmp_path):
    for call, told in (
        ({"root": tmp_path / "none"}, "none: expected the folder VOC2012 with JPEGImages.*VOCtrainval_11-May-2012.tar"),
        (
            {"root": root, "split": "train_aug"},
            "train_aug.txt: there is no such list; it is no part of the official download.*SBD.*Hariharan",
        ),
        ({"root": root, "split": "trainval"}, "trainval.txt: there is no such list; PASCAL.*; train is there: --split train$"),
        ({"root": root, "split": "test"}, "train, val, trainval, train_aug, got 'test'"),
    ):
        with pytest.raises(DataError, match=told):
            open_data("voc", **call)


def damage_picture(root):
    (root / "JPEGImages" / f"{IDS[1]}.jpg").unlink()


def damage_annotation(root):
    (root / "Annotations" / f"{IDS[1]}.xml").unlink()


def damage_list(root):
    (root / "ImageSets/Segmentation/train.txt").write_text(f"{IDS[0]}\n../../{IDS[1]}x\n{IDS[2]}\n")


def repeat_in_list(root):
    (root / "ImageSets/Segmentation/train.txt").write_text(f"{IDS[0]}\n{IDS[0]}\n{IDS[2]}\n")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_picture, f"{IDS[1]}.jpg: there is no such file"),
        (damage_annotation, f"{IDS[1]}.xml: there is no such file"),
        (damage_list, f"{IDS[1]}x.jpg: there is no such file"),
        (repeat_in_list, "stands twice"),
    ],
)
def test_what_is_missing_raises_or_is_counted(root, damage, told):
    damage(root)
    with pytest.raises(DataError, match=told):
        open_data("voc", root=root)
    data = open_data("voc", root=root, skip_bad=True)
    assert ids(data) == [IDS[0], IDS[2]]
    ((_, reason),) = data.refused
    assert told in reason


def test_nothing_left(root):
    for id in IDS:
        (root / "JPEGImages" / f"{id}.jpg").unlink()
    with pytest.raises(DataError, match="no picture is left.*first of 3"):
        open_data("voc", root=root, skip_bad=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("\n")
    with pytest.raises(DataError, match="its list is empty"):
        open_data("voc", root=root)


def test_pictures_of_odd_kinds_and_sizes(root):
    Image.fromarray(np.full((6, 9), 120, np.uint8)).save(root / "JPEGImages" / f"{IDS[0]}.jpg")
    Image.fromarray(np.full((7, 9, 3), 120, np.uint8)).save(root / "JPEGImages" / f"{IDS[1]}.jpg")
    (root / "JPEGImages" / f"{IDS[2]}.jpg").write_bytes(b"no picture")
    data = open_data("voc", root=root)
    grey = data.entries[0].sample(truth=True).image
    assert grey.shape == (6, 9, 3) and (grey[..., 0] == grey[..., 2]).all()
    with pytest.raises(DataError, match=f"{IDS[1]}: its truth has 6 x 9 pixels, its picture 7 x 9"):
        data.entries[1].sample(truth=True)
    with pytest.raises(ImageError, match=f"{IDS[2]}.jpg"):
        data.entries[2].size()
    told = []
    assert len(list(data.samples(truth=True, refuse=lambda id, reason: told.append(id)))) == 1 and told == IDS[1:]


def test_masks_of_odd_kinds(root):
    odd = Image.fromarray(TRUTH)
    odd.putpalette(list(range(255, -1, -1)) * 3)
    odd.save(root / "SegmentationClass" / f"{IDS[0]}.png")
    save_mask(root / "SegmentationClass" / f"{IDS[1]}.png", TRUTH + 40)
    save_image(root / "SegmentationClass" / f"{IDS[2]}.png", np.zeros((6, 9, 3), np.uint8))
    entries = open_data("voc", root=root).entries
    assert np.array_equal(entries[0].truth(), TRUTH)  # the numbers count, not the colours
    with pytest.raises(DataError, match=f"{IDS[1]}.png: expected labels 0..20 and 255"):
        entries[1].truth()
    with pytest.raises(ImageError, match=f"{IDS[2]}.png"):
        entries[2].truth()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (xml("cat", "unicorn"), "'unicorn' is no class"),
        (xml("motorcycle"), "is no class"),
        (xml(""), "'' is no class"),
        ("<annotation><object>", "no readable XML"),
        ("", "the file is empty"),
        ("<html/>", "this is a web page"),
        ("<root/>", "expected an <annotation>"),
        ('<!DOCTYPE a [<!ENTITY b "cat">]><annotation><object><name>&b;</name></object></annotation>', "document type"),
        (xml("cat", extra=" " * 1_000_001), "too long"),
    ],
)
def test_annotations_that_cannot_be_used(text, told, tmp_path):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=f"a.xml: .*{told}"):
        xml_names(tmp_path / "a.xml")


def test_a_document_type_in_another_encoding_is_refused(tmp_path):
    bomb = (
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "cat">]><annotation><object><name>&b;</name></object></annotation>'
    )
    for encoding in ("utf-16", "utf-7"):
        (tmp_path / "a.xml").write_bytes(bomb.replace("utf-16", encoding).encode("utf-16" if encoding == "utf-16" else "ascii"))
        with pytest.raises(DataError, match="a.xml: .*document type"):
            xml_names(tmp_path / "a.xml")
    hidden = bomb[: bomb.index("<!")].replace("utf-16", "utf-7") + "+ADw-!DOCTYPE a+AD4-<annotation/>"
    (tmp_path / "a.xml").write_text(hidden)
    with pytest.raises(DataError, match="a.xml: .*document type"):
        xml_names(tmp_path / "a.xml")


def test_a_picture_without_objects(tmp_path):
    (tmp_path / "a.xml").write_text(xml())
    assert xml_names(tmp_path / "a.xml") == ()


@pytest.mark.parametrize("encoding", ["iso-8859-1", "windows-1252", "utf-16", "utf-8", "shift_jis"])
def test_annotations_in_the_encoding_they_declare(encoding, tmp_path):
    comment = "猫" if encoding == "shift_jis" else "É"
    text = f'<?xml version="1.0" encoding="{encoding}"?><!-- {comment} -->{xml("cat")}'
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert xml_names(tmp_path / "a.xml") == ("cat",)


def test_annotations_in_an_encoding_that_nobody_knows(tmp_path):
    (tmp_path / "a.xml").write_bytes(b'<?xml version="1.0" encoding="klingon"?><annotation/>')
    with pytest.raises(DataError, match="a.xml: .*klingon"):
        xml_names(tmp_path / "a.xml")
