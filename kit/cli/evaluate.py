"""`python -m kit evaluate`: a method, or masks that are there already, against the truth."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from kit.cli import options, output

# What has a meaning only where a model runs.
OF_A_METHOD = {
    "method": "--method", "model": "--model", "device": "--device", "precision": "--precision", "refiner": "--refiner", "changes": "--set",
    "workers": "--workers", "no_control": "--no-control", "weights": "--weights",
}  # fmt: skip
LABELS_OF_THE_TRUTH = (
    "The image-level labels were taken from the truth itself, as this field often does: the masks were told which classes are there."
)


def evaluate(
    context: typer.Context,
    data: options.Data = "toy",
    root: options.Root = None,
    split: options.Split = None,
    labels: options.Labels = None,
    images: options.Images = None,
    size: options.Size = None,
    skip_bad: options.SkipBad = False,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Score the masks DIR/ID.png or DIR/SegmentationClass/ID.png; no model runs.")
    ] = None,
    method: options.Method = None,
    weights: options.Weights = None,
    model: options.Model = "tiny",
    device: options.Device = None,
    precision: options.Precision = "float32",
    refiner: options.Refiner = None,
    changes: options.Settings = None,
    no_control: Annotated[
        bool, typer.Option("--no-control", help="Without the baseline and the control with wrong words: less work.")
    ] = False,
    workers: options.Workers = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also print the IoU of every class; --json always has it.")] = False,
    json_file: options.JsonFile = None,
) -> None:
    """Measure a method, or masks made elsewhere, on a data set: mIoU of every stage, of a baseline, and of a control with wrong words.

    \b
    python -m kit evaluate
    python -m kit evaluate --images 50 --refiner pixel-adaptive --set power=1
    python -m kit evaluate --split held_out --json result.json
    python -m kit evaluate --data voc --root VOC2012 --split val --model ViT-B-16-quickgelu:openai --per-class
    python -m kit evaluate --data voc --root VOC2012 --split train --masks pseudo_masks
    python -m kit evaluate --weights prompts.safetensors

    \b
    Exit code 1 if pictures were left out (with --skip-bad) or a file could not be used, 2 for a wrong option.
    """
    from kit.evaluate import check_truth, evaluate_masks
    from kit.evaluate import evaluate as evaluation

    with options.refusal():
        options.check_file("--json", json_file)
        if masks is None:
            method, learned = options.method_and_weights(method, weights, model)
            chosen_settings = options.chosen_settings(method, changes, model=model, data=data, weights=learned, refiner=refiner)
        else:
            options.check_unused(context, "with --masks no model runs, so that this changes nothing; leave it out", OF_A_METHOD)
            if not masks.is_dir():
                raise options.OptionError(f"--masks {masks}: there is no such folder; it has to hold a mask ID.png for every picture")
        pictures = options.opened_data(data, root=root, split=split, labels=labels, images=images, size=size, skip_bad=skip_bad)
        check_truth(pictures, skip_bad=skip_bad)
        if masks is None:
            chosen = options.chosen_method(method, model, device, chosen_settings, weights=learned, precision=precision, data=data)
            options.check_layers(chosen)
            options.check_words([chosen], pictures.classes)
    count = len(pictures)
    with output.progress(f"{pictures.name} {pictures.split}", count) as advance, output.failure(hint=not skip_bad):
        if masks is not None:
            result = evaluate_masks(masks, pictures, skip_bad=skip_bad, progress=lambda _: advance())
        else:
            result = evaluation(
                chosen,
                pictures,
                tuned=data == "toy" and pictures.split == "train" and chosen.clip.is_tiny,  # where the tiny CLIP's settings were chosen
                control=not no_control,
                skip_bad=skip_bad,
                workers=workers or options.processes(count),
                progress=lambda _: advance(),
            )
    if labels == "masks" and masks is None:
        result = dataclasses.replace(result, remarks=(LABELS_OF_THE_TRUTH, *result.remarks))
    print(result.table())
    if per_class:
        print(f"\n{result.per_class()}")
    if json_file is not None:
        output.write_or_stop(json_file, output.json_bytes(result.to_dict()))
    if result.refused:
        raise typer.Exit(1)
