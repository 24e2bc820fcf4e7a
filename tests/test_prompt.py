"""Words become prompts, sharpness is computed by hand, and learned words are checked against written ones."""

import copy
import math

import open_clip
import pytest
import torch

from kit import prompt
from kit.encode import Clip, ClipError, build_small_clip
from kit.prompt import PromptContext, PromptError, nearest_words
from kit.shapes import ShapeError


def test_a_template_has_one_slot():
    assert prompt.filled("a clean origami {}.", " boat ") == "a clean origami boat."
    assert prompt.filled("{}", "boat") == "boat"
    for template in ("a photo.", "{} and {}", "", None, "a {0} photo", 5):
        with pytest.raises(PromptError, match="exactly one"):
            prompt.filled(template, "boat")


@pytest.mark.parametrize("words", ["a {} in braces", "{x}", "100% {", "\\1", "日本語"])
def test_words_are_taken_as_they_are(words):
    assert prompt.filled("a photo of {}.", words) == f"a photo of {words}."


@pytest.mark.parametrize("words", ["", "   ", "\n\t", None, 3])
def test_empty_words_are_refused(words):
    with pytest.raises(PromptError, match="empty: write a word or remove it"):
        prompt.filled("a {}.", words)


def test_words_that_do_not_fit_are_refused():
    assert prompt.filled("a {}.", " ".join(["boat"] * 60))
    with pytest.raises(PromptError, match="a class name of 80 words does not fit into CLIP's 77 tokens"):
        prompt.filled("a {}.", " ".join(["boat"] * 80))
    with pytest.raises(PromptError, match="does not fit"):
        prompt.filled("a {}.", "b" * 401)


def test_prompts_use_a_names_own_words():
    assert prompt.prompts("a {}.", ["bird", "cat"], {"bird": "bird avian"}) == ["a bird avian.", "a cat."]
    assert prompt.prompts("a {}.", ("bird",)) == ["a bird."]
    assert prompt.prompts("a {}.", []) == []
    with pytest.raises(PromptError, match="single text 'boat'"):
        prompt.prompts("a {}.", "boat")


def test_synonyms_in_one_sentence():
    assert prompt.fused(["person with clothes", " people", "human", "people"]) == "person with clothes,people,human"
    assert prompt.fused(["boat", "", "  "]) == "boat"
    assert prompt.fused("boat") == "boat"
    assert prompt.fused([]) == ""


def test_sharpness_by_hand():
    # image 1: mean 0.5, variance 0.09; image 2: mean 0.3, variance 0.02 / 3; image 3 has one class and does not count
    scores = [torch.tensor([0.8, 0.2]), torch.tensor([0.2, 0.3, 0.4]), torch.tensor([0.9])]
    assert prompt.sharpness(scores) == pytest.approx((0.09 + 0.02 / 3) / 0.8, rel=1e-5)
    assert prompt.sharpness([torch.tensor([0.25, 0.25])]) == 0
    assert math.isnan(prompt.sharpness([torch.tensor([0.9])])) and math.isnan(prompt.sharpness([]))


def test_the_more_even_template_is_sharper():
    even, uneven = [torch.tensor([0.4, 0.3])] * 3, [torch.tensor([0.69, 0.01])] * 3
    assert prompt.sharpness(even) < prompt.sharpness(uneven)


@pytest.fixture(scope="module")
def tiny() -> Clip:
    return Clip.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def double() -> Clip:
    """A small random CLIP with CLIP's own tokenizer, in double precision."""
    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    model = build_small_clip({"embed_dim": 12, "vision_cfg": vision, "text_cfg": text})
    for name, weights in model.named_parameters():
        if name != "logit_scale":
            weights.data += 0.1 * torch.randn(weights.shape)
    clip = Clip(model, open_clip.get_tokenizer("ViT-B-16"), name="double")
    clip.model.double()
    return clip


NAMES = ["boat", "diningtable", "potted plant, tvmonitor", ""]  # one token, three, several words, none
WRITTEN = {
    "end": ["a photo of a boat.", "a photo of a diningtable.", "a photo of a potted plant, tvmonitor.", "a photo of a."],
    "front": ["boat a photo of a.", "diningtable a photo of a.", "potted plant, tvmonitor a photo of a.", "a photo of a."],
    "middle": ["a photo boat of a.", "a photo diningtable of a.", "a photo potted plant, tvmonitor of a.", "a photo of a."],
}


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("position", prompt.POSITIONS)
@pytest.mark.parametrize("model", ["tiny", "double"])
def test_a_context_that_starts_from_words_is_the_prompt_with_these_words(request, model, position, per_class):
    clip = request.getfixturevalue(model)
    context = PromptContext(clip, NAMES, start="a photo of a", position=position, per_class=per_class)
    assert context.vectors.shape[-2] == 4 and context.vectors.ndim == 2 + per_class
    torch.testing.assert_close(context.text(clip), clip.text(WRITTEN[position]), atol=1e-6, rtol=0)


