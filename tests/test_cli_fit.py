"""`fit`, `--weights`: the same file however often it is stopped, by one process or two, and one sentence for a file that does not fit."""

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
import torch
from typer.testing import CliRunner

from kit.__main__ import app
from kit.cli.output import learning
from kit.data import toy_data, toy_samples
from kit.evaluate import evaluate
from kit.fit import FitStep
from kit.images import load_mask, save_image
from kit.learned import load_learned, save_learned
from kit.methods import FmaWsss

ROOT = Path(__file__).parent.parent
SETTINGS = {"side": 32, "context": 2, "steps": 4, "warm_up": 1, "fine_steps": 8, "fine_warm_up": 1, "fine_batch": 4, "regions": [40, 20, 8]}
TOY = ("--size", 32, "--device", "cpu")


def quick(**changes):
    """Options for a run of seconds."""
    values = {**SETTINGS, **changes}.items()
    return (*TOY, "--images", 12, *(part for name, value in values for part in ("--set", f"{name}={json.dumps(value)}")))


QUICK = quick()


pytestmark = pytest.mark.usefixtures("one_thread")


def kit(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="python -m kit")


def refused(result, *parts):
    """One sentence on stderr, exit code 2, no traceback."""
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), (result.output, result.exception)
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert not result.stdout
    for part in parts:
        assert part in sentence
    return True


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """What one undisturbed run says and writes."""
    file = tmp_path_factory.mktemp("learned") / "prompts.safetensors"
    result = kit("fit", "--out", file, *QUICK)
    assert result.exit_code == 0, (result.output, result.exception)
    return file, result.stdout


def test_fit_learns_writes_and_says_what_it_did(learned, clip):
    file, said = learned
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    contexts, about = load_learned(file)
    assert list(contexts) == ["classification", "segmentation"] and contexts["classification"].shape[0] == 2
    assert (about["data"], about["split"], about["images"], about["settings"]["coarse"]["steps"]) == ("toy", "train", 12, 4)
    assert "learned from 12 images of split train of toy, labels: what is drawn, in" in said
    assert re.search(r"classification: 2 x \d+ numbers, loss \d\.\d+ at step 1, \d\.\d+ at step 4", said)
    assert f"--weights {file}" in said and FmaWsss(clip, learned=file).learned.classes == toy_data("train", 1).classes


def test_a_file_that_is_there_is_kept_unless_it_is_another_one(learned, tmp_path):
    file, _ = learned
    before = file.read_bytes()
    again = kit("fit", "--out", file, *QUICK)
    assert again.exit_code == 0 and "is there already, learned with just these settings; --restart learns anew" in again.stdout
    assert refused(kit("fit", "--out", file, *QUICK, "--set", "seed=1"), "seed=0, now 1", "--restart")
    assert refused(kit("fit", "--out", file, *QUICK, "--tasks", "classification"), "tasks=", "--restart")
    assert file.read_bytes() == before
    (tmp_path / "mine.txt").write_text("mine")
    for more in ((), ("--restart",)):
        assert refused(kit("fit", "--out", tmp_path / "mine.txt", *QUICK, *more), "no file of something the kit has learned")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_what_was_learned_from_other_labels_is_not_kept(tmp_path):
    """Somebody corrects a list: the pictures and the settings are the same."""
    for number, sample in enumerate(toy_samples("train", 8, size=96)):
        save_image(tmp_path / f"{number}.png", sample.image)
    rows = [f"{number}.png,{'boat' if number % 2 else 'cow'}" for number in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    learn = ["fit", "--data", "folder", "--root", tmp_path, "--out", tmp_path / "a.safetensors", *quick()[2:]]
    first = kit(*learn)
    assert first.exit_code == 0, first.output
    (tmp_path / "labels.csv").write_text("\n".join([*rows[:-1], "7.png,sheep"]))
    assert refused(kit(*learn), "other labels or pictures", "--restart")


def test_restart_learns_anew_and_the_tasks_can_be_learned_one_by_one(learned, tmp_path):
    file, _ = learned
    first, both = tmp_path / "first.safetensors", tmp_path / "both.safetensors"
    only = kit("fit", "--out", first, *QUICK, "--tasks", "classification")
    assert only.exit_code == 0 and "segmentation:" not in only.stdout
    assert refused(
        kit("fit", "--out", both, *QUICK, "--tasks", "segmentation"), "segmentation builds on classification: learn that first, or both"
    )
    second = kit("fit", "--out", both, *QUICK, "--tasks", "segmentation", "--weights", first)
    assert second.exit_code == 0 and "classification: 2 x 128 numbers, learned before" in second.stdout
    for name, vectors in load_learned(file)[0].items():
        assert torch.equal(load_learned(both)[0][name], vectors)
    anew = kit("fit", "--out", both, *QUICK, "--restart")
    assert anew.exit_code == 0 and both.read_bytes() == file.read_bytes()


def test_a_method_that_learns_nothing_is_refused(tmp_path):
    assert refused(kit("fit", "--out", tmp_path / "x", *TOY, "--method", "clip-es"), "--method clip-es", "learns nothing")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--method", "magic"), ("a method out of clip-es, fma-wsss", "got 'magic'")),
        (("--tasks", "dancing"), ("out of classification, segmentation", "dancing")),
        (("--out", "no/such/folder/x"), ("--out no/such/folder/x", "no folder")),
        (("--set", "speed=1"), ("--set speed", "fine.rate")),
        (("--set", "fine_horizon=3"), ("horizon at least steps", "horizon 3")),
        (("--parts", "99"), ("parts 99", "at most the 12 pictures of a batch")),
        (("--data", "voc"), ("--data voc needs --root DIR",)),
        (("--weights", "no/such/file"), ("no/such/file", "there is no such file")),
    ],
)
def test_wrong_options_of_fit(tmp_path, arguments, parts):
    assert refused(kit("fit", "--out", tmp_path / "x.safetensors", *QUICK, *arguments), *parts)
    assert not (tmp_path / "x.safetensors").exists()


