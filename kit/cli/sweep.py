"""`python -m kit sweep`: one or two settings varied."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kit.cli import options, output

if TYPE_CHECKING:
    from kit.data import Sample

PLOT_ENDINGS = (".png", ".svg", ".pdf")
_KNOB_HELP = "A setting and its values: box_threshold=0.2,0.4,0.6, or a JSON list of them. Once or twice; a wrong name lists all."


def sweep(
    knobs: Annotated[list[str], typer.Option("--knob", metavar="NAME=A,B,C", help=_KNOB_HELP)],
    data: options.Data = "toy",
    root: options.Root = None,
    split: options.Split = None,
    labels: options.Labels = None,
    images: Annotated[int, typer.Option(min=1, metavar="N", help="How many images; all of them are kept in memory.")] = 200,
    size: options.Size = None,
    skip_bad: options.SkipBad = False,
    stage: Annotated[str | None, typer.Option(metavar="NAME", help="Which stage to measure.  [default: the last one]")] = None,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Independent draws the images are cut into: their spread stands beside each score.")
    ] = 3,
    method: options.Method = None,
    weights: options.Weights = None,
    model: options.Model = "tiny",
    device: options.Device = None,
    precision: options.Precision = "float32",
    refiner: Annotated[
        str | None, typer.Option(metavar="NAME", help="crf, pixel-adaptive or none.  [default: none, it takes most of the time]")
    ] = None,
    sam: options.Sam = None,
    changes: options.Settings = None,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Processes for the refiner.")] = 1,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table to this file, as CSV.")] = None,
    json_file: options.JsonFile = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw a curve, or a map of two knobs: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Vary one or two settings over images that are encoded only once: mIoU of every value, with its spread.

    \b
    python -m kit sweep --knob box_threshold=0.2,0.4,0.6
    python -m kit sweep --knob box_threshold=0.2,0.4,0.6 --knob power=1,2 --plot grid.png
    python -m kit sweep --method my_method.py --knob group.setting=1,2 --images 50 --csv table.csv
    python -m kit sweep --knob power=1,2 --data voc --root VOC2012 --images 50 --model ViT-B-16-quickgelu:openai
    """
    from kit import sweep as ablation
    from kit.batches import layers_of
    from kit.data import DataError
    from kit.evaluate import check_truth
    from kit.images import ImageError

    with options.refusal():
        for option, file in (("--csv", csv_file), ("--json", json_file), ("--plot", plot_file)):
            options.check_file(option, file)
        if plot_file is not None and plot_file.suffix.lower() not in PLOT_ENDINGS:
            raise options.OptionError(f"--plot {plot_file}: expected a name that ends with {' or '.join(PLOT_ENDINGS)}")
        choice = options.the_only(
            options.choices(method, weights, changes, model=model, data=data, refiner=("refiner", refiner), sam=("proposals", sam))
        )
        values = _knobs(choice, knobs)
        for name in values:
            if name in choice.changes:
                raise options.OptionError(f"{name} is given twice: as --knob {name} and as --set {name}")
        if "refiner" in choice.method.Settings.described() and "refiner" not in {*values, *choice.changes}:
            choice.changes["refiner"] = "none"
        pictures = options.opened_data(data, root=root, split=split, labels=labels, images=images, size=size, skip_bad=skip_bad)
        check_truth(pictures, skip_bad=skip_bad)
        if seeds > len(pictures):
            raise options.OptionError(f"--seeds {seeds}: only {output.counted(len(pictures), 'images')} to cut into so many draws")
        pipeline = choice.pipeline(options.loaded_clip(model, device, precision=precision, data=data), data)
        variants = [pipeline.changed(**dict(zip(values, each, strict=True))) for each in itertools.product(*values.values())]
        options.check_words(variants if values.keys() & {"template", "background", "synonyms"} else variants[:1], pictures.classes)
    refused = list(pictures.refused)
    # Read, encoded, measured: three steps a picture.
    with output.progress(f"{data} {pictures.split}", 3 * len(pictures), unit="steps") as bar, output.failure(hint=not skip_bad):

        def read() -> Iterator["Sample"]:
            for sample in pictures.samples(truth=True, refuse=(lambda *bad: refused.append(bad)) if skip_bad else None):
                yield sample
                bar.update()

        with options.refusal(but=(DataError, ImageError)):  # more than fits into memory is asked for by an option
            encoded = ablation.encode_all(
                pipeline,
                read(),
                split=pictures.split if data == "toy" else f"{pictures.split} of {data}".strip(),
                layers=layers_of(variants),
                classes=pictures.classes,
                progress=lambda _: bar.update(),
            )
            result = ablation.sweep(
                pipeline, encoded, stage=stage, seeds=seeds, workers=workers, progress=lambda _: bar.update(),
                **{name.replace(".", "__"): chosen for name, chosen in values.items()},
            )  # fmt: skip
    print(result.table())
    for name, reason in refused:
        output.say(f"left out: {name} ({reason})")

    def drawn() -> bytes:
        picture = io.BytesIO()
        result.plot().savefig(picture, format=plot_file.suffix.lower()[1:])
        return picture.getvalue()

    output.write_or_stop(csv_file, lambda: result.to_csv().encode())
    output.write_or_stop(
        json_file, lambda: output.json_bytes({"data": data, "labels_from": pictures.labels_from, **result.to_dict()})
    )  # fmt: skip
    output.write_or_stop(plot_file, drawn)
    if refused:
        raise typer.Exit(1)


def _knobs(choice: options.Choice, assignments: list[str]) -> dict[str, list]:
    """The values of every --knob, checked before a model is loaded: between commas, or a JSON list where a value has commas itself."""
    knobs: dict[str, list] = {}
    for assignment in assignments:
        name, equals, listed = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise options.OptionError(f"--knob {assignment}: expected NAME=VALUES, such as box_threshold=0.2,0.4,0.6")
        name = choice.name_of(name, option="--knob")
        if name in knobs:
            raise options.OptionError(f"--knob {name} is given twice")
        if listed.startswith("["):
            values = options.from_json(name, listed, option="--knob")
        else:
            values = [choice.value_of(name, part, option="--knob") for part in options.listed(listed, f"--knob {name}")]
        if not values:
            raise options.OptionError(f"--knob {name}: expected at least one value for {name}")
        for value in values:
            choice.method.Settings().changed(**{name: value})
        knobs[name] = values
    if len(knobs) > 2:
        raise options.OptionError(f"--knob is given {len(knobs)} times: vary one setting or two")
    return knobs
