"""FMA-WSSS in Explore: the visitor's picture asked with learned prompts, and the masks that vote, told one by one."""

import json
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from kit.data import Sample, toy_samples
from kit.images import load_mask
from kit.learned import load_learned, save_learned
from kit.methods import FmaWsss
from kit.propose import Proposals, superpixels
from kit.ui import regions
from kit.ui.explore import CLIP_ES
from kit.ui.masks import BY_HAND, HERE, STARTED, TITLE, Missing, known_prompts
from kit.vote import mask_vote


class Visitor:
    """A request as Gradio hands it over, with FMA-WSSS chosen and its knobs as they are at first."""

    def __init__(self, page, sample):
        self.page, self.session_hash = page, f"masks-{time.monotonic_ns()}"
        self.key = page.studio.keep(self.session_hash, sample)
        self.asked = {"names": list(sample.names), "opacity": 0.6, "colour_map": "turbo", "shown": sample.names[0]}
        self.knobs = {name: part.value for name, part in page.masks.controls.items()}

    def move(self, method=TITLE, **changes):
        self.asked |= {name: value for name, value in changes.items() if name in self.asked}
        self.knobs |= {name: value for name, value in changes.items() if name in self.knobs}
        *_, shown = self.page.redraw_masks(self, method, self.key, *self.asked.values(), *self.knobs.values())
        return shown

    def closer(self, level=2, voted="fine", left="Coarse seeds", right="Fine seeds"):
        return self.page.closer(self, TITLE, self.key, level, voted, left, right)

    @property
    def view(self):
        return self.page.masks.view(self.session_hash)


@pytest.fixture(scope="module")
def sample():
    return next(toy_samples("val", 1, size=160, start=2))  # a horse and a sheep


@pytest.fixture
def visitor(server, sample):
    return Visitor(server.page, sample)


# Outlines


def filled(path: str, size: tuple[int, int]) -> np.ndarray:
    """What an SVG path of steps along pixels' edges encloses by the even-odd rule."""
    crossed = np.zeros((size[0], size[1] + 1), bool)
    for loop in path.split("M")[1:]:
        x, y = (int(number) for number in re.match(r"(\d+) (\d+)", loop).groups())
        start = x, y
        for axis, number in re.findall(r"([hv])(-?\d+)", loop):
            if axis == "h":
                x += int(number)
            else:
                crossed[min(y, y + int(number)) : max(y, y + int(number)), x] ^= True
                y += int(number)
        assert (x, y) == start  # closed
    return np.logical_xor.accumulate(crossed, 1)[:, :-1]


def test_an_outline_of_a_rectangle_is_four_moves():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    assert regions.outline(mask) == "M2 1h3v2h-3v-2z"


@pytest.mark.parametrize("seed", range(4))
def test_an_outline_encloses_its_mask_with_holes_and_islands(seed):
    mask = np.random.default_rng(seed).random((13, 17)) < 0.2 + 0.2 * seed
    assert np.array_equal(filled(regions.outline(mask), mask.shape), mask)


def test_a_region_tells_its_level_its_vote_and_who_made_it():
    masks = torch.zeros(3, 20, 30, dtype=torch.bool)
    masks[0, :, :15] = masks[1, :, 15:] = masks[2, 2:6, 2:6] = True
    proposals = Proposals(masks, torch.tensor([2, 2, 0]), "superpixels")
    cam = torch.zeros(1, 20, 30)
    cam[0, :, :15] = 1
    vote = mask_vote(cam, proposals)
    image = np.zeros((20, 30, 3), np.uint8)
    wholes = regions.layer(image, proposals, regions.level_outlines(proposals, 2), vote, ("boat",), level=2, title="Votes")
    assert wholes.count("<path") == 2 and "<title>whole: boat 1.00</title>" in wholes and "<title>whole: background 1.00</title>" in wholes
    assert "superpixels, the offline stand-in for SAM" in wholes and "1 of them voted for a class" in wholes
    parts = regions.layer(image, proposals, regions.level_outlines(proposals, 0), vote, ("boat",), level=0, title="Votes")
    assert parts.count("<path") == 1 and "part of a part: boat 1.00, painted over</title>" in parts
    by_sam = Proposals(masks, proposals.levels, "facebook/sam-vit-base")
    assert "SAM (facebook/sam-vit-base)" in regions.layer(image, by_sam, {}, vote, ("boat",), level=1, title="Votes")