def started(*arguments, save_every=None):
    """The command as a program, which saves its way after every step if asked to."""
    main = ["-m", "kit"]
    if save_every is not None:
        main = ["-c", f"import kit.fit; kit.fit.SAVE_EVERY = {save_every}; from kit.__main__ import app; app(prog_name='python -m kit')"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *main, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_stopped_goes_on_to_the_same_file(learned, tmp_path, number):
    file = tmp_path / "prompts.safetensors"
    long = quick(fine_steps=40)  # time to be stopped in
    program = started("fit", "--out", file, *long, save_every=0 if number == signal.SIGKILL else 1e9)
    way, ends = tmp_path / "prompts.safetensors.work", time.monotonic() + 200
    mark = "segmentation.way" if number == signal.SIGKILL else "seeds/000011.png"
    while not (way / mark).exists() and program.poll() is None and time.monotonic() < ends:
        time.sleep(0.01)
    program.send_signal(number)
    said = program.communicate(timeout=100)
    assert not file.exists() and (way / "classification.safetensors").exists() and not said[0], said
    if number == signal.SIGTERM:
        assert program.returncode == 143 and said[1].splitlines()[-1] == "stopped; run the same command again to go on"
    assert refused(kit("fit", "--out", file, *QUICK), "fine.steps=40, now 8", "--restart")
    again = kit("fit", "--out", file, *long)
    assert again.exit_code == 0 and "classification: 2 x 128 numbers, learned before" in again.stdout and not way.exists()
    unbroken = kit("fit", "--out", tmp_path / "unbroken", *long)
    assert unbroken.exit_code == 0 and (tmp_path / "unbroken").read_bytes() == file.read_bytes()


def test_two_processes_learn_what_one_learns_in_two_parts(tmp_path):
    run = (*QUICK, "--parts", 2)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "kit", "fit"]
    command = [*torchrun, *map(str, ("--out", tmp_path / "two", *run))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=250)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("learned from 12 images") == 1 and not (tmp_path / "two.work").exists()
    assert kit("fit", "--out", tmp_path / "one", *run).exit_code == 0
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()


def test_progress_is_said_task_by_task(monkeypatch, capsys):
    monkeypatch.setattr("kit.cli.output.LINE_EVERY", 0.0)
    steps = [
        FitStep(32, 64, {}, 0.0, 1.0, "encoding"), FitStep(64, 64, {}, 0.0, 1.0, "encoding"),
        FitStep(7, 9, {"a": 1.0, "b": 0.5}, 1e-3, 1.0, "classification"), FitStep(8, 9, {}, 1e-3, 1.0, "classification"),
    ]  # fmt: skip
    with learning() as tell:
        for step in steps:
            tell(step)
    lines = capsys.readouterr().err.splitlines()
    counts = ["encoding: 0 of 64", "encoding: 32 of 64", "encoding: 64 of 64"]
    counts += ["classification: 0 of 9", "classification: 7 of 9", "classification: 8 of 9"]
    assert [line.split(",")[0] for line in lines] == counts
    assert lines[4].endswith("left, loss 1.5000") and "step/s" in lines[4] and "loss" not in lines[5]


def test_evaluate_with_what_was_learned(learned, clip, tmp_path):
    file, _ = learned
    result = kit("evaluate", *TOY, "--images", 2, "--weights", file, "--json", tmp_path / "r.json", "--workers", 1)
    assert result.exit_code == 0, (result.output, result.exception)
    method = FmaWsss(clip, learned=file)
    for part in ("hand-crafted prompts", "fine seeds", "oracle vote: knows the ground truth", "control", "that vote: superpixels"):
        assert part in result.stdout
    assert f"learned from 12 images of split train of toy, labels: what is drawn; fingerprint {method.learned.fingerprint}" in result.stdout
    written, expected = json.loads((tmp_path / "r.json").read_text()), evaluate(method, toy_data("val", 2, size=32)).to_dict()
    assert written["stages"] == expected["stages"] and written["learned"]["fingerprint"] == method.learned.fingerprint
    by_hand = kit("evaluate", *TOY, "--images", 1, "--method", "fma-wsss", "--weights", "none", "--set", "regions=[40,20,8]")
    assert (
        by_hand.exit_code == 0 and "prompts are hand-crafted: nothing was learned" in by_hand.stderr and "fine seeds" not in by_hand.stdout
    )


