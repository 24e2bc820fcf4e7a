"""The app as programs meet it: typed doors, one sentence for every mistake, and nobody sees another's picture."""

import concurrent.futures
import csv
import io
import json
import math
import re
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from kit.data import Sample, toy_samples
from kit.images import load_mask
from kit.method import Pipeline
from kit.methods import METHODS, ClipEs, FmaWsss
from kit.sweep import encode_all, sweep
from kit.ui import ask, figures
from kit.ui.bundle import Picture, Upload
from kit.ui.explore import Explore
from kit.ui.job import LISTED, SAME, listed_names
from kit.ui.prompts import KNOWN, MANY, NOTHING, THIS
from kit.ui.session import BY_HAND, HERE, PROMPTS_FROM, Refused, Shelf, Studio, View
from kit.words import VOC_CLASSES


class Visitor:
    """A request as Gradio hands it over, and the page's controls with their first values."""

    def __init__(self, page: Explore, name: str):
        self.page, self.session_hash, self.method = page, name, page.studio.default
        self.values = {name: component.value for name, component in page.controls.items()}
        self.key = ""

    def open(self, number: int) -> None:
        sample = next(toy_samples("val", 1, size=320, start=number))
        self.key, names, words, shown, *_ = self.page._opened(self, sample, {"scene": str(number)})
        self.values |= {"classes": names, "words": [], "shown": names[0]}

    def move(self, **changes):
        """Settings of the chosen method, or what is common to all of them; -> the strip, the heats, the notes."""
        self.values |= {(self.method, name) if (self.method, name) in self.values else name: value for name, value in changes.items()}
        return self.page.redraw(self, self.key, {}, self.method, *self.values.values())

    def finish(self) -> View:
        self.page.refine(self, self.key)
        return self.page.studio.view(self.session_hash)


@pytest.fixture(scope="module")
def client(server):
    return Client(server.url, verbose=False)