def test_an_odd_context_is_longer_behind_the_name(tiny):
    context = PromptContext(tiny, ["boat"], start="a photo of", position="middle")
    torch.testing.assert_close(context.text(tiny), tiny.text(["a boat photo of."]), atol=1e-6, rtol=0)


def test_positions_give_different_texts(tiny):
    texts = [PromptContext(tiny, NAMES, length=4, position=position).text(tiny) for position in prompt.POSITIONS]
    for one, two in ((0, 1), (1, 2), (0, 2)):
        difference = (texts[one] - texts[two]).norm(dim=1)
        assert (difference[:3] > 0.01).all() and difference[3] < 1e-6  # without a name there is no position


def test_texts_do_not_depend_on_the_other_names(tiny):
    """Prompts are cut to the longest: what follows an end counts for nothing."""
    together = PromptContext(tiny, NAMES, length=4).text(tiny)
    alone = torch.cat([PromptContext(tiny, [name], length=4).text(tiny) for name in NAMES])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_texts_are_the_same_at_full_length(double):
    context = PromptContext(double, NAMES)
    assert context.frame.shape[1] < 30
    room = double.tokenizer.context_length - context.frame.shape[1]
    long = copy.deepcopy(context)
    long.frame = torch.cat([context.frame, 5 * torch.randn(4, room, 16)], 1)
    assert long.frame.shape[1] == 77
    torch.testing.assert_close(long.text(double), context.text(double), atol=1e-6, rtol=0)


@pytest.mark.parametrize("per_class", [False, True])
def test_the_vectors_are_all_that_is_learned(tiny, per_class):
    context = PromptContext(tiny, NAMES, length=4, per_class=per_class)
    assert [name for name, _ in context.named_parameters()] == ["vectors"] == list(context.state_dict())
    assert context.vectors.dtype == torch.float32
    text = context.text(tiny)
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(4))
    (text @ torch.arange(128.0)).sum().backward()
    assert (context.vectors.grad.abs().amax(-1) > 1e-4).all()
    assert not any(weights.requires_grad or weights.grad is not None for weights in tiny.model.parameters())


def test_a_class_of_its_own_context_leaves_the_others_alone(tiny):
    context = PromptContext(tiny, NAMES, length=4, per_class=True)
    context.text(tiny)[1].sum().backward()
    assert context.vectors.grad[1].any() and not context.vectors.grad[[0, 2, 3]].any()


@pytest.mark.parametrize(("position", "per_class"), [("end", False), ("middle", True)])
def test_the_gradient_equals_a_finite_difference(double, position, per_class):
    context = PromptContext(double, ["boat", "diningtable"], length=2, position=position, per_class=per_class, std=0.2).double()

    def text(vectors):
        return torch.func.functional_call(_TextOf(context, double), {"context.vectors": vectors}, ())

    assert torch.autograd.gradcheck(text, context.vectors.detach().clone().requires_grad_(True), atol=1e-6)


class _TextOf(torch.nn.Module):
    def __init__(self, context, clip):
        super().__init__()
        self.context, self.clip = context, clip

    def forward(self):
        return self.context.text(self.clip)


def test_the_start_is_drawn_from_the_seed(tiny):
    before = torch.random.get_rng_state()
    one, same, other = (PromptContext(tiny, NAMES, seed=seed).vectors for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, same) and (one - other).abs().max() > 0.01
    assert one.shape == (16, 128) and one.std().item() == pytest.approx(0.015, rel=0.1)
    wide = PromptContext(tiny, NAMES, per_class=True, std=0.5).vectors
    assert wide.shape == (4, 16, 128) and wide.std().item() == pytest.approx(0.5, rel=0.1) and (wide[0] - wide[1]).abs().max() > 1


def test_a_released_seed_gives_the_released_start(tiny):
    """FMA-WSSS seeds torch itself and fills the context; the same numbers come out here."""
    with torch.random.fork_rng():
        torch.manual_seed(2763632353)
        expected = torch.nn.init.normal_(torch.empty(16, 128), std=0.015)
    assert torch.equal(PromptContext(tiny, ["boat"], seed=2763632353).vectors.detach(), expected)


