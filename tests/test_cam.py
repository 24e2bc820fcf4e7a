"""Class maps against the official formula, one class at a time, and against what algebra says about them."""

import dataclasses

import numpy as np
import pytest
import torch

from kit import cam
from kit.encode import Clip, Tokens, build_small_clip
from kit.last_block import last_pass
from kit.shapes import ShapeError

CAMS = [cam.grad_cam, cam.softmax_grad_cam, cam.similarity_cam]
GRID = (3, 4)


@pytest.fixture(scope="module")
def clip() -> Clip:
    generator = torch.Generator().manual_seed(5)
    vision = {"image_size": 16, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 64, "width": 8, "heads": 1, "layers": 1}
    torch.manual_seed(0)
    model = build_small_clip({"embed_dim": 12, "vision_cfg": vision, "text_cfg": text})
    for name, weights in model.named_parameters():
        if name != "logit_scale":
            weights.data += 0.2 * torch.randn(weights.shape, generator=generator)
    clip = Clip(model, tokenizer=None)
    clip.model.double()
    return clip


@pytest.fixture(scope="module")
def tokens(clip) -> Tokens:
    generator = torch.Generator().manual_seed(6)
    count = 1 + GRID[0] * GRID[1]
    last_input = torch.randn(2, count, 24, generator=generator, dtype=torch.float64)
    block = dataclasses.replace(clip.last_block(), logit_scale=7.0)
    return Tokens(last_input, torch.zeros(2, 0, count, count), (), GRID, block)


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    words = torch.randn(5, 12, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return words / words.norm(dim=-1, keepdim=True)


def official(tokens: Tokens, text: torch.Tensor, target: int, *, softmax: bool) -> torch.Tensor:
    """CLIP-ES' released code in words of autograd: one image, one class, one full backward pass."""
    maps = []
    for image in tokens.last_input:
        block, x = tokens.block, image[None]
        activation = block.ln_1(x).detach().requires_grad_(True)
        x = x + block.attention(activation, activation, activation, need_weights=True)[0]
        x = x + block.mlp(block.ln_2(x))
        vector = block.ln_post(x)[:, 1:].mean(1) @ block.projection
        logits = block.logit_scale * (vector / vector.norm(dim=-1, keepdim=True)) @ text.T
        score = (logits.softmax(-1) if softmax else logits)[0, target]
        (gradient,) = torch.autograd.grad(score, activation)
        weights = gradient[0, 1:].mean(0)
        maps.append((activation[0, 1:] * weights).sum(-1).detach().view(GRID))
    return torch.stack(maps)


@pytest.mark.parametrize(("function", "softmax"), [(cam.softmax_grad_cam, True), (cam.grad_cam, False)])
def test_all_classes_at_once_equal_the_official_loop(tokens, text, function, softmax):
    maps = function(tokens, text, [3, 0, 1])
    expected = torch.stack([official(tokens, text, target, softmax=softmax) for target in (3, 0, 1)], 1)
    assert maps.shape == (2, 3, *GRID) and expected.abs().max() > 1e-4
    torch.testing.assert_close(maps, expected, rtol=1e-8, atol=1e-12)


def test_softmax_subtracts_what_the_other_texts_claim(tokens, text):
    plain = cam.grad_cam(tokens, text, range(5))
    shares = cam.class_probabilities(tokens, text)[..., None, None]  # (B, T, 1, 1)
    claimed = (shares * plain).sum(1, keepdim=True)
    torch.testing.assert_close(cam.softmax_grad_cam(tokens, text, range(5)), shares * (plain - claimed), rtol=1e-9, atol=1e-12)


def test_softmax_maps_of_all_texts_sum_to_nothing(tokens, text):
    maps = cam.softmax_grad_cam(tokens, text, range(5))
    assert maps.abs().max() > 1e-4 and maps.sum(1).abs().max() < 1e-12


def test_a_background_word_that_is_the_class_puts_it_out(tokens, text):
    """With the class itself as the only rival both have half of the probability, and nothing distinguishes them."""
    doubled = torch.cat([text[:1], text[:1]])
    torch.testing.assert_close(cam.class_probabilities(tokens, doubled), torch.full((2, 2), 0.5, dtype=torch.float64))
    assert cam.softmax_grad_cam(tokens, doubled, [0]).abs().max() < 1e-12
    assert cam.grad_cam(tokens, doubled, [0]).abs().max() > 1e-3
    assert cam.softmax_grad_cam(tokens, text[:1], [0]).abs().max() < 1e-12  # alone, its probability is 1 whatever it sees


def test_a_doubled_class_halves_its_odds(tokens, text):
    before = cam.class_probabilities(tokens, text)[:, 0]
    after = cam.class_probabilities(tokens, torch.cat([text, text[:1]]))[:, 0]
    torch.testing.assert_close(after, before / (1 + before))


def test_probabilities_and_logits(tokens, text):
    done = last_pass(tokens)
    vector = done.feature @ tokens.block.projection
    cosines = (vector / vector.norm(dim=-1, keepdim=True)) @ text.T
    torch.testing.assert_close(cam.class_logits(tokens, text, done=done), 7.0 * cosines)
    probabilities = cam.class_probabilities(tokens, text)
    torch.testing.assert_close(probabilities, (7.0 * cosines).softmax(-1))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, dtype=torch.float64))


