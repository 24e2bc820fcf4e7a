"""The command line: what it writes, what it says, and one sentence with exit code 2 for every wrong option."""

import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kit import __version__
from kit.__main__ import app
from kit.cli.output import progress
from kit.data import Sample, open_data, toy_data, toy_samples
from kit.encode import Clip
from kit.evaluate import evaluate
from kit.images import load_image, load_mask, save_image, save_mask
from kit.manifest import read_manifest
from kit.methods import ClipEs, ClipEsSettings
from kit.sweep import encode_all
from kit.sweep import sweep as ablation
from kit.words import COCO_CLASSES, VOC_CLASSES

ROOT = Path(__file__).parent.parent
OWN = Path(__file__).parent / "own_method.py"
PHOTOS = Path(os.environ.get("KIT_REAL_PHOTOS") or ROOT.parent / "shared" / "real_photos")
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


def besides_progress(said):
    """The lines of stderr without those that a slow machine gives rise to."""
    return [line for line in said.splitlines() if not re.match(r"toy val[^:]*: *\d+ of \d+", line)]


def refused(result, *parts):
    """One sentence on stderr, exit code 2, no traceback."""
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), (result.output, result.exception)
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.output and not result.stdout
    for part in parts:
        assert part in sentence
    return True


def test_version_and_help():
    assert kit("--version").stdout == f"kit {__version__}\n"
    for command in ((), ("evaluate",), ("sweep",), ("segment",), ("generate",), ("fit",), ("settings",)):
        result = kit(*command, "--help")
        assert result.exit_code == 0 and "python -m kit" in result.stdout
        assert not [line for line in result.stdout.splitlines() if len(line) > 130]
    assert "A class of PASCAL VOC has VOC's number" in " ".join(kit("segment", "--help").stdout.split())
    assert "--images 50 --refiner pixel-adaptive" in kit("evaluate", "--help").stdout


def test_without_a_command_it_says_which_there_are():
    result = kit()
    for line in ("segment   Make masks", "generate  Make pseudo masks", "evaluate  Measure", "sweep     Vary", "fit       Learn"):
        assert line in result.output


def test_help_loads_nothing_heavy():
    code = "import sys; import kit.__main__; print([name for name in ('torch', 'numpy', 'PIL', 'open_clip') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60).stdout == "[]\n"


