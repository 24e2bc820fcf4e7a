"""What learning brings CLIP+SAM (FMA-WSSS) on the drawn world, over several seeds, with its controls.

python -m kit.experiments.fma_wsss      writes notebooks/recorded/fma_wsss.json; run it again to go on where it stopped

Prompts are learned on scenes of the training split and judged on the validation split. Two controls have to do worse: prompts learned
from image labels that were dealt out to the wrong scenes, and maps on which the masks of the next scene vote.
"""

import dataclasses
import json
import random
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from kit import __version__
from kit.data import DataSet, Sample, toy_data
from kit.encode import Clip, Tokens
from kit.evaluate import Tally
from kit.files import write_whole
from kit.fit import fit
from kit.learned import check_belongs
from kit.method import Pipeline
from kit.methods.fma_wsss import CLASSIFICATION, FmaWsss, LearnedTexts
from kit.prompt import competing_words, prompts
from kit.propose import Proposals, chosen
from kit.tables import aligned
from kit.vote import oracle_vote
from kit.words import VOC_CLASSES

FILE = Path(__file__).parents[2] / "notebooks" / "recorded" / "fma_wsss.json"
BY_HAND = {
    "cam": "hand-crafted prompts: map", "affinity": "hand-crafted prompts: + affinity", "coarse": "hand-crafted prompts: + vote",
}  # fmt: skip
LEARNED = {
    "cam": "classification prompts: map", "affinity": "classification prompts: + affinity", "coarse": "coarse seeds",
    "fine_cam": "segmentation prompts: map", "fine_affinity": "segmentation prompts: + affinity", "fine": "fine seeds",
}  # fmt: skip
SHUFFLED = {"coarse": "control, shuffled labels in training: coarse seeds", "fine": "control, shuffled labels in training: fine seeds"}
STRANGE = {"coarse": "control, masks of another scene: coarse seeds", "fine": "control, masks of another scene: fine seeds"}
PARTS = {
    "learned classes": "coarse seeds, learned prompts for the classes alone",
    "learned backgrounds": "coarse seeds, for the backgrounds alone",
}
ORACLE = {level: f"oracle vote, level {level}" for level in (0, 1, 2)}

Scores = Mapping[str, tuple[float, float]]  # name -> mIoU over all scenes, and over those with two or more classes, 0..1
Seen = tuple[Sample, Tokens, Proposals]  # a scene, encoded once, with its masks
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the numbers are recorded.")] = FILE,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="How many seeds: 0 to N - 1.")] = 3,
    scenes: Annotated[int, typer.Option(min=8, metavar="N", help="Scenes of the training split to learn from.")] = 300,
    judged: Annotated[int, typer.Option(min=2, metavar="N", help="Scenes of the validation split to judge on.")] = 200,
) -> None:
    """Measure every stage of FMA-WSSS on the drawn world: learned prompts over several seeds, hand-crafted ones, an oracle, controls."""
    by_hand = FmaWsss(Clip.load("tiny"), learned=None)
    about = {
        "what": "mIoU over 21 classes on the drawn world's validation split; only superpixels were first compared on it", "images": judged,
        "learned_from": scenes, "model": by_hand.clip.name, "clip": by_hand.clip.fingerprint, "settings": by_hand.settings.to_dict(),
    }  # fmt: skip
    rows, training, work = recorded(out, about), toy_data("train", scenes), out.with_name(f"{out.name}.work")
    seen = [(sample, by_hand.encode(sample.image), masks_of(by_hand, sample)) for sample in toy_data("val", judged).samples(truth=True)]

    def missing(group: str, seed: int | None) -> bool:
        return not any(row["group"] == group and row["seed"] == seed for row in rows)

    def judge(group: str, seed: int | None, scores: Scores) -> None:
        for name, (miou, several) in scores.items():
            rows.append({"name": name, "seed": seed, "group": group, "miou": miou, "miou_two_or_more": several})
        write_whole(out, (json.dumps({"about": {**about, "kit": __version__}, "rows": rows}, indent=1) + "\n").encode())

    if missing("by hand", None):
        judge("by hand", None, scores_of_stages(by_hand, seen, BY_HAND))
    if missing("oracle", None):
        judge("oracle", None, oracle_scores(seen))
    for seed in range(seeds):
        if any(missing(group, seed) for group in ("learned", "strange", "parts")):
            pipeline = learned(by_hand, training, seed, work / f"learned-{seed}.safetensors")
            if missing("learned", seed):
                judge("learned", seed, scores_of_stages(pipeline, seen, LEARNED))
            if missing("strange", seed):
                judge("strange", seed, scores_of_stages(pipeline, seen, STRANGE, next_masks=True))
            if missing("parts", seed):
                parts = [scores_of_stages(half, seen, {"coarse": PARTS[name]}) for name, half in halves(pipeline).items()]
                judge("parts", seed, {name: score for part in parts for name, score in part.items()})
        if missing("shuffled", seed):
            pipeline = learned(by_hand, shuffled(training, seed), seed, work / f"shuffled-{seed}.safetensors")
            judge("shuffled", seed, scores_of_stages(pipeline, seen, SHUFFLED))
    print(table(rows, about))


