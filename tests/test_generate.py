"""Masks of whole data sets: what a picture gets alone, whole files only, nothing done twice, the same bytes however often it is stopped."""

import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit import cam, refine
from kit import generate as module
from kit.data import DataError, folder_data, toy_samples
from kit.data.labels import read_truth
from kit.encode import Clip
from kit.fit import fit
from kit.generate import GenerateError, generate, generate_steps, planned
from kit.images import PALETTE, ImageError, load_image, load_mask, save_image
from kit.manifest import ManifestError, read_manifest
from kit.methods import METHODS, ClipEs, FmaWsss
from kit.shard import Shard, ShardError
from kit.show import hatch, mask_overlay
from kit.words import VOC_CLASSES

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[1]
OWN = Path(__file__).parent / "own_method.py"
SIZES = ((64, 64), (48, 80), (64, 64), (80, 48), (48, 80), (64, 64), (64, 64), (63, 64))
CRF = "crf" if refine.has_dense_crf() else "pixel-adaptive"
QUICK = {ClipEs.name: {"refiner": CRF, "iterations": 1}, FmaWsss.name: {"regions": (40, 20, 8)}}


@pytest.fixture(scope="module", params=[*METHODS, "otsu"])
def each(request, clip, own):
    """Every method, quickly."""
    method = METHODS.get(request.param, own)
    return method(clip, side=64, **QUICK.get(method.name, {}))


@pytest.fixture(scope="module")
def pipeline(clip):
    return ClipEs(clip, side=64, refiner="none")


