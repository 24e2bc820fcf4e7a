"""What learning brings CLIP+SAM (FMA-WSSS) on the drawn world, over several seeds, with its controls.

python -m kit.experiments.fma_wsss      writes notebooks/recorded/fma_wsss.json; run it again to go on where it stopped

Prompts are learned on scenes of the training split and judged on the validation split. Two controls have to do worse: prompts learned
from image labels that were dealt out to the wrong scenes, and maps on which the masks of the next scene vote.
"""

import dataclasses
import json
import os
import random
import secrets
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from kit import __version__
from kit.data import DataSet, Sample, toy_data
from kit.encode import Clip, Tokens
from kit.evaluate import Tally, labels_of_size
from kit.learned import check_belongs, load_learned
from kit.methods import FmaWsss
from kit.methods.settings import competing_words
from kit.prompt import prompts
from kit.propose import chosen
from kit.vote import oracle_vote
from kit.words import VOC_CLASSES

FILE = Path(__file__).parents[2] / "notebooks" / "recorded" / "fma_wsss.json"
BY_HAND = {
    "cam": "hand-written prompts: map", "affinity": "hand-written prompts: + affinity", "coarse": "hand-written prompts: + vote",
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

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the numbers are recorded.")] = FILE,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="How many seeds: 0 to N - 1.")] = 3,
    scenes: Annotated[int, typer.Option(min=8, metavar="N", help="Scenes of the training split to learn from.")] = 300,
    judged: Annotated[int, typer.Option(min=2, metavar="N", help="Scenes of the validation split to judge on.")] = 200,
) -> None:
    """Measure every stage of FMA-WSSS on the drawn world: learned prompts over several seeds, hand-written ones, an oracle, controls."""
    clip = Clip.load("tiny")
    about = {
        "what": "mIoU over 21 classes on the drawn world's validation split; only superpixels were first compared on it", "images": judged,
        "learned_from": scenes, "model": clip.name, "clip": clip.fingerprint, "settings": FmaWsss(clip).settings.to_dict(),
    }  # fmt: skip
    rows = recorded(out, about)
    work = out.with_name(f"{out.name}.work")
    training, val = toy_data("train", scenes), toy_data("val", judged)
    seen: list[tuple[Sample, Tokens]] = []

    def judge(group: str, seed: int | None, scores: Mapping[str, tuple[float, float]]) -> None:
        rows.extend(
            {"name": name, "seed": seed, "group": group, "miou": miou, "miou_two_or_more": several}
            for name, (miou, several) in scores.items()
        )
        record(out, about, rows)

    def missing(group: str, seed: int | None) -> bool:
        return not any(row["group"] == group and row["seed"] == seed for row in rows)

    def scenes_seen() -> list[tuple[Sample, Tokens]]:
        if not seen:
            seen.extend((sample, FmaWsss(clip).encode(sample.image)) for sample in val.samples(truth=True))
        return seen

    if missing("by hand", None):
        judge("by hand", None, scores_of_stages(FmaWsss(clip), scenes_seen(), BY_HAND))
    if missing("oracle", None):
        judge("oracle", None, oracle_scores(FmaWsss(clip), val))
    for seed in range(seeds):
        for group, data, names in (("learned", training, LEARNED), ("shuffled", shuffled(training, seed), SHUFFLED)):
            if not any(missing(judged, seed) for judged in (group, *("strange", "parts") * (group == "learned"))):
                continue
            method = learned(clip, data, seed, work / f"{group}-{seed}.safetensors")
            if missing(group, seed):
                judge(group, seed, scores_of_stages(method, scenes_seen(), names))
            if group == "learned" and missing("strange", seed):
                judge("strange", seed, scores_of_stages(method, scenes_seen(), STRANGE, next_masks=True))
            if group == "learned" and missing("parts", seed):
                parts = [scores_of_stages(half, scenes_seen(), {"coarse": PARTS[name]}) for name, half in halves(method).items()]
                judge("parts", seed, {name: score for part in parts for name, score in part.items()})
    print(table(rows, about))


def learned(clip: Clip, data: DataSet, seed: int, file: Path) -> FmaWsss:
    """The method with prompts learned from these scenes; a file of this very learning that is there already is taken."""
    method = FmaWsss(clip, seed=seed)
    if file.exists():
        _, made = load_learned(file)
        check_belongs(file, made, settings=method.settings.to_dict(), images=len(data), labels_from=data.labels_from)
        return FmaWsss.load(file, clip)
    file.parent.mkdir(parents=True, exist_ok=True)
    clock, said = time.monotonic(), None
    try:
        for step in method.fit(data, file):
            if step.task != said:
                said = step.task
                print(f"{file.stem}: {said}, {step.steps} steps, after {time.monotonic() - clock:.0f} s", flush=True)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", flush=True)
        raise typer.Exit(130) from None
    print(f"{file.stem}: learned in {time.monotonic() - clock:.0f} s", flush=True)
    return method


