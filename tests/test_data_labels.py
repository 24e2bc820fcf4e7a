"""Labels from masks and from lists, with nothing in a list that can do harm."""

import io
import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kit.data.dataset import DataError
from kit.data.labels import LabelList, key_of, names_in, read_truth
from kit.images import PALETTE, ImageError, save_image, save_mask
from kit.words import COCO_CLASSES, VOC_CLASSES

IDS = ["2007_000032", "2007_000039"]


def written(path, text, **options):
    path.write_bytes(text.encode(**options))
    return path


def listed(path, *spellings, classes=VOC_CLASSES):
    return LabelList.read(path, classes, ids=IDS).names(*spellings)


@pytest.mark.parametrize(
    "line",
    [
        "2007_000032,cat;sofa",
        "2007_000032,cat,sofa",
        '2007_000032,"cat, sofa"',
        '"2007_000032.jpg", cat; sofa ',
        "2007_000032;cat;sofa",
        "2007_000032 cat sofa",
        "2007_000032 7 17",
        "2007_000032,7;17",
        "2007_000032,cat sofa",
        "JPEGImages/2007_000032.jpg,cat;sofa;cat",
        "\\JPEGImages\\2007_000032.JPG,cat;;sofa",
    ],
)
@pytest.mark.parametrize("header", ["", "file,classes\n", "Image,Labels\r\n", "\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_ways_to_write_a_csv(line, header, encoding, tmp_path):
    path = written(tmp_path / "list.csv", f"{header}{line}\r\n2007_000039\r\n", encoding=encoding)
    assert listed(path, "2007_000032") == ("cat", "sofa")
    assert listed(path, "2007_000039") == ()


def test_class_names_of_two_words(tmp_path):
    path = written(tmp_path / "list.txt", "2007_000032,traffic light;dining table\n2007_000039 9 60")
    assert listed(path, IDS[0], classes=COCO_CLASSES) == ("traffic light", "dining table")
    assert listed(path, IDS[1], classes=COCO_CLASSES) == ("traffic light", "dining table")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("2007_000032,cat;sofer", r"list.csv, line 1: 'sofer' is no class .*nearest is 'sofa'"),
        ("2007_000032,20", r"line 1: expected the number of a class, 0..19, got 20"),
        ("2007_000032,0,0,1,0", "line 1: a class number stands there twice"),
        ("2007_000032,-1", "'-1' is no class"),
        ("2007_000032,cat\n2007_000032,dog", "line 2: 2007_000032 stands there a second time"),
        ("2007_000039,cat", "2007_000032 is not in this list"),
        ("", "2007_000032 is not in this list"),
        (",cat", "line 1: the name of the picture is missing"),
        ("2007_000032," + "x" * 200_000, "no CSV"),
    ],
)
def test_rows_that_cannot_be_used_are_named(line, told, tmp_path):
    with pytest.raises(DataError, match=told):
        listed(written(tmp_path / "list.csv", line), "2007_000032")


def test_a_bad_row_does_not_spoil_the_others(tmp_path):
    path = written(tmp_path / "list.csv", "2007_000032,unicorn\n2007_000039,dog")
    assert listed(path, IDS[1]) == ("dog",)


def test_json(tmp_path):
    path = written(tmp_path / "list.json", json.dumps({"2007_000032.jpg": ["sofa", 7], "2007_000039": []}))
    assert listed(path, IDS[0]) == ("sofa", "cat") and listed(path, IDS[1]) == ()


@pytest.mark.parametrize(
    "text", ["[1, 2]", "{", '{"2007_000032": "cat"}', '{"2007_000032": [true]}', '{"2007_000032": [[1]]}', "[" * 100_000]
)
def test_json_that_is_no_list_of_labels(text, tmp_path):
    with pytest.raises(DataError, match="list.json"):
        listed(written(tmp_path / "list.json", text), IDS[0])


def test_files_that_are_no_list(tmp_path):
    for path, told in (
        (tmp_path / "none.csv", "cannot be read"),
        (written(tmp_path / "list.docx", "x"), "ends in .csv"),
        (written(tmp_path / "list.csv", "2007_000032,caté", encoding="latin-1"), "UTF-8"),
        (tmp_path / "none.npy", "cannot be read"),
        (written(tmp_path / "text.npy", "2007_000032 cat"), "text.npy: expected a plain array"),
    ):
        with pytest.raises(DataError, match=told):
            listed(path, IDS[0])


@given(st.text(max_size=60), st.sampled_from(["csv", "json"]))
@settings(deadline=None, max_examples=150)
def test_any_text_gives_labels_or_a_sentence(tmp_path_factory, text, ending):
    path = tmp_path_factory.mktemp("lists") / f"list.{ending}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        listed(path, IDS[0])
    except DataError as error:
        assert str(path) in str(error)


def test_names_without_the_ending_of_a_picture():
    assert [key_of(name) for name in ("a/b.JPG", "a\\b.png", "./b", " v1.2 ", "v1.2.webp", "jpg")] == [
        "a/b",
        "a/b",
        "b",
        "v1.2",
        "v1.2",
        "jpg",
    ]


