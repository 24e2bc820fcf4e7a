"""The kit against the official code: identical random weights, identical numbers.

The arrays were produced once by the papers' own implementations on a small random CLIP. $KIT_GOLDEN_DIR may name a folder with other sets
in the same format.
Each stage is given the official output of the stage before it and must agree to 1e-5 (relative to the largest value where that is above 1);
the whole chain is checked end to end as well.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from kit import cam, refine
from kit.encode import Clip, build_small_clip
from kit.prompt import filled
from kit.words import VOC_PROMPTS

FOLDER = Path(os.environ.get("KIT_GOLDEN_DIR", Path(__file__).parent / "golden"))
SMALL_CLIP = {
    "embed_dim": 64, "quick_gelu": True, "vision_cfg": {"image_size": 64, "layers": 9, "width": 128, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}  # fmt: skip


def close(got, expected, *, tolerance=1e-5):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
    assert got.shape == expected.shape
    worst = np.abs(got - expected).max()
    assert worst <= tolerance * max(1.0, np.abs(expected).max()), f"differs by {worst:.2e}"


@pytest.fixture(scope="module")
def golden():
    path = FOLDER / "clip_es.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {FOLDER}")
    return np.load(path, allow_pickle=False)


@pytest.fixture(scope="module")
def clip(golden):
    import open_clip

    model = build_small_clip(SMALL_CLIP)
    weights = {
        name.removeprefix("weights/"): torch.from_numpy(golden[name]).float() for name in golden.files if name.startswith("weights/")
    }
    model.load_state_dict(weights)
    return Clip(model, open_clip.get_tokenizer("ViT-B-16"), name="golden")


@pytest.fixture(scope="module")
def tokens(golden, clip):
    """The kit's own tokens."""
    return clip.encode(torch.from_numpy(golden["image"]))


@pytest.fixture(scope="module")
def official(golden, tokens):
    """The official code's tokens and attention, for the stages after the encoder."""
    return dataclasses.replace(
        tokens, last_input=torch.from_numpy(golden["tokens_before_last_block"])[None], attention=torch.from_numpy(golden["attention"])[None]
    )


@pytest.fixture(scope="module")
def text(golden):
    features = torch.from_numpy(golden["text_features"])
    return torch.cat([features[golden["present"]], features[4:]])


def test_clip_es_text(golden, clip):
    words = [VOC_PROMPTS[name] for name in ("aeroplane", "bird", "person", "tvmonitor")] + ["sky", "ground", "grass"]
    prompts = [filled("a clean origami {}.", word) for word in words]
    assert (clip.tokenizer(prompts).numpy() == golden["text_ids"]).all()
    close(clip.text(prompts), golden["text_features"])


def test_clip_es_tokens(golden, tokens):
    assert tokens.grid == (5, 7)
    close(tokens.last_input[0], golden["tokens_before_last_block"])


def test_clip_es_attention(golden, tokens):
    assert tokens.layers == tuple(range(9))
    close(tokens.attention[0], golden["attention"])


def test_clip_es_probabilities(golden, official, text):
    close(cam.class_probabilities(official, text)[0], golden["probabilities"])


def test_clip_es_cam(golden, official, text):
    close(cam.normalised_cam(cam.softmax_grad_cam(official, text, [0, 1]))[0], golden["cam"])


@pytest.mark.parametrize("threshold", [0.4, 0.7])
def test_clip_es_affinity(golden, official, threshold):
    maps = torch.from_numpy(golden["cam"])[None]
    boxes = refine.box_mask(maps, threshold=threshold)
    assert (boxes[0].numpy() == golden[f"boxmask_{threshold}"].astype(bool)).all()
    affinity = refine.attention_affinity(official.attention[:, -8:])
    close(refine.spread(maps, affinity, boxes)[0], golden[f"caa_{threshold}"])


def test_clip_es_upsampling(golden):
    maps = cam.stretched(torch.from_numpy(golden["caa_0.4"])[None])
    close(refine.upsampled(maps, (75, 100))[0], golden["caa_upsampled_75x100"])


def test_clip_es_crf(golden):
    if not refine.has_dense_crf():
        pytest.skip("pydensecrf2 is not installed (it needs a C++ compiler)")
    *_, last = refine.dense_crf(golden["crf_image"], torch.from_numpy(golden["crf_in"]))
    close(last, golden["crf_out"], tolerance=1e-4)


def test_clip_es_end_to_end(golden, tokens, text):
    """From pixels to the enlarged map; stretching small maps to [0, 1] twice enlarges rounding errors, hence 1e-4."""
    maps = cam.normalised_cam(cam.softmax_grad_cam(tokens, text, [0, 1]))
    close(maps[0], golden["cam"])
    affinity = refine.attention_affinity(tokens.attention[:, -8:])
    spread = refine.spread(maps, affinity, refine.box_mask(maps, threshold=0.4))
    close(refine.upsampled(cam.stretched(spread), (75, 100))[0], golden["caa_upsampled_75x100"], tolerance=1e-4)


def test_clip_es_golden_numbers_can_fail(golden, official, text):
    """The control: one wrong word and the map no longer agrees."""
    wrong = cam.normalised_cam(cam.softmax_grad_cam(official, text.roll(1, 0), [0, 1]))[0]
    assert np.abs(wrong.numpy() - golden["cam"]).max() > 0.1