@pytest.fixture
def visitor(server):
    visitor = Visitor(server.page, f"visitor-{time.monotonic_ns()}")
    visitor.open(2)
    return visitor


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A drawn scene as a PNG file."""
    path = tmp_path_factory.mktemp("app") / "scene.png"
    Image.fromarray(next(toy_samples("val", 1, size=(96, 128), start=32)).image).save(path)
    return path


def segment(client, path, classes=("boat",), settings=None, method="clip-es"):
    return client.predict(handle_file(path), list(classes), settings or {}, method, api_name="/segment")


def test_segment_gives_a_palette_mask_of_the_pictures_size_with_voc_numbers(client, picture):
    mask, overlay, report = segment(client, picture)
    assert Image.open(mask).mode == "P"
    labels = load_mask(mask)
    assert labels.shape == (96, 128)
    assert set(np.unique(labels)) <= {0, 4, 255} and (labels == 4).any()
    assert Image.open(overlay).size == (128, 96)
    assert report["labels"] == {"boat": 4} and 0 <= report["scores"]["boat"] <= 1 and report["settings"]["refiner"] == "crf"
    assert report["seconds"]["encode"] > 0 and {"cam", "affinity", "refined"} < set(report["seconds"])


def test_settings_that_come_back_as_json_give_the_same_mask_bit_for_bit(client, picture):
    first, _, report = segment(client, picture, settings={"power": 3, "background_power": 2.5, "layers": [0, 1], "refiner": "none"})
    second, _, again = segment(client, picture, settings=json.loads(json.dumps(report["settings"])))
    assert np.array_equal(load_mask(first), load_mask(second))
    assert again["settings"] == report["settings"]


def test_unknown_words_are_named(client, picture):
    _, _, report = segment(client, picture, ["giraffe"])
    assert any("'giraffe' is unknown" in note for note in report["notes"])
    assert report["labels"] == {"giraffe": 21} and not any("did you mean" in note for note in report["notes"])


def test_a_near_miss_is_asked_about(client, picture):
    _, _, report = segment(client, picture, ["boad"])
    assert "'boad' is no class of VOC or COCO: did you mean boat?" in report["notes"]


def test_results_have_names(client):
    described = client.view_api(return_format="dict")["named_endpoints"]
    assert [result["label"] for result in described["/segment"]["returns"]] == ["mask", "overlay", "report"]
    assert [result["label"] for result in described["/draw_scene"]["returns"]] == ["picture", "truth", "report"]


def test_a_class_with_a_capital_is_no_other_class(client, picture):
    (first, _, report), (second, _, _) = segment(client, picture, ["Boat"]), segment(client, picture, ["boat"])
    assert report["labels"] == {"boat": 4} and np.array_equal(load_mask(first), load_mask(second))


def test_draw_scene_shows_what_was_asked(client):
    scene, truth, report = client.predict(["boat"], "grass", 4, api_name="/draw_scene")
    assert report["place"] == "grass" and report["objects"][0][0] == "boat"
    assert 4 in load_mask(truth) and Image.open(scene).size == (320, 320)


def test_suggest_gives_every_name_a_probability(client, picture):
    shares = client.predict(handle_file(picture), "", api_name="/suggest")
    assert len(shares) == 20 and math.isclose(sum(shares.values()), 1, abs_tol=1e-4)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_only_the_doors_are_public(client):
    described = client.view_api(return_format="dict")["named_endpoints"]
    assert set(described) == {
        "/segment", "/draw_scene", "/suggest", "/templates", "/words", "/background_words", "/learn", "/batch",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("classes", "settings", "says"),
    [
        ([], {}, "at least one class"),
        ([" "], {}, "at least one class"),
        ([f"thing {number}" for number in range(200)], {}, "at most 20 classes, got 200"),
        (["word " * 80], {}, "80 words"),
        (["boat"], {"template": "a photo"}, "exactly one {}"),
        (["boat"], {"template": "{} and {}"}, "exactly one {}"),
        (["boat"], {"box_threshold": 7}, "box_threshold"),
        (["boat"], {"box_threshold": "NaN"}, "box_threshold"),
        (["boat"], {"power": 1.5}, "power"),
        (["boat"], {"iterations": 10**9}, "iterations"),
        (["boat"], {"refiner": "magic"}, "refiner"),
        (["boat"], {"affinity": "yes"}, "affinity"),
        (["boat"], {"layers": []}, "layers"),
        (["boat"], {"layers": [99]}, "blocks 0 to"),
        (["boat"], {"layers": "all"}, "layers"),
        (["boat"], {"background": "sea"}, "list of words"),
        (["boat"], {"synonyms": ["ship"]}, "synonyms"),
        (["boat"], {"colour": "red"}, "unknown setting colour"),
        (["boat"], ["power"], "JSON object"),
    ],
)
def test_a_mistake_gets_one_sentence(client, picture, classes, settings, says):
    with pytest.raises(AppError) as told:
        segment(client, picture, classes, settings)
    assert says in str(told.value) and "Traceback" not in str(told.value) and "our side" not in str(told.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, True, None, "high", 10**400])
def test_sliders_are_checked_again_on_the_server(visitor, value):
    for name in ("box_threshold", "opacity", "confidence", "bilateral_xy"):
        with pytest.raises(ValueError, match=r"expected"):
            visitor.move(**{name: value})
        key = name if name in visitor.values else (visitor.method, name)
        visitor.values[key] = visitor.page.controls[key].value


@pytest.mark.parametrize("seed", [-1, 0.5, math.nan, 1e300, None])
def test_seeds_are_whole_numbers(seed, server):
    for door in (lambda: ask.scene(["boat"], "sea", seed), lambda: server.page.open_drawing(None, ["boat"], "sea", seed)):
        with pytest.raises(Refused, match="seed"):
            door()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"words": ["sheep lamb"]}, "'boat = ship'"),
        ({"layers": []}, "at least one block"),
        ({"box_threshold": None}, "Box threshold is empty"),
    ],
)
def test_what_cannot_be_asked_leaves_the_controls_as_they_are_drawn(visitor, change, says):
    visitor.move(box_threshold=0.35, words=["sheep = lamb"])
    with pytest.raises(Refused, match=says):
        visitor.move(**change)
    _, *updates = visitor.page.back(visitor, visitor.method)
    drawn = dict(zip(visitor.page.controls, updates, strict=True))
    assert drawn[visitor.method, "box_threshold"] == 0.35 and drawn[visitor.method, "layers"] == [0, 1, 2]
    assert drawn["words"].value == ["sheep = lamb"]


def test_prompts_that_were_not_learned_leave_the_choice_as_it_was(visitor):
    visitor.method = "fma-wsss"
    visitor.move(**{PROMPTS_FROM: BY_HAND})
    with pytest.raises(Refused, match="nothing was learned here"):
        visitor.move(**{PROMPTS_FROM: HERE})
    _, *updates = visitor.page.back(visitor, visitor.method)
    assert dict(zip(visitor.page.controls, updates, strict=True))[visitor.method, PROMPTS_FROM] == BY_HAND


def test_words_that_come_with_the_model_are_no_difference(server, visitor, monkeypatch):
    monkeypatch.setattr(server.page.studio, "prompt_words", {"sheep": "woolly sheep"})
    visitor.open(2)
    words = server.page.retune(["horse", "sheep"], [], "horse")[0].value
    assert words == ["sheep = woolly sheep"]
    *_, differs = visitor.move(words=words)[:5]
    assert differs == ""
    *_, differs = visitor.move(words=["sheep = lamb"])[:5]
    assert "Words" in differs and 'data-choose="synonyms"' in differs
    _, _, *updates = visitor.page.reset(visitor, {}, visitor.method, SimpleNamespace(chosen="synonyms"))
    assert dict(zip(visitor.page.controls, updates, strict=True))["words"].value == words


def test_a_scene_that_cannot_be_drawn_is_refused(client):
    for asked, says in (((["dragon"], "sea", 1), "objects"), ((["boat"] * 5, "sea", 1), "objects"), ((["boat"], "moon", 1), "place")):
        with pytest.raises(AppError, match=says):
            client.predict(*asked, api_name="/draw_scene")


@pytest.mark.parametrize("text", ["{", "[1]", '{"power": NaN}', "\xff", '{"method": "pole"}', '{"classes": 3}', "[" * 100_000])
def test_bad_settings_files_are_refused_in_a_sentence(server, tmp_path, text):
    path = tmp_path / "settings.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"settings|power|classes|method"):
        server.page.restored(Visitor(server.page, "restorer"), str(path), ["boat"], "clip-es")


def test_what_nobody_foresaw_gets_an_id_that_the_log_explains(client, picture, monkeypatch, caplog):
    def broken(*_, **__):
        raise KeyError("secret path")

    monkeypatch.setattr(Pipeline, "steps", broken)
    with pytest.raises(AppError, match=r"our side \(id [0-9a-f]{8}\)") as told:
        segment(client, picture)
    assert "secret" not in str(told.value) and "secret path" in caplog.text


def test_pictures_of_every_kind_come_in(client, tmp_path):
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:, 32:] = 200
    plain = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    plain.save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(np.full((40, 64), 40_000, np.uint16)).save(tmp_path / "deep.png")
    plain.convert("CMYK").save(tmp_path / "inks.jpg")
    plain.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (64, 40), "red")])
    for name, shape in (("turned.jpg", (64, 40)), ("deep.png", (40, 64)), ("inks.jpg", (40, 64)), ("moving.gif", (40, 64))):
        mask, *_ = segment(client, tmp_path / name, settings={"refiner": "none"})
        assert load_mask(mask).shape == shape, name


def test_bombs_and_what_is_no_picture_are_refused(client, tmp_path):
    Image.new("1", (8_000, 8_000)).save(tmp_path / "bomb.png")
    (tmp_path / "words.png").write_text("this is no picture")
    for name, says in (("bomb.png", "64,000,000 pixels"), ("words.png", "not a picture")):
        with pytest.raises(AppError, match=says) as told:
            segment(client, tmp_path / name)
        assert name not in str(told.value)  # nor where the server put it


def test_a_picture_file_has_a_limit_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(ask, "PHOTO_BYTES", 100)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "large.png")
    with pytest.raises(Refused, match="save it smaller"):
        ask.photo(str(tmp_path / "large.png"))


def test_a_large_photo_is_worked_on_at_the_pages_size():
    assert ask.page_sized(np.zeros((3000, 4000, 3), np.uint8)).shape == (480, 640, 3)
    assert ask.page_sized(np.zeros((1, 4000, 3), np.uint8)).shape == (1, 640, 3)


def test_moving_knobs_never_runs_the_encoder(server, visitor):
    visitor.move()
    calls, strips = server.clip.calls, set()
    for step in range(12):
        knobs = {"box_threshold": 0.2 + step / 50, "background_power": 1 + step / 10, "opacity": step / 12, "layers": [0, 1 + step % 2]}
        strips.add(visitor.move(**knobs)[0])
    visitor.finish()
    assert server.clip.calls == calls and len(strips) == 12  # every move was answered, and differently


def test_the_strip_changes_with_the_knobs_and_the_refiner_follows(visitor):
    strip, heats, notes, *_ = visitor.move(background_power=1.0)
    assert strip.count("<img") == 5 and "refining…" in strip and "IoU " in strip
    assert "score" in heats and "lie" in notes
    assert visitor.move(background_power=4.0)[0] != strip
    view = visitor.finish()
    assert view.done and "refined" in view.result.stages
    assert "refining" not in figures.strip(view)


def test_two_events_that_ask_the_same_are_answered_once(visitor):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = [ask.result() for ask in [pool.submit(visitor.move, power=3), pool.submit(visitor.move, power=3)]]
    assert sorted(isinstance(strip, str) for strip, *_ in answers) == [False, True]


def test_a_stage_explains_itself_and_leads_to_its_notebook(server, visitor):
    strip, heats, *_ = visitor.move()
    links = re.findall(r'href="([^"]+[.]ipynb)"', strip)
    assert links and "It fills objects, and leaks" in strip and "what is + affinity?" in strip
    assert httpx.get(server.url + links[0]).json()["cells"]
    assert re.search(r"score 0[.]\d\d: share of <i>horse</i> among 2 \+ 22 words", heats) and "looks hot whatever the score" in heats


def test_looks_and_confidence_keep_the_refined_result(visitor):
    visitor.move()
    result = visitor.finish().result
    visitor.move(opacity=0.3, confidence=0.5, shown="sheep")
    assert visitor.page.studio.view(visitor.session_hash).result.stages is result.stages


def test_a_refiner_gives_up_when_the_visitor_moves_on(visitor, monkeypatch):
    visitor.move(iterations=50)
    made, whole = [], Pipeline.steps

    def moved_meanwhile(self, *args, **named):
        for result in whole(self, *args, **named):
            if not made:
                made.append(result)
                visitor.move(power=3)
            yield result

    monkeypatch.setattr(Pipeline, "steps", moved_meanwhile)
    assert visitor.page.refine(visitor, visitor.key) == [gr.skip()] * 3
    assert made and not visitor.page.studio.view(visitor.session_hash).done


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_and_its_sliders_never_run_the_encoder(server, visitor, method):
    visitor.method = method
    strip, heats, notes, *_ = visitor.move()
    shown = server.page.studio.start(method).titles
    assert all(title in strip for title in shown.values()) and "heat of horse" in heats and "lie" in notes
    calls = server.clip.calls
    assert visitor.move(background_power=3.0)[0] != strip
    view = visitor.finish()
    assert view.done and list(view.result.stages) == list(shown) and server.clip.calls == calls
    assert len(visitor.page.make_files(visitor, 0.5)) == 4


def test_prompts_of_ones_own_choice(server, visitor):
    visitor.method = "fma-wsss"
    visitor.move()
    with pytest.raises(Refused, match="nothing was learned here"):
        visitor.move(**{PROMPTS_FROM: HERE})
    notes = visitor.move(**{PROMPTS_FROM: BY_HAND})[2]
    assert "hand-crafted" in notes
    learned = FmaWsss(server.clip).learned
    server.page.studio.keep_learned(visitor.session_hash, "fma-wsss", learned)
    assert learned.fingerprint in visitor.move(**{PROMPTS_FROM: HERE})[2]
    assert "giraffe is none of them" in visitor.move(classes=["sheep", "giraffe"])[2]


def test_a_program_names_the_method(client, picture):
    mask, _, report = segment(client, picture, method="fma-wsss")
    assert load_mask(mask).shape == (96, 128) and report["masks"]["count"] > 0 and report["settings"]["method"] == "fma-wsss"
    for settings, method, says in (({}, "magic", "a method out of"), ({"proposals": "sam"}, "fma-wsss", "cannot be changed")):
        with pytest.raises(AppError, match=says):
            segment(client, picture, settings=settings, method=method)


def test_a_knob_turned_on_another_device_needs_a_picture(server):
    stranger = Visitor(server.page, "stranger")
    with pytest.raises(Refused, match="choose it again"):
        stranger.move(classes=["boat"])


def test_a_patch_tells_where_it_attends_and_which_words_are_near(visitor):
    class Click:
        index = (319, 0)

    visitor.move()
    told = visitor.page.ask_patch(visitor, Click(), 0.5, "turbo")
    assert "Patch 1, 20" in told and told.count("<li>") == 12 and "MaskCLIP" in told


def test_files_can_be_made_and_settings_come_back(visitor):
    visitor.move(power=4, box_threshold=0.55, words=["sheep = lamb", "sheep = woolly sheep"])
    visitor.finish()
    mask, overlay, maps, settings = (
        button.value["path"] if isinstance(button.value, dict) else button.value for button in visitor.page.make_files(visitor, 0.5)
    )
    assert load_mask(mask).shape == (320, 320)
    with np.load(maps) as arrays:
        assert arrays["stage_cam"].shape[1:] == (320, 320) and list(arrays["names"]) == ["horse", "sheep"]
    _, method, *updates = visitor.page.restored(visitor, settings, [], visitor.method)
    restored = dict(zip(visitor.page.controls, updates, strict=True))
    assert (
        method == "clip-es"
        and restored[method, "power"] == 4
        and restored[method, "box_threshold"] == 0.55
        and restored["classes"] == ["horse", "sheep"]
    )
    assert restored["words"].value == ["sheep = lamb,woolly sheep"]


def test_a_settings_file_with_few_settings_keeps_the_presets_others(server, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"power": 5, "classes": ["cow"]}')
    _, method, *updates = server.page.restored(Visitor(server.page, "restorer"), str(path), [], "clip-es")
    restored = dict(zip(server.page.controls, updates, strict=True))
    assert restored[method, "power"] == 5
    assert restored[method, "background"] == list(server.page.studio.start(method).settings.background)


def test_leakage_tells_on_what_a_mask_lies(visitor):
    visitor.move(refiner="none", affinity=False)
    view = visitor.page.studio.view(visitor.session_hash)
    planes = torch.zeros_like(view.result.planes)
    planes[1] = 1
    lines = figures.leakage(replace(view, result=replace(view.result, planes=planes)))
    share = 100 * (view.sample.truth == 13).mean()  # horse
    assert lines[0].startswith(f"Of the mask of horse lie {share:.0f} % on the horse") and "grass" in lines[0]
    assert lines[1] == "The mask has no sheep."


def test_templates_have_the_numbers_of_the_sweep_and_scenes_are_encoded_once(client, server):
    templates = ["a photo of a {}.", "a drawing of a {}.", "a sketch of a {}."]
    report = client.predict(templates, 7, {"power": 3}, api_name="/templates")
    method = ClipEs(server.clip, power=3, refiner="none")
    encoded = encode_all(method, toy_samples("val", 7, size=160), split="val")
    expected = sweep(method, encoded, template=templates)
    calls = server.clip.calls
    assert [row["template"] for row in report["templates"]] == templates and report["split"] == "val"
    assert [row["miou"] for row in report["templates"]] == pytest.approx([row.miou for row in expected.rows], abs=1e-6)
    assert all(0 <= row["class_score"] <= 1 and row["sharpness"] > 0 and row["images"] == 7 for row in report["templates"])
    assert "3 templates" in report["verdict"]
    again = client.predict(templates[:1], 7, {"power": 3}, api_name="/templates")
    assert again["templates"] == report["templates"][:1] and server.clip.calls == calls
    one = client.predict(templates, 1, {}, api_name="/templates")
    assert one["templates"][0]["sharpness"] is None or len(encoded.samples[0].names) > 1


def test_words_tell_the_class_name_the_best_word_decoys_and_strangers(client, picture):
    report = client.predict(handle_file(picture), ["boat"], "boat", ["couch", "giraffe"], {}, api_name="/words")
    words = {row["word"]: row for row in report["words"]}
    assert list(words) == [row["word"] for row in sorted(report["words"], key=lambda row: -row["similarity"])]
    assert {"boat", "vessel", "couch", "giraffe"} <= set(words) and words["couch"]["mark"] == "decoy: a word of sofa"
    assert "class name" in words["boat"]["mark"] and words["giraffe"]["unknown"] == ["giraffe"]
    assert ["best word" in row["mark"] for row in report["words"]].count(True) == 1


def test_background_words_are_left_out_one_by_one(client, picture):
    settings = {"background": ["sea", "sky", "boat"]}
    report = client.predict(handle_file(picture), ["boat"], settings, api_name="/background_words")
    changed = {row["word"]: row["changed"] for row in report["words"]}
    assert set(changed) == {"sea", "sky", "boat"} and list(changed.values()) == sorted(changed.values(), reverse=True)
    assert changed["boat"] == 0  # it is the class, so it did not compete
    assert max(changed.values()) > 0 and report["without_any"] > 0


@pytest.mark.parametrize(
    ("door", "asked", "says"),
    [
        ("/templates", ([], 10, {}), "1 to 100 templates, got 0"),
        ("/templates", (["{}"], 201, {}), "scenes as a whole number from 1 to 200"),
        ("/templates", (["{}"], 1.5, {}), "scenes as a whole number"),
        ("/templates", (["a photo"], 10, {}), "exactly one {}"),
        ("/templates", ([f"{number} {{}}" for number in range(101)], 10, {}), "got 101"),
        ("/templates", (["{}"], 10, ["power"]), "JSON object"),
        ("/words", (None, ["boat"], "boat", [], {}), "got none"),
        ("/words", ("picture", ["boat"], "cow", [], {}), "expected a class out of boat"),
        ("/words", ("picture", ["boat"], "boat", ["word"] * 21, {}), "at most 20 words"),
        ("/words", ("picture", ["boat"], "boat", ["word " * 80], {}), "80 words"),
        ("/background_words", ("picture", [], {}), "at least one class"),
        ("/background_words", ("picture", ["boat"], {"background": ["sea"] * 101}), "at most 100"),
    ],
)
def test_a_mistake_about_prompts_gets_one_sentence(client, picture, door, asked, says):
    asked = [handle_file(picture) if part == "picture" else part for part in asked]
    with pytest.raises(AppError) as told:
        client.predict(*asked, api_name=door)
    assert says in str(told.value) and "our side" not in str(told.value)


def measured(server, visitor, over=THIS, scenes=10, own=""):
    return server.pages["Prompts"].measure(visitor, over, scenes, KNOWN, own)


def test_the_open_picture_is_measured_without_the_encoder(server, visitor):
    visitor.move(refiner="none")
    page, calls = server.pages["Prompts"], server.clip.calls
    *_, (told, rows, said, plot, pair) = measured(server, visitor, own="a portrait of some {}.")
    assert pair.count("<img") == 2 and all(f"“{rows[end][0]}” · IoU {rows[end][3]:.1f} %" in pair for end in (0, -1))
    assert len(rows) >= 30 and {"a portrait of some {}.", "a clean origami {}."} <= {row[0] for row in rows}
    assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True) and all(row[1] is not None for row in rows)
    assert (
        len(plot.value["data"]) == len(rows)
        and plot.visible
        and "Rank correlation" in said
        and "'portrait'" in told
        and "horse, sheep" in told
    )
    bars, heats = page.compare_words(visitor, "sheep", ["couch", "giraffe"])
    assert bars.count("<meter") == heats.count("<img") == 6 and "decoy: a word of sofa" in bars and "'giraffe'" in bars
    *_, (told, pictures, rows) = page.leave_out(visitor)
    words = server.page.studio.start(server.page.studio.default).settings.background
    assert pictures.count("<img") == 3 and {row[0] for row in rows} == {"nothing", "all words", *words}
    shares = [row[1] for row in rows]
    assert shares == sorted(shares, reverse=True) and rows[[row[0] for row in rows].index("nothing")][1:] == [0, rows[-1][2], 0]
    assert server.clip.calls == calls


def test_one_class_has_no_sharpness_and_a_photo_no_iou(server, visitor):
    visitor.move(refiner="none", classes=["sheep"])
    _, rows, said, plot, _ = next(measured(server, visitor))
    assert rows and all(row[1] is None and row[3] is not None for row in rows) and "two or more" in said and not plot.visible
    photo = Sample(np.zeros((64, 64, 3), np.uint8), ("cow", "sheep"))
    visitor.key = server.page.studio.keep(visitor.session_hash, photo)
    visitor.move(classes=["cow", "sheep"], shown="cow")
    *_, (_, rows, said, _, pair) = measured(server, visitor)
    assert rows and all(row[3] is None for row in rows) and "Nobody knows the truth" in said
    assert f"“{rows[0][0]}” · score {rows[0][2]:.1f} %: nobody knows the truth" in pair and rows[0][2] >= rows[-1][2]
    *_, (_, _, rows) = server.pages["Prompts"].leave_out(visitor)
    assert all(row[2] is None for row in rows)


def test_the_open_picture_is_measured_once_when_the_page_is_opened(server, visitor, monkeypatch):
    monkeypatch.setattr("kit.ui.prompts.PAUSE", 0)
    page = server.pages["Prompts"]

    def arrive():
        about, *_ = page.arrive(visitor, visitor.key, "")
        return page.measure_unasked(visitor, about)

    visitor.move(refiner="none")
    *_, (told, rows, *_) = arrive()
    assert len(rows) >= 30 and "templates over the picture with horse, sheep." in told
    assert list(arrive()) == [NOTHING]  # the same question
    visitor.move(power=1)
    first = arrive()
    next(first)
    visitor.move(power=3)
    second = arrive()
    next(second)
    assert list(first) == [NOTHING]  # another question has come: its answer is not disturbed
    own = measured(server, visitor, MANY)
    next(own)
    visitor.move(power=4)
    assert list(arrive()) == [NOTHING]  # what the visitor has started goes on
    page.stop(visitor)
    *_, (told, *_) = own
    assert "Stopped" in told and len(list(arrive())) > 1


def test_stop_keeps_the_rows_and_other_visitors_go_on(server, visitor, monkeypatch):
    monkeypatch.setattr("kit.ui.prompts.PAUSE", 0)
    other = Visitor(server.page, "another")
    mine, theirs = (measured(server, who, MANY) for who in (visitor, other))
    while not next(mine)[1] or not next(theirs)[1]:
        pass
    rows = next(mine)[1]
    server.pages["Prompts"].stop(visitor)
    ((told, kept, *_),) = mine
    assert kept == rows and f"Stopped: {len(rows)} of" in told and "<progress" not in told
    assert len(next(theirs)[1]) >= 2  # nobody stopped them
    server.pages["Prompts"].stop(other)


def test_scenes_lie_on_a_bounded_shelf_for_every_visitor(server):
    with pytest.raises(Refused, match="choose at most"):
        list(Studio(server.clip, scenes=Shelf(20_000_000)).encoded(200))
    studio = Studio(server.clip, scenes=Shelf(32_000_000))
    calls = server.clip.calls
    sizes = [len(encoded) for encoded in studio.encoded(10)]
    assert sizes == [5, 10] and server.clip.calls == calls + 2 and studio.scenes.total <= 32_000_000
    *_, encoded = studio.encoded(8)
    assert len(encoded) == 8 and server.clip.calls == calls + 2
    assert [sample.id for sample in encoded.samples] == [f"val-{number:06d}" for number in range(8)]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A zip with three drawn scenes, a broken picture, a note and a list of classes; and the scenes as files."""
    folder = tmp_path_factory.mktemp("batch")
    lines, files = ["file,classes"], []
    with zipfile.ZipFile(folder / "scenes.zip", "w") as archive:
        for number, sample in enumerate(toy_samples("val", 3, size=(96, 128))):
            files.append(folder / f"scene {number}.png")
            Image.fromarray(sample.image).save(files[-1])
            archive.write(files[-1], f"photos/scene {number}.png")
            lines.append(f"scene {number}.png,{';'.join(sample.names)}")
        archive.writestr("photos/labels.csv", "\n".join([*lines[:-1], "broken,boat"]))
        archive.writestr("photos/broken.png", "this is no picture")
        archive.writestr("photos/notes.txt", "hello")
    return folder / "scenes.zip", files, "\n".join(lines)