# for training: every image against its own classes and the backgrounds

PRESENT = torch.tensor([[0, 1, 1], [1, 0, 0]])  # of three classes; the other two texts are backgrounds


def by_autograd(tokens: Tokens, text: torch.Tensor, present: torch.Tensor, *, released: bool) -> torch.Tensor:
    """The released code's masked softmax and its gradient, pair by pair, all derivatives by autograd; has a graph."""
    activation = tokens.block.ln_1(tokens.last_input).detach().requires_grad_(True)
    block, attended = tokens.block, tokens.block.attention(activation, activation, activation, need_weights=True)[0]
    x = tokens.last_input + attended
    x = x + block.mlp(block.ln_2(x))
    vector = torch.nn.functional.normalize(block.ln_post(x)[:, 1:].mean(1) @ block.projection, dim=-1)
    logits = block.logit_scale * vector @ text.T
    part = torch.cat([present.bool(), torch.ones(len(present), len(text) - present.shape[1], dtype=torch.bool)], 1)
    if released:
        powers = (logits - logits.max(-1, keepdim=True).values).exp() * part
        probability = powers / (powers.sum(-1, keepdim=True) + 1e-5)
    else:
        probability = torch.stack([row.masked_fill(~mask, -1e30).softmax(-1) for row, mask in zip(logits, part, strict=True)])
    maps = []
    for image, label in present.nonzero().tolist():
        (gradient,) = torch.autograd.grad(probability[image, label], activation, create_graph=True)
        maps.append((gradient[image, 1:].mean(0) * activation[image, 1:].detach()).sum(-1).view(GRID))
    return torch.stack(maps)


def scaled(tokens: Tokens, factor: float) -> Tokens:
    """With a larger scale an absent class can lead by far."""
    return dataclasses.replace(tokens, block=dataclasses.replace(tokens.block, logit_scale=factor))


@pytest.mark.parametrize("scale", [7.0, 30.0])
@pytest.mark.parametrize("released", [False, True])
def test_masked_maps_and_their_second_order_gradient_equal_autograd(tokens, text, released, scale):
    text = text.clone().requires_grad_(True)
    expected = by_autograd(scaled(tokens, scale), text, PRESENT, released=released)
    got = cam.masked_softmax_grad_cam(scaled(tokens, scale), text, PRESENT, released_softmax=released)
    assert got.shape == (3, *GRID)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-12)
    gradients = [torch.autograd.grad((maps**2).sum(), text)[0] for maps in (got, expected)]
    assert gradients[1].abs().max() > 1e-6
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9 * gradients[1].abs().max().item())


