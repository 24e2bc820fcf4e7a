"""Choosing words: templates, synonyms, and the sharpness by which CLIP-ES picks a template."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

MAX_WORDS = 60  # a prompt longer than this cannot fit into CLIP's 77 tokens


class PromptError(ValueError):
    """A template or a word that cannot be made into a prompt."""


def filled(template: str, words: str) -> str:
    """The template with the words in its one slot.

    >>> filled("a clean origami {}.", "boat")
    'a clean origami boat.'
    """
    if not isinstance(template, str) or template.count("{}") != 1:
        raise PromptError(f"a template needs exactly one {{}} for the class name, got {template!r}")
    words = words.strip() if isinstance(words, str) else ""
    if not words:
        raise PromptError("a class or background word is empty: write a word or remove it")
    if len(words.split()) > MAX_WORDS or len(words) > 400:
        raise PromptError(
            f"a class name of {len(words.split())} words does not fit into CLIP's 77 tokens: use at most {MAX_WORDS} words, "
            f"got {words[:40]!r}..."
        )
    return template.replace("{}", words)


def fused(synonyms: Iterable[str]) -> str:
    """Several words for one class in one sentence: no further forward pass.

    Source: CLIP-ES, section 3.2 and released code ("person with clothes,people,human").
    """
    words = [synonyms] if isinstance(synonyms, str) else synonyms
    return ",".join(dict.fromkeys(word.strip() for word in words if word.strip()))


def prompts(template: str, names: Sequence[str], words: Mapping[str, str] | None = None) -> list[str]:
    """One prompt a name: its own words where `words` has them, else the name.   -> as many strings as names."""
    if isinstance(names, str):
        raise PromptError(f"expected a list of names, got the single text {names!r}: put it into a list")
    return [filled(template, (words or {}).get(name, name)) for name in names]


def sharpness(scores: Sequence[Tensor]) -> float:
    """How evenly a template spreads the present classes' probabilities: the sum of their variances over the sum of their means; lower is
    better.

    `scores`: one vector (k,) an image, the softmax scores of its k >= 2 present classes (images with one class have no spread and are left
    out). NaN without any such image.
    Source: CLIP-ES, section 3.2 (sharpness); the released code has it no more.
    """
    several = [image for image in scores if image.numel() >= 2]
    if not several:
        return float("nan")
    spread = sum(image.var(correction=0) for image in several)
    level = sum(image.mean() for image in several)
    return float(spread / (level + 1e-6))  # 1e-6: FMA-WSSS, released code
