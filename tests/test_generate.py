"""Masks of whole data sets: what a picture gets alone, whole files only, nothing done twice, the same bytes however often it is stopped."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kit import generate as module
from kit.data import DataError, DataSet, Entry, toy_samples
from kit.encode import Clip
from kit.generate import GenerateError, generate, planned
from kit.images import PALETTE, ImageError, load_image, load_mask
from kit.manifest import ManifestError, read_manifest
from kit.methods import ClipEs, FmaWsss
from kit.shard import Shard, ShardError
from kit.show import hatch, mask_overlay
from kit.words import VOC_CLASSES

ROOT = Path(__file__).parents[1]
SIZES = ((64, 64), (48, 80), (64, 64), (80, 48), (48, 80), (64, 64), (64, 64), (63, 64))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip():
    return Clip.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def method(clip):
    return ClipEs(clip, side=64, refiner="none")


@pytest.fixture(scope="module")
def samples():
    return [next(toy_samples("train", 1, size=size, start=index)) for index, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def data(samples):
    return data_of(samples)


def data_of(samples, **changes):
    entries = tuple(entry_of(sample) for sample in samples)
    return dataclasses.replace(DataSet("toy", "train", VOC_CLASSES, "what is drawn", entries), **changes)


def entry_of(sample, **changes):
    parts = {"names": lambda: sample.names, "size": lambda: sample.image.shape[:2], "image": lambda: sample.image}
    return Entry(sample.id, **{**parts, **changes})


def broken(reason):
    def part():
        raise ImageError(f"{reason}: the picture is damaged")

    return part


def done(*arguments, **options):
    return list(generate(*arguments, **options))


def files(out):
    """Every file but the manifest and the journals: path -> bytes."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith("manifest")}


def expected_mask(method, sample, classes=VOC_CLASSES):
    """The mask of one picture alone, its numbers written once more and differently."""
    local = method.pseudo_mask(method.segment(sample)).numpy()
    mask = np.where(local == 255, 255, 0).astype(np.uint8)
    for place, name in enumerate(sample.names, start=1):
        mask[local == place] = classes.index(name) + 1
    return mask