def learned(by_hand: Pipeline, data: DataSet, seed: int, file: Path) -> Pipeline:
    """The method with prompts learned from these scenes; a file of this very learning that is there already is taken."""
    pipeline = by_hand.changed(seed=seed)
    if file.exists():
        known = pipeline.method(pipeline.clip, learned=file)
        made = {**known.learned.about, "settings": known.settings.to_dict()}
        check_belongs(file, made, settings=pipeline.settings.to_dict(), images=len(data), labels_from=data.labels_from)
        return known
    file.parent.mkdir(parents=True, exist_ok=True)
    print(f"{file.stem}:", flush=True)
    try:
        return fit(pipeline, data, file)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", flush=True)
        raise typer.Exit(130) from None


def halves(pipeline: Pipeline) -> dict[str, Pipeline]:
    """The classification prompts with half of their texts hand-crafted: which half does learning change for the worse?"""
    settings, classes, text = pipeline.settings, pipeline.learned.classes, pipeline.opened.texts[CLASSIFICATION]
    rivals, _ = competing_words(settings.background, classes, settings.synonyms)
    crafted = pipeline.clip.text(prompts(settings.template, classes, settings.synonyms) + prompts(settings.template, rivals))
    learns = torch.arange(len(text), device=text.device)[:, None] < len(classes)

    def asked_with(half: torch.Tensor) -> Pipeline:
        texts = LearnedTexts(classes, {CLASSIFICATION: half})
        return dataclasses.replace(pipeline, method=dataclasses.replace(pipeline.method, open=lambda *_: texts))

    both = {"learned classes": torch.where(learns, text, crafted), "learned backgrounds": torch.where(learns, crafted, text)}
    return {name: asked_with(half) for name, half in both.items()}


def shuffled(data: DataSet, seed: int) -> DataSet:
    """The same scenes, each with the image-level labels of another one."""
    order = list(range(len(data)))
    random.Random(seed).shuffle(order)
    entries = tuple(dataclasses.replace(entry, names=data.entries[other].names) for entry, other in zip(data.entries, order, strict=True))
    return dataclasses.replace(data, entries=entries, labels_from=f"{data.labels_from}, dealt out to the wrong scenes")


def masks_of(pipeline: Pipeline, sample: Sample) -> Proposals:
    return pipeline.method.stage("proposals").run(pipeline.scene(sample, None), {})


def with_masks(pipeline: Pipeline, proposals: Proposals) -> Pipeline:
    """The same, with these masks for every picture."""
    stage = dataclasses.replace(pipeline.method.stage("proposals"), run=lambda scene, done: proposals)
    return dataclasses.replace(pipeline, method=pipeline.method.with_stage(stage))


def scores_of_stages(pipeline: Pipeline, seen: list[Seen], names: Mapping[str, str], *, next_masks: bool = False) -> Scores:
    """The scores of the stages wanted, by their names; next_masks: those of the next scene vote."""
    tally = Tally(VOC_CLASSES)
    for index, (sample, tokens, own) in enumerate(seen):
        if not sample.names:
            tally.add_background(sample)
            continue
        masks = seen[(index + 1) % len(seen)][2] if next_masks else own
        result = with_masks(pipeline, masks).segment(sample, tokens=tokens)
        for stage in names:
            tally.add(stage, sample, result.labels_of(stage))
    return {names[stage]: (score.miou, score.miou_two_or_more) for stage, score in tally.scores().items()}


def oracle_scores(seen: list[Seen]) -> Scores:
    """The best that the masks of each level allow: each takes the class that most of it has in truth."""
    tally = Tally(VOC_CLASSES)
    for sample, _, masks in seen:
        for level in ORACLE:
            labels = oracle_vote(sample.truth, chosen(masks, masks.levels == level)).labels.numpy()
            tally.count(level, sample.truth, labels.astype(np.uint8), several=len(sample.names) >= 2)
    return {ORACLE[level]: (score.miou, score.miou_two_or_more) for level, score in tally.scores().items()}


def recorded(file: Path, about: Mapping) -> list[dict]:
    """The rows that are there already, of the same experiment.   Stops with a sentence if the file is of another one."""
    if not file.exists():
        return []
    made = json.loads(file.read_text())
    known = {name: value for name, value in made["about"].items() if name != "kit"}
    known["settings"] = FmaWsss.settings_of(known["settings"]).to_dict()
    if known != about:
        raise SystemExit(f"{file} holds an experiment with other settings: remove it (and {file.name}.work) to begin again, or give --out")
    return made["rows"]


def table(rows: list[dict], about: Mapping) -> str:
    """Mean and standard deviation over the seeds, in percent, in the order of the method."""
    names = [name for group in (BY_HAND, LEARNED, PARTS, ORACLE, SHUFFLED, STRANGE) for name in group.values()]
    keys = ("miou", "miou_two_or_more")
    lines = [(name, *(_told([100 * row[key] for row in rows if row["name"] == name]) for key in keys)) for name in names]
    seeds = len({row["seed"] for row in rows} - {None})
    return "\n".join([
        *aligned([("mIoU in percent", "all", "two or more classes"), *lines]), "",
        f"{about['images']} scenes of the drawn world's validation split, prompts learned from {about['learned_from']} scenes of the "
        f"training split with superpixels in SAM's place, mean ± standard deviation over {seeds} seed{'s' * (seeds != 1)}.",
    ])  # fmt: skip


def _told(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else "–"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    app()
