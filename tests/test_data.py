"""Samples check themselves, and the drawn world hands out the same scenes every time."""

from itertools import islice

import numpy as np
import pytest

from kit.data import DataError, DataSet, Entry, Sample, open_data, toy_samples
from kit.data.dataset import collected
from kit.words import VOC_CLASSES

IMAGE, PLANE = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)


def test_a_sample_keeps_what_it_is_given():
    sample = Sample(IMAGE, ("cat", "dining table"), PLANE, PLANE, "val-1")
    assert sample.image is IMAGE and sample.truth is PLANE and sample.names == ("cat", "dining table")
    assert Sample(IMAGE, ()).truth is None
    with pytest.raises(AttributeError):
        sample.names = ()


def test_samples_can_be_kept_in_sets():
    first, second = Sample(IMAGE, ("cat",)), Sample(IMAGE, ("cat",))
    assert len({first, second}) == 2 and first == first and first != second


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"image": PLANE}, r"image uint8 \(H, W, 3\), got uint8 \(4, 6\)"),
        ({"image": IMAGE / 255}, "float64"),
        ({"image": np.zeros((0, 6, 3), np.uint8)}, "image"),
        ({"image": None}, "NoneType"),
        ({"names": "cat"}, "tuple"),
        ({"names": ["cat"]}, "tuple"),
        ({"names": ("cat", "")}, "words"),
        ({"names": (" ",)}, "words"),
        ({"names": ("cat", 3)}, "words"),
        ({"names": ("cat", "dog", "cat")}, "every name once"),
        ({"truth": PLANE.T}, r"truth uint8 \(4, 6\) like the image, got uint8 \(6, 4\)"),
        ({"truth": PLANE.astype(int)}, "int64"),
        ({"truth": [[0]]}, "list"),
        ({"stuff": IMAGE}, "stuff"),
        ({"id": 7}, "id as a string"),
    ],
)
def test_a_sample_refuses_what_does_not_fit(fields, told):
    with pytest.raises(ValueError, match=told):
        Sample(**({"image": IMAGE, "names": ("cat",)} | fields))


def test_scenes_are_numbered_and_named():
    samples = list(toy_samples("val", 6, size=64, start=12))
    assert [sample.id for sample in samples] == [f"val-{number:06d}" for number in range(12, 18)]
    for sample in samples:
        assert sample.image.shape == (64, 64, 3)
        assert sample.stuff is not None
        assert list(sample.names) == sorted(sample.names, key=VOC_CLASSES.index)
        assert sample.names == tuple(VOC_CLASSES[label - 1] for label in np.unique(sample.truth) if 0 < label < 255)


def test_a_scene_does_not_depend_on_where_one_starts():
    (third,) = toy_samples("train", 1, size=48, start=2)
    again = list(toy_samples("train", 3, size=48))[2]
    assert third.id == again.id and np.array_equal(third.image, again.image) and np.array_equal(third.truth, again.truth)


def test_splits_differ_and_web_is_the_web_world():
    from kit.toy.scene import draw, split_seed

    first = {split: next(toy_samples(split, 1, size=48)) for split in ("train", "val", "held_out", "web")}
    assert len({sample.image.tobytes() for sample in first.values()}) == 4
    assert np.array_equal(first["web"].image, draw(split_seed("web", 0), size=48, world="web").image)


def test_any_size_in_rows_and_columns():
    (sample,) = toy_samples("val", 1, size=(48, 64))
    assert sample.image.shape == (48, 64, 3)


def test_scenes_are_drawn_when_they_are_asked_for():
    assert len(list(islice(toy_samples("train", 100_000, size=48), 2))) == 2
    assert list(toy_samples("val", 0)) == []


@pytest.mark.parametrize(
    ("split", "count", "start", "told"),
    [
        ("test", 1, 0, "train, val, held_out"),
        ("val", 10**9, 0, "ask for fewer"),
        ("val", 1, 10**9, "ask for fewer"),
        ("val", -1, 0, "ask for fewer"),
        ("val", 1, -1, "ask for fewer"),
    ],
)
def test_scenes_that_are_not_there(split, count, start, told):
    with pytest.raises(ValueError, match=told):
        toy_samples(split, count, start=start)


def test_the_drawn_world_is_a_data_set():
    data = open_data("toy", count=3, size=(48, 64))
    assert (data.name, data.split, len(data), data.has_truth, data.classes) == ("toy", "val", 3, True, VOC_CLASSES)
    (first,) = toy_samples("val", 1, size=(48, 64))
    read = next(data.samples(truth=True))
    assert np.array_equal(read.image, first.image) and np.array_equal(read.truth, first.truth) and read.names == first.names
    assert data.entries[0].size() == (48, 64)
    assert len(open_data("toy")) == 200 and open_data("toy", split="web", count=1).entries[0].id == "web-000000"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"name": "cityscapes"}, "toy, voc, coco, folder, got 'cityscapes'"),
        ({"name": "voc"}, "voc needs root"),
        ({"name": "coco"}, "coco needs root"),
        ({"name": "folder"}, "folder needs root"),
        ({"name": "folder", "root": "x", "split": "val"}, "a folder has no splits"),
        ({"name": "toy", "root": "x"}, "takes no root"),
        ({"name": "toy", "labels": "masks"}, "takes no labels"),
        ({"name": "voc", "root": "x", "labels": "instances"}, "--labels instances belongs to coco; voc takes xml, masks, or a list that"),
        ({"name": "coco", "root": "x", "labels": "xml"}, "--labels xml belongs to voc; coco takes instances, masks, or a list"),
        ({"name": "folder", "root": "x", "labels": "xml"}, "--labels xml belongs to voc; folder takes masks, or a list"),
        ({"name": "toy", "split": "test"}, "expected a split among"),
        ({"name": "toy", "count": 10**9}, "ask for fewer"),
        ({"name": "toy", "count": 0}, "at least 1"),
        ({"name": "toy", "size": 0}, "size"),
    ],
)
def test_data_sets_that_are_asked_for_in_a_wrong_way(call, told):
    with pytest.raises(DataError, match=told):
        open_data(**call)


def entry_of(id="a", image=lambda: IMAGE, truth=None):
    return Entry(id, lambda: ("cat",), lambda: IMAGE.shape[:2], image, truth)


def test_what_cannot_be_read_raises_or_is_told():
    def broken():
        raise DataError("a.jpg is broken")

    data = DataSet("folder", "", ("cat",), "labels.csv", (entry_of("a", broken), entry_of("b"), entry_of("c", truth=lambda: PLANE.T)))
    told = []
    assert [sample.id for sample in data.samples(refuse=lambda *why: told.append(why))] == ["b", "c"] and told == [("a", "a.jpg is broken")]
    with pytest.raises(DataError, match="a.jpg is broken"):
        list(data.samples())
    with pytest.raises(DataError, match="c: its truth has 6 x 4 pixels, its picture 4 x 6"):
        data.entries[2].sample(truth=True)
    with pytest.raises(DataError, match="b has no truth"):
        data.entries[1].sample(truth=True)
    assert not data.has_truth


def test_the_list_is_read_as_far_as_needed():
    made = []

    def entry(id):
        made.append(id)
        if id == "b":
            raise DataError("b is bad")
        return entry_of(id)

    with pytest.raises(DataError, match="b is bad"):
        collected("abcd", entry, count=2)
    entries, refused = collected("abcd", entry, count=2, skip_bad=True)
    assert [found.id for found in entries] == ["a", "c"] and refused == (("b", "b is bad"),) and made[-1] == "c"
    with pytest.raises(DataError, match="no picture is left"):
        collected("b", entry, skip_bad=True)
