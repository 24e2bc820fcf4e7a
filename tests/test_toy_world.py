import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kit.toy import PLACES, SPLITS, STYLES, Scene, draw, split_seed, world_hash
from kit.toy.pen import Ink, Pen, Stamp, rasterise, texture
from kit.toy.places import PAINTERS, STUFF, STUFF_ID, Canvas
from kit.toy.scene import CLASS_ID, DRAWINGS, LOOKS, Plan, library_versions, lined_up, visible_shares
from kit.words import VOC_CLASSES

GOLDEN = Path(__file__).parent / "golden" / "world_hash.json"


def shares(scene: Scene) -> dict[str, float]:
    return {name: float((scene.truth == CLASS_ID[name]).mean()) for name, _ in scene.objects}


def home_share(world: str, count: int) -> float:
    """How often a scene whose first class is a boat lies on the sea."""
    places = []
    for index in range(count):
        scene = draw(index, size=16, world=world, classes=("boat",), style="photo")
        places.append(scene.place)
    return places.count("sea") / count


def test_the_world_is_the_one_the_tiny_clip_was_trained_on():
    assert GOLDEN.exists(), f"{GOLDEN} is missing: write it with python -m kit.toy --write-hash {GOLDEN}"
    golden = json.loads(GOLDEN.read_text())
    if golden["versions"] != library_versions():
        pytest.skip(f"other pixels are expected: the hash was written with {golden['versions']}, here are {library_versions()}")
    assert world_hash() == golden["hash"], (
        "the drawn world changed: retrain the tiny CLIP (python -m kit.toy.train) and write the new hash "
        "(python -m kit.toy --write-hash tests/golden/world_hash.json)"
    )


def test_every_class_has_a_drawing_and_every_style_a_look():
    assert set(DRAWINGS) == set(VOC_CLASSES)
    assert tuple(LOOKS) == STYLES


@pytest.mark.parametrize("place", PLACES)
def test_stuff_is_zero_exactly_on_objects_and_known_elsewhere(place):
    for seed in range(4):
        scene = draw(seed, size=(72, 96), world="web", place=place)
        assert np.array_equal(scene.stuff == 0, scene.truth > 0)
        assert scene.stuff.max() < len(STUFF)


@pytest.mark.parametrize(
    ("place", "stuff"),
    [
        ("sea", "sea"),
        ("grass", "grass"),
        ("road", "road"),
        ("indoor", "floor"),
        ("plain", "paper"),
        ("railroad", "railroad"),
        ("sky", "sky"),
        ("lake", "lake"),
        ("ground", "ground"),
        ("forest", "tree"),
    ],
)
def test_a_place_shows_its_stuff(place, stuff):
    for seed in range(3):
        scene = draw(seed, size=64, place=place, classes=("bird",), style="wide")
        assert stuff in scene.present_stuff
        areas = [int((scene.stuff == STUFF_ID[name]).sum()) for name in scene.present_stuff]
        assert areas == sorted(areas, reverse=True)


def test_truth_marks_the_object_that_was_drawn():
    scene = draw(5, size=96, place="plain", classes=("bus",), style="photo")
    paper = scene.image[scene.stuff == STUFF_ID["paper"]].astype(float)
    bus = scene.image[scene.truth == CLASS_ID["bus"]].astype(float)
    assert bus.std(0).max() > 3 * paper.std(0).max()
    assert set(np.unique(scene.truth)) == {0, CLASS_ID["bus"]}


@pytest.mark.parametrize("style", STYLES)
def test_a_seed_is_a_scene(style):
    one, two = (draw(7, size=48, world="web", style=style) for _ in range(2))
    assert np.array_equal(one.image, two.image) and np.array_equal(one.truth, two.truth) and np.array_equal(one.stuff, two.stuff)
    assert one.objects == two.objects and one.style == style
    assert not np.array_equal(one.image, draw(8, size=48, world="web", style=style).image)


@pytest.mark.parametrize("size", [(96, 200), (320, 320), (48, 64), 16])
def test_every_size(size):
    scene = draw(3, size=size, world="voc")
    rows_columns = (size, size) if isinstance(size, int) else size
    assert scene.image.shape == (*rows_columns, 3) and scene.truth.shape == rows_columns and scene.stuff.shape == rows_columns
    assert scene.objects


def test_another_size_is_the_same_scene():
    for seed in range(12):
        small, large = (draw(seed, size=size, world="web", style="photo") for size in (80, 240))
        assert (small.objects, small.place, small.style) == (large.objects, large.place, large.style)
        assert (small.truth == large.truth[1::3, 1::3]).mean() > 0.96
        coarse = large.image.reshape(80, 3, 80, 3, 3).mean((1, 3))
        assert np.abs(coarse - small.image).mean() < 16


@pytest.mark.parametrize("name", VOC_CLASSES)
def test_an_asked_class_stands_in_an_asked_place(name):
    for seed, place in enumerate(("sea", "indoor", "sky", "plain")):
        scene = draw(seed, size=96, classes=(name,), place=place)
        assert scene.place == place and [each for each, _ in scene.objects] == [name]
        assert shares(scene)[name] >= 0.006


