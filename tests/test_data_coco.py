"""COCO 2014's folders, built small: labels from the instances, masks that are shipped and masks that are painted."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from kit.data import DataError, open_data
from kit.images import save_image, save_mask
from kit.words import COCO_CLASSES

# pycocotools 2.0 and numpy 2: told to developers only
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATEGORY_IDS = [id for id in range(1, 91) if id not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
CATEGORIES = [{"id": id, "name": name, "supercategory": ""} for id, name in zip(CATEGORY_IDS, COCO_CLASSES, strict=True)]
IDS = [f"COCO_val2014_{number:012d}" for number in (42, 7, 100)]
ROWS, COLUMNS = 6, 8
STOP_SIGN, TOOTHBRUSH, PERSON = 13, 90, 1  # category ids; the labels are 12, 80 and 1


def square(top, left, bottom, right):
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number, image, category, segmentation, area, crowd=0):
    fields = {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation}
    return fields | {"area": area, "bbox": [0, 0, 1, 1], "iscrowd": crowd}


def instances(**changes):
    return {
        "info": {},
        "licenses": [],
        "images": [{"id": int(id[-12:]), "file_name": f"{id}.jpg", "height": ROWS, "width": COLUMNS} for id in IDS],
        "annotations": [
            annotation(1, 42, TOOTHBRUSH, square(2, 2, 4, 4), 4),
            annotation(2, 42, STOP_SIGN, square(1, 1, 5, 6), 20),
            annotation(3, 42, PERSON, {"size": [ROWS, COLUMNS], "counts": [0, ROWS * COLUMNS]}, 1, crowd=1),
            annotation(4, 7, PERSON, {"size": [ROWS, COLUMNS], "counts": [6, 3, 39]}, 3),
        ],
        "categories": CATEGORIES,
    } | changes


def write(root, content):
    (root / "annotations/instances_val2014.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "val2014").mkdir()
    (tmp_path / "annotations").mkdir()
    for id in IDS:
        save_image(tmp_path / "val2014" / f"{id}.jpg", np.full((ROWS, COLUMNS, 3), 90, np.uint8))
    write(tmp_path, instances())
    return tmp_path


def ids(data):
    return [entry.id for entry in data.entries]


def test_the_instances_say_what_is_in_a_picture(root, capsys):
    data = open_data("coco", root=root, split="val")
    assert (data.name, data.split, data.classes, data.has_truth) == ("coco", "val", COCO_CLASSES, True)
    assert ids(data) == sorted(IDS[:2])  # the third has no objects
    assert data.labels_from == "instances_val2014.json (crowds included; pictures without objects left out: 1)"
    seven, forty_two = (entry.sample(truth=True) for entry in data.entries)
    assert forty_two.names == ("person", "stop sign", "toothbrush") and seven.names == ("person",)
    assert data.entries[0].size() == (ROWS, COLUMNS)
    assert capsys.readouterr().out == ""


def test_what_is_small_is_painted_over_what_is_large_and_crowds_lie_below(root):
    seven, forty_two = (entry.truth() for entry in open_data("coco", root=root, split="val2014").entries)
    expected = np.ones((ROWS, COLUMNS), np.uint8)
    expected[1:5, 1:6] = COCO_CLASSES.index("stop sign") + 1
    expected[2:4, 2:4] = 80
    assert np.array_equal(forty_two, expected)
    assert np.array_equal(np.argwhere(seven == 1), [[0, 1], [1, 1], [2, 1]])  # run lengths go down the columns


def test_masks_that_are_shipped_come_first(root):
    (root / "SegmentationClass").mkdir()
    shipped = np.full((ROWS, COLUMNS), 255, np.uint8)
    shipped[0] = 80
    save_mask(root / "SegmentationClass" / f"{IDS[0]}.png", shipped)
    data = open_data("coco", root=root, split="val")
    assert np.array_equal(data.entries[1].truth(), shipped) and data.entries[0].truth is None
    (root / "SegmentationClass" / f"{IDS[0]}.png").rename(root / "SegmentationClass" / "COCO_train2014_000000000042.png")
    assert open_data("coco", root=root, split="val").has_truth  # those of another split do not count


def test_masks_in_category_ids_are_refused(root):
    (root / "SegmentationClass").mkdir()
    save_mask(root / "SegmentationClass" / f"{IDS[0]}.png", np.full((ROWS, COLUMNS), STOP_SIGN))
    (entry,) = [entry for entry in open_data("coco", root=root, split="val").entries if entry.id == IDS[0]]
    with pytest.raises(DataError, match=f"{IDS[0]}.png: its labels are COCO's category ids"):
        entry.truth()


def test_a_list_restricts_the_split(root):
    (root / "val.txt").write_text(f"{IDS[2]}\n{IDS[0]}.jpg 0 11 79\n")
    data = open_data("coco", root=root, split="val")
    assert ids(data) == [IDS[2], IDS[0]] and data.entries[0].names() == ()
    (root / "val.txt").write_text(f"{IDS[2]}\nCOCO_val2014_000000000001\n")
    with pytest.raises(DataError, match="no picture COCO_val2014_000000000001"):
        open_data("coco", root=root, split="val")
    assert len(open_data("coco", root=root, split="val", skip_bad=True).refused) == 1


def test_labels_from_masks_and_lists(root, tmp_path):
    data = open_data("coco", root=root, split="val", labels="masks")
    assert data.entries[1].names() == ("person", "stop sign", "toothbrush")
    assert data.labels_from == "the truth masks; pictures without objects left out: 1"
    (tmp_path / "mine.txt").write_text("7 0 11\n000000000042 2")
    data = open_data("coco", root=root, split="val", labels=tmp_path / "mine.txt")
    assert [entry.names() for entry in data.entries] == [("person", "stop sign"), ("car",)]


def test_the_other_place_for_pictures(root):
    (root / "images").mkdir()
    (root / "val2014").rename(root / "images" / "val2014")
    assert len(open_data("coco", root=root, split="val")) == 2


def test_grey_pictures_are_coloured_and_missing_ones_are_named(root):
    Image.fromarray(np.full((ROWS, COLUMNS), 200, np.uint8)).save(root / "val2014" / f"{IDS[1]}.jpg")
    (root / "val2014" / f"{IDS[0]}.jpg").unlink()
    with pytest.raises(DataError, match=f"{IDS[0]}.jpg: there is no such file"):
        open_data("coco", root=root, split="val")
    data = open_data("coco", root=root, split="val", skip_bad=True)
    assert ids(data) == [IDS[1]] and data.refused[0][0] == IDS[0]
    assert data.entries[0].sample(truth=True).image.shape == (ROWS, COLUMNS, 3)


def test_where_the_data_comes_from(root, tmp_path):
    for call, told in (
        ({"root": root}, "expected the folder train2014 there; val2014 is there: --split val; .*annotations_trainval2014.zip"),
        ({"root": tmp_path / "none", "split": "val"}, "expected the folder val2014 there; MS COCO"),
        ({"root": root, "split": "test"}, "train, val, got 'test'"),
    ):
        with pytest.raises(DataError, match=told):
            open_data("coco", **call)
    (root / "annotations/instances_val2014.json").unlink()
    with pytest.raises(DataError, match="expected annotations/instances_val2014.json there"):
        open_data("coco", root=root, split="val")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"categories": CATEGORIES[:3]}, "expected COCO's 80 categories, got 3 categories"),
        ({"categories": [*CATEGORIES[:79], {"id": 90, "name": "comb"}]}, "'comb' instead of 'toothbrush'"),
        ({"categories": None}, "no instances file"),
        ({"images": [{"id": 42}]}, "no instances file"),
        ({"images": [{"id": 42, "file_name": 3, "height": 2, "width": 2}]}, "no instances file"),
        ({"annotations": [annotation(9, 5, 1, [], 1)]}, "annotation 9 belongs to no picture or category"),
        ({"annotations": [annotation(9, 42, 12, [], 1)]}, "annotation 9 belongs to no picture or category"),
        ({"annotations": [{"id": 1}]}, "no instances file"),
    ],
)
def test_other_files_than_cocos(root, changes, told):
    write(root, instances(**changes))
    with pytest.raises(DataError, match=f"instances_val2014.json: .*{told}"):
        open_data("coco", root=root, split="val")


@pytest.mark.parametrize("text", ["", "[]", "3", "[" * 100_000])
def test_a_file_that_is_no_json_of_coco(root, text):
    (root / "annotations/instances_val2014.json").write_text(text)
    with pytest.raises(DataError, match="no instances file" if text else "the file is empty"):
        open_data("coco", root=root, split="val")


@pytest.mark.parametrize(
    "outline",
    [
        {"size": [COLUMNS, ROWS], "counts": [0, ROWS * COLUMNS]},
        {"size": [ROWS, COLUMNS], "counts": [0, ROWS * COLUMNS + 1]},
        {"size": [ROWS, COLUMNS], "counts": None},
        {"size": [ROWS, COLUMNS]},
        [["a", "b"]],
        None,
        "outline",
    ],
)
def test_outlines_that_do_not_fit(root, outline):
    write(root, instances(annotations=[annotation(8, 42, 1, outline, 4)]))
    (entry,) = open_data("coco", root=root, split="val").entries
    with pytest.raises(DataError, match="annotation 8 of picture 42"):
        entry.truth()


@pytest.mark.parametrize(
    ("outline", "told"),
    [
        ([[0, 0, 1e9, 0, 1e9, 1e9]], r"its outline has 1e\+09, far outside the picture"),
        ([[0, 0, float("nan"), 0, 4, 4]], "its outline has nan"),
        ([[0, 0, 4, 0, 4, float("-inf")]], "its outline has -inf"),
        ([[0, 0, 4, 0, 4]], "at least three points"),
        ([[0, 0, 4, 0]], "at least three points"),
        ([[0, 0, True, 0, 4, 4]], "at least three points"),
        ([3], "expected polygons as lists"),
        ([], "an empty outline, which makes no truth"),
        ({"size": [ROWS, COLUMNS], "counts": [ROWS * COLUMNS + 4, -4]}, "its run lengths are not those of 6 x 8"),
        ({"size": [ROWS, COLUMNS], "counts": "~~~~~~~~"}, "its run lengths"),
        ({"size": [ROWS, COLUMNS], "counts": "PPPPPPPPPPPP1"}, "its run lengths"),
        ({"size": [10**9, 10**9], "counts": [0, 10**18]}, "its run lengths"),
    ],
)
def test_numbers_never_reach_native_code_unchecked(root, monkeypatch, outline, told):
    write(root, instances(annotations=[annotation(8, 42, 1, outline, 4)]))
    (entry,) = open_data("coco", root=root, split="val").entries
    monkeypatch.setattr("pycocotools.mask.frPyObjects", lambda *_: pytest.fail("native code was asked"))
    with pytest.raises(DataError, match=f"annotation 8 of picture 42.*{told}"):
        entry.truth()


def test_an_outline_may_end_a_little_outside_and_compressed_lengths_are_read(root):
    compressed = coco_mask.encode(np.asfortranarray(np.eye(ROWS, COLUMNS, dtype=np.uint8)))["counts"].decode()
    marks = [annotation(8, 42, 1, square(-1, -1, 3, 4), 4), annotation(9, 7, 1, {"size": [ROWS, COLUMNS], "counts": compressed}, 4)]
    write(root, instances(annotations=marks))
    seven, forty_two = (entry.truth() for entry in open_data("coco", root=root, split="val").entries)
    assert forty_two[:3, :4].all() and forty_two.sum() == 12 and np.array_equal(seven, np.eye(ROWS, COLUMNS))


def test_files_of_other_tools_leave_out_the_area_or_the_outline(root):
    marks = [annotation(1, 42, PERSON, square(0, 0, 6, 8), 0), annotation(2, 42, STOP_SIGN, square(1, 1, 5, 6), 0)]
    for mark in marks:
        del mark["area"]
    box = annotation(3, 7, PERSON, None, 1)
    del box["segmentation"]
    write(root, instances(annotations=[*marks[::-1], box]))
    seven, forty_two = open_data("coco", root=root, split="val").entries
    assert forty_two.truth()[3, 3] == 12 and forty_two.truth()[0, 0] == 1  # the smaller lies above, counted by pixels
    assert seven.names() == ("person",)
    with pytest.raises(DataError, match="annotation 3 of picture 7 has a box and no outline.*or generate masks from the labels alone"):
        seven.truth()


@pytest.mark.parametrize("size", [{"height": 10**9}, {"width": "8"}, {"height": 0}, {"height": 60_000, "width": 60_000}])
def test_a_picture_of_a_size_that_none_has(root, size):
    content = instances()
    content["images"][0] |= size
    write(root, content)
    with pytest.raises(DataError, match="annotation 1 belongs to no picture or category"):
        open_data("coco", root=root, split="val")


@pytest.mark.parametrize("area", [float("nan"), float("inf"), -1, "4"])
def test_an_area_that_is_no_number(root, area):
    write(root, instances(annotations=[annotation(8, 42, 1, square(0, 0, 2, 2), area)]))
    with pytest.raises(DataError, match="or its area is no number"):
        open_data("coco", root=root, split="val")


def test_a_picture_that_a_camera_turned_does_not_fit_its_outlines(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((ROWS, COLUMNS, 3), 90, np.uint8)).save(root / "val2014" / f"{IDS[0]}.jpg", exif=exif)
    entry = next(entry for entry in open_data("coco", root=root, split="val").entries if entry.id == IDS[0])
    with pytest.raises(DataError, match=f"EXIF orientation 6: its truth has {ROWS} x {COLUMNS} pixels, its picture {COLUMNS} x {ROWS}"):
        entry.sample(truth=True)