def test_saved_vectors_come_back(tiny):
    context, fresh = PromptContext(tiny, NAMES, length=4, seed=1), PromptContext(tiny, NAMES, length=4, seed=2)
    fresh.load_state_dict(context.state_dict())
    assert torch.equal(fresh.text(tiny), context.text(tiny))


def test_a_context_learns_to_say_a_word(tiny):
    target = tiny.text(["a photo of a boat."])
    context = PromptContext(tiny, [""], length=4)
    before = (context.text(tiny) @ target.T).item()
    optimiser = torch.optim.Adam([context.vectors], lr=0.05)
    for _ in range(80):
        optimiser.zero_grad()
        (1 - context.text(tiny) @ target.T).sum().backward()
        optimiser.step()
    assert before < 0.7 and (context.text(tiny) @ target.T).item() > 0.9


@pytest.mark.parametrize(
    ("names", "knobs", "message"),
    [
        ("boat", {}, "expected a list of names, got 'boat'"),
        ([], {}, "expected a list of names"),
        ([None], {}, "expected a list of names"),
        (["boat"], {"position": "back"}, "one of end, front, middle, got 'back'"),
        (["boat"], {"length": 0}, "at least 1 vector, got 0"),
        (["boat", "", " "], {}, r"several empty names .* give each its own \(per_class=True\)"),
        (["boat"], {"start": ""}, "expected start to have words"),
        (["boat"], {"length": 29}, "29 vectors and the name 'boat' make 33 tokens, tiny reads 32: shorten the name, or the context to 28"),
        (["boat " * 40], {"length": 4}, "the name 'boat boat .* make 47 tokens, .* or the context to 0"),
    ],
)
def test_a_context_that_cannot_be_is_refused(tiny, names, knobs, message):
    with pytest.raises(PromptError, match=message):
        PromptContext(tiny, names, **knobs)


def test_the_longest_context_that_fits(tiny):
    context = PromptContext(tiny, ["boat"], length=28)
    assert context.frame.shape[1] == 32 and torch.isfinite(context.text(tiny)).all()


def test_several_empty_names_may_have_contexts_of_their_own(tiny):
    text = PromptContext(tiny, ["", ""], length=4, per_class=True).text(tiny)
    assert (text[0] - text[1]).norm() > 0.01


def test_a_context_of_another_clip_is_refused(tiny, double):
    with pytest.raises(ShapeError, match=r"embeddings \(P S E=16\), got \(1, 20, 128\)"):
        PromptContext(tiny, ["boat"]).text(double)


def test_a_text_model_of_another_kind_is_refused(tiny):
    model = copy.deepcopy(tiny.model)
    model.attn_mask = None  # reads in both directions
    with pytest.raises(ClipError, match="text model of another kind: learning prompts needs CLIP's own"):
        PromptContext(Clip(model, tiny.tokenizer), ["boat"])


def test_words_are_nearest_to_themselves(tiny):
    vectors = PromptContext(tiny, ["boat"], start="photo of a diningtable").vectors
    found = nearest_words(tiny, vectors, count=2)
    assert [words[0][0] for words in found][:3] == ["photo", "of", "a"] and len(found) == 6  # diningtable is spelt in three pieces
    assert found[3][0][0].endswith("-") and "".join(words[0][0].strip("-") for words in found[3:]) == "diningtable"
    assert all(len(words) == 2 and words[0][1] == 0 and words[1][1] > 0.1 for words in found)


def test_nearest_words_are_those_of_a_search_through_all(double):
    words, table = double.vocabulary()
    assert len(words) == len(table) == 49406 and "boat" in words and not any("_of_text" in word for word in words)
    vectors = table[[5, 320]] * 0.6 + table[[7, 44]] * 0.4
    for vector, found in zip(vectors, nearest_words(double, vectors, count=4), strict=True):
        distances = ((table - vector) ** 2).sum(-1).sqrt()
        order = distances.argsort()[:4].tolist()
        assert [word for word, _ in found] == [words[index] for index in order]
        assert [distance for _, distance in found] == pytest.approx(distances[order].tolist(), rel=1e-4)


def test_nearest_words_of_a_small_vocabulary(tiny):
    everything = nearest_words(tiny, torch.zeros(1, 128), count=10_000)[0]
    assert len(everything) == len(tiny.tokenizer.tokens)
    assert [distance for _, distance in everything] == sorted(distance for _, distance in everything)
    with pytest.raises(ShapeError, match=r"vectors \(M E=128\), got \(3, 4, 128\)"):
        nearest_words(tiny, torch.zeros(3, 4, 128))