@pytest.mark.parametrize("released", [False, True])
def test_the_second_order_gradient_equals_a_finite_difference(tokens, text, released):
    def maps(words):
        return cam.masked_softmax_grad_cam(scaled(tokens, 20.0), words, PRESENT, released_softmax=released)

    assert torch.autograd.gradcheck(maps, text.clone().requires_grad_(True), atol=1e-7)


def test_masked_maps_are_those_of_each_image_with_its_own_texts(tokens, text):
    maps = cam.masked_softmax_grad_cam(tokens, text, PRESENT)
    first, second = (cam.softmax_grad_cam(tokens, text[rows], range(len(rows) - 2)) for rows in ([1, 2, 3, 4], [0, 3, 4]))
    torch.testing.assert_close(maps, torch.stack([first[0, 0], first[0, 1], second[1, 0]]))


def test_absent_classes_take_no_part(tokens, text):
    other = text.clone()
    other[0] = -text[0]  # absent from the first image, present in the second
    before, after = (cam.masked_softmax_grad_cam(tokens, words, PRESENT) for words in (text, other))
    assert torch.equal(before[:2], after[:2]) and (before[2] - after[2]).abs().max() > 1e-4


def test_the_released_softmax_shrinks_maps_where_an_absent_class_leads(tokens, text):
    feature = torch.nn.functional.normalize(last_pass(tokens).feature @ tokens.block.projection, dim=-1)
    leading = torch.cat([feature[:1], text[1:]])  # class 0 is all that the first image shows, and is said to be absent
    sharp = scaled(tokens, 40.0)
    lead = cam.class_logits(sharp, leading)[0]
    assert lead[0] - lead[1:].max() > 10
    masked, released = (cam.masked_softmax_grad_cam(sharp, leading, PRESENT, released_softmax=quirk)[:2] for quirk in (False, True))
    assert released.abs().max() < 0.7 * masked.abs().max()


def test_pairs_stand_row_by_row_whatever_an_image_has(tokens, text):
    """Images with one, two, three or no class, mixed: each map is the one it has alone."""
    order = [0, 1, 1, 0, 1, 0]
    many = dataclasses.replace(tokens, last_input=tokens.last_input[order], attention=tokens.attention[order])
    present = torch.tensor([[0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 1]], dtype=torch.bool)
    maps = cam.masked_softmax_grad_cam(many, text, present)
    alone = []
    for image, row in zip(order, present, strict=True):
        one = dataclasses.replace(tokens, last_input=tokens.last_input[[image]], attention=tokens.attention[[image]])
        alone += list(cam.masked_softmax_grad_cam(one, text, row[None]))
    torch.testing.assert_close(maps, torch.stack(alone))
    shared = cam.masked_softmax_grad_cam(many, text, present, done=last_pass(many))
    assert torch.equal(maps, shared)


@pytest.mark.parametrize("released", [False, True])
def test_a_batch_without_any_class_has_no_map_but_a_graph(tokens, text, released):
    words = text.clone().requires_grad_(True)
    maps = cam.masked_softmax_grad_cam(tokens, words, torch.zeros(2, 3), released_softmax=released)
    assert maps.shape == (0, *GRID)
    maps.sum().backward()
    assert not words.grad.any()


def test_masked_maps_without_any_background(tokens, text):
    maps = cam.masked_softmax_grad_cam(tokens, text[:3], PRESENT)
    assert maps[:2].abs().max() > 1e-4 and maps[2].abs().max() < 1e-12  # alone, a class is certain whatever is seen
    torch.testing.assert_close(maps[0], -maps[1])


def test_masked_maps_refuse_what_does_not_fit(tokens, text):
    with pytest.raises(ShapeError, match=r"present \(B=2 C\), got \(3, 3\)"):
        cam.masked_softmax_grad_cam(tokens, text, torch.ones(3, 3))
    with pytest.raises(ShapeError, match=r"text \(T D=12\), got \(5, 11\)"):
        cam.masked_softmax_grad_cam(tokens, text[:, :11], PRESENT)
    with pytest.raises(ValueError, match="expected a text for each of 3 classes, backgrounds after them, got 2 texts"):
        cam.masked_softmax_grad_cam(tokens, text[:2], PRESENT)


