"""Samples check themselves, and the drawn world hands out the same scenes every time."""

from itertools import islice

import numpy as np
import pytest

from kit.data import Sample, toy_samples
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