def halves(method: FmaWsss) -> dict[str, FmaWsss]:
    """The classification prompts with half of their texts hand-written: which half does learning change for the worse?"""
    settings, prompts_learned = method.settings, method.learned
    rivals, _ = competing_words(settings.background, prompts_learned.classes, settings.synonyms)
    by_hand = prompts(settings.template, prompts_learned.classes, settings.synonyms) + prompts(settings.template, rivals)
    count, text, other = len(prompts_learned.classes), prompts_learned.texts["classification"], method.clip.text(by_hand)
    mixed = {"learned classes": torch.cat([text[:count], other[count:]]), "learned backgrounds": torch.cat([other[:count], text[count:]])}
    return {
        name: FmaWsss(method.clip, settings, learned=dataclasses.replace(prompts_learned, texts={"classification": half}))
        for name, half in mixed.items()
    }


def shuffled(data: DataSet, seed: int) -> DataSet:
    """The same scenes, each with the image-level labels of another one."""
    order = list(range(len(data)))
    random.Random(seed).shuffle(order)
    entries = tuple(dataclasses.replace(entry, names=data.entries[other].names) for entry, other in zip(data.entries, order, strict=True))
    return dataclasses.replace(data, entries=entries, labels_from=f"{data.labels_from}, dealt out to the wrong scenes")


def scores_of_stages(
    method: FmaWsss, scenes: list[tuple[Sample, Tokens]], names: Mapping[str, str], *, next_masks: bool = False
) -> dict[str, tuple[float, float]]:
    """Name of each stage wanted -> mIoU over all scenes, and over those with two or more classes, 0..1."""
    tally = Tally(VOC_CLASSES)
    for index, (sample, tokens) in enumerate(scenes):
        if not sample.names:
            tally.add_background(sample)
            continue
        other = scenes[(index + 1) % len(scenes)][0] if next_masks else sample
        result = method.segment(sample, tokens=tokens, proposals=method.proposals(method.working_image(other.image)))
        for stage in names:
            tally.add(stage, sample, labels_of_size(method.scores_of(result, stage), sample.truth.shape))
    return {names[stage]: (score.miou, score.miou_two_or_more) for stage, score in tally.scores().items()}


def oracle_scores(method: FmaWsss, data: DataSet) -> dict[str, tuple[float, float]]:
    """The best that the masks of each level allow: each takes the class that most of it has in truth."""
    tally = Tally(VOC_CLASSES)
    for sample in data.samples(truth=True):
        proposals = method.proposals(method.working_image(sample.image))
        for level in ORACLE:
            labels = oracle_vote(sample.truth, chosen(proposals, proposals.levels == level)).labels.numpy()
            tally.count(level, sample.truth, labels.astype(np.uint8), several=len(sample.names) >= 2)
    return {ORACLE[level]: (score.miou, score.miou_two_or_more) for level, score in tally.scores().items()}


def recorded(file: Path, about: Mapping) -> list[dict]:
    """The rows that are there already, of the same experiment.   Stops with a sentence if the file is of another one."""
    if not file.exists():
        return []
    made = json.loads(file.read_text())
    if {name: value for name, value in made["about"].items() if name != "kit"} != json.loads(json.dumps(about)):
        raise SystemExit(f"{file} holds an experiment with other settings: remove it (and {file.name}.work) to begin again, or give --out")
    return made["rows"]


def record(file: Path, about: Mapping, rows: list[dict]) -> None:
    """The file appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{secrets.token_hex(8)}.part")
    part.write_text(json.dumps({"about": {**about, "kit": __version__}, "rows": rows}, indent=1) + "\n")
    os.replace(part, file)


def table(rows: list[dict], about: Mapping) -> str:
    """Mean and standard deviation over the seeds, in percent, in the order of the method."""
    by_name: dict[str, list[dict]] = {}
    order = [*BY_HAND.values(), *LEARNED.values(), *PARTS.values(), *ORACLE.values(), *SHUFFLED.values(), *STRANGE.values()]
    for name in order:
        by_name[name] = [row for row in rows if row["name"] == name]
    width = max(map(len, order))
    lines = [f"{'mIoU in percent':<{width}}  {'all':>12}  two or more classes"]
    lines += [f"{name:<{width}}  {_spread(some, 'miou'):>12}  {_spread(some, 'miou_two_or_more'):>19}" for name, some in by_name.items()]
    seeds = len({row["seed"] for row in rows} - {None})
    return "\n".join([
        *lines, "",
        f"{about['images']} scenes of the drawn world's validation split, prompts learned from {about['learned_from']} scenes of the "
        f"training split with superpixels in SAM's place, mean ± standard deviation over {seeds} seed{'s' * (seeds != 1)}.",
    ])  # fmt: skip


def _spread(rows: list[dict], key: str) -> str:
    values = [100 * row[key] for row in rows]
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else "–"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    app()