def test_masked_maps_of_tokens_from_inference_mode(tokens, text):
    with torch.inference_mode():
        seen = dataclasses.replace(tokens, last_input=tokens.last_input.clone(), attention=tokens.attention.clone())
    words = text.clone().requires_grad_(True)
    cam.masked_softmax_grad_cam(seen, words, PRESENT).square().sum().backward()
    assert words.grad.abs().max() > 0


def test_similarity_is_a_cosine_and_one_where_the_patch_is_the_text(tokens, text):
    from kit.last_block import patch_embeddings

    planted = torch.cat([text, patch_embeddings(tokens)[1, 7:8]])
    maps = cam.similarity_cam(tokens, planted, range(6))
    assert maps.shape == (2, 6, *GRID) and maps.abs().max() <= 1 + 1e-9
    assert maps[1, 5].flatten().argmax() == 7 and maps[1, 5, 1, 3].item() == pytest.approx(1)


@pytest.mark.parametrize("function", CAMS)
def test_the_pass_through_the_last_block_can_be_shared(tokens, text, function):
    assert torch.equal(function(tokens, text, [1, 4], done=last_pass(tokens)), function(tokens, text, [1, 4]))


@pytest.mark.parametrize("function", CAMS)
def test_targets_choose_rows_in_their_order(tokens, text, function):
    every = function(tokens, text, range(5))
    torch.testing.assert_close(function(tokens, text, (4, 0, 4)), every[:, [4, 0, 4]])


@pytest.mark.parametrize("function", CAMS)
@pytest.mark.parametrize("targets", [[], [5], [-1], [0, 9], [1.0], 1, None, "0", torch.tensor([0]), np.array([1])])
def test_bad_targets_are_refused(tokens, text, function, targets):
    with pytest.raises(ValueError, match=r"expected targets to be a list of rows of text \(0 to 4\)"):
        function(tokens, text, targets)


@pytest.mark.parametrize("function", [*CAMS, lambda tokens, text, targets: cam.class_logits(tokens, text)])
def test_text_of_another_width_is_refused(tokens, text, function):
    with pytest.raises(ShapeError, match=r"text \(T D=12\), got \(5, 11\)"):
        function(tokens, text[:, :11], [0])


@pytest.mark.parametrize("function", CAMS)
def test_tokens_from_inference_mode_work(tokens, text, function):
    with torch.inference_mode():
        seen = dataclasses.replace(tokens, last_input=tokens.last_input.clone(), attention=tokens.attention.clone())
        inside = function(seen, text, [0, 2])
    assert seen.last_input.is_inference() and inside.shape == (2, 2, *GRID) and inside.abs().max() > 0
    torch.testing.assert_close(function(seen, text, [0, 2]), inside)


def test_a_map_without_a_positive_value_becomes_zero():
    assert not cam.normalised_cam(torch.full((1, 1, 2, 2), -3.0)).any()
    assert not cam.normalised_cam(torch.zeros(1, 1, 2, 2)).any()
    assert not cam.normalised_cam(torch.full((1, 1, 1, 1), 5.0)).any()  # one patch: nothing to stretch


def test_normalised_by_hand():
    maps = torch.tensor([[[[-4.0, 0.0], [1.0, 4.0]], [[2.0, 3.0], [4.0, 4.0]]]])
    torch.testing.assert_close(cam.normalised_cam(maps), torch.tensor([[[[0.0, 0.0], [0.25, 1.0]], [[0.0, 0.5], [1.0, 1.0]]]]))
    assert cam.normalised_cam(maps).max() < 1


def test_small_maps_are_stretched_twice():
    tiny = cam.normalised_cam(torch.tensor([[[[0.0, 1e-7]]]]))
    assert tiny[0, 0, 0, 1].item() == pytest.approx(0.5 / (0.5 + 1e-7), rel=1e-6)  # once would leave 0.5
    assert cam.stretched(torch.tensor([[0.0, 1e-7]]))[0, 1].item() == pytest.approx(0.5, rel=1e-4)