def test_generate_and_segment_with_what_was_learned(learned, clip, tmp_path):
    file, _ = learned
    method = FmaWsss(clip, learned=file)
    made = kit("generate", "--out", tmp_path / "out", *TOY, "--images", 2, "--weights", file, "--workers", 1)
    assert made.exit_code == 0 and "2 of 2 masks" in made.stdout, (made.output, made.exception)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["made_with"]["learned"] == method.learned.fingerprint and manifest["learned"]["images"] == 12
    assert refused(kit("generate", "--out", tmp_path / "out", *TOY, "--images", 2), "method=fma-wsss, now clip-es")

    scene = next(toy_samples("val", 1, size=32)).image
    save_image(tmp_path / "scene.png", scene)
    result = kit("segment", tmp_path / "scene.png", "--classes", "dog,boat", "--out", tmp_path / "masks", "--weights", file)
    assert result.exit_code == 0, (result.output, result.exception)
    numbers = np.array([0, 12, 4, *[255] * 253])
    expected = numbers[method.segment(scene, names=("dog", "boat")).pseudo_mask.numpy()]
    np.testing.assert_array_equal(load_mask(tmp_path / "masks" / "scene.png"), expected)
    about = json.loads((tmp_path / "masks" / "scene_settings.json").read_text())
    assert about["settings"]["learned"] == method.learned.fingerprint and "fine" in about["planes"]
    zebra = kit("segment", tmp_path / "scene.png", "--classes", "zebra", "--out", tmp_path / "masks", "--weights", file)
    assert refused(zebra, "learned for 20 classes, zebra is none of them")


def test_what_the_kit_brings_is_asked_unless_words_are_wanted(clip, tmp_path):
    save_image(tmp_path / "scene.png", next(toy_samples("val", 1, size=32)).image)
    for weights, learned in ((), load_learned(FmaWsss.shipped)[0]), (("--weights", "none"), {}):
        made = kit(
            "segment",
            tmp_path / "scene.png",
            "--classes",
            "dog",
            "--method",
            "fma-wsss",
            "--out",
            tmp_path / "out",
            "--device",
            "cpu",
            *weights,
        )
        assert made.exit_code == 0, made.output
        about = json.loads((tmp_path / "out" / "scene_settings.json").read_text())
        assert about["settings"].get("learned") == (FmaWsss(clip).learned.fingerprint if learned else None)
        assert ("fine" in about["planes"]) == bool(learned)


@pytest.mark.parametrize("command", ["evaluate", "generate", "segment"])
def test_files_that_do_not_fit_are_refused(learned, tmp_path, command):
    file, _ = learned
    contexts, about = load_learned(file)
    other, foreign = tmp_path / "other.safetensors", tmp_path / "foreign.safetensors"
    save_learned(other, contexts, {**about, "clip": "0" * 16})
    save_learned(foreign, contexts, {**about, "method": "magic"})
    (tmp_path / "text").write_text("hello")
    save_image(tmp_path / "scene.png", np.zeros((32, 32, 3), np.uint8))
    run = {
        "evaluate": ("evaluate", *TOY, "--images", 1), "generate": ("generate", *TOY, "--images", 1, "--out", tmp_path / "out"),
        "segment": ("segment", tmp_path / "scene.png", "--classes", "dog", "--out", tmp_path / "out"),
    }[command]  # fmt: skip
    assert refused(kit(*run, "--weights", other), "learned with tiny (0000…), here it is tiny (")
    assert refused(kit(*run, "--weights", foreign), "belongs to the method magic")
    assert refused(kit(*run, "--weights", tmp_path / "text"), "no file of something the kit has learned")
    assert refused(kit(*run, "--weights", file, "--method", "clip-es"), "belongs to the method fma-wsss, not to clip-es")
    assert refused(kit(*run, "--weights", file, "--set", "context=9"), "belongs to what was learned and cannot be changed")
    assert refused(kit(*run, "--weights", file, "--refiner", "crf"), "--refiner crf: fma-wsss has no setting refiner")
    assert not (tmp_path / "out").exists()


def test_sweep_varies_a_setting_of_what_was_learned(learned):
    file, _ = learned
    swept = kit("sweep", *TOY, "--images", 3, "--weights", file, "--knob", "fine.box_threshold=0.2,0.5", "--knob", "power=1,2")
    assert swept.exit_code == 0 and "Method fma-wsss, stage fine." in swept.stdout, swept.output
    assert refused(kit("sweep", *TOY, "--images", 3, "--weights", file, "--knob", "context=3,4"), "belongs to what was learned")
