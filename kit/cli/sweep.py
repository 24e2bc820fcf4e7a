"""`python -m kit sweep`: one or two settings varied."""

import io
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
    stage: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which stage to measure: cam, affinity or refined.  [default: the last one]")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Independent draws the images are cut into: their spread stands beside each score.")
    ] = 3,
    method: Annotated[str, typer.Option(metavar="NAME", help="clip-es; other methods have no sweep yet.")] = "clip-es",
    model: options.Model = "tiny",
    device: options.Device = None,
    precision: options.Precision = "float32",
    refiner: Annotated[
        str | None, typer.Option(metavar="NAME", help="crf, pixel-adaptive or none.  [default: none, it takes most of the time]")
    ] = None,
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
    python -m kit sweep --knob refiner=none,pixel-adaptive,crf --images 50 --csv refiners.csv
    python -m kit sweep --knob power=1,2 --data voc --root VOC2012 --images 50 --model ViT-B-16-quickgelu:openai
    """
    from kit import sweep as ablation
    from kit.data import DataError
    from kit.evaluate import check_truth, scorable_samples
    from kit.images import ImageError

    with options.refusal():
        for option, file in (("--csv", csv_file), ("--json", json_file), ("--plot", plot_file)):
            options.check_file(option, file)
        if plot_file is not None and plot_file.suffix.lower() not in PLOT_ENDINGS:
            raise options.OptionError(f"--plot {plot_file}: expected a name that ends with {' or '.join(PLOT_ENDINGS)}")
        options.settings_class(method)
        if method != "clip-es":
            raise options.OptionError(f"--method {method}: sweep is for clip-es for now; vary {method} with evaluate --set")
        values = _knobs(method, knobs)
        if refiner is not None and "refiner" in values:
            raise options.OptionError("refiner is given twice: as --knob refiner and as --refiner")
        chosen_settings = options.chosen_settings(method, changes, model=model, data=data, refiner=refiner)
        for name in values:
            if name in chosen_settings:
                raise options.OptionError(f"{name} is given twice: as --knob {name} and as --set {name}")
        pictures = options.opened_data(data, root=root, split=split, labels=labels, images=images, size=size, skip_bad=skip_bad)
        check_truth(pictures, skip_bad=skip_bad)
        if seeds > len(pictures):
            raise options.OptionError(f"--seeds {seeds}: only {output.counted(len(pictures), 'images')} to cut into so many draws")
        fixed = None if "refiner" in values else chosen_settings.get("refiner", "none")
        uses_crf = "crf" in values.get("refiner", (fixed,)) and stage in (None, "refined")
        chosen_settings |= {"refiner": "crf" if uses_crf else "none"}
        chosen = options.chosen_method(method, model, device, chosen_settings, precision=precision, data=data)
        variants = ablation.knob_grid(chosen, values, stage=stage, refiner=fixed)
        layers = ablation.blocks_needed(variants)
        options.check_words(variants if values.keys() & {"template", "background", "synonyms"} else variants[:1], pictures.classes)
    refused = list(pictures.refused)
    # Read, encoded, measured: three steps a picture.
    with output.progress(f"{data} {pictures.split}", 3 * len(pictures), unit="steps") as advance, output.failure(hint=not skip_bad):

        def read() -> Iterator["Sample"]:
            for sample in scorable_samples(pictures, refuse=(lambda *bad: refused.append(bad)) if skip_bad else None):
                yield sample
                advance()

        with options.refusal(but=(DataError, ImageError)):  # more than fits into memory is asked for by an option
            encoded = ablation.encode_all(
                chosen,
                read(),
                split=pictures.split if data == "toy" else f"{pictures.split} of {data}".strip(),
                layers=layers,
                classes=pictures.classes,
                progress=lambda _: advance(),
            )
        result = ablation.sweep(
            chosen, encoded, stage=stage, seeds=seeds, workers=workers, progress=lambda _: advance(), **{"refiner": fixed, **values}
        )
    print(result.table())
    for name, reason in refused:
        output.say(f"left out: {name} ({reason})")
    if csv_file is not None:
        output.write_or_stop(csv_file, result.to_csv().encode())
    if json_file is not None:
        output.write_or_stop(json_file, output.json_bytes({"data": data, "labels_from": pictures.labels_from, **result.to_dict()}))
    if plot_file is not None:
        picture = io.BytesIO()
        result.plot().savefig(picture, format=plot_file.suffix.lower()[1:])
        output.write_or_stop(plot_file, picture.getvalue())
    if refused:
        raise typer.Exit(1)


def _knobs(method: str, assignments: list[str]) -> dict[str, tuple]:
    """The values of every --knob, checked before a model is loaded: between commas, or a JSON list where a value has commas itself."""
    from kit.sweep import knob_values

    texts = options.text_settings(options.settings_class(method))
    knobs = {}
    for assignment in assignments:
        name, equals, listed = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise options.OptionError(f"--knob {assignment}: expected NAME=VALUES, such as box_threshold=0.2,0.4,0.6")
        if name in knobs:
            raise options.OptionError(f"--knob {name} is given twice")
        if listed.startswith("["):
            values = options.from_json(name, listed, option="--knob")
        else:
            parts = options.listed(listed, f"--knob {name}")
            values = parts if name in texts else [options.from_json(name, part, option="--knob") for part in parts]
        knobs[name] = knob_values(name, values)
    if len(knobs) > 2:
        raise options.OptionError(f"--knob is given {len(knobs)} times: vary one setting or two")
    return knobs