@pytest.fixture(scope="module")
def samples():
    return [next(toy_samples("train", 1, size=size, start=index)) for index, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def data(samples, data_of):
    return data_of(samples)


def with_parts(data, parts):
    """The data set with other ways to read some of its entries: place -> parts of the entry."""
    entries = (dataclasses.replace(entry, **parts.get(index, {})) for index, entry in enumerate(data.entries))
    return dataclasses.replace(data, entries=tuple(entries))


def broken(reason):
    def part():
        raise ImageError(f"{reason}: the picture is damaged")

    return part


def done(*arguments, **options):
    return list(generate_steps(*arguments, **options))


def states(*arguments, **options):
    return Counter(step.state for step in generate_steps(*arguments, **options))


def files(out):
    """Every file but the manifest and the journals: path -> bytes."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith("manifest")}


def mask_of(out, sample):
    return load_mask(out / "SegmentationClass" / f"{sample.id}.png")


def expected_mask(pipeline, sample, classes=VOC_CLASSES):
    """The mask of one picture alone, its numbers written once more and differently."""
    local = pipeline.segment(sample).pseudo_mask.numpy()
    mask = np.where(local == 255, 255, 0).astype(np.uint8)
    for place, name in enumerate(sample.names, start=1):
        mask[local == place] = classes.index(name) + 1
    return mask


def check_files(pipeline, samples, out):
    """Masks, maps and overlays are those that each picture gets alone."""
    for sample in samples:
        assert np.array_equal(mask_of(out, sample), expected_mask(pipeline, sample)), sample.id
        result = pipeline.segment(sample)
        numbers = [VOC_CLASSES.index(name) + 1 for name in sample.names]
        with np.load(out / "maps" / f"{sample.id}.npz") as maps:
            assert set(maps) == {"names", "numbers", *result.stages}
            assert tuple(maps["names"]) == sample.names and maps["numbers"].tolist() == numbers
            for stage, planes in result.stages.items():
                assert maps[stage].dtype == np.float16 and np.array_equal(maps[stage], planes.numpy().astype(np.float16)), stage
        overlay = hatch(mask_overlay(sample.image, np.array([0, *numbers])[result.labels]), result.pseudo_mask.numpy() == 255)
        assert np.array_equal(load_image(out / "overlays" / f"{sample.id}.png"), overlay)


def test_every_file_is_what_its_picture_gets_alone_and_the_manifest_says_of_what(each, data, samples, tmp_path):
    steps = done(each, data, tmp_path, batch=4, maps=True, overlays=True)
    assert {step.state for step in steps} == {"written"} and sorted(step.index for step in steps) == list(range(len(data)))
    assert all(step.id == data.entries[step.index].id and step.seconds > 0 for step in steps)
    check_files(each, samples, tmp_path)
    for path in (tmp_path / "SegmentationClass").iterdir():
        with Image.open(path) as picture:
            assert picture.mode == "P" and picture.getpalette() == PALETTE.flatten().tolist()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    made_with = manifest["made_with"]
    assert made_with["method"] == each.method.name and made_with["settings"] == json.loads(json.dumps(each.settings.to_dict()))
    assert (made_with["model"], made_with["weights"], made_with["precision"]) == ("tiny", each.clip.fingerprint, "float32")
    assert (made_with["data"], made_with["split"], made_with["pictures"], made_with["batch"]) == ("planted", "train", len(data), 4)
    assert made_with.get("code", {}) == each.code and bool(each.code) == (each.method.name not in METHODS)
    assert manifest["labels"]["dog"] == 12 and manifest["labels"]["uncertain"] == 255
    assert manifest["runs"][0]["versions"].keys() >= {"kit", "torch", "open_clip_torch"}
    assert list(manifest["images"]) == [entry.id for entry in data.entries]
    spent = {"read", "encode", "write", *each.titles}
    assert all(spent <= record["seconds"].keys() for record in manifest["images"].values())


@pytest.mark.parametrize(
    "changes",
    [
        {"refiner": "none"},
        {"refiner": "pixel-adaptive", "iterations": 2},
        {"refiner": "pixel-adaptive", "iterations": 1, "side_limit": 40},
        {"affinity": False, "refiner": "none", "confidence": 0},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_settings_reach_the_masks(pipeline, data, samples, tmp_path, changes):
    changed = pipeline.changed(**changes)
    done(changed, data, tmp_path, batch=4)
    for sample in samples:
        assert np.array_equal(mask_of(tmp_path, sample), expected_mask(changed, sample)), sample.id


def rollout(tokens, text, classes, *, done=None):
    """A CAM of one's own, which reads the attention of every block."""
    attention = tokens.attention.float().mean(1)[0, 1:, 1:]
    return (cam.similarity_cam(tokens, text, classes).flatten(2) @ attention).view(1, len(classes), *tokens.grid)


def sharpened(image, scores, *, iterations):
    """A refiner of one's own."""
    return (iterations * scores).softmax(0)


def test_functions_of_ones_own_make_the_masks_and_stand_in_the_manifest(clip, data, samples, tmp_path):
    here, other = (lambda image, scores, sharper=sharper: (sharper * scores).softmax(0) for sharper in (1, 2))  # for no other process
    for refiner in (sharpened, here):
        pipeline = ClipEs(clip, side=64, cam=rollout, refiner=refiner, iterations=3)
        out = tmp_path / refiner.__name__
        done(pipeline, data, out, batch=4, maps=True, overlays=True, workers=2)
        check_files(pipeline, samples[:3], out)
        made_with = read_manifest(out)["made_with"]
        assert made_with["settings"]["cam"] == "rollout" and made_with["code"] == pipeline.code and set(pipeline.code) == {"cam", "refiner"}
    with pytest.raises(ManifestError, match="the code of refiner=<lambda> [0-9a-f]{16}, now <lambda> [0-9a-f]{16}: choose another --out"):
        done(pipeline.changed(refiner=other), data, out, batch=4)
    with pytest.raises(ManifestError, match="the code of cam=rollout .*, now null"):
        done(pipeline.changed(cam="softmax"), data, out, batch=4)


def test_a_method_that_learns_writes_its_own_masks_and_says_what_it_learned(clip, data, samples, data_of, tmp_path):
    level = {"steps": 2, "warm_up": 1}
    few = FmaWsss(clip, learned=None, side=64, context=2, coarse=level, fine=level, regions=(40, 20, 8))
    learned, other = (fit(few, data_of([samples[0], samples[2], samples[5]]), progress=False, seed=seed) for seed in (0, 1))
    done(learned, data, tmp_path, batch=4)
    for sample in samples:
        assert np.array_equal(mask_of(tmp_path, sample), expected_mask(learned, sample)), sample.id
    manifest = read_manifest(tmp_path)
    assert manifest["made_with"]["learned"] == learned.learned.fingerprint and manifest["seeds"] == [0]
    assert manifest["learned"]["images"] == 3 and manifest["images"][samples[0].id]["seconds"]["proposals"] > 0
    same_settings = FmaWsss(clip, learned.settings, learned=other.learned)
    with pytest.raises(ManifestError, match=f"learned={learned.learned.fingerprint}, now {other.learned.fingerprint}"):
        done(same_settings, data, tmp_path, batch=4)


def test_a_label_is_the_place_in_the_data_sets_classes(pipeline, samples, data_of, tmp_path):
    classes = ("wombat", *reversed(VOC_CLASSES))
    done(pipeline, data_of(samples[:2], classes=classes), tmp_path)
    for sample in samples[:2]:
        assert np.array_equal(mask_of(tmp_path, sample), expected_mask(pipeline, sample, classes))
    assert read_manifest(tmp_path)["labels"]["wombat"] == 1


def test_other_processes_write_the_same_files_and_end_when_the_caller_stops(each, data, tmp_path):
    options = {"maps": True, "overlays": True}
    done(each, data, tmp_path / "here", **options)
    with closing(generate_steps(each, data, tmp_path / "others", workers=2, **options)) as steps:
        first = [next(steps) for _ in range(3)]
    assert not multiprocessing.active_children()
    elsewhere = {name: content for name, content in files(tmp_path / "here").items() if Path(name).stem in {step.id for step in first}}
    assert elsewhere.items() <= files(tmp_path / "others").items() <= files(tmp_path / "here").items() and len(elsewhere) == 9
    written = {name for name, record in read_manifest(tmp_path / "others")["images"].items() if record["state"] == "written"}
    assert written == {Path(name).stem for name in files(tmp_path / "others")}, "also those that were under way"
    done(each, data, tmp_path / "others", **options)
    assert files(tmp_path / "here") == files(tmp_path / "others")


def test_a_picture_without_classes_is_background(each, samples, data_of, tmp_path):
    nothing = dataclasses.replace(samples[0], names=(), id="nothing")
    calls = each.clip.calls
    done(each, data_of([nothing]), tmp_path, maps=True, overlays=True)
    assert each.clip.calls == calls
    assert not mask_of(tmp_path, nothing).any()
    assert np.array_equal(load_image(tmp_path / "overlays" / "nothing.png"), nothing.image)
    with np.load(tmp_path / "maps" / "nothing.npz") as maps:
        assert maps["names"].size == 0


def test_batches_have_one_prepared_size_and_hold_every_picture_once(pipeline, data):
    plan = planned(pipeline, data, batch=3)
    assert sorted(itertools.chain.from_iterable(plan.batches)) == list(range(len(data)))
    assert plan.batches == ((0, 2, 5), (1, 4), (3,), (6, 7))  # 63 x 64 is prepared as 64 x 64
    assert planned(pipeline, data, batch=1).batches == tuple((index,) for index in range(len(data)))


@pytest.mark.parametrize(("limit", "room"), [("BATCH_ATTENTION", 2 * 3 * 65**2), ("BATCH_PIXELS", 2 * 64**2)])
def test_batches_are_bounded_by_memory(pipeline, data, monkeypatch, limit, room):
    monkeypatch.setattr(module, limit, room)  # two pictures of 64 x 64: 65 tokens, three blocks' attention
    assert planned(pipeline, data, batch=16).batches == ((0, 2), (1, 4), (3,), (5, 6), (7,))


def test_what_is_there_is_kept_and_nothing_is_encoded(each, data, tmp_path):
    done(each, data, tmp_path, batch=4)
    before, calls = files(tmp_path), each.clip.calls
    assert states(each, data, tmp_path, batch=4) == {"kept": len(data)}
    assert each.clip.calls == calls and files(tmp_path) == before
    assert all(record["state"] == "written" and record["seconds"] for record in read_manifest(tmp_path)["images"].values())


def test_a_missing_mask_is_made_in_its_own_batch_and_the_others_are_not_touched(pipeline, data, tmp_path):
    done(pipeline, data, tmp_path, batch=4)
    before, calls = files(tmp_path), pipeline.clip.calls
    masks = {path.stem: path for path in (tmp_path / "SegmentationClass").iterdir()}
    masks[data.entries[2].id].unlink()
    masks[data.entries[4].id].write_bytes(b"")  # as a power cut may leave it
    times = {name: path.stat().st_mtime_ns for name, path in masks.items() if path.exists()}
    written = [step.index for step in generate_steps(pipeline, data, tmp_path, batch=4) if step.state == "written"]
    assert written == [2, 4] and pipeline.clip.calls == calls + 2 and files(tmp_path) == before
    again = {name for name, path in masks.items() if path.stat().st_mtime_ns != times.get(name)}
    assert again == {data.entries[2].id, data.entries[4].id}


def test_maps_can_be_asked_for_later(pipeline, data, tmp_path):
    done(pipeline, data, tmp_path)
    masks = files(tmp_path)
    assert states(pipeline, data, tmp_path, maps=True) == {"written": len(data)}
    assert masks.items() <= files(tmp_path).items() and len(list((tmp_path / "maps").iterdir())) == len(data)


def test_the_lock_is_held_while_the_model_is_asked_and_free_while_a_mask_is_written(each, data, tmp_path, monkeypatch):
    lock, held = threading.Lock(), {"asked": [], "written": []}

    def watched(function, kind):
        def watching(*arguments, **options):
            held[kind].append(lock.locked())
            return function(*arguments, **options)

        return watching

    monkeypatch.setattr(each.clip, "encode", watched(each.clip.encode, "asked"))
    monkeypatch.setattr(module, "_written", watched(module._written, "written"))
    done(each, data, tmp_path, lock=lock)
    assert held == {"asked": [True] * 3, "written": [False] * len(data)}


def test_closing_stops_and_what_is_done_stays(pipeline, data, tmp_path):
    with closing(generate_steps(pipeline, data, tmp_path, batch=2)) as steps:
        first = [next(steps) for _ in range(3)]
    assert {Path(name).stem for name in files(tmp_path)} == {step.id for step in first}
    manifest = read_manifest(tmp_path)
    assert not manifest["finished"] and manifest["counts"] == {"written": 3, "missing": len(data) - 3}
    assert not list(tmp_path.glob("manifest.rank*"))
    assert states(pipeline, data, tmp_path, batch=2) == {"kept": 3, "written": len(data) - 3} and read_manifest(tmp_path)["finished"]


@pytest.fixture
def partly_bad(data):
    parts = {0: {"size": broken("header.jpg")}, 2: {"image": broken("pixels.jpg")}, 4: {"names": lambda: ("wombat",)}}
    return with_parts(data, {**parts, 6: {"size": lambda: (64, 65)}})  # as a header may lie


def test_refused_pictures_are_named_and_the_others_go_on(pipeline, samples, partly_bad, tmp_path):
    steps = done(pipeline, partly_bad, tmp_path, batch=4, skip_bad=True)
    refused = {step.index: step.why for step in steps if step.state == "refused"}
    assert set(refused) == {0, 2, 4, 6}
    assert "header.jpg" in refused[0] and "pixels.jpg" in refused[2] and "wombat" in refused[4] and "64 x 65" in refused[6]
    assert all(samples[index].id in refused[index] for index in (0, 2, 4, 6))
    manifest = read_manifest(tmp_path)
    assert manifest["counts"] == {"refused": 4, "written": 4} and manifest["finished"]
    assert manifest["images"][samples[2].id]["why"] == refused[2]
    for index in (1, 3, 5, 7):
        assert np.array_equal(mask_of(tmp_path, samples[index]), expected_mask(pipeline, samples[index]))
    calls = pipeline.clip.calls
    assert states(pipeline, partly_bad, tmp_path, batch=4, skip_bad=True) == {"kept": 4, "refused": 4}
    assert pipeline.clip.calls == calls, "nothing can be written, but something was encoded"


def test_generate_runs_to_its_end_and_sums_up(pipeline, samples, partly_bad, tmp_path, capsys):
    listed = dataclasses.replace(partly_bad, refused=(("lost", "no annotation"),))
    made = generate(pipeline, listed, tmp_path, batch=4, skip_bad=True)
    assert (made.out, made.written, made.kept) == (tmp_path, 4, 0) and "8/8" in capsys.readouterr().err
    assert {name for name, _ in made.refused} == {"lost", *(samples[index].id for index in (0, 2, 4, 6))}
    assert str(made).splitlines()[:2] == [
        f"{tmp_path / 'SegmentationClass'}: 4 masks written now, 0 kept, 5 refused", "  lost: no annotation"
    ]  # fmt: skip
    assert read_manifest(tmp_path)["left_out_of_the_list"] == [{"id": "lost", "why": "no annotation"}]
    again = generate(pipeline, listed, tmp_path, batch=4, skip_bad=True, progress=False)
    assert (again.written, again.kept) == (0, 4) and not capsys.readouterr().err


@pytest.mark.parametrize("part", ["size", "image"])
def test_without_skip_bad_the_first_bad_picture_stops_everything(pipeline, data, tmp_path, part):
    with pytest.raises(ValueError, match="bad.jpg"):
        done(pipeline, with_parts(data, {3: {part: broken("bad.jpg")}}), tmp_path, batch=1)
    assert len(files(tmp_path)) == (3 if part == "image" else 0)


def test_a_file_that_cannot_be_written_is_no_refused_picture(pipeline, data, tmp_path):
    steps = generate_steps(pipeline, data, tmp_path, batch=1, skip_bad=True)
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
        ({}, {"labels_from": "a list"}, 4, "labels from=planted, now a list"),
        ({}, {"classes": (*VOC_CLASSES, "wombat")}, 4, "classes="),
        ({}, {}, 5, "batch=4, now 5"),
    ],
)
def test_masks_made_otherwise_are_not_mixed(pipeline, data, tmp_path, changes, data_changes, batch, words):
    done(pipeline, data, tmp_path, batch=4)
    before = files(tmp_path)
    with pytest.raises(ManifestError, match=f"{words}.*choose another --out or --restart"):
        done(pipeline.changed(**changes), dataclasses.replace(data, **data_changes), tmp_path, batch=batch)
    assert files(tmp_path) == before


