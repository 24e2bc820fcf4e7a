"""A folder of one's own: pictures, labels.csv, masks, classes.txt."""

import numpy as np
import pytest
from PIL import Image

from kit.data import DataError, folder_data, open_data
from kit.images import save_image, save_mask
from kit.words import COCO_CLASSES, VOC_CLASSES

PICTURE = np.full((5, 7, 3), 90, np.uint8)


def folder(root, csv, *files, classes=None, masks=()):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        save_image(root / file, PICTURE)
    for name, label in masks:
        (root / "masks").mkdir(exist_ok=True)
        save_mask(root / "masks" / name, np.full((5, 7), label))
    if csv is not None:
        (root / "labels.csv").write_text(csv, newline="")
    if classes is not None:
        (root / "classes.txt").write_text(classes)
    return root


def read(root, **options):
    return open_data("folder", root=root, **options)


def test_a_folder_is_read_in_the_order_of_its_list(tmp_path):
    root = folder(
        tmp_path / "mine", '\ufefffile,classes\r\nb.jpg,cat;sofa\r\n\r\na.png,"dog, cat"\r\nc.jpg,\r\n', "a.png", "b.jpg", "c.jpg", "d.jpg"
    )
    data = read(root)
    assert (data.name, data.split, data.labels_from, data.refused) == ("folder", "mine", "labels.csv", ())
    assert [(entry.id, entry.names()) for entry in data.entries] == [("b", ("cat", "sofa")), ("a", ("dog", "cat")), ("c", ())]
    assert data.entries[0].size() == (5, 7) and data.entries[0].truth is None and not data.has_truth
    assert data.entries[0].sample().image.shape == (5, 7, 3)
    assert len(read(root, count=2)) == 2


@pytest.mark.parametrize(
    ("csv", "classes", "expected"),
    [
        ("a.jpg,cat;dog", None, VOC_CLASSES),
        ("a.jpg,cat;traffic light", None, COCO_CLASSES),
        ("a.jpg,wheel;cat;axle", None, ("wheel", "cat", "axle")),
        ("a.jpg,wheel", "axle\n\nwheel\r\n", ("axle", "wheel")),
        ("a.jpg,1", "background\naxle\nwheel\n", ("axle", "wheel")),
        ("a.jpg,cat;wombat", None, ("cat", "wombat")),
        ("a.jpg,wheel;cot;cat", None, ("wheel", "cot", "cat")),
        ("a.jpg,cat;dgo", "dgo\ncat", ("dgo", "cat")),
    ],
)
def test_the_order_of_the_classes(tmp_path, csv, classes, expected):
    assert read(folder(tmp_path, csv, "a.jpg", classes=classes)).classes == expected


@pytest.mark.parametrize("place", ["masks", "SegmentationClass"])
def test_masks_are_the_truth(tmp_path, place):
    folder(tmp_path, "a/b.jpg,wheel\nc.jpg,axle", "a/b.jpg", "c.jpg", classes="wheel\naxle", masks=[("a_b.png", 1)])
    (tmp_path / "masks").rename(tmp_path / place)
    first, second = read(tmp_path).entries
    assert first.id == "a_b" and (first.sample(truth=True).truth == 1).all() and second.truth is None
    save_mask(tmp_path / place / "a_b.png", np.full((5, 7), 3))
    with pytest.raises(DataError, match="a_b.png: expected labels 0..2 and 255, got 3"):
        first.truth()


@pytest.mark.parametrize(
    ("csv", "told"),
    [
        ("a.jpg,cat\nb.jpg,dog;sofaa", "labels.csv, line 2: 'sofaa' is no class of VOC.*is 'sofa': correct the name, or write classes.txt"),
        ("a.jpg,Persom;cat\nb.jpg,dog", "line 1: 'Persom' is no class of VOC.*nearest is 'person'"),
        ("b.jpg,cat;toaster\na.jpg,trafic light", "line 2: 'trafic light' is no class of COCO.*nearest is 'traffic light'"),
    ],
)
def test_a_misspelt_class_does_not_number_all_of_them_anew(tmp_path, csv, told):
    folder(tmp_path, csv, "a.jpg", "b.jpg")
    with pytest.raises(DataError, match=told):
        read(tmp_path)
    mine = ("toaster", "Persom", "trafic light", "sofaa", "dog", "cat")
    (tmp_path / "classes.txt").write_text("\n".join(mine))
    assert read(tmp_path).classes == mine


