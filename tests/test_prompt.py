"""Words become prompts, and sharpness is computed by hand."""

import math

import pytest
import torch

from kit import prompt
from kit.prompt import PromptError


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
