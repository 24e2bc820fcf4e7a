"""`python -m kit segment`: masks of pictures from the names of what they show."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kit import __version__
from kit.cli import options, output
from kit.files import write_whole

if TYPE_CHECKING:
    from kit.data import Sample
    from kit.method import Result

OUTPUT_ENDINGS = (".png", "_overlay.png", "_maps.npz", "_settings.json")


def segment(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of pictures.", show_default=False)],
    classes: Annotated[str, typer.Option(metavar="A,B", help='What the pictures show: "dog,cat". Every picture is asked for all of them.')],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results; it is made if it is not there.")],
    method: options.Method = None,
    weights: options.Weights = None,
    model: options.Model = "tiny",
    device: options.Device = None,
    background: Annotated[
        str | None,
        typer.Option(metavar="A,B", help='What else the pictures may show: "grass,sky", or none.  [default: the method\'s own words]'),
    ] = None,
    template: Annotated[
        str | None, typer.Option(metavar="TEXT", help='The sentence around a word, with one {}: "a photo of a {}."')
    ] = None,
    refiner: options.Refiner = None,
    sam: options.Sam = None,
    confidence: Annotated[
        float | None,
        typer.Option(metavar="0..1", help="Pixels less sure than this become 255; 0 keeps all.  [default: the method's own]"),
    ] = None,
    changes: options.Settings = None,
) -> None:
    """Make masks of pictures from the names of what they show.

    \b
    python -m kit segment dog.jpg --classes dog --out masks
    python -m kit segment holiday/ --classes "dog,cat" --background "grass,sky" --out masks --model ViT-B-16-quickgelu:openai

    \b
    For each picture NAME the folder gets
      NAME.png            the mask: a palette PNG of the picture's own size, 0 = background, 255 = uncertain
      NAME_overlay.png    the mask over the picture, uncertain pixels hatched
      NAME_maps.npz       the maps of every stage (float16) and the classes' names
      NAME_settings.json  settings, prompts, scores, seconds, and "labels": which number is which class

    A class of PASCAL VOC has VOC's number in the mask (dog is 12), the others are 21, 22, ... in their order.
    Two pictures of one name get NAME and NAME-2. A picture that cannot be read is named, the others go on, and the
    exit code is 1.
    """
    from kit.data import Sample
    from kit.images import ImageError, load_image
    from kit.method import MAX_CLASSES
    from kit.words import check_class, class_name, label_numbers

    with options.refusal():
        names = tuple(map(check_class, map(class_name, options.listed(classes.replace(";", ","), "--classes"))))
        if not names:
            raise options.OptionError('--classes is empty: name what the pictures show, such as --classes "dog,cat"')
        if len(names) > MAX_CLASSES:
            raise options.OptionError(f"--classes names {len(names)} classes, more than {MAX_CLASSES}: ask for fewer at a time")
        if len(set(names)) < len(names):
            raise options.OptionError(f"--classes names a class twice: {', '.join(names)}")
        words = None if background is None else () if background == "none" else options.listed(background, "--background")
        choice = options.the_only(
            options.choices(
                method, weights, changes, model=model, refiner=("refiner", refiner), sam=("proposals", sam),
                background=("background", words), template=("template", template), confidence=("confidence", confidence),
            )
        )  # fmt: skip
        files = _pictures(pictures, out)
        pipeline = choice.pipeline(options.loaded_clip(model, device))
        options.check_words([pipeline], names)
        said = pipeline.unknown_told(names)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise options.OptionError(f"--out {out}: this folder cannot be made ({error.strerror or error})") from error
    labels = label_numbers(names)
    unread = unwritten = 0
    with output.progress(output.counted(len(files), "pictures"), len(files), unit="pictures") as bar:
        for path, name in files.items():
            if name != path.stem:
                output.say(f"{path}: its results are called {name}, for {path.stem} is taken")
            try:
                sample = Sample(load_image(path), names, id=name)
                result = pipeline.segment(sample)
            except ImageError as error:
                unread += 1
                output.say(f"Error: {error}")
            except ValueError as error:  # a picture the model cannot work on, such as one of too many patches
                unread += 1
                output.say(f"Error: {path}: {error}")
            else:
                for note in result.notes:
                    if note not in said:
                        output.say(f"{path}: {note}")
                try:
                    _write_result(out, name, path, sample, result, labels)
                except (ImageError, OSError) as error:
                    unwritten += 1
                    output.say(f"Error: {path}: its results cannot be written ({error})")
            bar.update()

    done = len(files) - unread - unwritten
    if done:
        numbers = ", ".join(f"{name} = {number}" for name, number in labels.items())
        of = f"{output.counted(len(files), 'pictures')} {'is' if len(files) == 1 else 'are'}"
        print(f"{done:,} of {of} in {out}: {numbers}, background = 0, uncertain = 255")
    for count, what in ((unread, "read"), (unwritten, "written")):
        if count:
            output.say(f"{count} of {len(files)} could not be {what}")
    if done < len(files):
        raise typer.Exit(1)


def _pictures(given: list[Path], out: Path) -> dict[Path, str]:
    """Every picture once, with a name for its results that no other picture's results and no picture itself has."""
    from kit.data.found import PICTURES

    found: dict[Path, Path] = {}
    for path in given:
        if path.is_dir():
            seen = (file for file in path.iterdir() if not file.name.startswith(".") and file.is_file())
            inside = sorted(file for file in seen if file.suffix.lower() in PICTURES)
            if not inside:
                raise options.OptionError(f"{path}: this folder has no pictures ({', '.join(PICTURES)})")
            if path.resolve() == out.resolve():
                raise options.OptionError(
                    f"--out {out} is the folder of the pictures: take another one, or masks will count as pictures next time"
                )
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


def _write_result(out: Path, name: str, path: Path, sample: "Sample", result: "Result", labels: dict[str, int]) -> None:
    import numpy as np

    from kit.images import save_image, save_mask
    from kit.show import hatch, mask_overlay

    numbers = np.full(256, 255, np.uint8)  # 255 stays 255: uncertain
    numbers[: 1 + len(labels)] = [0, *labels.values()]
    pseudo_mask = numbers[result.pseudo_mask.cpu().numpy()]
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
    save_mask(out / f"{name}.png", pseudo_mask, is_pseudo=True)
    save_image(out / f"{name}_overlay.png", hatch(mask_overlay(sample.image, best), pseudo_mask == 255))
    write_whole(out / f"{name}_maps.npz", packed.getvalue())
    write_whole(out / f"{name}_settings.json", output.json_bytes(about))