def batch(client, files, classes=(), labels="", settings=None, overlays=True):
    return client.predict([handle_file(file) for file in files], list(classes), labels, settings or {}, overlays, api_name="/batch")


def report_rows(archive: zipfile.ZipFile) -> dict[str, dict[str, str]]:
    return {row["file"]: row for row in csv.DictReader(archive.read("report.csv").decode("utf-8-sig").splitlines())}


def test_a_zip_comes_back_as_masks_with_a_report(client, scenes):
    path, report = batch(client, [scenes[0]], settings={"refiner": "none", "power": 3})
    with zipfile.ZipFile(path) as archive:
        pictures = [f"{kind}/scene_{number}.png" for number in (0, 1) for kind in ("masks", "overlays")]
        assert archive.namelist() == [*pictures, "settings.json", "report.csv", "manifest.json"]
        sample = next(toy_samples("val", 1, size=(96, 128)))
        labels = load_mask(io.BytesIO(archive.read("masks/scene_0.png")))
        assert labels.shape == (96, 128) and set(np.unique(labels)) - {0, 255} <= {1 + VOC_CLASSES.index(name) for name in sample.names}
        rows = report_rows(archive)
        assert {name: row["state"] for name, row in rows.items()} == {
            "photos/scene 0.png": "done",
            "photos/scene 1.png": "done",
            "photos/scene 2.png": "refused",
            "photos/broken.png": "refused",
            "photos/notes.txt": "ignored",
            "photos/labels.csv": "ignored",
        }
        assert rows["photos/scene 0.png"]["mask"] == "masks/scene_0.png" and rows["photos/scene 0.png"]["classes"] == ";".join(sample.names)
        assert "not a picture" in rows["photos/broken.png"]["reason"] and "no line" in rows["photos/scene 2.png"]["reason"]
        assert json.loads(archive.read("settings.json"))["power"] == 3
        assert not [name for name in archive.namelist() if b"/tmp/" in archive.read(name)]  # nor where the server put it
        assert json.loads(archive.read("manifest.json"))["files"] == {"read": 6, "done": 2, "refused": 2, "ignored": 2, "not_done": 0}
    assert {name: report[name] for name in ("read", "done", "refused", "ignored")} == {"read": 6, "done": 2, "refused": 2, "ignored": 2}