# The page


def test_the_way_from_picture_to_truth_is_shown_with_its_masks(visitor):
    strip, notes = visitor.move()
    assert re.findall(r"<figcaption><b>([^<]+)</b>", strip) == [
        "Picture", "Map", "After affinity", "Coarse seeds", "Fine map", "Fine affinity", "Fine seeds", "Truth",
    ]  # fmt: skip
    assert strip.count("IoU of this scene") == 6 and "Masks by superpixels, the offline stand-in for SAM" in notes
    layer, (left, right), heats = visitor.closer()
    wholes = int((visitor.view.result.proposals.levels == 2).sum())
    assert layer.count("<path") == wholes and left.shape == right.shape == (160, 160, 3) and heats.count("<img") == 2
    assert visitor.closer() == [gr.skip()] * 3  # nothing is new
    assert "part of a part" in visitor.page.mask_layer(visitor, visitor.key, 0, "coarse")


def test_knobs_change_the_seeds_without_encoder_and_masks_made_anew(server, visitor):
    visitor.move()
    calls, before = server.clip.calls, visitor.view.result
    strip, _ = visitor.move(vote_power=3.0)
    after = visitor.view.result
    assert strip and server.clip.calls == calls and after.proposals is before.proposals
    assert (after.votes["coarse"].labels == 0).sum() < (before.votes["coarse"].labels == 0).sum()  # less background
    assert visitor.move() == [gr.skip()] * 2  # the same question


def test_a_free_class_is_told_in_one_sentence(visitor):
    _, notes = visitor.move(names=["sheep", "giraffe"], shown="sheep")
    assert "learned for 20 classes; giraffe is none of them" in notes and visitor.view.sample.names == ("sheep",)
    strip, _ = visitor.move(names=["couch"])
    assert "Did you mean sofa?" in strip and "<img" not in strip and visitor.closer() == ("", None, "")
    _, notes = visitor.move(names=["sheep", "giraffe"], source=BY_HAND)
    assert visitor.view.sample.names == ("sheep", "giraffe") and "hand-written" in notes
    assert visitor.closer()[1] is not None  # the coarse seeds twice


def test_nothing_is_asked_while_the_other_method_is_chosen(visitor):
    assert visitor.move(CLIP_ES) == [gr.skip()] * 2
    assert visitor.page.closer(visitor, CLIP_ES, visitor.key, 2, "fine", "Map", "Truth") == [gr.skip()] * 3


def test_learned_here_needs_something_learned(visitor):
    strip, _ = visitor.move(source=HERE)
    assert "Nothing was learned here yet" in strip


def test_a_photo_has_no_truth(server):
    visitor = Visitor(server.page, Sample(np.full((64, 96, 3), 90, np.uint8), ("cow",)))
    strip, _ = visitor.move()
    assert "Nobody knows it for a photo" in strip and "IoU of" not in strip and "heat of cow" in strip


@pytest.mark.parametrize(
    "changes",
    [{"vote_power": float("nan")}, {"box_threshold": 7}, {"source": "elsewhere"}, {"opacity": 2}, {"names": []}, {"fine_vote_power": None}],
)
def test_knobs_are_checked_again_on_the_server(visitor, changes):
    with pytest.raises(ValueError, match=r"expected|choose"):
        visitor.move(**changes)


def test_levels_are_checked_too(visitor):
    visitor.move()
    with pytest.raises(ValueError, match="level"):
        visitor.page.mask_layer(visitor, visitor.key, 3, "fine")


def test_files_can_be_made(visitor):
    visitor.move(source=STARTED)
    buttons = visitor.page.make_mask_files(visitor, 0.5)
    mask, _, maps, settings = (button.value["path"] if isinstance(button.value, dict) else button.value for button in buttons)
    assert load_mask(mask).shape == (160, 160)
    with np.load(maps) as arrays:
        assert arrays["stage_fine"].shape == (3, 160, 160)
    with open(settings) as file:
        assert json.load(file)["method"] == "fma-wsss"


