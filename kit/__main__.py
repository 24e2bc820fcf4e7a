"""The command line: `python -m kit segment` makes masks of pictures, `evaluate` measures a method, `sweep` varies its settings."""

# Only light imports here: --help must be quick, and every process of the refiner reads this file again.
import dataclasses
import io
import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from kit import __version__

if TYPE_CHECKING:
    from kit.data import Sample
    from kit.methods import ClipEs, Result

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif")
PLOT_ENDINGS = (".png", ".svg", ".pdf")
OUTPUT_ENDINGS = (".png", "_overlay.png", "_maps.npz", "_settings.json")
DATA = ("toy",)
SPLITS = ("val", "held_out", "train", "web")

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class OptionError(ValueError):
    """An option that cannot be understood."""


_MODEL_HELP = "tiny; ARCHITECTURE:TAG from the Hugging Face hub (ViT-B-16-quickgelu:openai); ARCHITECTURE:FILE; or ARCHITECTURE:random."
_SET_HELP = "Any setting of the method, its value as JSON: --set power=1 --set layers=[0,1]. May be repeated; a wrong name lists them all."
_KNOB_HELP = "A setting and its values: box_threshold=0.2,0.4,0.6, or a JSON list of them. Once or twice; a wrong name lists all."
Model = Annotated[str, typer.Option(metavar="MODEL", help=_MODEL_HELP)]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1 or mps.  [default: a GPU if there is one]")]
Refiner = Annotated[str | None, typer.Option(metavar="NAME", help="crf, pixel-adaptive or none.  [default: crf]")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_SET_HELP)]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kit {__version__}")
        raise typer.Exit()


@app.callback(epilog="Try: python -m kit evaluate --images 20")
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")] = False,
) -> None:
    """From a text prompt to a mask: weakly supervised semantic segmentation with CLIP."""


