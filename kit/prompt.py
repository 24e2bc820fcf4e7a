"""Choosing words: templates, synonyms, and the sharpness by which CLIP-ES picks a template. And learning them: contexts of free vectors."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kit.encode import Clip
from kit.shapes import check_shape

MAX_WORDS = 60  # a prompt longer than this cannot fit into CLIP's 77 tokens
POSITIONS = ("end", "front", "middle")  # where the name stands: after the context, before it, between its halves


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


def competing_words(background: Sequence[str], names: Sequence[str], synonyms: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The background words that compete, and those left out: a word that asks for a class would suppress that class's own map."""
    asked = {word.strip().lower() for name in names for word in (name, *synonyms.get(name, name).split(","))}
    own = [word for word in background if word.strip() and word.strip().lower() in asked]
    return [word for word in background if word not in own], own


def shifted_words(classes: Sequence[str], words: Mapping[str, str]) -> dict[str, str]:
    """Each class with the words of the class after it: a method that listens to its words must do badly with them.

    >>> shifted_words(("cat", "dog"), {"dog": "dog hound"})
    {'cat': 'dog hound', 'dog': 'cat'}
    """
    following = (*classes[1:], *classes[:1])
    return {name: words.get(other, other) for name, other in zip(classes, following, strict=True)}


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


class PromptContext(nn.Module):
    """Learned words: `length` free vectors stand where a template's words would, and a loss decides what they say.

    A prompt is: start | context and name, in the order `position` says | "." | end. An empty name leaves the context alone: a learned
    background. `vectors` is all there is to learn: (M, E) shared by the names, or (C, M, E) with `per_class`, drawn from a normal
    distribution by `seed`, or the vectors of the words `start` (then `length` is their number). Raises PromptError.
    Source: Zhou et al. 2022 (CoOp); FMA-WSSS, released code.
    """

    def __init__(
        self,
        clip: Clip,
        names: Sequence[str],
        *,
        length: int = 16,  # CoOp and FMA-WSSS
        position: str = "end",  # FMA-WSSS: "front" for its segmentation prompts on VOC
        per_class: bool = False,  # FMA-WSSS: True for the same
        std: float = 0.015,  # FMA-WSSS, released code: 0.015, and 0.0125 for the same
        seed: int = 0,
        start: str | None = None,
    ):
        super().__init__()
        if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
            raise PromptError(f"expected a list of names, got {names!r}: an empty name is ''")
        if position not in POSITIONS:
            raise PromptError(f"expected position to be one of {', '.join(POSITIONS)}, got {position!r}")
        if not per_class and sum(not name.strip() for name in names) > 1:
            raise PromptError("several empty names with one shared context would be the same text: give each its own (per_class=True)")
        words = clip.tokenizer.encode(start) if start is not None else []
        if start is not None and not words:
            raise PromptError("expected start to have words, got none: leave it out to begin with random vectors")
        length = len(words) if words else length
        if length < 1:
            raise PromptError(f"expected a context of at least 1 vector, got {length}")

        self.names, self.position = tuple(names), position
        ids, slots = _laid_out(clip, self.names, length, position)
        frame = clip.token_embeddings(ids)
        self.register_buffer("frame", frame, persistent=False)  # (C, S, E) all that is not learned
        self.register_buffer("slots", slots.to(frame.device), persistent=False)  # (C, M) places of the context
        self.register_buffer("ends", ids.argmax(1).to(frame.device), persistent=False)  # (C,) an end is the largest id
        shape = (len(names), length, frame.shape[2]) if per_class else (length, frame.shape[2])
        if words:
            vectors = clip.token_embeddings(torch.tensor(words)).expand(shape).clone()
        else:
            vectors = torch.empty(shape).normal_(std=std, generator=torch.Generator().manual_seed(seed))
        self.vectors = nn.Parameter(vectors.to(frame.device))

    def text(self, clip: Clip) -> Tensor:
        """The prompts as unit vectors, with a graph to `vectors` and to nothing else; `clip` is the one they were made for.   -> (C, D)."""
        places = self.slots[..., None].expand(-1, -1, self.frame.shape[2])  # (C, M, E)
        return clip.text_of_embeddings(self.frame.scatter(1, places, self.vectors.expand(places.shape)), self.ends)


def nearest_words(clip: Clip, vectors: Tensor, *, count: int = 3) -> list[list[tuple[str, float]]]:
    """What learned vectors come closest to saying: for each, the `count` nearest tokens and their distances, nearest first.

    vectors (M, E) -> M lists; a distance is Euclidean, between token vectors. A piece of a word ends in "-".   Source: CoOp, section 4.
    """
    words, table = clip.vocabulary()
    check_shape(vectors, "M E", "vectors", E=table.shape[1])
    count = min(count, len(words))
    distances = torch.cdist(vectors.detach().to(table), table, compute_mode="donot_use_mm_for_euclid_dist")  # (M, V)
    nearest = distances.topk(count, largest=False)
    return [
        [(words[index], distance) for index, distance in zip(indices, values, strict=True)]
        for indices, values in zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True)
    ]


def _laid_out(clip: Clip, names: Sequence[str], length: int, position: str) -> tuple[Tensor, Tensor]:
    """Each prompt's token ids, cut to the longest prompt (0 where the context stands and after the end), and the context's places.

    -> (C, S), (C, M).   Nothing after the end counts: the text transformer looks back only.
    """
    start, end = clip.tokenizer([""])[0, :2].tolist()
    stop = clip.tokenizer.encode(".")
    before = {"end": length, "front": 0, "middle": length // 2}[position]
    rows, places = [], []
    for name in names:
        word = clip.tokenizer.encode(name)
        row = [start, *[0] * before, *word, *[0] * (length - before), *stop, end]
        room = clip.tokenizer.context_length
        if len(row) > room:
            raise PromptError(
                f"a context of {length} vectors and the name {name[:40]!r} make {len(row)} tokens, {clip.name} reads {room}: "
                f"shorten the name, or the context to {max(room - len(row) + length, 0)}"
            )
        rows.append(torch.tensor(row))
        places.append([1 + slot + (len(word) if slot >= before else 0) for slot in range(length)])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(places)
