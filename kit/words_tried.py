"""Words tried: templates over many samples, and one picture asked with other words, with no further pass of the encoder."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kit import cam
from kit.data import Sample
from kit.encode import Tokens
from kit.evaluate import Tally
from kit.last_block import last_pass
from kit.method import Kept, Pipeline, Result
from kit.prompt import filled, sharpness
from kit.settings import SettingsError
from kit.sweep import EncodedSet, knob_values
from kit.tables import aligned, none_if_nan, percent

if TYPE_CHECKING:
    import pandas

WORDS = ("template", "synonyms", "background")  # the settings that are words
WEAK = 0.3  # a rank correlation nearer to 0 orders hardly anything


@dataclass(frozen=True)
class TemplateRow:
    """What one template is worth, over so many images.

    sharpness: lower is better, nan without an image of two classes; class_score: the mean probability of the classes that are there, 0..1;
    miou: before the refiner, 0..1, nan where no truth is known.
    """

    template: str
    sharpness: float
    class_score: float
    miou: float
    images: int


@dataclass(frozen=True, repr=False)
class TemplateTable:
    """Templates side by side: a small table that prints itself."""

    rows: tuple[TemplateRow, ...]
    split: str
    model: str

    def __repr__(self) -> str:
        return self.table()

    @property
    def rank_correlation(self) -> float:
        """Spearman's, between sharpness and mIoU, -1..1: near -1 where the sharpness finds the better templates; nan where the ranks of
        three templates or more are not known."""
        known = self.to_frame()[["sharpness", "miou"]].dropna()
        if len(known) < 3 or (known.nunique() < 2).any():
            return math.nan
        return float(known["sharpness"].corr(known["miou"], method="spearman"))

    def verdict(self) -> str:
        """The rank correlation in a sentence, said as plainly where it is weak."""
        value = self.rank_correlation
        known = sum(not math.isnan(row.sharpness + row.miou) for row in self.rows)
        if math.isnan(value):
            return "No rank correlation: it needs three templates or more with different sharpness and mIoU."
        chance = min(1, 2 / math.sqrt(known - 1))  # about two standard deviations of the correlation of unrelated ranks
        if abs(value) < max(chance, WEAK):
            meaning = f"weak, as unrelated numbers often reach {chance:.2f}: sharpness is hardly a guide here"
        elif value < 0:
            meaning = "a sharper template (lower) tends to make better masks here, as its paper says"
        else:
            meaning = "the wrong way round: here a sharper template (lower) tends to make worse masks"
        return f"Rank correlation of sharpness and mIoU over {known} templates: {value:+.2f}; {meaning}."

    def to_frame(self) -> "pandas.DataFrame":
        """A line a template, scores 0..1."""
        import pandas

        return pandas.DataFrame([{**dataclasses.asdict(row), "split": self.split, "model": self.model} for row in self.rows])

    def table(self) -> str:
        """The numbers as text, in the order of the mIoU, or of the sharpness where no truth is known, and what they are numbers of."""
        ranked = sorted(self.rows, key=lambda row: (-row.miou if not math.isnan(row.miou) else math.inf, row.sharpness))
        head = ("template", "sharpness", "class score", "mIoU")
        body = [(row.template, f"{row.sharpness:.4f}", percent(row.class_score), percent(row.miou)) for row in ranked]
        images = ", ".join(sorted({f"{row.images:,}" for row in self.rows}))
        return "\n".join([
            *aligned((head, *body)),
            "",
            f"Split {self.split or '(not named)'}: {images} images; model {self.model}; before the refiner.",
            f"Sharpness: lower is better. Class score and mIoU in percent. {self.verdict()}",
        ])  # fmt: skip

    def to_dict(self) -> dict:
        """Plain values, ready for JSON: scores 0..1, None where there is none."""
        rows = [{name: none_if_nan(value) if isinstance(value, float) else value for name, value in vars(row).items()} for row in self.rows]
        about = {"rank_correlation": none_if_nan(self.rank_correlation), "verdict": self.verdict()}
        return {"templates": rows, **about, "split": self.split, "model": self.model}

    def to_csv(self, path: str | PathLike | None = None) -> str:
        """A line a template, scores 0..1; written to `path` if there is one, and returned."""
        text = self.to_frame().to_csv(index=False, lineterminator="\n")
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text


def template_rows(
    pipeline: Pipeline,
    encoded: EncodedSet,
    templates: Sequence[str],
    *,
    lock: AbstractContextManager | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[TemplateRow]:
    """Each template measured over all samples, one row after the other, with no pass of the encoder; everything else as in `pipeline`.

    lock: held while the model works on one sample, for those who share it; progress is told how many samples of this template are done, and
    whatever it raises ends the measurement.   Raises SettingsError, PromptError or ValueError as `sweep` does, before the first row.

    Source of the sharpness: CLIP-ES, section 3.2.
    """
    templates = knob_values(pipeline, "template", templates)
    for template in templates:
        filled(template, "word")  # a slip is told before anything is measured
    encoded.check(pipeline)
    return _template_rows(pipeline, encoded, [{"template": template} for template in templates], lock or nullcontext(), progress)


def _template_rows(pipeline: Pipeline, encoded: EncodedSet, changes: list[dict], lock, progress) -> Iterator[TemplateRow]:
    # One stream a sample, and each keeps what no template changes.
    streams = [None if tokens is None else reworded(pipeline, sample, tokens, changes) for sample, tokens in encoded.pairs()]
    for change in changes:
        tally, scores = Tally(encoded.classes), []
        for count, (sample, stream) in enumerate(zip(encoded.samples, streams, strict=True), start=1):
            labels = np.zeros(sample.truth.shape, np.uint8)  # where there is nothing to ask for, all is background
            if stream is not None:
                with lock:
                    result = next(stream)
                labels = result.labels.cpu().numpy()
                scores.append(list(result.scores.values()))
            tally.add("template", sample, labels)
            if progress:
                progress(count)
        yield template_row(change["template"], scores, tally.scores()["template"].miou, len(encoded))


def template_row(template: str, scores: Sequence[Sequence[float]], miou: float, images: int) -> TemplateRow:
    """A template's row from its answers.   scores: for each image the probabilities of its classes, 0..1; miou: 0..1 or nan."""
    every = [score for image in scores for score in image]
    return TemplateRow(
        template=template,
        sharpness=sharpness([torch.tensor(image) for image in scores]),
        class_score=statistics.fmean(every) if every else math.nan,
        miou=miou,
        images=images,
    )