def test_masks_of_another_method_or_of_other_code_are_not_mixed(each, clip, own, data, tmp_path):
    done(each, data, tmp_path, batch=4)
    before, name = files(tmp_path), each.method.name
    for other in {**METHODS, own.name: own}.values():
        if other.name != name:
            with pytest.raises(ManifestError, match=f"was made with method={name}, now {other.name}: choose another --out or --restart"):
                done(other(clip, side=64), data, tmp_path, batch=4)
    last = each.method.stages[-1]
    foreign = dataclasses.replace(last, run=lambda scene, done: done["scores"][1:], in_worker=False)
    changed = dataclasses.replace(each, method=dataclasses.replace(each.method, stages=(*each.method.stages[:-1], foreign)))
    with pytest.raises(ManifestError, match=f"the code of stage {last.name}=.*, now <lambda> [0-9a-f]{{16}}"):
        done(changed, data, tmp_path, batch=4)
    assert files(tmp_path) == before


def test_other_pictures_or_weights_are_not_mixed(pipeline, data, samples, data_of, tmp_path):
    done(pipeline, data, tmp_path)
    with pytest.raises(ManifestError, match="pictures=8, now 7"):
        done(pipeline, data_of(samples[:-1]), tmp_path)
    with pytest.raises(ManifestError, match="another list of pictures"):
        done(pipeline, data_of([*samples[:-1], dataclasses.replace(samples[0], id="another")]), tmp_path)
    other = Clip.load("tiny", device="cpu")
    other.model.visual.proj.data += 1
    with pytest.raises(ManifestError, match="was made with weights="):
        done(ClipEs(other, pipeline.settings), data, tmp_path)
    other.name = "ViT-B-16:random"
    with pytest.raises(ManifestError, match="model=tiny, now ViT-B-16:random"):
        done(ClipEs(other, pipeline.settings), data, tmp_path)