def test_as_a_program_with_two_processes(tmp_path):
    file = tmp_path / "result.json"
    command = [sys.executable, "-m", "kit", "evaluate", "--images", "2", "--size", "64", "--workers", "2", "--json", str(file), *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert not besides_progress(done.stderr) and "softmax Grad-CAM" in done.stdout and "Split val of toy: 2 images" in done.stdout

    expected = evaluate(ClipEs(Clip.load("tiny", device="cpu"), iterations=1, side=64), toy_data("val", 2, size=64)).to_dict()
    written = json.loads(file.read_text())
    assert {name: score["miou"] for name, score in written["stages"].items()} == pytest.approx(
        {name: score["miou"] for name, score in expected["stages"].items()}, abs=1e-4
    )
    assert written["images"] == 2 and written["settings"]["side"] == 64 and written["data"] == "toy"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_evaluate_prints_a_table_and_reads_the_held_out_split_only_by_name():
    result = kit("evaluate", "--images", 1, "--size", 48, "--split", "held_out", "--refiner", "none", "--device", "cpu")
    assert result.exit_code == 0 and "Split held_out of toy: 1 images" in result.stdout and "+ CRF" not in result.stdout
    assert "None of the kit's settings was tuned" in result.stdout
    refused(kit("evaluate", "--split", "test"), "got 'test'", "held_out")
    trained = kit("evaluate", "--images", 1, "--size", 48, "--split", "train", "--refiner", "pixel-adaptive", *QUICK)
    assert "chosen by the truth of this split" in trained.stdout and "+ pixel-adaptive refinement" in trained.stdout


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--data", "imagenet"), ("'imagenet'", "toy, voc, coco, folder")),
        (("--data", "coco"), ("--data coco needs --root DIR",)),
        (("--data", "voc", "--root", "no/such/folder"), ("no/such/folder", "JPEGImages")),
        (("--data", "voc", "--root", ".", "--size", "64"), ("--size 64 is for drawn scenes",)),
        (("--root", "."), ("takes no root",)),
        (("--labels", "masks"), ("takes no labels",)),
        (("--precision", "float8"), ("float32 or bfloat16", "float8")),
        (("--masks", "no/such/folder"), ("--masks no/such/folder", "no such folder")),
        (("--masks", ".", "--model", "tiny", "--set", "power=1"), ("--model, --set", "no model runs")),
        (("--masks", ".", "--no-control"), ("--no-control",)),
        (("--method", "magic"), ("a method out of clip-es", "got 'magic'")),
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


def test_a_file_of_ones_own_is_a_method_at_every_command(tmp_path, folder, own, clip):
    file = ("--method", OWN)
    few = ("--images", 3, "--size", 64, "--device", "cpu", "--set", "side=64")
    assert "otsu: Otsu of the softmax CAM; learns texts" in kit("settings", file[1]).stdout

    made = kit("segment", folder / "photo.png", "--classes", "boat", *file, "--out", folder / "out")
    expected = own(clip, world="toy").segment(folder / "photo.png", names=("boat",))
    numbers = np.array([0, VOC_CLASSES.index("boat") + 1, *[255] * 254])
    np.testing.assert_array_equal(load_mask(folder / "out" / "photo.png"), numbers[expected.pseudo_mask.numpy()])
    about = json.loads((folder / "out" / "photo_settings.json").read_text())
    assert made.exit_code == 0 and list(about["planes"]) == ["cam", "otsu"] and about["settings"]["strictness"] == 1

    scored = kit("evaluate", *file, *few, "--workers", 1, "--json", tmp_path / "scores.json")
    again = evaluate(own(clip, world="toy", side=64), toy_data("val", 3, size=64)).to_dict()
    written = json.loads((tmp_path / "scores.json").read_text())
    assert scored.exit_code == 0 and {name: score["miou"] for name, score in written["stages"].items()} == pytest.approx(
        {name: score["miou"] for name, score in again["stages"].items()}
    )
    both = kit("evaluate", "--method", f"clip-es,{file[1]}", *few, "--workers", 1, "--refiner", "none")
    assert both.exit_code == 0 and "clip-es" in both.stdout and "otsu" in both.stdout

    swept = kit("sweep", *file, *few, "--knob", "strictness=0.5,1.5")
    assert swept.exit_code == 0 and "Method otsu, stage otsu." in swept.stdout

    learned = tmp_path / "texts.safetensors"
    taught = kit("fit", *file, *few, "--set", "learning.steps=2", "--out", learned)
    assert taught.exit_code == 0 and "texts: 20 x" in taught.stdout and f"--method {file[1]}" in taught.stdout, taught.output
    kept = kit("generate", *file, *few, "--workers", 1, "--weights", learned, "--out", tmp_path / "masks")
    assert kept.exit_code == 0 and "3 of 3 masks" in kept.stdout, kept.output
    made_with = json.loads((tmp_path / "masks" / "manifest.json").read_text())["made_with"]
    assert made_with["method"] == "otsu" and "above_otsu" in made_with["code"]["stage otsu"]
    assert refused(kit("generate", "--weights", learned, *few, "--out", tmp_path / "other"), "otsu", "give its file as --method")


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
    assert "Model ViT-S-32-alt:random, float32" in result.stdout


def test_a_table_is_still_printed_if_its_file_cannot_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    result = kit("evaluate", "--images", 1, "--size", 48, "--refiner", "none", "--json", tmp_path / "x.json")
    assert result.exit_code == 1 and "mIoU" in result.stdout and "No space left" in result.stderr and not list(tmp_path.iterdir())


def sweep(*arguments):
    return kit("sweep", "--images", 4, "--size", 64, "--set", "side=64", "--device", "cpu", *arguments)


def test_sweep_prints_and_writes_what_the_function_returns(tmp_path):
    files = {option: tmp_path / f"table.{option}" for option in ("csv", "json", "png", "svg")}
    outputs = ("--csv", files["csv"], "--json", files["json"])
    result = sweep("--knob", "box_threshold=0.2, 0.6", "--seeds", 2, *outputs, "--plot", files["png"])
    assert result.exit_code == 0 and not result.stderr, result.output
    method = ClipEs(Clip.load("tiny", device="cpu"), side=64, refiner="none")
    encoded = encode_all(method, toy_samples("val", 4, size=64))
    expected = ablation(method, encoded, seeds=2, box_threshold=[0.2, 0.6])
    assert result.stdout == f"{expected}\n" and "Split val: 4 images" in result.stdout
    assert files["csv"].read_text() == expected.to_csv()
    assert json.loads(files["json"].read_text()) == {
        "data": "toy",
        "labels_from": "what is drawn",
        **json.loads(json.dumps(expected.to_dict())),
    }
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
    assert refiners.exit_code == 0 and "stage affinity or refined." in refiners.stdout
    iterations = sweep("--knob", "iterations=1,2", "--refiner", "pixel-adaptive")
    assert iterations.exit_code == 0 and "refiner = pixel-adaptive" in iterations.stdout


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ((), ("--knob",)),
        (("--knob", "power"), ("NAME=VALUES",)),
        (("--knob", "speed=1,2"), ("--knob speed: clip-es has no such setting", "box_threshold", "sinkhorn")),
        (("--knob", "power=1,99"), ("expected power to be a whole number from 1 to 8", "99")),
        (("--knob", "power=1,,2"), ("--knob power", "empty word")),
        (("--knob", "power=one,two"), ("--knob power", "JSON")),
        (("--knob", "power=[1"), ("--knob power", "JSON")),
        (("--knob", "power="), ("at least one value for power",)),
        (("--knob", "power=1", "--knob", "power=2"), ("given twice",)),
        (("--knob", "power=1", "--set", "power=2"), ("power is given twice",)),
        (("--knob", "refiner=none,crf", "--refiner", "crf"), ("refiner is given twice",)),
        (("--knob", "power=1", "--knob", "cam=plain", "--knob", "sinkhorn=1"), ("given 3 times",)),
        (("--knob", "layers=[[0],[99]]"), ("blocks 0 to",)),
        (("--knob", "template=boat"), ("exactly one {}",)),
        (("--knob", "power=1", "--split", "test"), ("got 'test'",)),
        (("--knob", "power=1", "--data", "voc"), ("--data voc needs --root DIR",)),
        (("--knob", "power=1", "--stage", "mask"), ("one of cam, affinity, got 'mask'",)),
        (("--knob", "iterations=1"), ("iterations changes nothing at stage affinity",)),
        (("--knob", "power=1", "--seeds", "9"), ("--seeds 9", "only 4 images")),
        (("--knob", "power=1", "--csv", "no/such/x.csv"), ("--csv", "no folder to write")),
        (("--knob", "power=1", "--plot", "x.txt"), ("--plot x.txt", ".png or .svg")),
        (("--knob", "power=1", "--model", "huge"), ("no model 'huge'",)),
    ],
)
def test_wrong_options_of_sweep(options, parts):
    assert refused(sweep(*options), *parts)


