"""The kit against the official code: identical random weights, identical numbers.

The arrays were produced once by the papers' own implementations on a small random CLIP. $KIT_GOLDEN_DIR may name a folder with other sets
in the same format.
Each stage is given the official output of the stage before it and must agree to 1e-5 (relative to the largest value where that is above 1);
the whole chain is checked end to end as well. What is small by nature (raw maps, gradients) must agree to 1e-4 of its own largest value.
"""

import dataclasses

import numpy as np
import pytest
import torch

from kit import cam, losses, refine
from kit.encode import Clip, build_small_clip
from kit.prompt import PromptContext, filled, sharpness
from kit.words import VOC_PROMPTS

SMALL_CLIP = {
    "embed_dim": 64, "quick_gelu": True, "vision_cfg": {"image_size": 64, "layers": 9, "width": 128, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}  # fmt: skip


def close(got, expected, *, tolerance=1e-5):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
    assert got.shape == expected.shape
    worst = np.abs(got - expected).max()
    assert worst <= tolerance * max(1.0, np.abs(expected).max()), f"differs by {worst:.2e}"


def near(got, expected, *, tolerance=1e-4):
    got = got.detach().numpy()
    assert got.shape == expected.shape and np.abs(expected).max() > 0
    worst = np.abs(got - expected).max() / np.abs(expected).max()
    assert worst <= tolerance, f"differs by {worst:.2e} of the largest value"


@pytest.fixture(scope="module")
def golden(official_arrays):
    return official_arrays("clip_es.npz")


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


FMA_NAMES = [*(VOC_PROMPTS[name] for name in ("aeroplane", "bird", "person", "tvmonitor")), "sky", "ground", ""]
CONTEXTS = {"shared_end": {"position": "end"}, "perclass_front": {"position": "front", "per_class": True}}


@pytest.fixture(scope="module")
def fma(official_arrays):
    return official_arrays("fma_wsss.npz")


@pytest.fixture(scope="module")
def fma_tokens(fma, clip):
    return clip.encode(torch.from_numpy(fma["images"]), layers=())


def fma_context(fma, clip, group, **changes):
    context = PromptContext(clip, FMA_NAMES, **{**CONTEXTS[group], **changes})
    context.load_state_dict({"vectors": torch.from_numpy(fma[f"{group}/ctx"])})
    return context


@pytest.mark.parametrize("group", CONTEXTS)
def test_fma_logits(fma, clip, fma_tokens, group):
    close(cam.class_logits(fma_tokens, fma_context(fma, clip, group).text(clip)), fma[f"{group}/logits"])


@pytest.mark.parametrize("group", CONTEXTS)
def test_fma_raw_cam_and_its_second_order_gradient(fma, clip, fma_tokens, group):
    context = fma_context(fma, clip, group)
    maps = cam.masked_softmax_grad_cam(fma_tokens, context.text(clip), torch.from_numpy(fma["image_labels"]), released_softmax=True)
    near(maps, fma[f"{group}/raw_cam"])
    maps.square().sum().backward()
    near(context.vectors.grad, fma[f"{group}/grad_ctx_of_sum_cam_squared"])


def test_fma_golden_numbers_can_fail(fma, clip, fma_tokens):
    """The control: the name at another place of the prompt and the logits no longer agree."""
    wrong = cam.class_logits(fma_tokens, fma_context(fma, clip, "perclass_front", position="end").text(clip))
    assert np.abs(wrong.detach().numpy() - fma["perclass_front/logits"]).max() > 0.01


def test_fma_contrastive_loss(fma):
    arrays = (torch.from_numpy(fma[f"contrastive/{name}"]) for name in ("logits", "labels"))
    close(losses.multi_label_contrastive_loss(*arrays), fma["contrastive/loss"])


def test_fma_activation_loss(fma):
    arrays = (torch.from_numpy(fma[f"activation/{name}"]) for name in ("cam", "image_labels", "seed"))
    for loss, name in zip(losses.activation_loss(*arrays), ("fg_loss", "bg_loss"), strict=True):
        close(loss, fma[f"activation/{name}"])


def test_fma_affinity_variants(fma):
    """Which map is spread (its score or the raw map), how often rows and columns are made to sum to 1, and the boxes' threshold."""
    raw = torch.from_numpy(fma["affinity/cam"])[None]
    score = cam.stretched(raw.relu())  # FMA-WSSS stretches once
    variants = [name for name in fma.files if name.startswith("affinity/") and name.count("_") == 2]
    assert len(variants) >= 3
    for name in variants:
        which, sinkhorn, threshold = name.removeprefix("affinity/").split("_")
        affinity = refine.attention_affinity(torch.from_numpy(fma["affinity/attention"])[None, -8:], sinkhorn=int(sinkhorn), power=2)
        boxes = refine.box_mask(score, threshold=float(threshold))
        source = {"score": score, "cam": raw}[which]
        close(refine.spread(source * boxes, affinity)[0], fma[name])
        boxed = boxes[0].flatten(1).any(-1)  # a map without any box is lost in the release; the kit spreads it from every patch
        close(refine.spread(source, affinity, boxes)[0, boxed], fma[name][boxed.numpy()])


def test_fma_sharpness(fma):
    scores, labels = torch.from_numpy(fma["sharpness/scores"]), torch.from_numpy(fma["sharpness/labels"]).bool()
    value = sharpness([image[present] for image, present in zip(scores, labels, strict=True)])
    assert value == pytest.approx(float(fma["sharpness/value"]), abs=1e-6)