@app.command()
def evaluate(
    data: Annotated[str, typer.Option(metavar="NAME", help="The data set: toy, the drawn world.")] = "toy",
    split: Annotated[
        str, typer.Option(metavar="NAME", help="val, train, web, or held_out, which is only read when it is named here.")
    ] = "val",
    images: Annotated[int, typer.Option(min=1, metavar="N", help="How many images.")] = 200,
    size: Annotated[int, typer.Option(max=2048, metavar="PIXELS", help="Side of a drawn scene in pixels.")] = 160,
    method: Annotated[str, typer.Option(metavar="NAME", help="Which method.")] = "clip-es",
    model: Model = "tiny",
    device: Device = None,
    refiner: Refiner = None,
    changes: Settings = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes for the refiner.  [default: one for each core]")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything to this file, as JSON.")] = None,
) -> None:
    """Measure a method on a data set: mIoU of every stage, of a baseline, and of a control with wrong words.

    \b
    python -m kit evaluate
    python -m kit evaluate --images 50 --refiner pixel-adaptive --set power=1
    python -m kit evaluate --split held_out --json result.json
    """
    from concurrent.futures.process import BrokenProcessPool

    from kit.data import toy_samples
    from kit.evaluate import evaluate as evaluation
    from kit.toy.scene import checked_size
    from kit.words import VOC_CLASSES

    with _refusal():
        _check_choice("--data", data, DATA)
        _check_choice("--split", split, SPLITS)
        _check_file("--json", json_file)
        chosen_changes = _changes(method, changes, refiner=refiner)
        samples = toy_samples(split, images, size=checked_size(size))
        chosen = _method(method, model, device, chosen_changes)
        _check_layers(chosen)
        _check_words([chosen], VOC_CLASSES)
    if workers is None:
        workers = min(os.cpu_count() or 1, 1 + images // 32)  # a process takes seconds to start
    with _progress(f"{split}: {images:,} images", images) as advance:
        try:
            tuned = chosen.clip.is_tiny and split == "train"  # that is where the tiny CLIP's settings were chosen
            result = evaluation(chosen, samples, split=split, tuned=tuned, workers=workers, progress=lambda count: advance())
        except BrokenProcessPool:
            _stop_for_want_of_memory()
    print(result.table())
    if json_file is not None:
        _write_or_stop(json_file, _json_bytes({"data": data, **result.to_dict()}))


@app.command()
def sweep(
    knobs: Annotated[list[str], typer.Option("--knob", metavar="NAME=A,B,C", help=_KNOB_HELP)],
    data: Annotated[str, typer.Option(metavar="NAME", help="The data set: toy, the drawn world.")] = "toy",
    split: Annotated[
        str, typer.Option(metavar="NAME", help="val, train, web, or held_out, which is only read when it is named here.")
    ] = "val",
    images: Annotated[int, typer.Option(min=1, metavar="N", help="How many images.")] = 200,
    size: Annotated[int, typer.Option(max=2048, metavar="PIXELS", help="Side of a drawn scene in pixels.")] = 160,
    stage: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which stage to measure: cam, affinity or refined.  [default: the last one]")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Independent draws the images are cut into: their spread stands beside each score.")
    ] = 3,
    method: Annotated[str, typer.Option(metavar="NAME", help="Which method.")] = "clip-es",
    model: Model = "tiny",
    device: Device = None,
    refiner: Annotated[
        str | None, typer.Option(metavar="NAME", help="crf, pixel-adaptive or none.  [default: none, it takes most of the time]")
    ] = None,
    changes: Settings = None,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Processes for the refiner.")] = 1,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table to this file, as CSV.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything to this file, as JSON.")] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw a curve, or a map of two knobs: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Vary one or two settings over images that are encoded only once: mIoU of every value, with its spread.

    \b
    python -m kit sweep --knob box_threshold=0.2,0.4,0.6
    python -m kit sweep --knob box_threshold=0.2,0.4,0.6 --knob power=1,2 --plot grid.png
    python -m kit sweep --knob refiner=none,pixel-adaptive,crf --images 50 --csv refiners.csv
    """
    from concurrent.futures.process import BrokenProcessPool

    from kit import sweep as ablation
    from kit.data import toy_samples
    from kit.toy.scene import checked_size
    from kit.words import VOC_CLASSES

    with _refusal():
        _check_choice("--data", data, DATA)
        _check_choice("--split", split, SPLITS)
        for option, file in (("--csv", csv_file), ("--json", json_file), ("--plot", plot_file)):
            _check_file(option, file)
        if plot_file is not None and plot_file.suffix.lower() not in PLOT_ENDINGS:
            raise OptionError(f"--plot {plot_file}: expected a name that ends with {' or '.join(PLOT_ENDINGS)}")
        if seeds > images:
            raise OptionError(f"--seeds {seeds}: there are only {images} images to cut into so many draws")
        values = _knobs(method, knobs)
        if refiner is not None and "refiner" in values:
            raise OptionError("refiner is given twice: as --knob refiner and as --refiner")
        chosen_changes = _changes(method, changes, refiner=refiner)
        for name in values:
            if name in chosen_changes:
                raise OptionError(f"{name} is given twice: as --knob {name} and as --set {name}")
        fixed = None if "refiner" in values else chosen_changes.get("refiner", "none")
        samples = toy_samples(split, images, size=checked_size(size))
        uses_crf = "crf" in values.get("refiner", (fixed,)) and stage in (None, "refined")
        chosen = _method(method, model, device, chosen_changes | {"refiner": "crf" if uses_crf else "none"})
        variants = ablation.knob_grid(chosen, values, stage=stage, refiner=fixed)
        layers = ablation.blocks_needed(variants)
        _check_words(variants if values.keys() & {"template", "background", "synonyms"} else variants[:1], VOC_CLASSES)
    with _progress(f"{split}: {images:,} images", 3 * images) as advance:  # drawn, encoded, measured

        def drawn() -> Iterator["Sample"]:
            for sample in samples:
                yield sample
                advance()

        try:
            with _refusal():
                encoded = ablation.encode_all(chosen, drawn(), split=split, layers=layers, progress=lambda count: advance())
            result = ablation.sweep(
                chosen, encoded, stage=stage, seeds=seeds, workers=workers, progress=lambda count: advance(), **{"refiner": fixed, **values}
            )
        except BrokenProcessPool:
            _stop_for_want_of_memory()
    print(result.table())
    if csv_file is not None:
        _write_or_stop(csv_file, result.to_csv().encode())
    if json_file is not None:
        _write_or_stop(json_file, _json_bytes({"data": data, **result.to_dict()}))
    if plot_file is not None:
        picture = io.BytesIO()
        result.plot().savefig(picture, format=plot_file.suffix.lower()[1:])
        _write_or_stop(plot_file, picture.getvalue())


@app.command()
def segment(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of pictures.", show_default=False)],
    classes: Annotated[str, typer.Option(metavar="A,B", help='What the pictures show: "dog,cat". Every picture is asked for all of them.')],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results; it is made if it is not there.")],
    model: Model = "tiny",
    device: Device = None,
    background: Annotated[
        str | None,
        typer.Option(metavar="A,B", help='What else the pictures may show: "grass,sky", or none.  [default: the method\'s own words]'),
    ] = None,
    template: Annotated[
        str | None, typer.Option(metavar="TEXT", help='The sentence around a word, with one {}: "a photo of a {}."')
    ] = None,
    refiner: Refiner = None,
    confidence: Annotated[
        float | None, typer.Option(metavar="0..1", help="Pixels less sure than this become 255; 0 keeps all.  [default: 0.95]")
    ] = None,
    changes: Settings = None,
) -> None:
    """Make masks of pictures from the names of what they show, with CLIP-ES.

    \b
    python -m kit segment dog.jpg --classes dog --out masks
    python -m kit segment holiday/ --classes "dog,cat" --background "grass,sky" --out masks --model ViT-B-16-quickgelu:openai

    \b
    For each picture NAME the folder gets
      NAME.png            the mask: a palette PNG of the picture's own size, 0 = background, 255 = uncertain
      NAME_overlay.png    the mask over the picture, uncertain pixels hatched
      NAME_maps.npz       the maps of every stage (float16) and the classes' names
      NAME_settings.json  settings, prompts, scores, seconds, and "labels": which number is which class

    A class's number in the mask is its place in --classes, from 1 on; if all of them are names of PASCAL VOC,
    it is VOC's number (dog is 12). Two pictures of one name get NAME and NAME-2. A picture that cannot be read is
    named, the others go on, and the exit code is 1.
    """
    from kit.data import Sample
    from kit.images import ImageError, load_image
    from kit.methods.clip_es import MAX_CLASSES

    with _refusal():
        names = _listed(classes, "--classes")
        if not names:
            raise OptionError('--classes is empty: name what the pictures show, such as --classes "dog,cat"')
        if len(names) > MAX_CLASSES:
            raise OptionError(f"--classes names {len(names)} classes, more than {MAX_CLASSES}: ask for fewer at a time")
        if len(set(names)) < len(names):
            raise OptionError(f"--classes names a class twice: {', '.join(names)}")
        words = None if background is None else [] if background == "none" else _listed(background, "--background")
        chosen_changes = _changes("clip-es", changes, refiner=refiner, background=words, template=template, confidence=confidence)
        files = _pictures(pictures, out)
        method = _method("clip-es", model, device, chosen_changes)
        _check_layers(method)
        _check_words([method], names)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError(f"--out {out}: this folder cannot be made ({error.strerror or error})") from error
    if method.clip.is_tiny:
        _say("note: the tiny CLIP knows the drawn world only, a photograph asks too much of it: take --model ViT-B-16-quickgelu:openai")
    labels = _label_numbers(names)
    unread = unwritten = 0
    with _progress(f"{len(files):,} pictures", len(files)) as advance:
        for path, name in files.items():
            if name != path.stem:
                _say(f"{path}: its results are called {name}, for {path.stem} is taken")
            try:
                sample = Sample(load_image(path), names, id=name)
                result = method.segment(sample)
            except ImageError as error:
                unread += 1
                _say(f"Error: {error}")
            except ValueError as error:  # a picture the model cannot work on, such as one of too many patches
                unread += 1
                _say(f"Error: {path}: {error}")
            else:
                for note in result.notes:
                    _say(f"{path}: {note}")
                try:
                    _write_result(out, name, path, sample, result, method, labels)
                except (ImageError, OSError) as error:
                    unwritten += 1
                    _say(f"Error: {path}: its results cannot be written ({error})")
            advance()

    done = len(files) - unread - unwritten
    if done:
        numbers = ", ".join(f"{name} = {number}" for name, number in labels.items())
        print(f"{done} of {len(files)} pictures are in {out}: {numbers}, background = 0, uncertain = 255")
    for count, what in ((unread, "read"), (unwritten, "written")):
        if count:
            _say(f"{count} of {len(files)} could not be {what}")
    if done < len(files):
        raise typer.Exit(1)


@contextmanager
def _refusal() -> Iterator[None]:
    """A wrong option ends the run with one sentence and exit code 2."""
    try:
        yield
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _check_file(option: str, path: Path | None) -> None:
    """Refuses, before the work, a file that cannot be written after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise OptionError(f"{option} {path}: there is no folder to write this file to")