TABLE = np.zeros((2, 20), np.float32)
TABLE[0, [7, 17]] = 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_, ">f4"])
@pytest.mark.parametrize("keys", [IDS, [2007000032, 2007000039], [np.int32(2007000032), np.int32(2007000039)], [np.str_(id) for id in IDS]])
def test_the_customary_dict(dtype, keys, tmp_path):
    np.save(tmp_path / "cls_labels.npy", dict(zip(keys, TABLE.astype(dtype), strict=True)))
    assert listed(tmp_path / "cls_labels.npy", IDS[0], "2007000032") == ("cat", "sofa")
    assert listed(tmp_path / "cls_labels.npy", IDS[1], "2007000039") == ()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_dicts_of_older_pickles(protocol, tmp_path):
    np.save(tmp_path / "empty.npy", {})
    header = (tmp_path / "empty.npy").read_bytes()[:128]  # the magic and a header of 128 bytes in all
    content = np.array(dict(zip(IDS, TABLE, strict=True)))
    (tmp_path / "list.npy").write_bytes(header + pickle.dumps(content, protocol))
    assert listed(tmp_path / "list.npy", IDS[0]) == ("cat", "sofa")


def test_a_plain_array_in_the_order_of_the_list(tmp_path):
    np.save(tmp_path / "list.npy", TABLE.astype(np.uint8))
    assert listed(tmp_path / "list.npy", IDS[0]) == ("cat", "sofa") and listed(tmp_path / "list.npy", IDS[1]) == ()


class Harmful:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        lambda proof: {IDS[0]: Harmful(os.mkdir, (proof,))},
        lambda proof: {Harmful(os.mkdir, (proof,)): TABLE[0]},
        lambda proof: [Harmful(eval, (f"__import__('os').mkdir({proof!r})",))],
        lambda proof: {IDS[0]: Harmful(getattr, (np.ndarray, "tofile"))},
        lambda proof: {IDS[0]: Harmful(io.open, (proof, "w"))},
    ],
)
def test_a_pickle_that_would_run_something_is_refused(content, tmp_path):
    proof = tmp_path / "it_ran"
    np.save(tmp_path / "list.npy", np.array(content(str(proof)), object), allow_pickle=True)
    with pytest.raises(DataError, match=r"list.npy: .*others can run programs; it asks for "):
        listed(tmp_path / "list.npy", IDS[0])
    assert not proof.exists()
    np.load(tmp_path / "list.npy", allow_pickle=True)  # the control: numpy's own reader runs it
    assert proof.exists() or "getattr" in str(content("")[IDS[0]].call)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({IDS[0]: TABLE[0, :19]}, "expected 20 values"),
        ({IDS[0]: TABLE[0] / 2}, "each 0 or 1"),
        ({IDS[0]: TABLE[0] * np.nan}, "each 0 or 1"),
        ({IDS[0]: "cat"}, "expected 20 values"),
        ({IDS[0]: np.array([None] * 20)}, "not expected"),
        (TABLE[:1], r"expected an array \(2, 20\), a row a picture, got \(1, 20\)"),
        (np.array([1, "a"], object), "no dict"),
        ({}, "not in this list"),
    ],
)
def test_npy_files_of_something_else(content, told, tmp_path):
    np.save(tmp_path / "list.npy", content, allow_pickle=True)
    with pytest.raises(DataError, match=told):
        listed(tmp_path / "list.npy", IDS[0])


def test_an_npy_header_that_promises_too_much(tmp_path):
    np.save(tmp_path / "list.npy", TABLE)
    data = (tmp_path / "list.npy").read_bytes()
    (tmp_path / "list.npy").write_bytes(data.replace(b"(2, 20), }       ", b"(200000000, 20),}"))
    with pytest.raises(DataError, match="cut off"):
        listed(tmp_path / "list.npy", IDS[0])


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6), st.none() | st.integers(0, 600))
@settings(deadline=None, max_examples=150)
def test_damaged_npy_files_give_labels_or_a_sentence(tmp_path_factory, changes, length):
    path = tmp_path_factory.mktemp("lists") / "list.npy"
    np.save(path, dict(zip(IDS, TABLE, strict=True)))
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data[:length])
    try:
        listed(path, IDS[0])
    except DataError as error:
        assert str(path) in str(error)


def test_labels_of_a_mask(tmp_path):
    save_mask(tmp_path / "mask.png", np.array([[0, 20, 255], [8, 0, 20]]))
    assert names_in(tmp_path / "mask.png", VOC_CLASSES) == ("cat", "tvmonitor")
    save_mask(tmp_path / "mask.png", np.array([[0, 255]]))
    assert names_in(tmp_path / "mask.png", VOC_CLASSES) == ()