def template_table(pipeline: Pipeline, encoded: EncodedSet, templates: Sequence[str], **options) -> TemplateTable:
    """Sharpness, class score and mIoU of templates over encoded samples; options as in `template_rows`.

    >>> template_table(pipeline, encoded, IMAGENET_TEMPLATES).rank_correlation          # doctest: +SKIP
    """
    return TemplateTable(tuple(template_rows(pipeline, encoded, templates, **options)), encoded.split, encoded.clip.name)


def reworded(pipeline: Pipeline, sample: Sample, tokens: Tokens, changes: Iterable[Mapping[str, Any]]) -> Iterator[Result]:
    """One image's results before the refiner under other words: each change holds settings out of template, synonyms and background.

    What no word changes is computed once.   Raises SettingsError for other settings, and for words that this method does not ask with.
    """
    kept = Kept(limit=1)
    for change in changes:
        if strange := [name for name in change if name not in WORDS]:
            raise SettingsError(
                f"expected template, synonyms or background to change, got {', '.join(strange)}: sweep varies other settings"
            )
        variant = pipeline.changed(**change)
        driver = variant.driver(sample, tokens, kept=kept)
        *_, last = (stage.name for stage in driver.steps(worker=False) if stage.is_shown)
        if unread := [name for name in change if name not in driver.behind(last)]:
            raise SettingsError(
                f"{unread[0]} changes nothing here: {pipeline.prompts_told() or f'{pipeline.method.title} does not read it'}"
            )
        yield driver.result(variant, sample.image.shape[:2])


@dataclass(frozen=True, eq=False)
class WordRow:
    """One word in a class's place: the cosine of its prompt with the image, -1..1, and the whole answer with it."""

    word: str
    similarity: float
    result: Result


def word_rows(pipeline: Pipeline, sample: Sample, tokens: Tokens, name: str, words: Sequence[str]) -> Iterator[WordRow]:
    """A class asked for with one word after the other, the other classes as they are, with no pass of the encoder.

    name: one of the sample's classes.   Raises SettingsError for a class that the sample does not name.
    Source: POLE, which takes the word whose prompt CLIP finds most similar to the image.
    """
    if name not in sample.names:
        raise SettingsError(f"expected a class out of {', '.join(sample.names)}, got {name!r}")
    done, settings = last_pass(tokens), pipeline.settings
    answers = reworded(pipeline, sample, tokens, ({"synonyms": {**settings.synonyms, name: word}} for word in words))
    for word in words:
        text = pipeline.clip.text([filled(settings.template, word)])
        similarity = cam.class_logits(tokens, text, done=done)[0, 0] / tokens.block.logit_scale
        yield WordRow(word, float(similarity), next(answers))


@dataclass(frozen=True, eq=False)
class BackgroundRow:
    """The answer without some background words, and the share of pixels whose label differs from the answer with all of them, 0..1."""

    left_out: tuple[str, ...]
    changed: float
    labels: Tensor = field(repr=False)


def background_rows(pipeline: Pipeline, sample: Sample, tokens: Tokens) -> Iterator[BackgroundRow]:
    """What each background word does to the mask, with no pass of the encoder: all words, none, then all but one, in their order."""
    words = tuple(dict.fromkeys(pipeline.settings.background))
    left_out = [(), words, *((word,) for word in words)] if len(words) > 1 else [(), words][: 1 + len(words)]
    changes = ({"background": [word for word in words if word not in out]} for out in left_out)
    labels = None
    for out, result in zip(left_out, reworded(pipeline, sample, tokens, changes), strict=True):
        labels = result.labels if labels is None else labels
        yield BackgroundRow(out, (result.labels != labels).float().mean().item(), result.labels)