def _json_bytes(values: dict) -> bytes:
    return json.dumps(values, indent=2, allow_nan=False).encode() + b"\n"


def _write_or_stop(path: Path, data: bytes) -> None:
    try:
        _write_whole(path, data)
    except OSError as error:
        print(f"Error: {path}: the file cannot be written ({error.strerror or error})", file=sys.stderr)
        raise typer.Exit(1) from None


def _stop_for_want_of_memory() -> NoReturn:
    print("Error: a process of the refiner died, most likely for want of memory: take fewer with --workers 1", file=sys.stderr)
    raise typer.Exit(1) from None


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


@contextmanager
def _progress(title: str, total: int) -> Iterator:
    """A bar with the time left on stderr, where somebody sees it; yields what to call after each step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def _listed(text: str, option: str) -> tuple[str, ...]:
    """Words between commas."""
    if not text.strip():
        return ()
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise OptionError(f"{option} has an empty word between its commas: {text!r}")
    return words


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"{option} {value}: expected {' or '.join(choices)}")


def _changes(method: str, assignments: list[str] | None, **options) -> dict:
    """The settings to change: those of --set, and those with an option of their own."""
    from kit.methods import METHODS, ClipEsSettings

    _check_choice("--method", method, tuple(METHODS))
    fields = {field.name: field for field in dataclasses.fields(ClipEsSettings)}
    changes = {}
    for assignment in assignments or []:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise OptionError(f"--set {assignment}: expected NAME=VALUE, such as box_threshold=0.7")
        if name not in fields:
            raise OptionError(f"--set {name}: {method} has no such setting, it has {', '.join(fields)}")
        if name in changes:
            raise OptionError(f"--set {name} is given twice")
        bare = fields[name].type is str and not text.startswith('"')  # text need not be quoted
        changes[name] = text if bare else _json(name, text)
    for name, value in options.items():
        if value is not None:
            if name in changes:
                raise OptionError(f"{name} is given twice: as --set {name} and as --{name}")
            changes[name] = value
    ClipEsSettings.from_dict(changes)  # refuses wrong values before a model is loaded
    return changes


def _knobs(method: str, assignments: list[str]) -> dict[str, tuple]:
    """The values of every --knob, checked before a model is loaded: between commas, or a JSON list where a value has commas itself."""
    from kit.methods import METHODS, ClipEsSettings
    from kit.sweep import knob_values

    _check_choice("--method", method, tuple(METHODS))
    texts = {field.name for field in dataclasses.fields(ClipEsSettings) if field.type is str}
    knobs = {}
    for assignment in assignments:
        name, equals, listed = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise OptionError(f"--knob {assignment}: expected NAME=VALUES, such as box_threshold=0.2,0.4,0.6")
        if name in knobs:
            raise OptionError(f"--knob {name} is given twice")
        if listed.startswith("["):
            values = _json(name, listed, option="--knob")
        else:
            parts = _listed(listed, f"--knob {name}")
            values = parts if name in texts else [_json(name, part, option="--knob") for part in parts]
        knobs[name] = knob_values(name, values)
    if len(knobs) > 2:
        raise OptionError(f"--knob is given {len(knobs)} times: vary one setting or two")
    return knobs


def _json(name: str, text: str, *, option: str = "--set") -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise OptionError(f'{option} {name}: expected JSON such as 2, 0.5, true, null, [0, 1] or "text", got {text!r}') from error


def _method(name: str, model: str, device: str | None, changes: dict) -> "ClipEs":
    from kit.encode import Clip
    from kit.methods import METHODS
    from kit.refine import has_dense_crf

    clip = Clip.load(model, device=device)
    if clip.is_untrained:
        _say("untrained weights: these masks mean nothing")
    method = METHODS[name](clip, **changes)
    if method.settings.refiner == "crf" and not has_dense_crf():
        raise OptionError(
            "the dense CRF needs the package pydensecrf2 (pip install pydensecrf2): install it, or take --refiner pixel-adaptive"
        )
    return method


def _check_layers(method: "ClipEs") -> None:
    layers, count = method.settings.layers, method.clip.layer_count
    if not isinstance(layers, int) and not all(0 <= layer < count for layer in layers):
        raise OptionError(f"{method.clip.name} has blocks 0 to {count - 1}, got layers {list(layers)}")


def _check_words(methods: Sequence["ClipEs"], names: tuple[str, ...]) -> None:
    """Refuses prompts that cannot be built, and names the words the model has never seen."""
    from kit.prompt import prompts

    clip, built = methods[0].clip, {}
    for settings in (method.settings for method in methods):
        built |= dict.fromkeys(prompts(settings.template, names, settings.synonyms) + prompts(settings.template, settings.background))
    unknown = dict.fromkeys(word for prompt in built for word in clip.unknown_words(prompt))
    if unknown:
        _say(f"note: the {clip.name} CLIP has never seen {', '.join(unknown)}: what it makes of that means nothing")


def _label_numbers(names: tuple[str, ...]) -> dict[str, int]:
    """Each class's number in the mask: VOC's if all are VOC's, else its place in the list, from 1 on."""
    from kit.words import VOC_CLASSES

    order = VOC_CLASSES if all(name in VOC_CLASSES for name in names) else names
    return {name: order.index(name) + 1 for name in names}