@pytest.mark.parametrize("restart", [False, True])
def test_masks_of_unknown_origin_are_never_touched(pipeline, data, tmp_path, restart):
    truth = tmp_path / "SegmentationClass" / f"{data.entries[0].id}.png"  # --out may be VOC's own folder
    truth.parent.mkdir()
    truth.write_bytes(b"the only copy")
    with pytest.raises(ManifestError, match="no manifest.json says that the kit made them"):
        done(pipeline, data, tmp_path, restart=restart)
    assert files(tmp_path) == {f"SegmentationClass/{truth.name}": b"the only copy"}


def test_restart_removes_what_was_generated_and_nothing_else(pipeline, data, samples, data_of, tmp_path):
    done(pipeline, data, tmp_path, maps=True, overlays=True)
    ours = files(tmp_path)
    others = {"SegmentationClass/notes.txt": b"mine", "maps/other.npz": b"mine", "SegmentationClass/.mine.part": b"mine"}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "SegmentationClass" / ".0123456789abcdef.part").write_bytes(b"half a mask")
    assert states(pipeline.changed(power=1), data_of(samples[:2]), tmp_path, restart=True) == {"written": 2}
    found = files(tmp_path)
    assert others.items() <= found.items()
    assert set(found) - set(others) == {name for name in ours if name.startswith("Seg") and Path(name).stem in [s.id for s in samples[:2]]}
    assert read_manifest(tmp_path)["made_with"]["settings"]["power"] == 1


