"""`python -m kit evaluate`: methods, or masks that are there already, against the truth."""

from pathlib import Path
from typing import Annotated

import typer

from kit.cli import options, output

# What has a meaning only where a model runs.
OF_A_METHOD = ("method", "weights", "model", "device", "precision", "refiner", "sam", "changes", "workers", "no_control")
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
    sam: options.Sam = None,
    changes: options.Settings = None,
    no_control: Annotated[bool, typer.Option("--no-control", help="Without baselines and controls: less work.")] = False,
    workers: options.Workers = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also print the IoU of every class; --json always has it.")] = False,
    json_file: options.JsonFile = None,
) -> None:
    """Measure methods, or masks made elsewhere, on a data set: mIoU of every stage, of a baseline, and of a control with wrong words.

    \b
    python -m kit evaluate
    python -m kit evaluate --images 50 --refiner pixel-adaptive --set power=1
    python -m kit evaluate --split held_out --json result.json
    python -m kit evaluate --method my_method.py --images 50
    python -m kit evaluate --data voc --root VOC2012 --split val --model ViT-B-16-quickgelu:openai --per-class
    python -m kit evaluate --data voc --root VOC2012 --split train --masks pseudo_masks

    \b
    Several methods with commas between them share one table and one pass of the encoder: --method A,my_method.py.
    Exit code 1 if pictures were left out (with --skip-bad) or a file could not be used, 2 for a wrong option.
    """
    from kit.evaluate import check_truth, evaluate_masks
    from kit.evaluate import evaluate as evaluation

    with options.refusal():
        options.check_file("--json", json_file)
        if masks is None:
            chosen = options.choices(
                method, weights, changes, model=model, data=data, refiner=("refiner", refiner), sam=("proposals", sam)
            )  # fmt: skip
        else:
            options.check_unused(context, "with --masks no model runs, so that this changes nothing; leave it out", OF_A_METHOD)
            if not masks.is_dir():
                raise options.OptionError(f"--masks {masks}: there is no such folder; it has to hold a mask ID.png for every picture")
        pictures = options.opened_data(data, root=root, split=split, labels=labels, images=images, size=size, skip_bad=skip_bad)
        check_truth(pictures, skip_bad=skip_bad)
        if masks is None:
            clip = options.loaded_clip(model, device, precision=precision, data=data)
            pipelines = [choice.pipeline(clip, data) for choice in chosen]
            options.check_words(pipelines, pictures.classes)
    count = len(pictures)
    with output.progress(f"{pictures.name} {pictures.split}", count) as bar, output.failure(hint=not skip_bad):
        if masks is not None:
            result = evaluate_masks(masks, pictures, skip_bad=skip_bad, progress=lambda _: bar.update())
        else:
            result = evaluation(
                pipelines[0] if len(pipelines) == 1 else pipelines,
                pictures,
                control=not no_control,
                skip_bad=skip_bad,
                workers=workers or options.processes(count),
                progress=lambda _: bar.update(),
            )
    print(result.table())
    if labels == "masks" and masks is None:
        print(LABELS_OF_THE_TRUTH)
    if per_class:
        print(f"\n{result.per_class()}")
    output.write_or_stop(json_file, lambda: output.json_bytes(result.to_dict()))
    if result.refused:
        raise typer.Exit(1)