@pytest.mark.parametrize(
    "changes",
    [
        {"refiner": "none"},
        {"refiner": "pixel-adaptive", "iterations": 2},
        {"refiner": "crf", "iterations": 2},
        {"refiner": "pixel-adaptive", "iterations": 1, "side_limit": 40},
        {"affinity": False, "refiner": "none", "confidence": 0},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_mask_is_the_one_its_picture_gets_alone(clip, data, samples, tmp_path, changes):
    method = ClipEs(clip, **{"side": 64, **changes})
    steps = done(method, data, tmp_path, batch=4)
    assert {step.state for step in steps} == {"written"} and sorted(step.index for step in steps) == list(range(len(data)))
    assert all(step.id == data.entries[step.index].id and step.seconds > 0 for step in steps)
    for sample in samples:
        assert np.array_equal(load_mask(tmp_path / "SegmentationClass" / f"{sample.id}.png"), expected_mask(method, sample)), sample.id


def test_a_method_that_learns_writes_its_own_masks_and_says_what_it_learned(clip, data, samples, tmp_path):
    few = {"side": 64, "context": 2, "steps": 2, "warm_up": 1, "fine_steps": 2, "fine_warm_up": 1, "regions": (40, 20, 8)}
    learned, other = FmaWsss(clip, **few), FmaWsss(clip, **few, seed=1)
    for method in (learned, other):
        for _ in method.fit(data_of([samples[0], samples[2], samples[5]])):
            pass
    done(learned, data, tmp_path, batch=4, maps=True)
    for sample in samples:
        assert np.array_equal(load_mask(tmp_path / "SegmentationClass" / f"{sample.id}.png"), expected_mask(learned, sample)), sample.id
        with np.load(tmp_path / "maps" / f"{sample.id}.npz") as maps:
            assert set(maps) == {"names", "numbers", *learned.stages}
    manifest = read_manifest(tmp_path)
    assert manifest["made_with"]["learned"] == learned.learned.fingerprint and manifest["seeds"] == [0]
    assert manifest["learned"]["images"] == 3 and manifest["images"][samples[0].id]["seconds"]["proposals"] > 0
    same_settings = FmaWsss(clip, learned.settings, learned=dataclasses.replace(other.learned, settings=learned.settings))
    with pytest.raises(ManifestError, match=f"learned={learned.learned.fingerprint}, now {other.learned.fingerprint}"):
        done(same_settings, data, tmp_path, batch=4)


def test_masks_are_palette_pngs_of_voc(method, data, tmp_path):
    done(method, data, tmp_path)
    folder = tmp_path / "SegmentationClass"
    assert sorted(path.name for path in folder.iterdir()) == [f"{entry.id}.png" for entry in data.entries]
    for path in folder.iterdir():
        with Image.open(path) as picture:
            assert picture.mode == "P" and picture.getpalette() == PALETTE.flatten().tolist()


def test_a_label_is_the_place_in_the_data_sets_classes(method, samples, tmp_path):
    classes = ("wombat", *reversed(VOC_CLASSES))
    done(method, data_of(samples[:2], classes=classes), tmp_path)
    for sample in samples[:2]:
        assert np.array_equal(load_mask(tmp_path / "SegmentationClass" / f"{sample.id}.png"), expected_mask(method, sample, classes))
    assert read_manifest(tmp_path)["labels"]["wombat"] == 1


def test_other_processes_write_the_same_files_and_end_when_the_caller_stops(clip, data, tmp_path):
    method = ClipEs(clip, side=64, iterations=2)
    done(method, data, tmp_path / "here", maps=True, overlays=True)
    with closing(generate(method, data, tmp_path / "others", maps=True, overlays=True, workers=2)) as steps:
        first = [next(steps) for _ in range(3)]
    assert not multiprocessing.active_children()
    elsewhere = {name: content for name, content in files(tmp_path / "here").items() if Path(name).stem in {step.id for step in first}}
    assert elsewhere.items() <= files(tmp_path / "others").items() <= files(tmp_path / "here").items() and len(elsewhere) == 9
    written = {name for name, record in read_manifest(tmp_path / "others")["images"].items() if record["state"] == "written"}
    assert written == {Path(name).stem for name in files(tmp_path / "others")}, "also those that were under way"
    done(method, data, tmp_path / "others", maps=True, overlays=True)
    assert files(tmp_path / "here") == files(tmp_path / "others")


def test_maps_and_overlays(clip, data, samples, tmp_path):
    method = ClipEs(clip, side=64, iterations=1)
    done(method, data, tmp_path, maps=True, overlays=True)
    for sample in samples[:3]:
        result = method.segment(sample)
        with np.load(tmp_path / "maps" / f"{sample.id}.npz") as maps:
            assert tuple(maps["names"]) == sample.names
            assert maps["numbers"].tolist() == [VOC_CLASSES.index(name) + 1 for name in sample.names]
            assert set(maps) == {"names", "numbers", *result.stages}
            for stage, planes in result.stages.items():
                assert maps[stage].dtype == np.float16 and np.array_equal(maps[stage], planes.numpy().astype(np.float16)), stage
        uncertain = method.pseudo_mask(result).numpy() == 255
        best = np.array([0, *(VOC_CLASSES.index(name) + 1 for name in sample.names)])[result.labels]
        assert np.array_equal(load_image(tmp_path / "overlays" / f"{sample.id}.png"), hatch(mask_overlay(sample.image, best), uncertain))


def test_a_picture_without_classes_is_background(method, samples, tmp_path):
    nothing = dataclasses.replace(samples[0], names=(), id="nothing")
    calls = method.clip.calls
    done(method, data_of([nothing]), tmp_path, maps=True, overlays=True)
    assert method.clip.calls == calls
    assert not load_mask(tmp_path / "SegmentationClass" / "nothing.png").any()
    assert np.array_equal(load_image(tmp_path / "overlays" / "nothing.png"), nothing.image)
    with np.load(tmp_path / "maps" / "nothing.npz") as maps:
        assert maps["names"].size == 0


def test_batches_have_one_prepared_size_and_hold_every_picture_once(method, data):
    plan = planned(method, data, batch=3)
    assert sorted(itertools.chain.from_iterable(plan.batches)) == list(range(len(data)))
    assert plan.batches == ((0, 2, 5), (1, 4), (3,), (6, 7))  # 63 x 64 is prepared as 64 x 64
    assert planned(method, data, batch=1).batches == tuple((index,) for index in range(len(data)))


@pytest.mark.parametrize(("limit", "room"), [("BATCH_ATTENTION", 2 * 3 * 65**2), ("BATCH_PIXELS", 2 * 64**2)])
def test_batches_are_bounded_by_memory(method, data, monkeypatch, limit, room):
    monkeypatch.setattr(module, limit, room)  # two pictures of 64 x 64: 65 tokens, three blocks' attention
    assert planned(method, data, batch=16).batches == ((0, 2), (1, 4), (3,), (5, 6), (7,))


def test_what_is_there_is_kept_and_nothing_is_encoded(method, data, tmp_path):
    done(method, data, tmp_path, batch=4)
    before, calls = files(tmp_path), method.clip.calls
    assert Counter(step.state for step in generate(method, data, tmp_path, batch=4)) == {"kept": len(data)}
    assert method.clip.calls == calls and files(tmp_path) == before
    assert all(record["state"] == "written" and record["seconds"] for record in read_manifest(tmp_path)["images"].values())


def test_a_missing_mask_is_made_in_its_own_batch_and_the_others_are_not_touched(method, data, tmp_path):
    done(method, data, tmp_path, batch=4)
    before, calls = files(tmp_path), method.clip.calls
    masks = {path.stem: path for path in (tmp_path / "SegmentationClass").iterdir()}
    masks[data.entries[2].id].unlink()
    masks[data.entries[4].id].write_bytes(b"")  # as a power cut may leave it
    times = {name: path.stat().st_mtime_ns for name, path in masks.items() if path.exists()}
    states = {step.index: step.state for step in generate(method, data, tmp_path, batch=4)}
    assert [index for index, state in states.items() if state == "written"] == [2, 4] and method.clip.calls == calls + 2
    assert files(tmp_path) == before
    again = {name for name, path in masks.items() if path.stat().st_mtime_ns != times.get(name)}
    assert again == {data.entries[2].id, data.entries[4].id}


def test_maps_can_be_asked_for_later(method, data, tmp_path):
    done(method, data, tmp_path)
    masks = files(tmp_path)
    assert {step.state for step in generate(method, data, tmp_path, maps=True)} == {"written"}
    assert masks.items() <= files(tmp_path).items() and len(list((tmp_path / "maps").iterdir())) == len(data)


def test_the_lock_is_held_while_the_model_is_asked_and_free_while_a_mask_is_written(method, data, tmp_path, monkeypatch):
    lock, held = threading.Lock(), {"asked": [], "written": []}

    def watched(function, kind):
        def watching(*arguments, **options):
            held[kind].append(lock.locked())
            return function(*arguments, **options)

        return watching

    monkeypatch.setattr(method.clip, "encode", watched(method.clip.encode, "asked"))
    monkeypatch.setattr(module, "_written", watched(module._written, "written"))
    done(method, data, tmp_path, lock=lock)
    assert held == {"asked": [True] * 3, "written": [False] * len(data)}


def test_closing_stops_and_what_is_done_stays(method, data, tmp_path):
    with closing(generate(method, data, tmp_path, batch=2)) as steps:
        first = [next(steps) for _ in range(3)]
    assert {Path(name).stem for name in files(tmp_path)} == {step.id for step in first}
    manifest = read_manifest(tmp_path)
    assert not manifest["finished"] and manifest["counts"] == {"written": 3, "missing": len(data) - 3}
    assert not list(tmp_path.glob("manifest.rank*"))
    states = Counter(step.state for step in generate(method, data, tmp_path, batch=2))
    assert states == {"kept": 3, "written": len(data) - 3} and read_manifest(tmp_path)["finished"]


def test_refused_pictures_are_named_and_the_others_go_on(method, samples, tmp_path):
    entries = [entry_of(sample) for sample in samples]
    entries[0] = entry_of(samples[0], size=broken("header.jpg"))
    entries[2] = entry_of(samples[2], image=broken("pixels.jpg"))
    entries[4] = entry_of(samples[4], names=lambda: ("wombat",))
    entries[6] = entry_of(samples[6], size=lambda: (64, 65))  # as a header may lie
    data = DataSet("toy", "train", VOC_CLASSES, "what is drawn", tuple(entries))
    refused = {step.index: step.why for step in generate(method, data, tmp_path, batch=4, skip_bad=True) if step.state == "refused"}
    assert set(refused) == {0, 2, 4, 6}
    assert "header.jpg" in refused[0] and "pixels.jpg" in refused[2] and "wombat" in refused[4] and "64 x 65" in refused[6]
    assert all(data.entries[index].id in refused[index] for index in (0, 2, 4, 6))
    manifest = read_manifest(tmp_path)
    assert manifest["counts"] == {"refused": 4, "written": 4} and manifest["finished"]
    assert manifest["images"][samples[2].id]["why"] == refused[2]
    for index in (1, 3, 5, 7):
        mask = load_mask(tmp_path / "SegmentationClass" / f"{samples[index].id}.png")
        assert np.array_equal(mask, expected_mask(method, samples[index]))
    calls = method.clip.calls
    assert Counter(step.state for step in generate(method, data, tmp_path, batch=4, skip_bad=True)) == {"kept": 4, "refused": 4}
    assert method.clip.calls == calls, "nothing can be written, but something was encoded"


@pytest.mark.parametrize("part", ["size", "image"])
def test_without_skip_bad_the_first_bad_picture_stops_everything(method, samples, tmp_path, part):
    entries = [*(entry_of(sample) for sample in samples[:3]), entry_of(samples[3], **{part: broken("bad.jpg")})]
    data = DataSet("toy", "train", VOC_CLASSES, "what is drawn", tuple(entries))
    with pytest.raises(ValueError, match="bad.jpg"):
        done(method, data, tmp_path, batch=1)
    assert len(files(tmp_path)) == (3 if part == "image" else 0)


def test_a_file_that_cannot_be_written_is_no_refused_picture(method, data, tmp_path):
    steps = generate(method, data, tmp_path, batch=1, skip_bad=True)
    next(steps)
    (tmp_path / "SegmentationClass").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="cannot be written"):
        next(steps)
    assert read_manifest(tmp_path)["counts"]["written"] == 1


@pytest.mark.parametrize(
    ("changes", "data_changes", "batch", "words"),
    [
        ({"power": 1}, {}, 4, "power=2, now 1"),
        ({"background": ("grass",)}, {}, 4, "background="),
        ({}, {"split": "val"}, 4, "split=train, now val"),
        ({}, {"labels_from": "a list"}, 4, "labels from=what is drawn, now a list"),
        ({}, {"classes": (*VOC_CLASSES, "wombat")}, 4, "classes="),
        ({}, {}, 5, "batch=4, now 5"),
    ],
)
def test_masks_made_otherwise_are_not_mixed(method, data, tmp_path, changes, data_changes, batch, words):
    done(method, data, tmp_path, batch=4)
    before = files(tmp_path)
    other = ClipEs(method.clip, method.settings, **changes)
    with pytest.raises(ManifestError, match=f"{words}.*choose another --out or --restart"):
        done(other, dataclasses.replace(data, **data_changes), tmp_path, batch=batch)
    assert files(tmp_path) == before


def test_other_pictures_or_weights_are_not_mixed(method, data, samples, tmp_path):
    done(method, data, tmp_path)
    with pytest.raises(ManifestError, match="pictures=8, now 7"):
        done(method, data_of(samples[:-1]), tmp_path)
    with pytest.raises(ManifestError, match="another list of pictures"):
        done(method, data_of([*samples[:-1], dataclasses.replace(samples[0], id="another")]), tmp_path)
    other = Clip.load("tiny", device="cpu")
    other.model.visual.proj.data += 1
    with pytest.raises(ManifestError, match="was made with weights="):
        done(ClipEs(other, method.settings), data, tmp_path)
    other.name = "ViT-B-16:random"
    with pytest.raises(ManifestError, match="model=tiny, now ViT-B-16:random"):
        done(ClipEs(other, method.settings), data, tmp_path)


@pytest.mark.parametrize("restart", [False, True])
def test_masks_of_unknown_origin_are_never_touched(method, data, tmp_path, restart):
    truth = tmp_path / "SegmentationClass" / f"{data.entries[0].id}.png"  # --out may be VOC's own folder
    truth.parent.mkdir()
    truth.write_bytes(b"the only copy")
    with pytest.raises(ManifestError, match="no manifest.json says that the kit made them"):
        done(method, data, tmp_path, restart=restart)
    assert files(tmp_path) == {f"SegmentationClass/{truth.name}": b"the only copy"}


def test_restart_removes_what_was_generated_and_nothing_else(method, data, samples, tmp_path):
    done(method, data, tmp_path, maps=True, overlays=True)
    ours = files(tmp_path)
    others = {"SegmentationClass/notes.txt": b"mine", "maps/other.npz": b"mine", "SegmentationClass/.mine.part": b"mine"}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "SegmentationClass" / ".0123456789abcdef.part").write_bytes(b"half a mask")
    power = ClipEs(method.clip, method.settings, power=1)
    steps = done(power, data_of(samples[:2]), tmp_path, restart=True)
    assert [step.state for step in steps] == ["written", "written"]
    found = files(tmp_path)
    assert others.items() <= found.items()
    assert set(found) - set(others) == {name for name in ours if name.startswith("Seg") and Path(name).stem in [s.id for s in samples[:2]]}
    assert read_manifest(tmp_path)["made_with"]["settings"]["power"] == 1