def test_names_are_the_classes_whatever_their_case_and_hyphens(tmp_path):
    folder(tmp_path, "a.jpg,Person;TV-monitor\nb.jpg,DOG", "a.jpg", "b.jpg")
    data = read(tmp_path)
    assert data.classes == VOC_CLASSES and [entry.names() for entry in data.entries] == [("person", "tvmonitor"), ("dog",)]
    folder(tmp_path, "a.jpg,Red Panda;wombat\nb.jpg,red_panda,Wombat", "a.jpg", "b.jpg")
    data = read(tmp_path)
    assert data.classes == ("Red Panda", "wombat") and data.entries[1].names() == ("Red Panda", "wombat")
    (tmp_path / "classes.txt").write_text("RED PANDA\nWombat")
    assert read(tmp_path).entries[0].names() == ("RED PANDA", "Wombat")


def test_masks_need_known_numbers(tmp_path):
    folder(tmp_path, "a.jpg,cat;dgo", "a.jpg", masks=[("a.png", 8)])
    with pytest.raises(DataError, match="classes.txt: there is no such file, but only it can say what the numbers in masks mean"):
        read(tmp_path)
    (tmp_path / "labels.csv").write_text("a.jpg,cat;dog")
    assert read(tmp_path).classes == VOC_CLASSES
    (tmp_path / "labels.csv").write_text("a.jpg,wombat")
    (tmp_path / "masks/a.png").unlink()
    assert read(tmp_path).classes == ("wombat",)


def test_labels_from_masks(tmp_path):
    folder(tmp_path, None, "a.jpg", "b.jpg", classes="axle\nwheel", masks=[("a.png", 2), ("b.png", 255)])
    data = read(tmp_path, labels="masks")
    assert [(entry.id, entry.names()) for entry in data.entries] == [("a", ("wheel",)), ("b", ())]
    assert data.labels_from == "the truth masks" and data.has_truth
    (tmp_path / "masks/b.png").unlink()
    with pytest.raises(DataError, match="b.jpg: there is no mask"):
        read(tmp_path, labels="masks")
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match="classes.txt: there is no such file"):
        read(tmp_path, labels="masks")


def test_another_list(tmp_path):
    folder(tmp_path, "a.jpg,axle", "a.jpg", "sub/b.jpg", classes="axle\nwheel")
    (tmp_path / "other.json").write_text('{"sub/b.jpg": [1], "a": ["wheel"]}')
    data = read(tmp_path, labels=tmp_path / "other.json")
    assert [(entry.id, entry.names()) for entry in data.entries] == [("sub_b", ("wheel",)), ("a", ("wheel",))]
    assert data.labels_from == str(tmp_path / "other.json")
    np.save(tmp_path / "other.npy", np.array([[1, 0], [1, 1]]))
    data = read(tmp_path, labels=tmp_path / "other.npy")
    assert [(entry.id, entry.names()) for entry in data.entries] == [("a", ("axle",)), ("sub_b", ("axle", "wheel"))]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("../b.jpg,dog", "'../b.jpg' is no file within"),
        ("..\\b.jpg,dog", "is no file within"),
        ("/etc/passwd,dog", "'/etc/passwd' is no file within"),
        ("C:\\b.jpg,dog", "is no file within"),
        ("sub/../../b.jpg,dog", "is no file within"),
        ("b\0.jpg,dog", "is no file within"),
        ("none.jpg,dog", "none.jpg: there is no such picture, though .*labels.csv names it"),
        ("a.jpg,dog", "labels.csv, line 4: a.jpg stands twice"),
        ("a,dog", "a.jpg: its mask would have the same name as that of a.jpg"),
        ("x/y.jpg,dog", "same name as that of x_y.jpg"),
        ("A.png,dog", "same name as that of a.jpg"),
        ("b.jpg,dgo", "line 4: 'dgo' is no class of this data set .*'dog'"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path, line, told):
    folder(
        tmp_path,
        f"a.jpg,dog\nx_y.jpg,cat\nc.jpg,cat\n{line}\n",
        "a.jpg",
        "A.png",
        "b.jpg",
        "c.jpg",
        "x_y.jpg",
        "x/y.jpg",
        classes="cat\ndog",
    )
    with pytest.raises(DataError, match=told):
        read(tmp_path)
    data = read(tmp_path, skip_bad=True)
    assert [entry.id for entry in data.entries] == ["a", "x_y", "c"] and len(data.refused) == 1


