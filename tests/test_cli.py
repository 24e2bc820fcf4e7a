"""The command line: what it writes, what it says, and one sentence with exit code 2 for every wrong option."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kit import __version__
from kit.__main__ import app
from kit.data import Sample, toy_samples
from kit.encode import Clip
from kit.evaluate import evaluate
from kit.images import load_image, load_mask, save_image
from kit.methods import ClipEs, ClipEsSettings
from kit.sweep import encode_all
from kit.sweep import sweep as ablation
from kit.words import VOC_CLASSES

QUICK = ("--set", "iterations=1", "--set", "side=64")


@pytest.fixture(scope="module")
def scene():
    return next(toy_samples("train", 1, size=96)).image


@pytest.fixture
def folder(tmp_path, scene):
    save_image(tmp_path / "photo.png", scene)
    return tmp_path


def kit(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="python -m kit")


def segment(*arguments):
    return kit("segment", *arguments, *QUICK)


def refused(result, *parts):
    """One sentence on stderr, exit code 2, no traceback."""
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), (result.output, result.exception)
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.output and not result.stdout
    for part in parts:
        assert part in sentence
    return True


# the program


def test_version_and_help():
    assert kit("--version").stdout == f"kit {__version__}\n"
    for command in ((), ("evaluate",), ("sweep",), ("segment",)):
        result = kit(*command, "--help")
        assert result.exit_code == 0 and "python -m kit" in result.stdout
    assert "it is VOC's number (dog is 12)" in kit("segment", "--help").stdout
    assert "--images 50 --refiner pixel-adaptive" in kit("evaluate", "--help").stdout


def test_without_a_command_it_says_which_there_are():
    result = kit()
    assert "evaluate" in result.output and "segment" in result.output


def test_as_a_program_with_two_processes(tmp_path):
    file = tmp_path / "result.json"
    command = [sys.executable, "-m", "kit", "evaluate", "--images", "2", "--size", "64", "--workers", "2", "--json", str(file), *QUICK]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr and "softmax Grad-CAM" in done.stdout and "Split val: 2 images" in done.stdout

    expected = evaluate(
        ClipEs(Clip.load("tiny", device="cpu"), iterations=1, side=64), toy_samples("val", 2, size=64), split="val"
    ).to_dict()
    written = json.loads(file.read_text())
    assert {name: score["miou"] for name, score in written["stages"].items()} == pytest.approx(
        {name: score["miou"] for name, score in expected["stages"].items()}, abs=1e-4
    )
    assert written["images"] == 2 and written["settings"]["side"] == 64 and written["data"] == "toy"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


# evaluate


def test_evaluate_prints_a_table_and_reads_the_held_out_split_only_by_name():
    result = kit("evaluate", "--images", 1, "--size", 48, "--split", "held_out", "--refiner", "none", "--device", "cpu")
    assert result.exit_code == 0 and "Split held_out: 1 images" in result.stdout and "+ CRF" not in result.stdout
    assert "None of the kit's settings was tuned" in result.stdout
    refused(kit("evaluate", "--split", "test"), "--split test", "val or held_out")
    trained = kit("evaluate", "--images", 1, "--size", 48, "--split", "train", "--refiner", "pixel-adaptive", *QUICK)
    assert "chosen by the truth of this split" in trained.stdout and "+ pixel-adaptive refinement" in trained.stdout


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--data", "coco"), ("--data coco", "toy")),
        (("--method", "magic"), ("--method magic", "clip-es")),
        (("--images", "0"), ("--images",)),
        (("--images", "100001"), ("expected scenes between",)),
        (("--size", "2"), ("at least",)),
        (("--size", "4000"), ("--size",)),
        (("--workers", "0"), ("--workers",)),
        (("--model", "huge"), ("no model 'huge'",)),
        (("--device", "abacus"), ("abacus",)),
        (("--refiner", "iron"), ("crf, pixel-adaptive, none", "iron")),
        (("--json", "no/such/folder/x.json"), ("no folder to write",)),
        (("--json", "."), ("no folder to write",)),
        (("--images", "1", "--set", "template=boat"), ("exactly one {}",)),
        (("--color", "red"), ("No such option",)),
    ],
)
def test_wrong_options_of_evaluate(options, parts):
    assert refused(kit("evaluate", *options), *parts)


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("sinkhorn", ("NAME=VALUE",)),
        ("speed=3", ("--set speed", "box_threshold", "sinkhorn")),
        ("sinkhorn=tree", ("JSON",)),
        ("sinkhorn=1.5", ("whole number",)),
        ("power=99", ("from 1 to 8",)),
        ("affinity=False", ("JSON",)),
        ("affinity=1", ("affinity", "true or false")),
        ("background=sky", ("JSON",)),
        ('background="sky"', ("list of words",)),
        ("background=[1]", ("list of words",)),
        ("synonyms=[]", ("class names",)),
        ("layers=1.5", ("a list of blocks",)),
        ("layers=[]", ("a list of blocks",)),
        ("layers=[0,99]", ("blocks 0 to",)),
        ("layers=0", ("at least 1",)),
        ("cam=magic", ("softmax, plain, similarity",)),
        ("smoothing=NaN", ("smoothing",)),
        ("side=1", ("side",)),
    ],
)
def test_wrong_settings(assignment, parts):
    assert refused(kit("evaluate", "--images", 1, "--set", assignment), *parts)


def test_a_setting_given_twice():
    assert refused(kit("evaluate", "--set", "power=1", "--set", "power=2"), "given twice")
    assert refused(kit("evaluate", "--set", "refiner=none", "--refiner", "crf"), "given twice")


def test_every_setting_can_be_set(folder):
    settings = ClipEs(Clip.load("tiny", device="cpu")).settings.to_dict() | {"synonyms": {"boat": "ship"}, "cam": "plain"}
    assignments = [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    result = kit("segment", folder / "photo.png", "--classes", "boat", "--out", folder / "out", *assignments)
    assert result.exit_code == 0, result.output
    written = json.loads((folder / "out" / "photo_settings.json").read_text())
    assert written["settings"].items() >= settings.items() and written["prompts"]["boat"] == settings["template"].format("ship")
    assert ClipEsSettings.from_dict({name: written["settings"][name] for name in settings}).to_dict() == settings


def test_without_the_crf_package(monkeypatch, folder):
    monkeypatch.setattr("kit.refine.has_dense_crf", lambda: False)
    assert refused(kit("evaluate", "--images", 1), "pydensecrf2", "--refiner pixel-adaptive")
    assert kit("evaluate", "--images", 1, "--size", 48, "--refiner", "none").exit_code == 0


def test_untrained_weights_are_named():
    result = kit("evaluate", "--images", 1, "--size", 32, "--model", "ViT-S-32-alt:random", "--set", "layers=2", "--refiner", "none")
    assert result.exit_code == 0 and result.stderr.splitlines()[0] == "untrained weights: these masks mean nothing"
    assert "model ViT-S-32-alt:random" in result.stdout


def test_a_table_is_still_printed_if_its_file_cannot_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    result = kit("evaluate", "--images", 1, "--size", 48, "--refiner", "none", "--json", tmp_path / "x.json")
    assert result.exit_code == 1 and "mIoU" in result.stdout and "No space left" in result.stderr and not list(tmp_path.iterdir())


# sweep


def sweep(*arguments):
    return kit("sweep", "--images", 4, "--size", 64, "--set", "side=64", "--device", "cpu", *arguments)


def test_sweep_prints_and_writes_what_the_function_returns(tmp_path):
    files = {option: tmp_path / f"table.{option}" for option in ("csv", "json", "png", "svg")}
    outputs = ("--csv", files["csv"], "--json", files["json"])
    result = sweep("--knob", "box_threshold=0.2, 0.6", "--seeds", 2, *outputs, "--plot", files["png"])
    assert result.exit_code == 0 and not result.stderr, result.output
    method = ClipEs(Clip.load("tiny", device="cpu"), side=64)
    encoded = encode_all(method, toy_samples("val", 4, size=64))
    expected = ablation(method, encoded, seeds=2, box_threshold=[0.2, 0.6])
    assert result.stdout == f"{expected}\n" and "Split val: 4 images" in result.stdout
    assert files["csv"].read_text() == expected.to_csv()
    assert json.loads(files["json"].read_text()) == {"data": "toy", **json.loads(json.dumps(expected.to_dict()))}
    assert load_image(files["png"]).shape[2] == 3

    grid = sweep("--knob", "layers=[[0], [0, 1]]", "--knob", "cam=plain,softmax", "--stage", "affinity", "--plot", files["svg"])
    assert grid.exit_code == 0 and grid.stdout.count("plain ") == 2 and files["svg"].read_text().startswith("<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in files.values())


def test_sweep_reads_the_held_out_split_only_by_name_and_takes_a_refiner():
    held_out = sweep("--knob", "power=1", "--split", "held_out", "--stage", "cam", "--knob", "template=a {}.,a photo of a {}.")
    assert refused(held_out, "power changes nothing at stage cam")
    held_out = sweep("--split", "held_out", "--stage", "cam", "--knob", "template=a {}.,a flurb of a {}.")
    assert held_out.exit_code == 0 and "Split held_out: 4 images" in held_out.stdout and "never seen flurb" in held_out.stderr
    refiners = sweep("--knob", "refiner=none,pixel-adaptive", "--set", "iterations=1")
    assert refiners.exit_code == 0 and "Stage affinity or refined." in refiners.stdout
    iterations = sweep("--knob", "iterations=1,2", "--refiner", "pixel-adaptive")
    assert iterations.exit_code == 0 and "refiner pixel-adaptive" in iterations.stdout


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ((), ("--knob",)),
        (("--knob", "power"), ("NAME=VALUES",)),
        (("--knob", "speed=1,2"), ("unknown knob speed", "box_threshold", "sinkhorn")),
        (("--knob", "power=1,99"), ("expected power to be a whole number from 1 to 8", "99")),
        (("--knob", "power=1,,2"), ("--knob power", "empty word")),
        (("--knob", "power=one,two"), ("--knob power", "JSON")),
        (("--knob", "power=[1"), ("--knob power", "JSON")),
        (("--knob", "power="), ("at least one value for power",)),
        (("--knob", "side=64,96"), ("side cannot be varied",)),
        (("--knob", "power=1", "--knob", "power=2"), ("given twice",)),
        (("--knob", "power=1", "--set", "power=2"), ("power is given twice",)),
        (("--knob", "refiner=none,crf", "--refiner", "crf"), ("refiner is given twice",)),
        (("--knob", "power=1", "--knob", "cam=plain", "--knob", "sinkhorn=1"), ("given 3 times",)),
        (("--knob", "layers=[[0],[99]]"), ("blocks 0 to",)),
        (("--knob", "template=boat"), ("exactly one {}",)),
        (("--knob", "power=1", "--split", "test"), ("--split test",)),
        (("--knob", "power=1", "--stage", "mask"), ("cam, affinity, refined",)),
        (("--knob", "iterations=1"), ("without a refiner",)),
        (("--knob", "power=1", "--seeds", "9"), ("--seeds 9", "only 4 images")),
        (("--knob", "power=1", "--csv", "no/such/x.csv"), ("--csv", "no folder to write")),
        (("--knob", "power=1", "--plot", "x.txt"), ("--plot x.txt", ".png or .svg")),
        (("--knob", "power=1", "--model", "huge"), ("no model 'huge'",)),
    ],
)
def test_wrong_options_of_sweep(options, parts):
    assert refused(sweep(*options), *parts)


def test_a_sweep_too_large_for_memory_is_refused_with_what_fits(monkeypatch):
    monkeypatch.setattr("kit.sweep.encode_all", functools.partial(encode_all, max_bytes=100_000))
    assert refused(sweep("--knob", "power=1,2"), "0.0001 GB allowed", "of them fit")


def test_a_sweep_is_still_printed_if_its_file_cannot_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    result = sweep("--knob", "power=1", "--csv", tmp_path / "x.csv")
    assert result.exit_code == 1 and "mIoU" in result.stdout and "No space left" in result.stderr and not list(tmp_path.iterdir())


# segment


def test_segment_writes_what_the_method_makes(folder, scene):
    out = folder / "deep" / "masks"
    result = segment(folder / "photo.png", "--classes", "dog, boat", "--out", out, "--confidence", "0.6")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["photo.png", "photo_maps.npz", "photo_overlay.png", "photo_settings.json"]
    assert "1 of 1 pictures" in result.stdout and "dog = 12, boat = 4" in result.stdout and "photograph asks too much" in result.stderr

    method = ClipEs(Clip.load("tiny"), iterations=1, side=64, confidence=0.6)
    expected = method.segment(Sample(scene, ("dog", "boat")))
    labels = load_mask(out / "photo.png")
    assert labels.shape == scene.shape[:2] and set(np.unique(labels)) <= {0, 4, 12, 255}
    np.testing.assert_array_equal(labels, np.array([0, 12, 4, *[255] * 253])[method.pseudo_mask(expected).numpy()])
    assert Image.open(out / "photo.png").mode == "P"
    assert load_image(out / "photo_overlay.png").shape == scene.shape

    with np.load(out / "photo_maps.npz", allow_pickle=False) as maps:
        assert list(maps) == ["names", *expected.stages] and list(maps["names"]) == ["dog", "boat"]
        for stage, planes in expected.stages.items():
            assert maps[stage].dtype == np.float16
            np.testing.assert_array_equal(maps[stage], planes.numpy().astype(np.float16))

    about = json.loads((out / "photo_settings.json").read_text())
    assert about["labels"] == {"dog": 12, "boat": 4} and about["size"] == [96, 96] and about["settings"]["confidence"] == 0.6
    assert about["planes"] == {"cam": ["dog", "boat"], "affinity": ["dog", "boat"], "refined": ["background", "dog", "boat"]}
    assert (
        about["scores"] == pytest.approx(expected.scores) and about["prompts"] == expected.prompts and about["seconds"] and "notes" in about
    )


def test_numbers_are_the_places_in_the_list_unless_all_classes_are_vocs(folder):
    result = segment(folder / "photo.png", "--classes", "dog,zebra", "--out", folder / "out", "--confidence", 0)
    assert "dog = 1, zebra = 2" in result.stdout and "never seen zebra" in result.stderr
    assert json.loads((folder / "out" / "photo_settings.json").read_text())["labels"] == {"dog": 1, "zebra": 2}
    assert set(np.unique(load_mask(folder / "out" / "photo.png"))) <= {0, 1, 2}
    segment(folder / "photo.png", "--classes", ",".join(VOC_CLASSES), "--out", folder / "out")
    labels = json.loads((folder / "out" / "photo_settings.json").read_text())["labels"]
    assert labels == {name: number for number, name in enumerate(VOC_CLASSES, start=1)}


def test_options_of_segment_reach_the_method(folder):
    segment(
        *(
            folder / "photo.png",
            "--classes",
            "boat",
            "--out",
            folder / "out",
            "--background",
            "sky, sea",
            "--template",
            "a drawing of a {}.",
        ),
        *("--refiner", "pixel-adaptive", "--device", "cpu", "--model", "tiny"),
    )
    about = json.loads((folder / "out" / "photo_settings.json").read_text())
    assert about["settings"]["background"] == ["sky", "sea"] and about["settings"]["refiner"] == "pixel-adaptive"
    assert about["prompts"] == {"boat": "a drawing of a boat."}
    segment(folder / "photo.png", "--classes", "boat,sofa", "--out", folder / "out", "--background", "none", "--refiner", "none")
    about = json.loads((folder / "out" / "photo_settings.json").read_text())
    assert about["settings"]["background"] == [] and "refined" not in about["planes"]


def test_odd_pictures_get_masks_of_their_own_size(tmp_path, scene):
    grey = Image.fromarray(scene[:50, :, 0])
    grey.save(tmp_path / "grey.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(scene[:40]).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(scene[:1, :1]).save(tmp_path / "dot.png")
    Image.fromarray(scene[:1].repeat(5, 1)).save(tmp_path / "line.webp")
    Image.fromarray(scene).convert("RGBA").save(tmp_path / "clear.PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    result = segment(tmp_path, "--classes", "boat", "--out", tmp_path / "out")
    assert result.exit_code == 0 and "5 of 5" in result.stdout, result.output
    sizes = {path.name: load_mask(path).shape for path in (tmp_path / "out").glob("*.png") if not path.stem.endswith("_overlay")}
    assert sizes == {"grey.png": (50, 96), "turned.png": (96, 40), "dot.png": (1, 1), "line.png": (1, 480), "clear.png": (96, 96)}


def test_bad_files_are_named_and_the_others_go_on(folder):
    (folder / "cut.jpg").write_bytes((folder / "photo.png").read_bytes()[:200])
    (folder / "text.png").write_text("hello")
    result = segment(folder, folder / "gone.jpg", "--classes", "boat", "--out", folder / "out")
    assert result.exit_code == 1 and "Traceback" not in result.output
    for name in ("cut.jpg", "text.png", "gone.jpg"):
        assert sum(name in line for line in result.stderr.splitlines()) == 1
    assert result.stderr.splitlines()[-1] == "3 of 4 could not be read" and "1 of 4 pictures" in result.stdout
    assert sorted(path.stem for path in (folder / "out").glob("*.npz")) == ["photo_maps"]


def test_results_of_different_pictures_never_share_a_file(tmp_path, scene):
    places = [("a", "x.png"), ("b", "x.png"), ("a", "x_overlay.png"), ("a", "X.jpg")]
    for number, (place, name) in enumerate(places):
        (tmp_path / place).mkdir(exist_ok=True)
        save_image(tmp_path / place / name, scene[: 40 + number])
    files = [tmp_path / place / name for place, name in places]
    result = segment(*files, files[0], "--classes", "boat", "--out", tmp_path / "out", "--refiner", "none")
    assert result.exit_code == 0 and "4 of 4" in result.stdout and "results are called x-2" in result.stderr
    written = {json.loads(path.read_text())["image"]: path.name for path in (tmp_path / "out").glob("*.json")}
    assert list(map(written.get, map(str, files))) == [f"{name}_settings.json" for name in ("x", "x-2", "x_overlay-2", "X-3")]
    assert len(list((tmp_path / "out").iterdir())) == 16
    assert [len(load_mask(tmp_path / "out" / f"{name}.png")) for name in ("x", "x-2", "x_overlay-2", "X-3")] == [40, 41, 42, 43]


def test_a_picture_is_never_overwritten_by_its_mask(folder, scene):
    assert segment(folder / "photo.png", "--classes", "boat", "--out", folder, "--refiner", "none").exit_code == 0
    np.testing.assert_array_equal(load_image(folder / "photo.png"), scene)
    assert (folder / "photo-2.png").is_file()


def test_results_that_cannot_be_written(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    result = segment(folder / "photo.png", "--classes", "boat", "--out", folder / "out", "--refiner", "none")
    assert result.exit_code == 1 and "1 of 1 could not be written" in result.stderr and not list((folder / "out").iterdir())


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--classes", " "), ("--classes is empty",)),
        (("--classes", "dog,,cat"), ("empty word",)),
        (("--classes", "dog,dog"), ("twice",)),
        (("--classes", "dog", "--background", "sky,"), ("--background", "empty word")),
        (("--classes", "dog", "--template", "a photo"), ("exactly one {}",)),
        (("--classes", "dog", "--confidence", "1.5"), ("confidence", "0.0 to 1.0")),
        (("--classes", "dog", "--refiner", "iron"), ("iron",)),
        (("--classes", "dog", "--device", "abacus"), ("abacus",)),
        (("--classes", "dog", "--model", "ViT-B-16"), ("needs weights",)),
        (("--classes", "dog", "--model", "ViT-B-16:no_such_file.pt"), ("neither a file nor a tag",)),
        (("--classes", "dog", "--set", "confidence=1", "--confidence", "1"), ("given twice",)),
        (("--classes", ",".join(f"word{number}" for number in range(101))), ("101 classes", "more than 100")),
        ((), ("--classes",)),
    ],
)
def test_wrong_options_of_segment(folder, options, parts):
    assert refused(kit("segment", folder / "photo.png", "--out", folder / "out", *options), *parts)
    assert not (folder / "out").exists()


def test_wrong_folders(folder):
    (folder / "empty").mkdir()
    assert refused(segment(folder / "empty", "--classes", "dog", "--out", folder / "out"), "no pictures")
    assert refused(segment(folder, "--classes", "dog", "--out", folder), "the folder of the pictures")
    assert refused(segment(folder / "photo.png", "--classes", "dog", "--out", folder / "photo.png"), "cannot be made")
    assert refused(segment("--classes", "dog", "--out", folder / "out"), "IMAGE")