def test_what_the_encoder_sees_is_no_knob():
    assert refused(kit("sweep", "--images", 4, "--size", 64, "--knob", "side=64,96"), "side cannot be varied")


def test_a_sweep_too_large_for_memory_is_refused_with_what_fits(monkeypatch):
    monkeypatch.setattr("kit.sweep.encode_all", functools.partial(encode_all, max_bytes=100_000))
    assert refused(sweep("--knob", "power=1,2"), "0.0001 GB allowed", "of them fit")


def test_a_sweep_is_still_printed_if_its_file_cannot_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    result = sweep("--knob", "power=1", "--csv", tmp_path / "x.csv")
    assert result.exit_code == 1 and "mIoU" in result.stdout and "No space left" in result.stderr and not list(tmp_path.iterdir())


def as_voc(root, samples):
    """The scenes as photographs in VOC's layout: JPEG, XML, palette PNG, one list."""
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    for sample in samples:
        save_image(root / "JPEGImages" / f"{sample.id}.jpg", sample.image)
        save_mask(root / "SegmentationClass" / f"{sample.id}.png", sample.truth)
        objects = "".join(f"<object><name>{name}</name></object>" for name in sample.names)
        (root / "Annotations" / f"{sample.id}.xml").write_text(f"<annotation>{objects}</annotation>")
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(sample.id for sample in samples))