def test_a_batch_gives_the_mask_of_one_picture(client, scenes):
    path, report = batch(client, scenes[1][:1], ["boat", "giraffe"], overlays=False)
    alone, *_ = segment(client, scenes[1][0], ["boat", "giraffe"])
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["masks/scene_0.png", "settings.json", "report.csv", "manifest.json"]
        assert np.array_equal(load_mask(io.BytesIO(archive.read("masks/scene_0.png"))), load_mask(alone))
        assert json.loads(archive.read("settings.json"))["classes"] == ["boat", "giraffe"]


def test_classes_are_suggested_as_in_explore(client, scenes):
    _, report = batch(client, scenes[1], settings={"refiner": "none"}, overlays=False)
    for file, row in zip(scenes[1], report["files"], strict=True):
        shares = client.predict(handle_file(file), "", api_name="/suggest")
        likely = [name for name in shares if shares[name] >= ask.SURE_ENOUGH or name == next(iter(shares))][: ask.SUGGESTED]
        assert row["classes"] == likely and row["scores"] == pytest.approx([shares[name] for name in likely], abs=1e-4)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"files": []}, "choose pictures"),
        ({"classes": ["boat"], "labels": "a.png,boat"}, "leave one out"),
        ({"classes": ["word"] + [f"thing {number}" for number in range(20)]}, "at most 20 classes"),
        ({"settings": {"power": 99}}, "power"),
        ({"labels": ",boat"}, "the CSV, line 1: the name of the picture is missing"),
    ],
)
def test_a_batch_that_cannot_be_done_gets_one_sentence(client, scenes, asked, says):
    with pytest.raises(AppError, match=says) as told:
        batch(client, **{"files": scenes[1][:1], **asked})
    assert "our side" not in str(told.value)