def test_four_asked_classes_are_all_visible():
    rng = np.random.default_rng(0)
    for seed in range(25):
        classes = tuple(rng.choice(VOC_CLASSES, 4, replace=False))
        scene = draw(seed, size=(64, 96), world="web", classes=classes)
        assert sorted(each for each, _ in scene.objects) == sorted(classes)
        assert min(shares(scene).values()) >= 0.006, (seed, classes, shares(scene))


def test_lined_up_objects_never_hide_each_other():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        canvas = Canvas(rng, rng, 64, 64)
        PAINTERS["railroad"](canvas)
        names = ("train", "bottle", "train", "bicycle")
        drawings = [(name, DRAWINGS[name](rng)) for name in names]
        standing = lined_up(rng, drawings, Plan("railroad", "photo", names), canvas, 1.0)
        assert min(visible_shares(standing, 1.0)) >= 0.006


def test_scenes_have_at_most_four_objects_and_voc_scenes_at_least_one():
    counts = {world: [len(draw(seed, size=24, world=world).objects) for seed in range(150)] for world in ("voc", "web")}
    assert max(counts["voc"]) <= 4 and min(counts["voc"]) >= 1
    assert max(counts["web"]) <= 4 and 0.04 < np.mean(np.array(counts["web"]) == 0) < 0.22


def test_voc_styles_are_photos_and_web_has_all():
    voc, web = ({draw(seed, size=16, world=world).style for seed in range(300)} for world in ("voc", "web"))
    assert voc == {"photo", "close-up", "wide"}
    assert web == set(STYLES)


def test_boats_are_on_the_sea_in_voc_and_anywhere_in_web():
    assert 0.6 < home_share("voc", 150) < 1
    assert home_share("web", 150) < 0.4


def test_splits_are_disjoint_and_large():
    ranges = sorted(SPLITS.values(), key=lambda seeds: seeds.start)
    assert all(before.stop <= after.start for before, after in zip(ranges, ranges[1:], strict=False))
    least = {"train": 100_000, "val": 10_000, "held_out": 10_000, "web": 1_000_000}
    assert all(len(SPLITS[name]) >= count for name, count in least.items()) and set(SPLITS) == set(least)


def test_split_seed():
    assert split_seed("val", 5) == SPLITS["val"][5]
    with pytest.raises(ValueError, match="unknown split 'test': choose one of train, val, held_out, web"):
        split_seed("test", 0)
    for index in (-1, len(SPLITS["val"])):
        with pytest.raises(IndexError, match="split 'val' has scenes 0 to"):
            split_seed("val", index)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"classes": ("boot",)}, "unknown class 'boot': choose one of aeroplane, bicycle"),
        ({"place": "moon"}, "unknown place 'moon': choose one of sky, sea"),
        ({"style": "baroque"}, "unknown style 'baroque': choose one of photo, close-up"),
        ({"world": "coco"}, "unknown world 'coco': choose one of voc, web"),
        ({"classes": "boat"}, "got the single text 'boat'"),
        ({"classes": ()}, "1 to 4 asked classes, got 0"),
        ({"classes": ("boat",) * 5}, "1 to 4 asked classes, got 5"),
        ({"size": 8}, "size is a number of pixels or"),
        ({"size": (64, 64, 3)}, "size is a number of pixels or"),
        ({"seed": -1}, "a seed is a whole number from 0 up, got -1"),
    ],
)
def test_wrong_requests_say_what_is_known(request_, words):
    with pytest.raises(ValueError, match=words):
        draw(**{"seed": 0, **request_})


def test_a_pen_keeps_a_clipped_part_inside():
    pen = Pen()
    frame = pen.rect(0, 0, 1, 1, (200, 0, 0))
    pen.rect(0.5, -5, 9, 9, (0, 0, 200), clip=frame)
    stamp = rasterise(pen, 40, 40, x=20, y=30, scale=20)
    assert isinstance(stamp, Stamp)
    inside = stamp.alpha > 0.99
    assert np.isclose(stamp.alpha.sum(), 400, rtol=0.12)
    assert (stamp.colour[..., 2] > 100)[inside].mean() == pytest.approx(0.5, abs=0.08)


def test_a_pen_outside_the_picture_leaves_no_stamp():
    pen = Pen()
    pen.ellipse(0, 0, 1, 1, (9, 9, 9))
    assert rasterise(pen, 40, 40, x=-200, y=20, scale=5, ink=Ink()) is None


def test_textures_scale_with_the_picture():
    small, large = (texture(np.random.default_rng(1), side, side, side=side, kind="smooth") for side in (80, 160))
    assert np.corrcoef(small.ravel(), large.reshape(80, 2, 80, 2).mean((1, 3)).ravel())[0, 1] > 0.9


def test_the_drawn_world_needs_no_torch():
    code = "import sys, kit.toy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0
