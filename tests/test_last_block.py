"""The collapsed backward pass against autograd, class by class, through torch's own modules."""

import dataclasses

import pytest
import torch

from kit import last_block
from kit.cam import softmax_grad_cam
from kit.data import toy_samples
from kit.encode import Clip, Tokens, build_small_clip, local_mask
from kit.last_block import last_pass, mean_gradient, patch_embeddings, value_embeddings
from kit.methods import ClipEs
from kit.shapes import ShapeError
from kit.words import VOC_CLASSES

GRIDS = [(1, 1), (1, 6), (3, 2), (4, 5)]


def tokens_for(grid, *, batch=2, quick_gelu=False, radius=None, dtype=torch.float64) -> Tokens:
    """Random tokens before a random last block: nothing in it is at its tidy initial value."""
    generator = torch.Generator().manual_seed(3)
    vision = {"image_size": 16, "layers": 1, "width": 24, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 64, "width": 8, "heads": 1, "layers": 1}
    torch.manual_seed(0)
    model = build_small_clip({"embed_dim": 12, "quick_gelu": quick_gelu, "vision_cfg": vision, "text_cfg": text})
    for weights in model.parameters():
        weights.data += 0.3 * torch.randn(weights.shape, generator=generator)
    clip = Clip(model, tokenizer=None)
    clip.model.to(dtype)
    count = 1 + grid[0] * grid[1]
    mask = local_mask(grid, radius, torch.device("cpu"))
    return Tokens(
        torch.randn(batch, count, 24, generator=generator, dtype=dtype) * 1.5, torch.zeros(batch, 0, count, count), (), grid,
        clip.last_block(), None if mask is None else mask.to(dtype),
    )  # fmt: skip


def by_hand(tokens: Tokens, activation: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The activation, and ln_post of every patch behind it, through torch's modules."""
    block = tokens.block
    activation = block.ln_1(tokens.last_input) if activation is None else activation
    attended, _ = block.attention(activation, activation, activation, need_weights=True, attn_mask=tokens.mask)
    x = tokens.last_input + attended
    x = x + block.mlp(block.ln_2(x))
    return activation, block.ln_post(x)[:, 1:]


def gradient_by_autograd(tokens: Tokens, gradient: torch.Tensor) -> torch.Tensor:
    """One whole forward and backward pass a class."""
    classes = []
    for index in range(gradient.shape[1]):
        activation = tokens.block.ln_1(tokens.last_input).detach().requires_grad_(True)
        _, patches = by_hand(tokens, activation)
        (patches.mean(1) * gradient[:, index]).sum().backward()
        classes.append(activation.grad[:, 1:].mean(1))
    return torch.stack(classes, 1)


def unit_text(count: int, dtype=torch.float64) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 12, generator=torch.Generator().manual_seed(8), dtype=dtype), dim=-1)


@pytest.mark.parametrize("radius", [None, 1])
@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_gradient_equals_autograd(grid, quick_gelu, radius):
    tokens = tokens_for(grid, quick_gelu=quick_gelu, radius=radius)
    gradient = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = gradient_by_autograd(tokens, gradient)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(mean_gradient(tokens, last_pass(tokens), gradient), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("radius", [None, 1])
def test_gradient_equals_autograd_in_float32(radius):
    tokens = tokens_for((4, 5), radius=radius, dtype=torch.float32)
    gradient = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(4))
    expected = gradient_by_autograd(tokens, gradient)
    difference = (mean_gradient(tokens, last_pass(tokens), gradient) - expected).abs().max()
    assert difference <= 1e-5 * expected.abs().max()