class TestListedNames:
    PICTURES = tuple(Picture(name, name, Path()) for name in ("a/cat.jpg", "b/cat.jpg", "c/dog.png", "cow.png", "cow.jpg"))

    def names(self, tmp_path, text: str) -> dict:
        (tmp_path / "list.csv").write_text(text)
        found = listed_names(tmp_path / "list.csv", self.PICTURES, VOC_CLASSES)
        return {id: names if isinstance(names, tuple) else str(names) for id, names in found.items()}

    def test_a_picture_may_be_written_in_several_ways(self, tmp_path):
        found = self.names(tmp_path, "file,classes\na/cat.jpg,cat\nb/cat,cat;sofa\ndog.png,traffic light;dog\ncow.png,cow\ncow.jpg,3;9\n")
        assert found == {
            "a/cat.jpg": ("cat",), "b/cat.jpg": ("cat", "sofa"), "c/dog.png": ("traffic light", "dog"), "cow.png": ("cow",),
            "cow.jpg": ("boat", "cow"),
        }  # fmt: skip

    def test_what_a_line_lacks_is_said_of_its_picture(self, tmp_path):
        found = self.names(tmp_path, "cat,cat\ndog,\ncow.png,77\ncow.jpg,cow\ncow.jpg,dog\n")
        assert found["a/cat.jpg"] == found["b/cat.jpg"] == "the CSV has no line for it"  # there are two
        assert "at least one class" in found["c/dog.png"] and "0..19" in found["cow.png"] and "2 lines" in found["cow.jpg"]
        assert str(tmp_path) not in "".join(map(str, found.values()))