def test_a_folder_of_an_earlier_version_goes_on(clip, data, tmp_path):
    """Before settings had groups, coarse ones stood under their bare names and fine ones behind fine_."""
    pipeline = FmaWsss(clip, side=64, learned=None, **QUICK[FmaWsss.name])
    done(pipeline, data, tmp_path, batch=4)
    manifest = read_manifest(tmp_path)
    settings = manifest["made_with"]["settings"]
    coarse, fine = settings.pop("coarse"), settings.pop("fine")
    assert coarse.pop("losses") == {}
    settings |= {"fine_foreground": fine.pop("losses")["foreground"]}
    settings |= coarse | {f"fine_{name}": value for name, value in fine.items()}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert states(pipeline, data, tmp_path, batch=4) == {"kept": len(data)}
    with pytest.raises(ManifestError, match="coarse.box_threshold=0.[0-9]+, now 0.9"):
        done(pipeline.changed(coarse__box_threshold=0.9), data, tmp_path, batch=4)


def test_a_killed_runs_leftovers_are_read_or_removed(pipeline, data, tmp_path):
    with closing(generate_steps(pipeline, data, tmp_path, batch=2)) as steps:
        next(steps)
    name = data.entries[1].id
    (tmp_path / "manifest.rank3.jsonl").write_text(json.dumps({"id": name, "state": "refused", "why": "planted"}) + '\n{"id": "half a li')
    (tmp_path / "SegmentationClass" / ".0123456789abcdef.part").write_bytes(b"half a mask")
    with closing(generate_steps(pipeline, data, tmp_path, batch=2)) as steps:
        next(steps)
        assert read_manifest(tmp_path)["images"][name] == {"state": "refused", "why": "planted", "classes": [*data.entries[1].names()]}
    assert all(path.endswith(".png") for path in files(tmp_path))
    assert [path.name for path in tmp_path.glob("manifest*")] == ["manifest.json"]