def test_a_sam_is_waited_for_once_with_a_word(server, visitor, monkeypatch):
    sam = SimpleNamespace(name="some/sam")
    monkeypatch.setattr(server.page.studio, "sam", sam)
    made = []

    def proposals(method, image):
        made.append(method.settings.proposals)
        return replace(superpixels(image), source="some/sam")

    monkeypatch.setattr(FmaWsss, "proposals", proposals)
    asked = (*visitor.asked.values(), *visitor.knobs.values())
    (waiting, _), (strip, notes) = visitor.page.redraw_masks(visitor, TITLE, visitor.key, *asked)
    assert "some/sam is making" in waiting and "Coarse seeds" in strip and "Masks by SAM (some/sam)" in notes
    visitor.move(vote_power=2.0)
    assert made == ["some/sam"]


# Not available


def test_a_missing_file_is_told_with_the_command_that_would_help(server, tmp_path, visitor, monkeypatch):
    missing = known_prompts(server.clip, tmp_path / "none.safetensors")
    assert isinstance(missing, Missing) and "none.safetensors: there is no such file" in missing.why and str(tmp_path) not in str(missing)
    assert missing.command == "python -m kit fit --data toy --method fma-wsss --out FILE"
    monkeypatch.setattr(server.page.studio, "learned", missing)
    strip, _ = visitor.move()
    assert "not available" in strip and missing.command in strip and visitor.closer() == ("", None, "")
    strip, _ = visitor.move(source=BY_HAND)  # which needs nothing learned
    assert "Coarse seeds" in strip


def test_the_file_of_another_clip_is_told(server, random_prompts, tmp_path):
    tensors, about = load_learned(random_prompts)
    save_learned(tmp_path / "other.safetensors", tensors, about | {"clip": "0123456789abcdef"})
    missing = known_prompts(server.clip, tmp_path / "other.safetensors")
    assert isinstance(missing, Missing) and "0123456789abcdef" in missing.why
    assert isinstance(known_prompts(server.clip, random_prompts), FmaWsss)


# For programs


@pytest.fixture(scope="module")
def client(server):
    return Client(server.url, verbose=False)


@pytest.fixture(scope="module")
def picture(tmp_path_factory, sample):
    path = tmp_path_factory.mktemp("masks") / "scene.png"
    Image.fromarray(sample.image).save(path)
    return path


def test_a_program_gets_the_mask_of_the_page(client, picture, sample, visitor):
    mask, overlay, report = client.predict(handle_file(picture), list(sample.names), {}, api_name="/fma_segment")
    visitor.move()
    expected = visitor.view.result.labels.numpy()
    labels = load_mask(mask)
    assert np.array_equal(labels == 13, expected == 1) and np.array_equal(labels == 17, expected == 2)
    assert Image.open(overlay).size == (160, 160) and report["labels"] == {"horse": 13, "sheep": 17}
    assert report["masks"] == {"by": "superpixels", "count": len(visitor.view.result.proposals)}
    again, _, _ = client.predict(handle_file(picture), list(sample.names), report["settings"], api_name="/fma_segment")
    assert np.array_equal(load_mask(again), labels)


@pytest.mark.parametrize(
    ("classes", "settings", "says"),
    [
        ([], {}, "at least one class"),
        (["giraffe"], {}, "giraffe is none of them"),
        (["boat"], {"vote_power": 0}, "vote_power"),
        (["boat"], {"proposals": "facebook/sam-vit-huge"}, "option of its start"),
        (["boat"], {"context": 4}, "belongs to the learned prompts"),
        (["boat"], {"refiner": "crf"}, "unknown setting refiner"),
        (["boat"], ["power"], "JSON object"),
    ],
)
def test_a_mistake_gets_one_sentence(client, picture, classes, settings, says):
    with pytest.raises(AppError, match=says) as told:
        client.predict(handle_file(picture), classes, settings, api_name="/fma_segment")
    assert "our side" not in str(told.value)