def started(server, visitor, uploads, labelling=SAME, classes=("cow",)):
    page = server.pages["Batch"]
    page.begin(visitor, uploads, labelling, list(classes), True)
    return page.work(visitor)


def uploaded(files) -> list[Upload]:
    return [Upload(file.name, file) for file in files]


def test_stop_keeps_the_masks_that_are_done(server, visitor, scenes, monkeypatch):
    monkeypatch.setattr("kit.ui.batch.PAUSE", 0)
    page = server.pages["Batch"]
    work = started(server, visitor, uploaded(scenes[1]))
    while "1 of 3 pictures" not in next(work)[0]:
        pass
    with pytest.raises(Refused, match="still running"):
        page.begin(visitor, uploaded(scenes[1]), SAME, ["cow"], True)
    assert not [step for step in page.work(visitor) if step != [gr.skip()] * 5]  # the work is somebody's already
    page.stop(visitor)
    *_, (told, button, *_, rows) = work
    assert told.count("3 files read: 1 done, 2 not done") == 1 and "Stopped" in told and rows.count("<td>not done</td>") == 2
    with zipfile.ZipFile(button.value["path"] if isinstance(button.value, dict) else button.value) as archive:
        assert [name for name in archive.namelist() if "masks/" in name] == ["masks/scene_0.png"]
        assert [row["state"] for row in report_rows(archive).values()] == ["done", "not done", "not done"]
    list(started(server, visitor, uploaded(scenes[1][:1])))  # and the next may begin