def test_both_activation_functions_really_differ():
    gradient = torch.randn(2, 1, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    plain, quick = (tokens_for((3, 2), quick_gelu=quick) for quick in (False, True))
    results = [mean_gradient(tokens, last_pass(tokens), gradient) for tokens in (plain, quick)]
    assert (results[0] - results[1]).abs().max() > 1e-4


@pytest.mark.parametrize("room", [1, 400, 10**9])
def test_taking_turns_changes_nothing(monkeypatch, room):
    tokens = tokens_for((3, 2))
    gradient = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    done = last_pass(tokens)
    expected = mean_gradient(tokens, done, gradient)
    monkeypatch.setattr(last_block, "MAX_ELEMENTS", room)
    torch.testing.assert_close(mean_gradient(tokens, done, gradient), expected, rtol=1e-12, atol=1e-14)


def test_gradient_is_linear():
    tokens = tokens_for((3, 2))
    done = last_pass(tokens)
    one, two = torch.randn(2, 2, 1, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    summed = mean_gradient(tokens, done, 2 * one - 3 * two)
    torch.testing.assert_close(summed, 2 * mean_gradient(tokens, done, one) - 3 * mean_gradient(tokens, done, two))
    assert not mean_gradient(tokens, done, torch.zeros_like(one)).any()


@pytest.mark.parametrize("radius", [None, 1])
def test_feature_and_patch_embeddings_equal_torchs_modules(radius):
    tokens = tokens_for((3, 4), radius=radius)
    activation, patches = by_hand(tokens)
    done = last_pass(tokens)
    torch.testing.assert_close(done.activation, activation)
    torch.testing.assert_close(done.feature, patches.mean(1))
    joint = patches @ tokens.block.projection
    embeddings = patch_embeddings(tokens)
    torch.testing.assert_close(embeddings, joint / joint.norm(dim=-1, keepdim=True))
    assert torch.equal(embeddings, patch_embeddings(tokens, done=done))


def test_one_images_gradient_does_not_depend_on_the_batch():
    both = tokens_for((3, 2))
    one = dataclasses.replace(both, last_input=both.last_input[1:], attention=both.attention[1:])
    gradient = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close(mean_gradient(both, last_pass(both), gradient)[1:], mean_gradient(one, last_pass(one), gradient[1:]))


def loss_by_autograd(tokens: Tokens, text: torch.Tensor, target: int) -> torch.Tensor:
    """A loss on the softmax Grad-CAM of one target, every derivative by autograd."""
    activation, patches = by_hand(tokens)
    vector = torch.nn.functional.normalize(patches.mean(1) @ tokens.block.projection, dim=-1)
    probability = (tokens.block.logit_scale * vector @ text.T).softmax(-1)[:, target].sum()
    (gradient,) = torch.autograd.grad(probability, activation, create_graph=True)
    maps = (gradient[:, 1:].mean(1)[:, None] * activation[:, 1:]).sum(-1)
    return maps.square().sum()


@pytest.mark.parametrize(("radius", "quick_gelu"), [(None, True), (1, False)])
def test_a_loss_on_the_cam_can_be_differentiated(radius, quick_gelu):
    """Second order: by the text (prompt learning) and by the tokens themselves."""
    tokens = tokens_for((3, 2), radius=radius, quick_gelu=quick_gelu)
    block = dataclasses.replace(tokens.block, logit_scale=5.0)
    gradients = []
    for loss_of in (loss_by_autograd, lambda *args: softmax_grad_cam(args[0], args[1], [args[2]]).square().sum()):
        text = unit_text(4).requires_grad_(True)
        seen = dataclasses.replace(tokens, last_input=tokens.last_input.clone().requires_grad_(True), block=block)
        gradients.append(torch.autograd.grad(loss_of(seen, text, 1), (text, seen.last_input)))
    assert all(gradient.abs().max() > 1e-9 for gradient in gradients[0])
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-12 + 1e-9 * expected.abs().max().item())


def test_text_gradient_equals_a_finite_difference():
    tokens = tokens_for((3, 2))
    block = dataclasses.replace(tokens.block, logit_scale=5.0)
    tokens = dataclasses.replace(tokens, block=block)
    text = unit_text(3)
    assert torch.autograd.gradcheck(lambda words: softmax_grad_cam(tokens, words, [0, 2]), text.requires_grad_(True), atol=1e-7)


def test_works_without_and_inside_any_gradient_mode():
    tokens = tokens_for((3, 2))
    gradient = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = mean_gradient(tokens, last_pass(tokens), gradient)
    assert not expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(mean_gradient(tokens, last_pass(tokens), gradient), expected)


def test_a_gradient_of_another_size_is_refused():
    tokens = tokens_for((3, 2))
    with pytest.raises(ShapeError, match=r"gradient \(B=2 C E=24\), got \(2, 3, 25\)"):
        mean_gradient(tokens, last_pass(tokens), torch.zeros(2, 3, 25, dtype=torch.float64))


def test_value_embeddings_are_what_a_patch_that_attends_to_itself_alone_adds():
    tokens = tokens_for((3, 2))
    block, only_itself = tokens.block, torch.full((7, 7), -torch.inf, dtype=torch.float64).fill_diagonal_(0)
    activation = block.ln_1(tokens.last_input)
    attended, _ = block.attention(activation, activation, activation, need_weights=True, attn_mask=only_itself)
    expected = torch.nn.functional.normalize(block.ln_post(attended[:, 1:]) @ block.projection, dim=-1)
    torch.testing.assert_close(value_embeddings(tokens), expected)


def test_a_patchs_value_names_the_object_and_its_output_does_not(clip):
    """Share of object patches, and of others, whose nearest word is the class that is there, or one of the picture's classes."""
    found = {}
    for embed in (value_embeddings, patch_embeddings):
        right = wrong = there = elsewhere = 0
        for number in (32, 68, 2, 24, 44, 38, 45, 15, 5, 23, 22, 57):
            sample, settings = next(toy_samples("val", 1, size=160, start=number)), ClipEs.preset("toy")
            tokens = ClipEs(clip).encode(sample.image)
            words = [*sample.names, *settings.background]
            nearest = (embed(tokens)[0] @ clip.text([settings.template.format(word) for word in words]).T).argmax(-1)
            numbers = torch.tensor([VOC_CLASSES.index(word) + 1 if word in sample.names else 0 for word in words])[nearest]
            rows, columns = tokens.grid
            cells = torch.from_numpy(sample.truth.astype("int64")).unflatten(0, (rows, -1)).unflatten(2, (columns, -1)).permute(0, 2, 1, 3)
            truth, same = cells.flatten(2).mode(-1).values.flatten(), (cells.flatten(2) == cells.flatten(2)[..., :1]).all(-1).flatten()
            thing, ground = same & (truth > 0), same & (truth == 0)
            right, wrong = right + int((numbers == truth)[thing].sum()), wrong + int((numbers > 0)[ground].sum())
            there, elsewhere = there + int(thing.sum()), elsewhere + int(ground.sum())
        found[embed] = right / there, wrong / elsewhere
    assert found[value_embeddings][0] > 0.5 > 0.3 > found[value_embeddings][1]
    assert found[patch_embeddings][0] < 0.2 < 0.5 < found[patch_embeddings][1]  # the control: what was shown before