def test_a_file_that_is_no_manifest_is_refused(pipeline, data, tmp_path):
    (tmp_path / "manifest.json").write_text('{"images": []}')
    with pytest.raises(ManifestError, match="no manifest of the kit"):
        done(pipeline, data, tmp_path, restart=True)
    assert (tmp_path / "manifest.json").read_text() == '{"images": []}'


@pytest.mark.parametrize("ids", [("a/b", "c"), ("..", "c"), ("", "c"), ("Cat", "cat")])
def test_ids_have_to_be_names_of_files(pipeline, samples, data_of, tmp_path, ids):
    pictures = [dataclasses.replace(sample, id=name) for sample, name in zip(samples, ids, strict=False)]
    with pytest.raises(GenerateError, match="expected ids"):
        generate_steps(pipeline, data_of(pictures), tmp_path)
    assert not list(tmp_path.iterdir())


def test_wrong_numbers_are_refused_at_once(pipeline, data, tmp_path):
    for options in ({"batch": 0}, {"workers": 0}):
        with pytest.raises(GenerateError, match="at least one"):
            generate_steps(pipeline, data, tmp_path, **options)
    with pytest.raises(GenerateError, match="1 to 254 classes"):
        generate_steps(pipeline, dataclasses.replace(data, classes=tuple(map(str, range(255)))), tmp_path)
    with pytest.raises(DataError, match="none of the 1 classes"):
        done(pipeline, dataclasses.replace(data, classes=("wombat",)), tmp_path)