@pytest.mark.parametrize(
    ("csv", "classes", "told"),
    [
        (None, None, r"labels.csv: there is no such list; the kit reads a folder with pictures and labels.csv, a line for each"),
        ("", None, "its list is empty"),
        ("a.jpg,1", None, "numbers for classes, and no classes.txt names them"),
        ("a.jpg,cat", "cat\ncat", "classes.txt: expected 1 to 254 classes, each once"),
        ("a.jpg,cat", "", "classes.txt: expected 1 to 254"),
        ("a.jpg," + ";".join(f"class {number}" for number in range(255)), None, "at most 254 classes, got 255"),
    ],
)
def test_folders_that_are_not_ready(tmp_path, csv, classes, told):
    with pytest.raises(DataError, match=told):
        read(folder(tmp_path, csv, "a.jpg", classes=classes))


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match="none: there is no such folder"):
        read(tmp_path / "none")


def test_names_given_stand_in_place_of_a_list(tmp_path):
    data = folder_data(folder(tmp_path, None, "a.png", "b.png"), names={"b.png": ["sofa"], "a.png": ["dog", "unicorn"]})
    assert [(entry.id, entry.names()) for entry in data.entries] == [("b", ("sofa",)), ("a", ("dog", "unicorn"))]
    assert data.classes == ("sofa", "dog", "unicorn") and data.labels_from == "the names given"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"names": {}}, "got {}"),
        ({"names": ["dog"]}, r"\['dog'\]; give each picture its classes"),
        ({"names": {"a.png": "dog"}}, "the names of a.png as a list"),
        ({"names": {"c.png": ["dog"]}}, "c.png: there is no such picture"),
        ({"names": {"a.png": ["dog"]}, "labels": "masks"}, "got both"),
    ],
)
def test_names_that_cannot_be_used_are_told(tmp_path, options, told):
    with pytest.raises(DataError, match=told):
        folder_data(folder(tmp_path, None, "a.png", "b.png"), **options)


@pytest.mark.parametrize(
    "classes",
    [
        "axle\nwheel",
        "background\naxle\nwheel",
        "__ignore__\n_background_\naxle\nwheel\n",  # labelme's
        "0 background\n1 axle\n2 wheel",
        "1: axle\n2: wheel",
        "0, background\n1, axle\n2, wheel",
        "1\taxle\n2\twheel\n",
        "\ufeffBackground\r\naxle\r\nwheel\r\n",
    ],
)
def test_the_first_class_is_label_1_however_other_tools_write_it(tmp_path, classes):
    root = folder(tmp_path, "a.jpg,wheel", "a.jpg", classes=classes, masks=[("a.png", 2)])
    assert read(root).classes == ("axle", "wheel") and read(root, labels="masks").entries[0].names() == ("wheel",)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ("0 axle\n1 wheel", "its lines are numbered 0, 1..., but a mask has 0 for background"),
        ("1 axle\n3 wheel", "number them from 1 without gaps"),
        ("1 axle\nwheel", "'1 axle' begins with a number and other lines do not"),
        ("axle\nbackground\nwheel", "'background' is no class"),
        ("__ignore__\naxle\nwheel", "'__ignore__' on top would make every label one too high"),
        ("axle\nvoid", "'void' is no class"),
        ("class_name\naxle", "'class_name' looks like a heading"),
        ("['axle', 'wheel']", "is no class name, for it has '\\['"),
        ("axle,wheel", "is no class name, for it has ','"),
        ("version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
    ],
)
def test_a_list_of_classes_that_would_shift_the_labels_is_refused(tmp_path, classes, told):
    with pytest.raises(DataError, match=f"classes.txt: .*{told}"):
        read(folder(tmp_path, "a.jpg,wheel", "a.jpg", classes=classes))


def turned(root, orientation, size):
    """A photograph as a camera saves one that was held on its side, and a mask of this size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PICTURE).save(root / "a.jpg", exif=exif)
    (root / "masks").mkdir(exist_ok=True)
    save_mask(root / "masks/a.png", np.full(size, 8))
    (root / "labels.csv").write_text("a.jpg,cat")
    return read(root).entries[0]


def test_masks_of_pictures_that_a_camera_turned(tmp_path):
    assert turned(tmp_path, 6, (7, 5)).sample(truth=True).truth.shape == (7, 5)  # drawn over the picture as it is shown
    with pytest.raises(DataError, match="EXIF orientation 6: its truth has 5 x 7 pixels, its picture 7 x 5; save the picture upright"):
        turned(tmp_path, 6, (5, 7)).sample(truth=True)  # drawn over the picture as it is saved
    upside_down = turned(tmp_path, 3, (5, 7)).sample(truth=True)  # either, nobody can see which: it is said
    assert upside_down.notes and "EXIF" in upside_down.notes[0]
    assert turned(tmp_path, 1, (5, 7)).sample(truth=True).notes == ()