def test_at_every_moment_each_file_is_counted_once(server, visitor, scenes, monkeypatch):
    monkeypatch.setattr("kit.ui.batch.PAUSE", 0)
    page = server.pages["Batch"]
    work, seen = started(server, visitor, [Upload("scenes.zip", scenes[0])], LISTED), set()
    for _ in work:
        job = server.page.studio.shelf.get(visitor.session_hash, "batch's job")
        counts = job.counts() if job is not None else {"read": 0}
        assert counts.pop("read") == sum(counts.values())
        seen.add(tuple(counts.values()))
        if job is not None and job.count("done") == 1:
            page.stop(visitor)
    assert len(seen) >= 2 and counts == {"done": 1, "refused": 1 + 1, "ignored": 2, "not_done": 1}


def test_the_example_and_the_drawn_scenes_are_what_the_page_reads(server, visitor, tmp_path):
    page = server.pages["Batch"]
    paths, labelling = page.try_scenes()
    assert labelling == LISTED and len(paths) == 5
    *_, (told, _, _, latest, rows) = started(server, visitor, uploaded(map(Path, paths)), labelling)
    assert "5 files read: 4 done, 1 ignored" in told and rows.count("Open in Explore</button>") == 4
    for number, names in ((32, ("boat",)), (2, ("horse", "sheep"))):
        sample = next(toy_samples("val", 1, size=320, start=number))
        key, classes, *_, image, _, _ = page.open(visitor, SimpleNamespace(chosen=f"scene_{number:02}"))[:7]
        assert tuple(classes) == sample.names == names and np.array_equal(image, sample.image)
        assert f"enlarge scene {number:02}: {', '.join(names)}" in latest
    with pytest.raises(Refused, match="no longer on the server"):
        page.open(visitor, SimpleNamespace(chosen="another"))