def test_several_processes_need_torchrun(pipeline, data, tmp_path, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ShardError, match="start all of them with torchrun"):
        done(pipeline, data, tmp_path, shard=Shard(1, 2))


PROGRAM = """
    import dataclasses, itertools, sys, torch
    from kit.data import toy_data
    from kit.encode import Clip
    from kit.generate import generate_steps
    from kit.own import method_named

    def steps(method, out):
        squares, wide = toy_data("train", 6, size=64), toy_data("val", 6, size=(48, 80))
        data = dataclasses.replace(squares, entries=tuple(itertools.chain(*zip(squares.entries, wide.entries))))
        return generate_steps(method_named(method)(Clip.load("tiny", device="cpu"), side=64), data, out, maps=True, batch=2)

    if __name__ == "__main__":
        torch.set_num_threads(1)
        for step in steps(*sys.argv[1:]):
            print(step.id, step.state, flush=True)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def ran(*command):
    """What a program has printed."""
    run = subprocess.run([sys.executable, *command], env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module", params=[ClipEs.name, str(OWN)], ids=[ClipEs.name, "own"])
def program(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "masks.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return str(path), request.param


@pytest.fixture(scope="module")
def steps_to(program):
    """What the program does, in this process."""
    path, method = program
    return functools.partial(runpy.run_path(path)["steps"], method)


@pytest.fixture(scope="module")
def unbroken(steps_to, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    assert [step.state for step in steps_to(out)] == ["written"] * 12 and len(files(out)) == 24
    return out


def test_a_killed_run_continued_makes_the_same_bytes(program, steps_to, unbroken, tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, *program, out], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as run:
        for _ in range(5):  # two batches and a half
            assert run.stdout.readline().endswith("written\n")
        run.kill()
    there = [name for name in files(out) if name.endswith(".png") and "/." not in name]
    assert 5 <= len(there) < 12 and not read_manifest(out)["finished"]
    for name in there:
        assert (out / name).read_bytes() == (unbroken / name).read_bytes(), "a mask was there before it was whole"
    again = Counter(step.state for step in steps_to(out))
    assert again["kept"] >= 5 and again["kept"] + again["written"] == 12
    assert files(out) == files(unbroken)
    manifest = read_manifest(out)
    assert manifest["finished"] and len(manifest["runs"]) == 2 and manifest["counts"].keys() <= {"written", "kept"}


GROWTH = """
    import sys, numpy as np, torch
    from pathlib import Path
    from kit.data import DataSet, Entry
    from kit.encode import Clip
    from kit.generate import generate_steps
    from kit.methods import ClipEs

    def entry(index):
        return Entry(f"{index:06d}", lambda: ("cat", "dog"), lambda: (128, 128), lambda: np.full((128, 128, 3), index % 256, np.uint8))

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6  # MB

    torch.set_num_threads(1)
    pipeline = ClipEs(Clip.load("tiny", device="cpu"), side=32, refiner="none")
    data = DataSet("toy", "", ("cat", "dog"), "nothing", tuple(map(entry, range(300))))
    for count, step in enumerate(generate_steps(pipeline, data, sys.argv[1]), start=1):
        if count in (50, 300):
            print(resident(), flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc to look at the memory")
def test_memory_stays_flat(tmp_path):
    early, late = map(float, ran("-c", textwrap.dedent(GROWTH), tmp_path).split())
    assert late - early < 20, "250 pictures of 128 x 128 with their scores are 60 MB"


def test_masks_of_other_labels_are_not_kept(pipeline, data, samples, data_of, tmp_path):
    """Somebody corrects a list of labels between two runs: the file names are the same, the masks would be wrong."""
    done(pipeline, data, tmp_path, batch=4)
    before = files(tmp_path)
    corrected = [dataclasses.replace(samples[0], names=("cow", "boat")), *samples[1:]]
    with pytest.raises(ManifestError, match=rf"made with other labels \({samples[0].id}: .*, now cow, boat\): choose another --out"):
        done(pipeline, data_of(corrected), tmp_path, batch=4)
    assert files(tmp_path) == before
    done(pipeline, data_of(corrected), tmp_path, batch=4, restart=True)
    assert read_manifest(tmp_path)["images"][samples[0].id]["classes"] == ["cow", "boat"]
    emptied = [dataclasses.replace(sample, names=()) for sample in samples]
    with pytest.raises(ManifestError, match=r"now nothing and \d more pictures"):
        done(pipeline, data_of(emptied), tmp_path, batch=4)


def test_what_the_kit_made_is_marked_and_never_read_as_truth(pipeline, data, samples, tmp_path):
    done(pipeline, data, tmp_path, overlays=True)
    path = tmp_path / "SegmentationClass" / f"{samples[0].id}.png"
    with pytest.raises(DataError, match="the kit made this mask, it is no truth"):
        read_truth(path, VOC_CLASSES)
    (tmp_path / "classes.txt").write_text("\n".join(VOC_CLASSES))
    for sample in samples:
        save_image(tmp_path / f"{sample.id}.png", sample.image)
    (tmp_path / "labels.csv").write_text(f"{samples[0].id}.png,boat")
    with pytest.raises(DataError, match="the kit made this mask"):
        folder_data(tmp_path).entries[0].sample(truth=True)


def test_what_a_run_takes_is_told_before_anything_is_computed_and_written_down(clip, data, tmp_path, monkeypatch):
    method = dataclasses.replace(ClipEs, takes=lambda pipeline: ["a cache of 3 GB"])
    pipeline, told = method(clip, side=64, refiner="none"), []
    encode = Clip.encode
    monkeypatch.setattr(Clip, "encode", lambda *a, **k: encode(*a, **k) if told else pytest.fail("it was computed first"))
    done(pipeline, data, tmp_path, tell=told.append)
    assert told[0].startswith("this run takes about ") and told[1:] == ["a cache of 3 GB"]
    assert read_manifest(tmp_path)["runs"][0]["takes"] == told
    plan = planned(pipeline, data)
    assert plan.largest >= 65**2 and module.memory(pipeline, dataclasses.replace(plan, largest=10**9), 3) != module.memory(pipeline, plan)