def test_the_manifest_says_what_made_the_masks(method, data, tmp_path):
    with_notes = dataclasses.replace(data, refused=(("lost", "no annotation"),))
    done(method, with_notes, tmp_path, batch=4)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    made_with = manifest["made_with"]
    assert made_with["settings"] == json.loads(json.dumps(method.settings.to_dict()))
    assert (made_with["method"], made_with["model"], made_with["batch"]) == ("clip-es", "tiny", 4)
    assert (made_with["weights"], made_with["precision"]) == (method.clip.fingerprint, "float32")
    assert (made_with["data"], made_with["split"], made_with["pictures"]) == ("toy", "train", len(data))
    assert manifest["seeds"] == [] and manifest["labels"]["dog"] == 12 and manifest["labels"]["uncertain"] == 255
    assert manifest["left_out_of_the_list"] == [{"id": "lost", "why": "no annotation"}]
    assert manifest["runs"][0]["versions"].keys() >= {"kit", "torch", "open_clip_torch"}
    assert list(manifest["images"]) == [entry.id for entry in data.entries]
    assert all({"read", "encode", "cam", "affinity", "write"} <= record["seconds"].keys() for record in manifest["images"].values())


def test_a_killed_runs_leftovers_are_read_or_removed(method, data, tmp_path):
    with closing(generate(method, data, tmp_path, batch=2)) as steps:
        next(steps)
    name = data.entries[1].id
    (tmp_path / "manifest.rank3.jsonl").write_text(json.dumps({"id": name, "state": "refused", "why": "planted"}) + '\n{"id": "half a li')
    (tmp_path / "SegmentationClass" / ".0123456789abcdef.part").write_bytes(b"half a mask")
    with closing(generate(method, data, tmp_path, batch=2)) as steps:
        next(steps)
        assert read_manifest(tmp_path)["images"][name] == {"state": "refused", "why": "planted"}
    assert all(path.endswith(".png") for path in files(tmp_path))
    assert [path.name for path in tmp_path.glob("manifest*")] == ["manifest.json"]