def test_masks_of_something_else(tmp_path):
    save_mask(tmp_path / "mask.png", np.array([[0, 21, 80, 255]]))
    with pytest.raises(DataError, match=r"mask.png: expected labels 0..20 and 255, got 21, 80"):
        read_truth(tmp_path / "mask.png", VOC_CLASSES)
    save_image(tmp_path / "colours.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ImageError, match="colours.png: expected labels"):
        read_truth(tmp_path / "colours.png", VOC_CLASSES)


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nfile;classes\r\n2007_000032.jpg;cat;sofa\r\n",  # Excel's
        '"sep=;"\n2007_000032;cat;sofa',
        "sep=\t\nfile\tclasses\n2007_000032.jpg\tcat, sofa",
        "file;classes\r\n2007_000032.jpg;cat, sofa\r\n",  # Excel's, where a comma is in numbers
        'file;classes\n2007_000032.jpg;"cat;sofa"',
        "2007_000032.jpg;cat;sofa",
        "2007_000032.jpg|cat|sofa",
        "2007_000032,cat|sofa",
        "filename,width,class,xmin\n2007_000032.jpg,500,cat;sofa,3",  # of detection: only the class counts
        "file,class1,class2,class3\n2007_000032,cat,sofa,",
        "file,labels\n2007_000032,\"['cat', 'sofa']\"",  # pandas' lists
        'file,labels\n2007_000032,"[""cat"", ""sofa""]"',
        "file,labels\n2007_000032,\"('cat', 'sofa')\"",
        "file,label,label2\n2007_000032,7.0,17.0",  # pandas' numbers beside empty cells
        "file,label 1,label 2,label 3\n2007_000032,cat,sofa,nan",
        "file,dog,cat,sofa\n2007_000032,0,1,1\n2007_000039,0,0,0",  # one-hot
    ],
)
def test_lists_that_other_tools_write(text, tmp_path):
    assert listed(written(tmp_path / "list.csv", text), IDS[0]) == ("cat", "sofa")


@pytest.mark.parametrize("cell", ["", "nan", "None", "null", "N/A", "[]", "NaN;"])
def test_an_empty_cell_is_no_class(cell, tmp_path):
    assert listed(written(tmp_path / "list.csv", f"file,classes\n2007_000032,{cell}"), IDS[0]) == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,width,classes\n2007_000032,500,cat,sofa", "line 2: it has more columns than the heading"),
        ("file,dog,cat\n2007_000032,0,2", "its heading names no column of classes"),
        ("file,dog,tiger\n2007_000032,0,1", "'tiger' is no class"),
        ("2007_000032,background", "'background' is no class"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1", "pointer of Git LFS"),
        ("<!DOCTYPE html>\n<html>", "this is a web page"),
    ],
)
def test_lists_that_would_be_misread(text, told, tmp_path):
    with pytest.raises(DataError, match=f"list.csv.*{told}"):
        listed(written(tmp_path / "list.csv", text), IDS[0])


def of_palette(path, labels, order):
    """A palette PNG whose label n has the colour of VOC's number order[n]."""
    picture = Image.fromarray(np.asarray(labels, np.uint8))
    picture.putpalette(PALETTE[[order.get(number, number) for number in range(256)]].tobytes())
    picture.save(path)
    return path


def test_a_palette_in_another_order_than_the_numbers_is_refused(tmp_path):
    labels = [[0, 1, 2, 255]]
    assert read_truth(of_palette(tmp_path / "right.png", labels, {}), VOC_CLASSES).tolist() == labels
    with pytest.raises(DataError, match=r"the label 1 has the colour of 2 \(bicycle\): its palette is in another order than its numbers"):
        read_truth(of_palette(tmp_path / "turned.png", labels, {1: 2, 2: 1}), VOC_CLASSES)
    with pytest.raises(DataError, match=r"the label 1 has the colour of 255 \(not judged\)"):
        read_truth(of_palette(tmp_path / "edge.png", labels, {1: 255}), VOC_CLASSES)
    grey = Image.fromarray(np.asarray(labels, np.uint8))
    grey.save(tmp_path / "grey.png")
    foreign = grey.copy()
    foreign.putpalette([9, 8, 7] * 256)  # no colours of VOC's: they say nothing
    foreign.save(tmp_path / "foreign.png")
    for name in ("grey.png", "foreign.png"):
        assert read_truth(tmp_path / name, VOC_CLASSES).tolist() == labels


def test_what_the_kit_made_is_no_truth(tmp_path):
    save_mask(tmp_path / "drawn.png", np.full((4, 4), 8))
    save_mask(tmp_path / "made.png", np.full((4, 4), 8), is_pseudo=True)
    assert names_in(tmp_path / "drawn.png", VOC_CLASSES) == ("cat",)
    with pytest.raises(DataError, match="made.png: the kit made this mask, it is no truth"):
        read_truth(tmp_path / "made.png", VOC_CLASSES)


def test_masks_of_one_bit(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert read_truth(tmp_path / "a.png", ("cat",)).tolist() == [[1, 0]]