def test_chips_can_be_read():
    """Black or white on every class's colour: at least 4.5 : 1."""

    def light(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for name in VOC_CLASSES:
        colour = figures.hex_colour(name, VOC_CLASSES)
        high, low = sorted((light(colour), light(figures.text_colour(colour))), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, name
        assert f"background: {colour}" in figures.chip(name, VOC_CLASSES)


def test_a_batch_ends_when_its_visitor_leaves(server, visitor, scenes, monkeypatch, tmp_path):
    monkeypatch.setattr("kit.ui.batch.PAUSE", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    work = started(server, visitor, uploaded(scenes[1]))
    while "1 of 3 pictures" not in next(work)[0]:
        pass
    assert list(tmp_path.glob("kit-batch-*"))
    server.page.studio.shelf.forget(visitor.session_hash)
    assert list(work) == [] and not list(tmp_path.glob("kit-batch-*"))


def test_a_batch_takes_explores_settings(server, visitor, scenes):
    page = server.pages["Batch"]
    assert "those the model comes with" in page.arrive(Visitor(server.page, "just arrived"))
    visitor.move(refiner="none", power=4, words=["sheep = lamb"], background=["sea", "mud"])
    told = page.arrive(visitor)
    assert "power 4 instead of 2" in told and "sheep = lamb" in told and "with mud" in told and "refiner none instead of crf" in told
    *_, (_, button, *_) = started(server, visitor, uploaded(scenes[1][:1]))
    with zipfile.ZipFile(button.value["path"] if isinstance(button.value, dict) else button.value) as archive:
        path = scenes[0].parent / "settings.json"
        path.write_bytes(archive.read("settings.json"))
    _, method, *updates = server.page.restored(visitor, str(path), ["cow"], visitor.method)
    restored = dict(zip(server.page.controls, updates, strict=True))
    assert restored[method, "power"] == 4 and restored["classes"] == ["cow"] and restored[method, "background"] == ["sea", "mud"]


def test_a_result_that_is_too_large_ends_the_batch(server, visitor, scenes, monkeypatch):
    monkeypatch.setattr("kit.ui.job.RESULT_BYTES", 10)
    *_, (told, _, notes, *_) = started(server, visitor, uploaded(scenes[1]))
    assert "3 files read: 1 done, 2 not done" in told and "as large as it may be" in notes


def test_the_tiny_model_says_that_it_does_not_know_photographs(server, visitor):
    visitor.key = server.page.studio.keep(visitor.session_hash, Sample(np.full((64, 64, 3), 90, np.uint8), ("cow",)))
    _, _, notes, *_ = visitor.move(classes=["cow"], shown="cow", refiner="none")
    assert figures.PHOTO_NOTE in notes and figures.PHOTO_NOTE in figures.opened(server.page.studio.view(visitor.session_hash))
    visitor.open(2)
    assert figures.PHOTO_NOTE not in visitor.move()[2]
    assert "photograph" not in figures.opened(server.page.studio.view(visitor.session_hash))


def test_two_visitors_at_once_get_their_own_answers(client, server, picture):
    other = Client(server.url, verbose=False)
    start = threading.Barrier(2)

    def work(who, names, power):
        start.wait()
        return [segment(who, picture, names, {"power": power, "refiner": "none"})[2] for _ in range(4)]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(work, client, ["boat"], 1), pool.submit(work, other, ["cow", "sheep"], 5)]
        first, second = (work.result() for work in both)
    assert all(report["settings"]["power"] == 1 and list(report["scores"]) == ["boat"] for report in first)
    assert all(report["settings"]["power"] == 5 and list(report["scores"]) == ["cow", "sheep"] for report in second)


def test_the_shelf_is_bounded_and_private(server):
    shelf = Shelf(100)
    for number in range(5):
        shelf.put("ann", str(number), number, 40)
    assert shelf.total <= 100 and shelf.get("ann", "4") == 4 and shelf.get("ann", "0") is None and shelf.get("ben", "4") is None
    shelf.put("ben", "large", "thing", 1000)
    assert shelf.get("ben", "large") == "thing" and shelf.total == 1000
    shelf.forget("ben")
    assert shelf.total == 0


def test_the_same_picture_of_two_visitors_lies_twice(server):
    studio, sample = Studio(server.clip), next(toy_samples("val", 1, size=64))
    assert studio.keep("ann", sample) == studio.keep("ben", sample)
    studio.shelf.forget("ann")
    assert studio.sample("ben", studio.keep("ben", sample)) is sample


@pytest.mark.parametrize(
    "arguments", [["--port", "0"], ["--port", "x"], ["--bogus"], ["--model", "nothing"], ["--device", "abacus"], ["--model", "ViT-B-16"]]
)
def test_bad_options_end_with_one_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        app.main(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("app.py: ") and said.count("\n") == 1