def test_a_file_that_is_no_manifest_is_refused(method, data, tmp_path):
    (tmp_path / "manifest.json").write_text('{"images": []}')
    with pytest.raises(ManifestError, match="no manifest of the kit"):
        done(method, data, tmp_path, restart=True)
    assert (tmp_path / "manifest.json").read_text() == '{"images": []}'


@pytest.mark.parametrize("ids", [("a/b", "c"), ("..", "c"), ("", "c"), ("Cat", "cat")])
def test_ids_have_to_be_names_of_files(method, samples, tmp_path, ids):
    pictures = [dataclasses.replace(sample, id=name) for sample, name in zip(samples, ids, strict=False)]
    with pytest.raises(GenerateError, match="expected ids"):
        generate(method, data_of(pictures), tmp_path)
    assert not list(tmp_path.iterdir())


def test_wrong_numbers_are_refused_at_once(method, data, tmp_path):
    for options in ({"batch": 0}, {"workers": 0}):
        with pytest.raises(GenerateError, match="at least one"):
            generate(method, data, tmp_path, **options)
    with pytest.raises(GenerateError, match="1 to 254 classes"):
        generate(method, dataclasses.replace(data, classes=tuple(map(str, range(255)))), tmp_path)
    with pytest.raises(DataError, match="none of the 1 classes"):
        done(method, dataclasses.replace(data, classes=("wombat",)), tmp_path)