def as_coco(root, samples):
    """The same in COCO's layout, with masks."""
    ids = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    images, annotations = [], []
    for name in ("val2014", "annotations", "SegmentationClass"):
        (root / name).mkdir(parents=True)
    for number, sample in enumerate(samples, start=1):
        name, truth = f"COCO_val2014_{number:012d}", np.zeros_like(sample.truth)
        images.append({"id": number, "file_name": f"{name}.jpg", "height": truth.shape[0], "width": truth.shape[1]})
        for thing in sample.names:
            truth[sample.truth == VOC_CLASSES.index(thing) + 1] = COCO_CLASSES.index(thing) + 1
            about = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[COCO_CLASSES.index(thing)]}
            annotations.append(about | {"segmentation": [[0, 0, 1, 0, 1, 1]], "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0})
        save_image(root / "val2014" / f"{name}.jpg", sample.image)
        save_mask(root / "SegmentationClass" / f"{name}.png", truth)
    categories = [{"id": id, "name": name, "supercategory": ""} for id, name in zip(ids, COCO_CLASSES, strict=True)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_val2014.json").write_text(json.dumps(content))


def as_folder(root, samples):
    """The same as a folder of one's own."""
    (root / "masks").mkdir(parents=True)
    for sample in samples:
        save_image(root / f"{sample.id}.jpg", sample.image)
        save_mask(root / "masks" / f"{sample.id}.png", sample.truth)
    (root / "labels.csv").write_text("".join(f"{sample.id}.jpg,{';'.join(sample.names)}\n" for sample in samples))


@pytest.fixture(scope="module")
def photographs():
    """Drawn scenes of things that VOC and COCO call by the same name: what the tiny CLIP knows, as files."""
    both = set(VOC_CLASSES) & set(COCO_CLASSES)
    scenes = (sample for sample in toy_samples("val", 200, size=72) if sample.names and set(sample.names) <= both)
    return [dataclasses.replace(scene, id=f"2007_{number:06d}") for number, scene in zip(range(3), scenes, strict=False)]


@pytest.fixture
def roots(tmp_path, photographs):
    """Where each data set lies."""
    for name, write in (("voc", as_voc), ("coco", as_coco), ("folder", as_folder)):
        write(tmp_path / name, photographs)
    return {name: ("--data", name, "--root", tmp_path / name, *(() if name == "folder" else ("--split", "val"))) for name in READ}


READ = {
    "voc": ("Split val of voc: 3 images", "labels: the XML annotations (difficult objects included)", "of 21 classes"),
    "coco": ("Split val of coco: 3 images", "labels: instances_val2014.json (crowds included)", "of 81 classes"),
    "folder": ("of folder: 3 images", "labels: labels.csv", "of 21 classes"),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", READ)
def test_evaluate_reads_every_data_set(tmp_path, roots, name):
    file = tmp_path / "result.json"
    result = kit("evaluate", *roots[name], "--refiner", "none", "--set", "side=64", "--device", "cpu", "--json", file, "--per-class")
    assert result.exit_code == 0, result.output
    for part in READ[name]:
        assert part in result.stdout
    assert "a photograph asks too much" in result.stderr and "IoU in percent" in result.stdout
    written = json.loads(file.read_text())
    data = open_data(name, root=tmp_path / name, split=None if name == "folder" else "val")
    expected = evaluate(ClipEs(Clip.load("tiny", device="cpu"), refiner="none", side=64), data)
    assert {stage: score["miou"] for stage, score in written["stages"].items()} == pytest.approx(
        {stage: score.miou for stage, score in expected.stages.items()}, abs=1e-4
    )
    assert (written["data"], written["labels_from"], written["refused"]) == (name, data.labels_from, [])
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("mean ")]
    assert row.split()[1:] == [f"{100 * score['miou']:.1f}" for score in written["stages"].values()]


def test_the_preset_is_that_of_the_data_set(tmp_path, roots):
    random = ("--model", "ViT-S-32-alt:random", "--images", 1, "--set", "layers=2", "--refiner", "none", "--no-control")
    for name in ("coco", "voc"):
        result = kit("evaluate", *roots[name], *random, "--json", tmp_path / f"{name}.json")
        assert result.exit_code == 0 and "control" not in result.stdout and "baseline" not in result.stdout
        used, preset = json.loads((tmp_path / f"{name}.json").read_text())["settings"], ClipEs.preset(name).to_dict()
        assert (used["box_threshold"], used["background"]) == (preset["box_threshold"], preset["background"])
    assert ClipEs.preset("coco").box_threshold == 0.7 and ClipEs.preset("voc").box_threshold == 0.4


def test_labels_from_the_truth_or_from_a_list_are_said(tmp_path, roots, photographs):
    bare = ("--refiner", "none", "--no-control", "--set", "side=64")
    result = kit("evaluate", *roots["voc"], "--labels", "masks", *bare)
    assert "labels: the truth masks" in result.stdout and "were taken from the truth itself" in result.stdout
    (tmp_path / "mine.csv").write_text("".join(f"{sample.id},dog\n" for sample in photographs))
    result = kit("evaluate", *roots["voc"], "--labels", tmp_path / "mine.csv", *bare)
    assert f"labels: {tmp_path / 'mine.csv'}." in result.stdout and "truth itself" not in result.stdout


def test_bad_pictures_end_the_run_or_are_left_out_and_named(tmp_path, roots, photographs):
    damaged = tmp_path / "voc" / "JPEGImages" / f"{photographs[1].id}.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    bare = ("--refiner", "none", "--no-control", "--set", "side=64")
    result = kit("evaluate", *roots["voc"], *bare)
    assert result.exit_code == 1 and not result.stdout and damaged.name in result.stderr and "--skip-bad leaves" in result.stderr
    result = kit("evaluate", *roots["voc"], *bare, "--skip-bad")
    assert result.exit_code == 1 and "Split val of voc: 2 images" in result.stdout
    assert "could not be used: 1." in result.stdout and damaged.name in result.stdout
    sweeping = ("sweep", "--knob", "power=1", *roots["voc"], "--seeds", 1, "--set", "side=64")
    swept = kit(*sweeping)
    assert swept.exit_code == 1 and damaged.name in swept.stderr and "--skip-bad leaves" in swept.stderr
    swept = kit(*sweeping, "--skip-bad")
    assert swept.exit_code == 1 and "Split val of voc: 2 images" in swept.stdout and f"left out: {photographs[1].id} (" in swept.stderr


def test_pictures_without_truth_cannot_be_scored(tmp_path, roots):
    for mask in (tmp_path / "folder" / "masks").iterdir():
        mask.unlink()
    for command in (("evaluate",), ("evaluate", "--masks", tmp_path), ("sweep", "--knob", "power=1")):
        assert refused(kit(*command, *roots["folder"]), "3 of 3 pictures of folder have no truth", "only pictures with a known answer")


def test_masks_from_anywhere_are_scored_without_a_model(tmp_path, roots, photographs, monkeypatch):
    monkeypatch.setattr("kit.encode.Clip.load", lambda *_, **__: pytest.fail("a model was loaded"))
    perfect = kit("evaluate", *roots["voc"], "--masks", tmp_path / "voc")
    assert perfect.exit_code == 0 and re.search(r"masks +100\.0", perfect.stdout) and "no model was run" in perfect.stdout
    (tmp_path / "masks").mkdir()
    for sample in photographs:
        save_mask(tmp_path / "masks" / f"{sample.id}.png", np.where(sample.truth > 0, sample.truth, 255))
    unsure = kit("evaluate", *roots["voc"], "--masks", tmp_path / "masks", "--json", tmp_path / "scores.json", "--per-class")
    assert unsure.exit_code == 0 and "sure pixels only" in unsure.stdout and "uncertain pixels as background" in unsure.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["masks"] == str(tmp_path / "masks") and list(scores["stages"]) == ["sure", "filled"]
    assert scores["stages"]["filled"]["miou"] == 1 and 0 < scores["uncertain"] < 1
    (tmp_path / "masks" / f"{photographs[0].id}.png").unlink()
    gone = kit("evaluate", *roots["voc"], "--masks", tmp_path / "masks")
    assert gone.exit_code == 1 and f"{photographs[0].id}.png: there is no such file" in gone.stderr and not gone.stdout
    gone = kit("evaluate", *roots["voc"], "--masks", tmp_path / "masks", "--skip-bad")
    assert gone.exit_code == 1 and "Split val of voc: 2 images" in gone.stdout and "no such file" in gone.stdout


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_sweep_reads_coco(roots):
    result = kit("sweep", "--knob", "power=1,2", *roots["coco"], "--seeds", 1, "--set", "side=64")
    assert result.exit_code == 0 and "Split val of coco: 3 images" in result.stdout and "of 81 classes" in result.stdout


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no real photographs at {PHOTOS} (KIT_REAL_PHOTOS names their folder)")
def test_real_photographs_through_a_model_of_real_size(tmp_path):
    voc = ("--data", "voc", "--root", PHOTOS / "VOC2012", "--split", "val", "--images", 1)
    model = ("--model", "ViT-B-16:random", "--precision", "bfloat16", "--set", "side=224", "--set", "iterations=1", "--device", "cpu")
    made = kit("generate", *voc, *model, "--out", tmp_path / "out", "--workers", 1)
    assert made.exit_code == 0 and "1 of 1 mask is" in made.stdout, made.output
    scored = kit("evaluate", *voc, "--masks", tmp_path / "out")
    assert scored.exit_code == 0 and "Split val of voc: 1 images" in scored.stdout, scored.output


TOY = ("--images", 3, "--size", 64, "--device", "cpu", "--workers", 1, *QUICK)


def generate(out, *arguments):
    return kit("generate", "--out", out, *TOY, *arguments)


def masks_in(out):
    return {path.name: path.read_bytes() for path in (out / "SegmentationClass").iterdir()}


def test_generate_writes_the_masks_of_the_method_and_keeps_them(tmp_path):
    out = tmp_path / "deep" / "out"
    result = generate(out, "--maps", "--overlays", "--batch", 2)
    assert result.exit_code == 0 and not result.stderr, result.output
    assert f"3 of 3 masks are in {out / 'SegmentationClass'}: 3 written now, 0 kept, 0 refused" in result.stdout
    assert "1 to 20 = aeroplane to tvmonitor" in result.stdout
    assert sorted(path.name for path in out.iterdir()) == ["SegmentationClass", "manifest.json", "maps", "overlays"]
    method = ClipEs(Clip.load("tiny", device="cpu"), iterations=1, side=64)
    for sample in toy_samples("val", 3, size=64):
        numbers = np.array([0, *(VOC_CLASSES.index(name) + 1 for name in sample.names), *[255] * 255])
        expected = numbers[method.segment(sample).pseudo_mask.numpy()]
        assert (load_mask(out / "SegmentationClass" / f"{sample.id}.png") == expected).mean() > 0.99  # a batch differs by rounding
        assert (out / "maps" / f"{sample.id}.npz").is_file() and (out / "overlays" / f"{sample.id}.png").is_file()

    before = masks_in(out)
    again = generate(out, "--maps", "--overlays", "--batch", 2)
    assert again.exit_code == 0 and "0 written now, 3 kept" in again.stdout and masks_in(out) == before
    assert refused(generate(out, "--batch", 2, "--set", "power=1"), "power=2, now 1", "--restart")
    other = generate(out, "--batch", 2, "--set", "power=1", "--restart")
    assert other.exit_code == 0 and "3 written now" in other.stdout and masks_in(out) != before


def test_generate_names_what_it_refuses(tmp_path, roots, photographs):
    damaged = tmp_path / "voc" / "JPEGImages" / f"{photographs[1].id}.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    run = ("generate", *roots["voc"], "--out", tmp_path / "out", *QUICK, "--workers", 1, "--device", "cpu")
    stopped = kit(*run)
    assert stopped.exit_code == 1 and damaged.name in stopped.stderr and "--skip-bad leaves" in stopped.stderr and not stopped.stdout
    result = kit(*run, "--skip-bad")
    assert result.exit_code == 1 and "2 of 3 masks are in" in result.stdout and "1 refused" in result.stdout
    assert [line for line in result.stderr.splitlines() if line.startswith(f"refused: {photographs[1].id} (") and damaged.name in line]
    scored = kit("evaluate", *roots["voc"], "--masks", tmp_path / "out", "--skip-bad")
    assert scored.exit_code == 1 and "Split val of voc: 2 images" in scored.stdout


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--data", "voc"), ("--data voc needs --root DIR",)),
        (("--batch", "0"), ("--batch",)),
        (("--split", "test"), ("got 'test'",)),
        (("--set", "speed=1"), ("--set speed",)),
        (("--model", "huge"), ("no model 'huge'",)),
        (("--method", "magic"), ("a method out of clip-es", "got 'magic'")),
        (("--set", "layers=[0,99]"), ("blocks 0 to",)),
        (("--set", "template=boat"), ("exactly one {}",)),
    ],
)
def test_wrong_options_of_generate(tmp_path, options, parts):
    assert refused(kit("generate", "--out", tmp_path / "out", "--images", 1, *options), *parts)
    assert not (tmp_path / "out").exists()


def test_wrong_folders_of_generate(tmp_path, monkeypatch):
    assert refused(kit("generate"), "--out")
    (tmp_path / "file").write_text("")
    assert refused(generate(tmp_path / "file"), "cannot be made")
    (tmp_path / "foreign" / "SegmentationClass").mkdir(parents=True)
    save_mask(tmp_path / "foreign" / "SegmentationClass" / "a.png", np.zeros((2, 2), int))
    assert refused(generate(tmp_path / "foreign", "--restart"), "choose another --out")
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refused(generate(tmp_path / "out"), "RANK=5", "torchrun")


def started(*arguments, **options):
    command = [sys.executable, "-m", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment, **options)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_which_then_goes_on(tmp_path, number, code):
    run = ("kit", "generate", "--out", tmp_path, "--images", 60, "--size", 64, "--batch", 2, "--workers", 1, "--device", "cpu")
    program = started(*run)
    ends = time.monotonic() + 120
    while not list(tmp_path.glob("SegmentationClass/*.png")) and program.poll() is None and time.monotonic() < ends:
        time.sleep(0.02)
    program.send_signal(number)
    said = program.communicate(timeout=120)
    assert program.returncode == code and not said[0], said
    assert besides_progress(said[1]) == ["stopped; run the same command again to go on"]
    there = masks_in(tmp_path)
    assert 0 < len(there) < 60
    images = json.loads((tmp_path / "manifest.json").read_text())["images"]
    assert {f"{name}.png" for name, record in images.items() if record["state"] == "written"} <= there.keys()
    if number == signal.SIGTERM:
        result = kit(*run[1:])
        assert result.exit_code == 0 and f"{60 - len(there)} written now, {len(there)} kept" in result.stdout
        assert masks_in(tmp_path).items() >= there.items()


def test_torchrun_shares_the_work_out_and_one_process_speaks(tmp_path):
    """With a method of one's own, whose file every process reads."""
    run = ("--method", OWN, "--images", 8, "--size", 64, "--set", "side=64", "--batch", 2, "--workers", 1, "--device", "cpu", "--maps")
    two, one = tmp_path / "two", tmp_path / "one"
    program = started("torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "kit", "generate", "--out", two, *run)
    said = program.communicate(timeout=120)
    assert program.returncode == 0, said
    assert said[0].count("8 of 8 masks") == 1 and "by process 1 of 2" in said[0]
    assert kit("generate", "--out", one, *run).exit_code == 0
    files = [{path.relative_to(out): path.read_bytes() for path in out.glob("*/*")} for out in (two, one)]
    assert files[0] == files[1] and len(files[0]) == 16 and [path.name for path in two.glob("manifest*")] == ["manifest.json"]
    together, alone = read_manifest(two), read_manifest(one)
    assert together["made_with"] == alone["made_with"] and together["images"].keys() == alone["images"].keys()
    assert together["counts"] == {"written": 8} and together["finished"] and together["runs"][0]["processes"] == 2


def test_without_a_terminal_a_line_is_said_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr("kit.cli.output.LINE_EVERY", 0.0)
    for quiet in (False, True):
        with progress("voc train", 2, quiet=quiet) as bar:
            bar.update()
            bar.update()
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(",")[0] for line in lines] == ([] if quiet else [f"voc train: {number} of 2" for number in (0, 1, 2)])


def test_segment_writes_what_the_method_makes(folder, scene):
    out = folder / "deep" / "masks"
    result = segment(folder / "photo.png", "--classes", "dog, boat", "--out", out, "--confidence", "0.6")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["photo.png", "photo_maps.npz", "photo_overlay.png", "photo_settings.json"]
    assert "1 of 1 picture is in" in result.stdout and "dog = 12, boat = 4" in result.stdout and "photograph asks too much" in result.stderr

    method = ClipEs(Clip.load("tiny"), iterations=1, side=64, confidence=0.6)
    expected = method.segment(Sample(scene, ("dog", "boat")))
    labels = load_mask(out / "photo.png")
    assert labels.shape == scene.shape[:2] and set(np.unique(labels)) <= {0, 4, 12, 255}
    np.testing.assert_array_equal(labels, np.array([0, 12, 4, *[255] * 253])[expected.pseudo_mask.numpy()])
    assert Image.open(out / "photo.png").mode == "P"
    assert load_image(out / "photo_overlay.png").shape == scene.shape

    with np.load(out / "photo_maps.npz", allow_pickle=False) as maps:
        assert list(maps) == ["names", *expected.stages] and list(maps["names"]) == ["dog", "boat"]
        for stage, planes in expected.stages.items():
            assert maps[stage].dtype == np.float16
            np.testing.assert_allclose(maps[stage], planes.numpy().astype(np.float16), rtol=2e-3, atol=1e-6)  # a step of float16

    about = json.loads((out / "photo_settings.json").read_text())
    assert about["labels"] == {"dog": 12, "boat": 4} and about["size"] == [96, 96] and about["settings"]["confidence"] == 0.6
    assert about["planes"] == {"cam": ["dog", "boat"], "affinity": ["dog", "boat"], "refined": ["background", "dog", "boat"]}
    assert (
        about["scores"] == pytest.approx(expected.scores) and about["prompts"] == expected.prompts and about["seconds"] and "notes" in about
    )


def test_numbers_are_vocs_and_after_them_the_places_in_the_list(folder):
    result = segment(folder / "photo.png", "--classes", "dog,zebra", "--out", folder / "out", "--confidence", 0)
    assert "dog = 12, zebra = 21" in result.stdout and "never seen zebra" in result.stderr
    assert json.loads((folder / "out" / "photo_settings.json").read_text())["labels"] == {"dog": 12, "zebra": 21}
    assert set(np.unique(load_mask(folder / "out" / "photo.png"))) <= {0, 12, 21}
    told = segment(folder / "photo.png", "--classes", "Dog, TV monitor", "--out", folder / "out")
    assert "dog = 12, tvmonitor = 20" in told.stdout
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
        (("--classes", "dog", "--confidence", "1.5"), ("confidence", "from 0 to 1")),
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
