"""CLIP from outside equals open_clip from inside, and nothing of the model is changed by looking."""

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from torch import nn

from kit import encode
from kit.encode import TINY, Clip, ClipError, CutTokenizer, build_small_clip, choose_device, load_tiny, local_mask
from kit.shapes import ShapeError

CPU = torch.device("cpu")
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8}
TOKENIZER = open_clip.get_tokenizer("ViT-B-16")


def small_clip(*, quick_gelu=False, radius=None, **vision) -> Clip:
    """A CLIP of some thousand weights, none of which is at its tidy initial value."""
    torch.manual_seed(0)
    model = build_small_clip({"embed_dim": 24, "quick_gelu": quick_gelu, "vision_cfg": {**VISION, **vision}, "text_cfg": TEXT})
    generator = torch.Generator().manual_seed(1)
    for name, weights in model.named_parameters():
        if name != "logit_scale":
            weights.data += 0.1 * torch.randn(weights.shape, generator=generator)
    return Clip(model, TOKENIZER, name="small", radius=radius)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return small_clip()


@pytest.fixture(scope="module")
def tiny() -> Clip:
    return Clip.load("tiny", device="cpu")


def pixels(height, width, batch=1, seed=0):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quick_gelu": True},
        {"layers": 1},
        {"head_width": 32, "mlp_ratio": 2.0},
        {"patch_size": 16, "image_size": 48},
        {"no_ln_pre": True},
        {"pos_embed_type": "sin_cos_2d"},
    ],
)
def test_block_by_block_equals_open_clips_own_forward(options):
    clip = small_clip(**options)
    side = clip.model.visual.image_size[0]
    image = pixels(side, side, batch=2)
    tokens = clip.encode(image)
    after = clip.model.visual.transformer.resblocks[-1](tokens.last_input)
    with torch.no_grad():
        torch.testing.assert_close(clip.model.visual.ln_post(after)[:, 0] @ clip.model.visual.proj, clip.model.visual(image))
    assert tokens.last_input.dtype == torch.float32 and len(tokens) == 2
    assert tokens.grid == (side // clip.patch,) * 2


@pytest.mark.parametrize("layers", [None, (), (1,)])
def test_tokens_are_the_same_whichever_attention_is_kept(clip, layers):
    torch.testing.assert_close(clip.encode(pixels(24, 40), layers=layers).last_input, clip.encode(pixels(24, 40), layers=(0, 2)).last_input)


def bilinear(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(h, w, E) at another grid with pixel centres, every cell by hand."""
    result = np.zeros((*grid, table.shape[2]))
    for row, column in np.ndindex(grid):
        corners = []
        for index, size, own in zip((row, column), grid, table.shape, strict=False):
            place = max((index + 0.5) * own / size - 0.5, 0)
            low = int(place)
            corners.append(((low, 1 - (place - low)), (min(low + 1, own - 1), place - low)))
        result[row, column] = sum(y_share * x_share * table[y, x] for y, y_share in corners[0] for x, x_share in corners[1])
    return result


@pytest.mark.parametrize("grid", [(3, 5), (1, 9), (7, 2), (4, 4), (1, 1)])
def test_positions_for_any_grid_equal_a_hand_computation(clip, grid):
    table = clip.model.visual.positional_embedding
    positions = encode.interpolated_positions(clip.model.visual, grid)
    assert torch.equal(positions[0], table[0])
    expected = bilinear(table[1:].detach().view(4, 4, -1).double().numpy(), grid)
    np.testing.assert_allclose(positions[1:].detach().view(*grid, -1).numpy(), expected, atol=1e-5)


def test_positions_are_used_row_by_row(clip):
    """With no picture at all, the embedded tokens are ln_pre of positions and class token."""
    visual = clip.model.visual
    tokens, grid = encode.embed_patches(visual, torch.zeros(1, 3, 16, 40))
    positions = encode.interpolated_positions(visual, (2, 5)).clone()
    positions[0] += visual.class_embedding
    assert grid == (2, 5)
    torch.testing.assert_close(tokens[0], visual.ln_pre(positions))


def test_kept_patches_are_those_asked_for(clip):
    visual, image = clip.model.visual, pixels(16, 24, batch=2)
    every, _ = encode.embed_patches(visual, image)
    keep = torch.tensor([[0, 5], [3, 1]])
    some, _ = encode.embed_patches(visual, image, keep=keep)
    expected = torch.stack([every[index, [0, *(1 + keep[index])]] for index in range(2)])
    torch.testing.assert_close(some, expected)


@pytest.mark.parametrize("radius", [None, (1, None, 2)])
def test_attention_equals_torchs_own_weights(radius):
    clip = small_clip(radius=radius)
    image = pixels(24, 40, batch=2)
    tokens = clip.encode(image)
    assert tokens.attention.shape == (2, 3, 16, 16) and tokens.layers == (0, 1, 2)
    torch.testing.assert_close(tokens.attention.sum(-1), torch.ones(2, 3, 16))
    x, _ = encode.embed_patches(clip.model.visual, image)
    for index, block in enumerate(clip.blocks):
        mask = local_mask((3, 5), clip.radius[index], CPU)
        normal = block.ln_1(x)
        attended, weights = block.attn(normal, normal, normal, need_weights=True, average_attn_weights=True, attn_mask=mask)
        torch.testing.assert_close(tokens.attention[:, index], weights, rtol=1e-4, atol=1e-6)
        if index == 2:
            torch.testing.assert_close(tokens.last_input, x, rtol=1e-4, atol=1e-5)
        x = x + attended
        x = x + block.mlp(block.ln_2(x))


def test_layers_are_kept_in_the_order_asked_for(clip):
    every = clip.encode(pixels(24, 40)).attention
    some = clip.encode(pixels(24, 40), layers=[2, 0])
    assert some.layers == (2, 0)
    torch.testing.assert_close(some.attention, every[:, [2, 0]])
    assert clip.encode(pixels(24, 40), layers=()).attention.shape == (1, 0, 16, 16)


@pytest.mark.parametrize("layers", [[3], [-1], [1.5], ["0"], 2, "1", [None]])
def test_wrong_layers_are_refused(clip, layers):
    calls = clip.calls
    with pytest.raises(ClipError, match="expected a list of layers from 0 to 2"):
        clip.encode(pixels(16, 16), layers=layers)
    assert clip.calls == calls


@pytest.mark.parametrize("size", [(20, 16), (4, 4), (16, 33)])
def test_pixels_that_do_not_fit_the_patches_are_refused(clip, size):
    with pytest.raises(ClipError, match="multiples of 8 pixels"):
        clip.encode(pixels(*size))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 4, 16, 16), (1, 1, 16, 16)])
def test_pixels_of_other_axes_are_refused(clip, shape):
    with pytest.raises(ShapeError, match=r"pixels \(B 3 H W\)"):
        clip.encode(torch.zeros(shape))


def test_a_batch_is_its_images(clip):
    image = pixels(24, 16, batch=3)
    together, alone = clip.encode(image), clip.encode(image[1:2])
    torch.testing.assert_close(together.last_input[1:2], alone.last_input)
    torch.testing.assert_close(together.attention[1:2], alone.attention)


def test_the_model_is_the_same_afterwards():
    clip = small_clip(radius=(1, 1, None))
    before = {name: tensor.clone() for name, tensor in clip.model.state_dict().items()}
    parameters = [(name, id(each), each.requires_grad) for name, each in clip.model.named_parameters()]
    clip.encode(pixels(24, 40))
    clip.text(["a boat", "a cat"])
    after = clip.model.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    assert parameters == [(name, id(each), each.requires_grad) for name, each in clip.model.named_parameters()]
    assert not any(required for *_, required in parameters)
    for module in clip.model.modules():
        assert not module.training and not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks


def test_calls_are_counted(clip):
    calls = clip.calls
    clip.encode(pixels(16, 16, batch=4))
    clip.text(["a boat"])
    assert clip.calls == calls + 1


@pytest.mark.parametrize(("grid", "radius"), [((3, 4), 1), ((2, 5), 2), ((1, 1), 0), ((3, 3), 0)])
def test_local_mask_blocks_what_it_should(grid, radius):
    mask = local_mask(grid, radius, CPU)
    places = list(np.ndindex(grid))
    assert mask.shape == (1 + len(places),) * 2
    assert (mask[0] == 0).all()  # the class token sees everything
    for index, (row, column) in enumerate(places, 1):
        assert mask[index, 0] == -torch.inf  # and is not seen by any patch
        for other, (y, x) in enumerate(places, 1):
            near = abs(row - y) <= radius and abs(column - x) <= radius
            assert mask[index, other] == (0 if near else -torch.inf)


def test_without_a_radius_there_is_no_mask():
    assert local_mask((3, 4), None, CPU) is None


def test_a_far_pixel_cannot_reach_a_patch_through_local_blocks():
    """Two blocks of radius 1 stand before the last: a change moves two patches to each side, not three."""
    clip = small_clip(radius=(1, 1, None))
    image = pixels(8, 8 * 9)
    other = image.clone()
    other[..., :8] += 1
    difference = (clip.encode(image).last_input - clip.encode(other).last_input)[0, 1:].abs().amax(-1)
    assert (difference[:3] > 1e-4).all() and not difference[3:].any()
    free = small_clip()
    assert (free.encode(image).last_input - free.encode(other).last_input).abs().amax(-1).min() > 1e-6  # the control


def test_masks_of_kept_patches_are_cut_from_the_whole_mask():
    places = torch.tensor([[0, 0], [2, 3], [0, 1]])
    rows = [0, 1, 12, 2]  # of the tokens of a 3 x 4 grid
    assert torch.equal(encode.mask_of_positions(places, 1), local_mask((3, 4), 1, CPU)[rows][:, rows])
    assert encode.mask_of_positions(places.expand(2, 1, 3, 2), 1).shape == (2, 1, 4, 4)


def test_fused_attention_equals_the_written_out_one(clip):
    x = torch.randn(2, 13, 32, generator=torch.Generator().manual_seed(2))
    for mask in (None, local_mask((3, 4), 1, CPU), local_mask((3, 4), 1, CPU).expand(2, 1, 13, 13)):
        weights, value = encode.attention_weights(clip.blocks[0].attn, clip.blocks[0].ln_1(x), mask)
        after = x + clip.blocks[0].attn.out_proj(encode.merge_heads(weights @ value))
        after = after + clip.blocks[0].mlp(clip.blocks[0].ln_2(after))
        torch.testing.assert_close(encode.run_block(clip.blocks[0], x, mask), after)


def test_one_radius_a_block_is_needed():
    with pytest.raises(ClipError, match="one radius for each of the 3 blocks, got 2"):
        small_clip(radius=(1, None))


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((32, 32), None, (32, 32)), ((33, 31), None, (40, 32)), ((1, 1), None, (8, 8)), ((1, 200), None, (8, 200)),
     ((100, 50), 160, (160, 80)), ((75, 100), 64, (48, 64)), ((480, 640), 160, (120, 160)), ((3, 1000), 64, (8, 64))],
)  # fmt: skip
def test_prepared_sizes_are_rounded_up(clip, size, side, expected):
    assert clip.prepare(np.zeros((*size, 3), np.uint8), side=side).shape == (3, *expected)


def test_prepared_pixels_are_bicubic_and_normalised(clip):
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    resized = np.array(Image.fromarray(image).resize((32, 24), Image.Resampling.BICUBIC)) / 255
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    np.testing.assert_allclose(clip.prepare(image).permute(1, 2, 0).numpy(), (resized - mean) / std, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "image",
    [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8), None, "boat.png"],
)
def test_what_is_no_picture_is_refused(clip, image):
    with pytest.raises(ClipError, match=r"expected a picture uint8 \(H, W, 3\), got"):
        clip.prepare(image)


def test_too_many_patches_are_refused_before_anything_is_computed(clip, monkeypatch):
    monkeypatch.setattr(encode, "MAX_PATCHES", 12)
    assert clip.prepare(np.zeros((24, 32, 3), np.uint8)).shape == (3, 24, 32)
    with pytest.raises(ClipError, match="a picture of 24 x 33 pixels makes 3 x 5 patches, more than 12: make it smaller first"):
        clip.prepare(np.zeros((24, 33, 3), np.uint8))


def test_the_limit_of_patches_holds_memory_down(clip):
    with pytest.raises(ClipError, match="more than 4,096"):
        clip.prepare(np.zeros((8 * 64 + 1, 8 * 64, 3), np.uint8))


def test_text_is_open_clips_unit_text_in_order(clip):
    prompts = ["a boat", "a cat", "a boat", "the sky."]
    vectors = clip.text(prompts)
    expected = clip.model.encode_text(TOKENIZER(prompts))
    torch.testing.assert_close(vectors, expected / expected.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))
    assert torch.equal(vectors[0], vectors[2]) and not torch.allclose(vectors[0], vectors[1])
    torch.testing.assert_close(clip.text(prompts[::-1]), vectors.flip(0))
    assert clip.text(("a cat",)).shape == (1, 24)


def test_text_is_encoded_once(monkeypatch):
    clip = small_clip()
    seen = []
    encode_text = clip.model.encode_text
    monkeypatch.setattr(clip.model, "encode_text", lambda ids, **options: seen.append(len(ids)) or encode_text(ids, **options))
    first = clip.text(["a boat", "a cat", "a boat"])
    assert seen == [2]
    assert torch.equal(clip.text(["a cat", "a boat"]), first[[1, 0]]) and seen == [2]
    clip.text(["a dog", "a cat"])
    assert seen == [2, 1]
    clip.to("cpu")  # another device would need the vectors anew
    clip.text(["a cat"])
    assert seen == [2, 1, 1]


@pytest.mark.parametrize(("cache", "batch"), [(2, 256), (0, 2), (4096, 2)])
def test_text_beyond_cache_and_batch(monkeypatch, clip, cache, batch):
    prompts = [f"a boat number {number}" for number in range(7)]
    expected = clip.text(prompts)
    monkeypatch.setattr(encode, "TEXT_CACHE", cache)
    monkeypatch.setattr(encode, "TEXT_BATCH", batch)
    other = small_clip()
    torch.testing.assert_close(other.text(prompts), expected)
    assert len(other._text) == min(cache, 7)


def test_another_visitors_words_cannot_take_ours_away(monkeypatch):
    """While our new word is encoded, somebody else pushes our remembered one out of the cache."""
    clip = small_clip()
    expected = clip.text(["a boat", "a cat"])
    clip._text.pop("a cat")
    encode_text = clip.model.encode_text

    def meanwhile(ids, **options):
        clip._text.clear()
        return encode_text(ids, **options)

    monkeypatch.setattr(clip.model, "encode_text", meanwhile)
    torch.testing.assert_close(clip.text(["a boat", "a cat"]), expected)


def test_no_prompts_are_no_rows(clip):
    assert clip.text([]).shape == (0, 24)


@pytest.mark.parametrize("prompts", ["a boat", None, 5, ["a boat", None], [b"a boat"], {"a boat"}])
def test_what_is_no_list_of_prompts_is_refused(clip, prompts):
    with pytest.raises(ClipError, match="expected a list of prompts"):
        clip.text(prompts)


@pytest.mark.parametrize("prompt", ["", "   ", "\x00", "日本の船", "🙂" * 5, "\ud800", " ".join(["boat"] * 30), "x" * 50, "<end_of_text>"])
def test_any_text_gives_a_unit_vector(clip, tiny, prompt):
    for each in (clip, tiny):
        vector = each.text([prompt])
        assert torch.isfinite(vector).all() and vector.norm().item() == pytest.approx(1, abs=1e-5)


def test_text_as_long_as_the_context(clip):
    """77 tokens are 75 words between start and end: the 75th word counts, and a 76th is refused rather than cut without a word."""
    words = ["boat"] * 75
    whole, other = clip.text([" ".join(words), " ".join([*words[:-1], "cat"])])
    assert not torch.allclose(whole, other)
    with pytest.raises(ClipError, match="may have 75 tokens"):
        clip.text([" ".join([*words, "cat"])])


@pytest.mark.parametrize("prompt", ["🙂" * 500, " ".join(["boat"] * 500), "x" * 5000])
def test_text_that_does_not_fit_is_refused(clip, tiny, prompt):
    for each in (clip, tiny):
        with pytest.raises(ClipError, match="shorten it"):
            each.text([prompt])


def test_only_the_tiny_clip_knows_what_it_does_not_know(clip, tiny):
    assert clip.unknown_words("a qwertyuiop") == [] and not clip.is_tiny
    assert tiny.is_tiny and tiny.unknown_words("a photo of a boat.") == []
    assert tiny.unknown_words("a Zeppelin, (a boat) and a zeppelin, quokka!") == ["Zeppelin", "zeppelin", "quokka"]
    assert tiny.unknown_words("") == [] and tiny.unknown_words(" ., !") == []


def cut_tokenizer(context_length=8) -> CutTokenizer:
    base = open_clip.tokenizer.SimpleTokenizer()
    return CutTokenizer([base.encode(word)[0] for word in ("a", "photo", "of", "boat")], context_length)


def test_cut_tokenizer_ids():
    tokenizer = cut_tokenizer()
    assert (tokenizer.unknown, tokenizer.start, tokenizer.end, tokenizer.vocabulary_size) == (4, 5, 6, 7)
    assert tokenizer(["a photo of a boat", "boat zebra", ""]).tolist() == [
        [5, 0, 1, 2, 0, 3, 6, 0],
        [5, 3, 4, 6, 0, 0, 0, 0],
        [5, 6, 0, 0, 0, 0, 0, 0],
    ]
    assert tokenizer(["A PHOTO of  a boat"]).tolist() == tokenizer(["a photo of a boat"]).tolist()
    assert tokenizer.unknown_words("a zebra of a zebra") == ["zebra"]


def test_cut_tokenizer_cuts_a_long_text_but_ends_it():
    tokenizer = cut_tokenizer(context_length=6)
    assert tokenizer(["boat " * 30]).tolist() == [[5, 3, 3, 3, 3, 6]]
    assert tokenizer(["boat boat boat boat"]).tolist() == [[5, 3, 3, 3, 3, 6]]
    assert tokenizer([]).shape == (0, 6)


def test_the_tiny_clip_pools_at_the_end_token(tiny):
    assert tiny.tokenizer.end == tiny.tokenizer.vocabulary_size - 1 == tiny.model.token_embedding.num_embeddings - 1
    ids = tiny.tokenizer(["a photo of a boat.", "a boat " * 100])
    assert (ids.max(1).values == tiny.tokenizer.end).all() and ((ids == tiny.tokenizer.end).sum(1) == 1).all()


@pytest.fixture(scope="module")
def architectures(tmp_path_factory):
    """Small models under names of their own, as open_clip lists its."""
    folder = tmp_path_factory.mktemp("configs")
    text = {**TEXT, "layers": 1}
    timm = {
        "image_size": 32,
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    }
    siglip_text = {**text, "hf_tokenizer_name": "nobody/has-this-tokenizer", "no_causal_mask": True, "pool_type": "last"}
    plain = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text}
    configs = {
        "kit-small": plain,
        "kit-small-quickgelu": {**plain, "quick_gelu": True},
        "kit-resnet": {**plain, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}},
        "kit-siglip": {"embed_dim": 192, "init_logit_bias": -10, "custom_text": True, "vision_cfg": timm, "text_cfg": siglip_text},
        "kit-pooled": {**plain, "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}},
        "kit-scaled": {**plain, "vision_cfg": {**VISION, "ls_init_value": 0.1}},
        "kit-strange": {**plain, "text_cfg": {"hf_model_name": "nobody/has-this-model", "hf_tokenizer_name": "nobody/has-this-model"}},
    }
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return configs


def test_random_weights_are_always_the_same_and_leave_the_dice_alone(architectures):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (Clip.load("kit-small:random", device="cpu") for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True))
    assert first.name == "kit-small:random" and first.layer_count == 3 and first.patch == 8
    assert torch.equal(first.encode(pixels(16, 24)).last_input, second.encode(pixels(16, 24)).last_input)


@pytest.mark.parametrize("kind", ["pt", "state_dict", "module", "safetensors"])
def test_a_checkpoint_file_is_read(architectures, tmp_path, kind):
    from safetensors.torch import save_file

    saved = small_clip(quick_gelu=True)
    weights, path = saved.model.state_dict(), tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        prefix = "module." if kind == "module" else ""
        weights = {prefix + name: tensor for name, tensor in weights.items()}
        torch.save({"state_dict": weights, "epoch": 3} if kind == "state_dict" else weights, path)
    loaded = Clip.load(f"kit-small-quickgelu:{path}", device="cpu")
    image = pixels(24, 40)
    assert torch.equal(loaded.encode(image).last_input, saved.encode(image).last_input)
    assert torch.equal(loaded.text(["a boat"]), saved.text(["a boat"]))
    other = Clip.load(f"kit-small:{path}", device="cpu")  # the same weights with the other activation
    assert not torch.allclose(other.encode(image).last_input, saved.encode(image).last_input)


def write_broken(kind, path):
    weights = small_clip().model.state_dict()
    if kind == "text":
        path.write_text("these are not the weights you are looking for")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        torch.save(weights, path)
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "missing":
        torch.save({name: tensor for name, tensor in weights.items() if name != "visual.proj"}, path)
    elif kind == "another":
        torch.save(nn.Linear(3, 3).state_dict(), path)
    elif kind == "wider":
        torch.save({**weights, "visual.proj": torch.zeros(32, 25)}, path)
    elif kind == "list":
        torch.save([1, 2, 3], path)
    elif kind == "nothing":
        torch.save({}, path)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "missing", "another", "wider", "list", "nothing"])
def test_a_broken_checkpoint_is_refused(architectures, tmp_path, kind, suffix):
    path = tmp_path / f"weights.{suffix}"
    write_broken(kind, path)
    with pytest.raises(ClipError, match=r"weights\.\w+ is not a checkpoint of kit-small: ."):
        Clip.load(f"kit-small:{path}", device="cpu")


def test_a_checkpoint_with_code_in_it_is_not_run(architectures, tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"weights": Harm()}, tmp_path / "weights.pt")
    with pytest.raises(ClipError, match="is not a checkpoint"):
        Clip.load(f"kit-small:{tmp_path / 'weights.pt'}", device="cpu")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B/16:openai", r"no model 'ViT-B/16' \(did you mean ViT-B-16, .*\): give tiny, or ARCHITECTURE:TAG"),
        ("", "no model '': give tiny"),
        ("boat", "no model 'boat': give tiny"),
        ("Tiny", "no model 'Tiny'.*: give tiny"),
        ("ViT-B-16", "ViT-B-16 needs weights: write ViT-B-16:TAG with one of openai, .*ViT-B-16:FILE, or ViT-B-16:random"),
        ("ViT-B-16:", "ViT-B-16 needs weights"),
        ("ViT-B-16:openai", "QuickGELU: write ViT-B-16-quickgelu:openai"),
        ("ViT-B-16:metaclip_400m", "QuickGELU: write ViT-B-16-quickgelu:metaclip_400m"),
        ("RN50:openai", "QuickGELU: write RN50-quickgelu:openai"),
        ("ViT-B-16-plus-240:openai", "'openai' is neither a file nor a tag of ViT-B-16-plus-240: known tags are laion400m"),
        ("ViT-B-16:nothing", "'nothing' is neither a file nor a tag of ViT-B-16: known tags are openai"),
        ("ViT-B-16:/no/such/file.pt", "'/no/such/file.pt' is neither a file"),
        ("ViT-B-16:/", "/ is a folder: give a file of weights in its place"),
        ("ViT-B-16:" + "x" * 5000, "is neither a file"),
        ("ViT-B-16:a\x00b", "is neither a file"),
        (None, "expected a model's name such as tiny .*got None"),
        (16, "expected a model's name"),
    ],
)
def test_names_that_cannot_be_loaded(name, message):
    with pytest.raises(ClipError, match=message) as error:
        Clip.load(name, device="cpu")
    assert len(str(error.value)) < 900


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kit-resnet:random", r"kit-resnet:random has no vision transformer of open_clip's own \(ModifiedResNet\): the kit needs a ViT"),
        ("kit-siglip:random", r"kit-siglip:random has no vision transformer of open_clip's own \(VisionTransformer\)"),
        ("kit-pooled:random", r"kit-pooled:random has attentional pooling \(CoCa's\)"),
        ("kit-scaled:random", "kit-scaled:random has blocks of another kind than CLIP's"),
        ("convnext_tiny:random", r"no vision transformer of open_clip's own \(ConvNeXt\)"),
        ("coca_ViT-B-32:laion2b_s13b_b90k", "attentional pooling"),
        ("ViT-SO400M-14-SigLIP:webli", "no class token, as all of SigLIP"),
    ],
)
def test_models_the_kit_cannot_listen_to_are_refused_before_their_tokenizer_is_fetched(architectures, name, message, monkeypatch):
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda *_: pytest.fail("the tokenizer was asked for"))
    monkeypatch.setattr(encode, "hub_file", lambda *_: pytest.fail("the weights were asked for"))
    with pytest.raises(ClipError, match=message):
        Clip.load(name, device="cpu")


def test_a_model_that_cannot_be_built_is_refused(architectures, monkeypatch):
    def fails(*_, **__):
        raise OSError("nobody/has-this-model is not a local folder")

    monkeypatch.setattr(open_clip, "create_model", fails)
    with pytest.raises(ClipError, match=r"kit-strange:random cannot be built here: give a plain CLIP .*\(nobody/has-this-model"):
        Clip.load("kit-strange:random", device="cpu")


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        (lambda model: model.half(), r"weights that are not float32 \(model\.float\(\) makes them so\)"),
        (lambda model: setattr(model.visual.conv1, "stride", (4, 4)), "patches that are not square or overlap"),
        (lambda model: setattr(model.visual, "class_embedding", None), "no class token"),
        (lambda model: setattr(model.visual, "proj", None), "attentional pooling"),
        (lambda model: setattr(model, "visual", None), r"no vision transformer of open_clip's own \(NoneType\)"),
    ],
)
def test_a_model_of_ones_own_is_looked_at_too(change, lacks):
    model = small_clip().model
    assert Clip(model, TOKENIZER).name == "clip"
    change(model)
    with pytest.raises(ClipError, match=f"clip has {lacks}.*the kit needs a ViT with a class token"):
        Clip(model, TOKENIZER)


def test_a_tokenizer_that_cannot_be_had_is_told(architectures, monkeypatch):
    def fails(*_):
        raise OSError("nobody/has-this-tokenizer is not a local folder")

    monkeypatch.setattr(open_clip, "get_tokenizer", fails)
    with pytest.raises(ClipError, match=r"the tokenizer of kit-small:random could not be had: check .* \(nobody/has-this-tokenizer is"):
        Clip.load("kit-small:random", device="cpu")


def test_a_tag_may_stand_alone(architectures, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(small_clip(quick_gelu=True).model.state_dict(), path)
    for name, tag in (("kit-small-quickgelu", path), ("kit-small-quickgelu", str(path)), (f"kit-small-quickgelu:{path}", None)):
        assert Clip.load(name, tag, device="cpu").name == f"kit-small-quickgelu:{path}"
    assert Clip.load("kit-small", "random", device="cpu").is_untrained


@pytest.mark.parametrize(
    ("name", "tag", "message"),
    [
        ("tiny", "openai", "tiny needs no tag besides, got 'openai': leave it out"),
        ("ViT-B-16:openai", "openai", "ViT-B-16:openai needs no tag besides"),
        ("ViT-B-16", 3, "expected a model's name such as tiny .* got 'ViT-B-16' and 3"),
        ("ViT-B-16", "openai", "write ViT-B-16-quickgelu:openai"),
        ("ViT-B-16-quickgelu", "laion2b_s34b_b88k", "were trained without QuickGELU: write ViT-B-16:laion2b_s34b_b88k"),
        ("ViT-B-16", "", "needs weights"),
        (nn.Linear(2, 2), None, r"a model that you have is used as Clip\(model, tokenizer, name=\.\.\.\)"),
    ],
)
def test_tags_that_do_not_fit(name, tag, message):
    with pytest.raises(ClipError, match=message):
        Clip.load(name, tag, device="cpu")


def archive_of(weights: dict, path) -> None:
    """A TorchScript archive with weights under their names, as OpenAI publishes its models."""
    root = nn.Module()
    for name, tensor in weights.items():
        *folders, leaf = name.split(".")
        node = root
        for folder in folders:
            if not hasattr(node, folder):
                node.add_module(folder, nn.Module())
            node = getattr(node, folder)
        node.register_buffer(leaf, tensor)
    torch.jit.save(torch.jit.script(root), path)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_an_archive_of_openai_is_read_in_half_precision(architectures, tmp_path):
    saved, path = small_clip(quick_gelu=True), tmp_path / "ViT-kit.pt"
    weights = {name: tensor.half() for name, tensor in saved.model.state_dict().items()}
    sizes = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    archive_of(weights | {name: torch.tensor(size) for name, size in sizes.items()}, path)
    loaded = Clip.load("kit-small-quickgelu", path, device="cpu")
    for name, tensor in loaded.model.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, weights[name].float())
    torch.testing.assert_close(loaded.text(["a boat"]), saved.text(["a boat"]), rtol=0, atol=5e-3)
    with pytest.raises(ClipError, match=r"ViT-kit\.pt is one of OpenAI's archives, trained with QuickGELU: write kit-small-quickgelu:.*pt"):
        Clip.load("kit-small", path, device="cpu")
    archive_of({name: tensor for name, tensor in weights.items() if name != "visual.proj"}, path)
    with pytest.raises(ClipError, match=r"is not a checkpoint of kit-small-quickgelu: .*visual\.proj"):
        Clip.load("kit-small-quickgelu", path, device="cpu")


def test_loading_says_nothing_of_missing_weights(architectures, tmp_path, caplog):
    path = tmp_path / "weights.pt"
    torch.save(small_clip(quick_gelu=True).model.state_dict(), path)
    Clip.load("kit-small-quickgelu", path, device="cpu")
    assert "No pretrained weights" not in caplog.text


def test_fewer_digits_are_nearly_the_same(tiny):
    coarse = Clip.load("tiny", device="cpu", precision="bfloat16")
    image = pixels(8 * 10, 8 * 12, batch=2)
    exact, rough = tiny.encode(image), coarse.encode(image)
    assert rough.last_input.dtype == rough.attention.dtype == torch.float32 and rough.grid == exact.grid
    assert not torch.equal(rough.last_input, exact.last_input)  # or nothing was made coarser
    difference = (rough.last_input - exact.last_input).norm() / exact.last_input.norm()
    assert difference < 0.02
    torch.testing.assert_close(rough.attention, exact.attention, rtol=0, atol=0.05)
    torch.testing.assert_close(rough.attention.sum(-1), torch.ones(rough.attention.shape[:3]))
    torch.testing.assert_close(coarse.encode(image, layers=()).last_input, rough.last_input, rtol=0.1, atol=0.1)
    assert torch.equal(coarse.text(["a boat"]), tiny.text(["a boat"]))
    assert coarse.fingerprint == tiny.fingerprint and all(weights.dtype == torch.float32 for weights in coarse.model.parameters())


def test_the_last_block_is_always_exact(tiny):
    """Its attention, computed again from the tokens, is the same number for number."""
    coarse = Clip.load("tiny", device="cpu", precision="bfloat16")
    tokens = coarse.encode(pixels(80, 96), layers=(coarse.layer_count - 1,))
    block = coarse.blocks[-1]
    weights, _ = encode.attention_weights(block.attn, block.ln_1(tokens.last_input), tokens.mask)
    assert torch.equal(tokens.attention[:, 0], weights.mean(1))


@pytest.mark.parametrize("precision", ["float16", "bf16", "", None, torch.bfloat16])
def test_other_precisions_are_refused(precision):
    with pytest.raises(ClipError, match="expected the precision float32 or bfloat16, got"):
        Clip.load("tiny", device="cpu", precision=precision)


def test_a_device_that_cannot_do_it_says_so(monkeypatch):
    def cannot(*_, **__):
        raise TypeError("BFloat16 is not supported on MPS")

    monkeypatch.setattr(torch, "ones", cannot)
    with pytest.raises(ClipError, match="this cpu device cannot compute in bfloat16: leave precision at float32"):
        Clip.load("tiny", device="cpu", precision="bfloat16")


def test_a_fingerprint_tells_models_apart(tiny):
    same, other = small_clip(), small_clip()
    name, last = list(other.model.named_parameters())[-1]
    last.data.view(-1)[-1] += 1e-6
    quick, near, grey = small_clip(quick_gelu=True), small_clip(radius=(1, 1, None)), Clip(small_clip().model, TOKENIZER, mean=(0.5,) * 3)
    prints = [clip.fingerprint for clip in (same, other, quick, near, grey, tiny)]
    assert len(set(prints)) == 6 and all(len(each) == 16 and int(each, 16) >= 0 for each in prints)
    assert small_clip().fingerprint == same.fingerprint == Clip(small_clip().model, TOKENIZER, name="renamed").fingerprint


def test_the_tiny_clip_is_there_and_whole(tiny):
    about = json.loads(TINY.with_suffix(".json").read_text())
    assert tiny.layer_count == about["model"]["vision_cfg"]["layers"] == len(tiny.radius)
    tokens = tiny.encode(tiny.prepare(np.zeros((50, 70, 3), np.uint8))[None])
    assert torch.isfinite(tokens.last_input).all()
    torch.testing.assert_close(tokens.attention.sum(-1), torch.ones(tokens.attention.shape[:3]))
    assert all(tensor.dtype == torch.float32 for tensor in tiny.model.parameters())


@pytest.mark.parametrize("missing", ["safetensors", "json"])
def test_a_missing_tiny_clip_says_what_to_do(tmp_path, missing):
    for suffix in {"safetensors", "json"} - {missing}:
        shutil.copy(TINY.with_suffix(f".{suffix}"), tmp_path / f"tiny_clip.{suffix}")
    with pytest.raises(ClipError, match=rf"tiny_clip\.{missing} is missing: restore it.*python -m kit\.toy\.train"):
        load_tiny(tmp_path / "tiny_clip.safetensors")


@pytest.mark.parametrize("damage", ["weights", "json", "other", "keys"])
def test_a_damaged_tiny_clip_is_refused(tmp_path, damage):
    path = tmp_path / "tiny_clip.safetensors"
    about = TINY.with_suffix(".json").read_text()
    shutil.copy(TINY, path)
    if damage == "weights":
        path.write_text("version https://git-lfs.github.com/spec/v1")
    elif damage == "json":
        about = about[:-10]
    elif damage == "keys":
        about = "{}"
    else:
        parts = json.loads(about)
        parts["model"]["embed_dim"] += 1
        about = json.dumps(parts)
    path.with_suffix(".json").write_text(about)
    with pytest.raises(ClipError, match="damaged or do not belong together: restore both"):
        load_tiny(path)


def test_the_best_device_is_chosen(monkeypatch):
    for there, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_device(None).type == expected
    assert choose_device("cpu") == choose_device(CPU) == CPU


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("banana", "expected a device like cpu, cuda, cuda:1 or mps, got 'banana'"),
        ("", "expected a device like"),
        (3.5, "expected a device like"),
        (["cpu"], "expected a device like"),
        ("cuda", "no cuda device that PyTorch can use: choose cpu"),
        ("cuda:1", "no cuda device"),
        ("mps", "no mps device"),
        ("meta", "no meta device"),
    ],
)
def test_devices_that_are_not_here_are_refused(monkeypatch, device, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ClipError, match=message):
        choose_device(device)
    if isinstance(device, str):
        with pytest.raises(ClipError, match=message):
            Clip.load("tiny", device=device)


def test_a_gpu_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1").index == 1
    with pytest.raises(ClipError, match="expected a GPU from 0 to 1, got 7"):
        choose_device("cuda:7")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_a_gpu_sees_the_same(tiny, monkeypatch):
    from kit.cam import softmax_grad_cam

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # cuDNN's convolutions are coarser otherwise
    there = Clip.load("tiny", device="cuda")
    image = pixels(8 * 10, 8 * 12, batch=2)
    here, beyond = tiny.encode(image), there.encode(image)
    assert there.device.type == beyond.attention.device.type == "cuda" and there.fingerprint == tiny.fingerprint
    torch.testing.assert_close(beyond.last_input.cpu(), here.last_input, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(beyond.attention.cpu(), here.attention, rtol=1e-4, atol=1e-5)
    words = ["a boat", "a cat", "the sky"]
    torch.testing.assert_close(there.text(words).cpu(), tiny.text(words), rtol=1e-4, atol=1e-5)
    cam = softmax_grad_cam(here, tiny.text(words), [0, 1])
    difference = softmax_grad_cam(beyond, there.text(words), [0, 1]).cpu() - cam
    assert difference.norm() < 1e-4 * cam.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_a_gpu_computes_with_fewer_digits(tiny):
    image = pixels(8 * 10, 8 * 12)
    rough = Clip.load("tiny", device="cuda", precision="bfloat16").encode(image)
    exact = tiny.encode(image)
    assert rough.last_input.dtype == torch.float32
    assert (rough.last_input.cpu() - exact.last_input).norm() < 0.02 * exact.last_input.norm()