def test_several_processes_need_torchrun(method, data, tmp_path, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ShardError, match="start all of them with torchrun"):
        done(method, data, tmp_path, shard=Shard(1, 2))


PROGRAM = """
    import dataclasses, itertools, sys, torch
    from kit.data import toy_data
    from kit.encode import Clip
    from kit.generate import generate
    from kit.shard import Shard
    from kit.methods import ClipEs

    def drawn():
        squares, wide = toy_data("train", 12, size=64), toy_data("val", 12, size=(48, 80))
        return dataclasses.replace(squares, entries=tuple(itertools.chain(*zip(squares.entries, wide.entries))))

    if __name__ == "__main__":
        torch.set_num_threads(1)
        method = ClipEs(Clip.load("tiny", device="cpu"), side=64, refiner="pixel-adaptive", iterations=1)
        for step in generate(method, drawn(), sys.argv[1], maps=True, batch=4, shard=Shard.from_environment()):
            print(step.id, step.state, flush=True)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "masks.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return path


@pytest.fixture(scope="module")
def unbroken(program, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    subprocess.run([sys.executable, program, out], env=environment(), check=True, capture_output=True)
    assert len(files(out)) == 48
    return out


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_a_killed_run_continued_makes_the_same_bytes(program, unbroken, tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, program, out], env=environment(), stdout=subprocess.PIPE, text=True) as run:
        for _ in range(10):  # two batches and a half
            assert run.stdout.readline().endswith("written\n")
        run.kill()
    there = [name for name in files(out) if name.endswith(".png") and "/." not in name]
    assert 10 <= len(there) < 24 and not read_manifest(out)["finished"]
    for name in there:
        assert (out / name).read_bytes() == (unbroken / name).read_bytes(), "a mask was there before it was whole"
    again = subprocess.run([sys.executable, program, out], env=environment(), check=True, capture_output=True, text=True)
    states = Counter(line.split()[1] for line in again.stdout.splitlines())
    assert states["kept"] >= 10 and states["kept"] + states["written"] == 24
    assert files(out) == files(unbroken)
    manifest = read_manifest(out)
    assert manifest["finished"] and len(manifest["runs"]) == 2 and manifest["counts"].keys() <= {"written", "kept"}


def test_two_processes_make_the_files_of_one_and_one_manifest(program, unbroken, tmp_path):
    out = tmp_path / "out"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run([*torchrun, program, out], env=environment(), capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    assert sum(line.endswith("written") for line in run.stdout.splitlines()) == 24
    assert files(out) == files(unbroken)
    assert [path.name for path in out.glob("manifest*")] == ["manifest.json"]
    manifest, alone = read_manifest(out), read_manifest(unbroken)
    assert manifest["made_with"] == alone["made_with"] and manifest["images"].keys() == alone["images"].keys()
    assert manifest["counts"] == {"written": 24} and manifest["finished"] and manifest["runs"][0]["processes"] == 2


GROWTH = """
    import sys, numpy as np, torch
    from pathlib import Path
    from kit.data import DataSet, Entry
    from kit.encode import Clip
    from kit.generate import generate
    from kit.methods import ClipEs

    def entry(index):
        return Entry(f"{index:06d}", lambda: ("cat", "dog"), lambda: (128, 128), lambda: np.full((128, 128, 3), index % 256, np.uint8))

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6  # MB

    torch.set_num_threads(1)
    method = ClipEs(Clip.load("tiny", device="cpu"), side=32, refiner="none")
    data = DataSet("toy", "", ("cat", "dog"), "nothing", tuple(map(entry, range(300))))
    for count, step in enumerate(generate(method, data, sys.argv[1]), start=1):
        if count in (50, 300):
            print(resident(), flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc to look at the memory")
def test_memory_stays_flat(tmp_path):
    run = [sys.executable, "-c", textwrap.dedent(GROWTH), tmp_path]
    early, late = map(float, subprocess.run(run, env=environment(), check=True, capture_output=True, text=True).stdout.split())
    assert late - early < 20, "250 pictures of 128 x 128 with their scores are 60 MB"