def _pictures(given: list[Path], out: Path) -> dict[Path, str]:
    """Every picture once, with a name for its results that no other picture's results and no picture itself has."""
    found: dict[Path, Path] = {}
    for path in given:
        if path.is_dir():
            seen = (file for file in path.iterdir() if not file.name.startswith(".") and file.is_file())
            inside = sorted(file for file in seen if file.suffix.lower() in PICTURE_ENDINGS)
            if not inside:
                raise OptionError(f"{path}: this folder has no pictures ({', '.join(PICTURE_ENDINGS)})")
            if path.resolve() == out.resolve():
                raise OptionError(f"--out {out} is the folder of the pictures: take another one, or masks will count as pictures next time")
        else:
            inside = [path]
        for file in inside:
            found.setdefault(file.resolve(), file)
    # Folded, because a file system may not tell Dog.png from dog.png.
    taken = {str(path).casefold() for path in found}
    names = {}
    for path in found.values():
        name, number = path.stem, 1
        while wanted := {str((out / f"{name}{ending}").resolve()).casefold() for ending in OUTPUT_ENDINGS}:
            if not wanted & taken:
                break
            number += 1
            name = f"{path.stem}-{number}"
        taken |= wanted
        names[path] = name
    return names


def _write_result(out: Path, name: str, path: Path, sample, result: "Result", method: "ClipEs", labels: dict[str, int]) -> None:
    import numpy as np

    from kit.images import save_image, save_mask
    from kit.show import hatch, mask_overlay

    numbers = np.full(256, 255, np.uint8)  # 255 stays 255: uncertain
    numbers[: 1 + len(labels)] = [0, *labels.values()]
    pseudo_mask = numbers[method.pseudo_mask(result).cpu().numpy()]
    best = numbers[result.labels.cpu().numpy()]
    maps = {stage: planes.cpu().numpy().astype(np.float16) for stage, planes in result.stages.items()}
    every_plane = ["background", *result.names]
    planes = {stage: every_plane[-len(array) :] for stage, array in maps.items()}
    packed = io.BytesIO()
    np.savez_compressed(packed, names=np.array(result.names), **maps)
    about = {
        "image": os.fspath(path),
        "size": list(sample.image.shape[:2]),  # rows, columns
        "labels": labels,
        "planes": planes,
        "prompts": result.prompts,
        "scores": result.scores,
        "notes": list(result.notes),
        "seconds": result.seconds,
        "settings": result.settings,
        "kit": __version__,
    }
    save_mask(out / f"{name}.png", pseudo_mask)
    save_image(out / f"{name}_overlay.png", hatch(mask_overlay(sample.image, best), pseudo_mask == 255))
    _write_whole(out / f"{name}_maps.npz", packed.getvalue())
    _write_whole(out / f"{name}_settings.json", json.dumps(about, indent=2, allow_nan=False).encode() + b"\n")


def _write_whole(path: Path, data: bytes) -> None:
    """The file appears whole or not at all."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):  # nothing to remove if it was never there
            part.unlink()
        raise


if __name__ == "__main__":
    app(prog_name="python -m kit")
