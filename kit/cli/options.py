"""The options that several commands share, and what is made of them: settings, a data set, a method."""

# Only light imports here: --help must be quick, and every process of the refiner reads this file again.
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kit.cli.output import say

if TYPE_CHECKING:
    from kit.data import DataSet
    from kit.methods import Method as AnyMethod
    from kit.shard import Shard

TOY_SIZE = 160
SHIPPED = Path(__file__).parents[1] / "methods" / "learned" / "fma_wsss_toy.safetensors"  # what the tiny CLIP asks with


class OptionError(ValueError):
    """An option that cannot be understood."""


_SPLIT_HELP = (
    "toy: val, train, web, or held_out, read only when named; voc: train, train_aug, val, trainval.  [default: val of toy, else train]"
)
_LABELS_HELP = "Image-level labels: xml (voc), instances (coco), masks (the truth says), or a list as CSV, JSON, npy.  [default: its own]"
_MODEL_HELP = "tiny; ARCHITECTURE:TAG from the Hugging Face hub (ViT-B-16-quickgelu:openai); ARCHITECTURE:FILE; or ARCHITECTURE:random."
_WEIGHTS_HELP = (
    "What `python -m kit fit` learned; none: hand-written prompts.  [default: with the tiny CLIP what the kit brings, if it does]"
)
_SET_HELP = "Any setting of the method, its value as JSON: --set power=1 --set layers=[0,1]. May be repeated; a wrong name lists them all."
_WORKERS_HELP = "Processes for the refiner.  [default: one for each core, fewer for few images]"
Data = Annotated[str, typer.Option(metavar="NAME", help="toy (the drawn world), voc, coco, or folder (pictures of your own).")]
Root = Annotated[Path | None, typer.Option(metavar="DIR", help="The folder the data set lies in; toy has none.", show_default=False)]
Split = Annotated[str | None, typer.Option(metavar="NAME", help=_SPLIT_HELP)]
Labels = Annotated[str | None, typer.Option(metavar="NAME|FILE", help=_LABELS_HELP)]
Images = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N images.  [default: 200 of toy, else all]")]
Size = Annotated[int | None, typer.Option(max=2048, metavar="PIXELS", help=f"Side of a drawn scene in pixels.  [default: {TOY_SIZE}]")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be used and name them, instead of stopping.")]
Method = Annotated[str | None, typer.Option(metavar="NAME", help="clip-es or fma-wsss.  [default: that of --weights, else clip-es]")]
Weights = Annotated[str | None, typer.Option(metavar="FILE", help=_WEIGHTS_HELP)]
Model = Annotated[str, typer.Option(metavar="MODEL", help=_MODEL_HELP)]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1 or mps.  [default: a GPU if there is one]")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="float32, or bfloat16: a faster encoder, masks not bit for bit the same.")]
Refiner = Annotated[str | None, typer.Option(metavar="NAME", help="crf, pixel-adaptive or none (clip-es).  [default: crf]")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_SET_HELP)]
Workers = Annotated[int | None, typer.Option(min=1, metavar="N", help=_WORKERS_HELP)]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything to this file, as JSON.")]


@contextmanager
def refusal(*, but: tuple[type[ValueError], ...] = ()) -> Iterator[None]:
    """A wrong option ends the run with one sentence and exit code 2; `but`: errors that are no option's fault."""
    try:
        yield
    except but:
        raise
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"{option} {value}: expected {' or '.join(choices)}")


def check_file(option: str, path: Path | None) -> None:
    """Refuses, before the work, a file that cannot be written after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise OptionError(f"{option} {path}: there is no folder to write this file to")


def check_unused(context: typer.Context, because: str, options: dict[str, str]) -> None:
    """Refuses options (parameter: how it is written) that were given though they change nothing."""
    given = [option for name, option in options.items() if context.get_parameter_source(name).name == "COMMANDLINE"]
    if given:
        raise OptionError(f"{', '.join(given)}: {because}")


def listed(text: str, option: str) -> tuple[str, ...]:
    """Words between commas."""
    if not text.strip():
        return ()
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise OptionError(f"{option} has an empty word between its commas: {text!r}")
    return words


def from_json(name: str, text: str, *, option: str = "--set") -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise OptionError(f'{option} {name}: expected JSON such as 2, 0.5, true, null, [0, 1] or "text", got {text!r}') from error


def settings_class(method: str) -> type:
    from kit.methods import METHODS

    check_choice("--method", method, tuple(METHODS))
    return METHODS[method].Settings


def method_and_weights(method: str | None, weights: str | None, model: str) -> tuple[str, Path | None]:
    """The method's name and the file of what was learned for it, None for hand-written words.

    A file says which method it belongs to.   Raises OptionError or LearnedError for one that does not fit.
    """
    from kit.learned import load_learned
    from kit.methods import METHODS

    if method is not None:
        check_choice("--method", method, tuple(METHODS))
    if weights in (None, "none"):
        shipped = SHIPPED if weights is None and method == "fma-wsss" and model == "tiny" and SHIPPED.is_file() else None
        return method or "clip-es", shipped
    _, about = load_learned(weights)
    if about.get("method") not in METHODS or method not in (None, about["method"]):
        raise OptionError(f"--weights {weights}: this belongs to the method {about.get('method')}, not to {method or 'one of the kit'}")
    return about["method"], Path(weights)


def text_settings(kind: type) -> set[str]:
    """The settings that are text, which need no quotes."""
    return {field.name for field in dataclasses.fields(kind) if field.type is str}


def chosen_settings(
    method: str, assignments: list[str] | None, *, model: str = "tiny", data: str = "", weights: Path | None = None, **options
) -> dict:
    """The settings to change: those of --set, and those with an option of their own, checked before a model is loaded."""
    from kit.learned import load_learned
    from kit.methods import METHODS

    kind = settings_class(method)
    names, texts = [field.name for field in dataclasses.fields(kind)], text_settings(kind)
    changes = {}
    for assignment in assignments or []:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise OptionError(f"--set {assignment}: expected NAME=VALUE, such as box_threshold=0.7")
        if name not in names:
            raise OptionError(f"--set {name}: {method} has no such setting, it has {', '.join(names)}")
        if name in changes:
            raise OptionError(f"--set {name} is given twice")
        changes[name] = text if name in texts and not text.startswith('"') else from_json(name, text)
    for name, value in options.items():
        if value is not None:
            if name not in names:
                why = "has no refiner: its masks vote" if name == "refiner" else "has no such setting"
                raise OptionError(f"--{name} {value}: {method} {why}")
            if name in changes:
                raise OptionError(f"{name} is given twice: as --set {name} and as --{name}")
            changes[name] = value
    if weights is None:
        METHODS[method].preset(preset_name(model == "tiny", data), **changes)
    else:
        kind.from_dict({**load_learned(weights)[1].get("settings", {}), **changes})
    return changes


def preset_name(tiny: bool, data: str) -> str:
    """The preset that fits a model and a data set."""
    return "toy" if tiny else "coco" if data == "coco" else "voc"


def opened_data(
    data: str, *, root: Path | None, split: str | None, labels: str | None, images: int | None, size: int | None, skip_bad: bool
) -> "DataSet":
    """The data set of these options."""
    from kit.data import open_data

    if data in ("voc", "coco", "folder") and root is None:
        raise OptionError(f"--data {data} needs --root DIR, the folder it lies in")
    if data != "toy" and size is not None:
        raise OptionError(f"--size {size} is for drawn scenes: pictures of {data} have a size of their own")
    side = TOY_SIZE if size is None else size
    return open_data(data, root=root, split=split, labels=labels, count=images, size=side, skip_bad=skip_bad)


def chosen_method(
    name: str,
    model: str,
    device: str | None,
    changes: dict,
    *,
    weights: Path | None = None,
    precision: str = "float32",
    data: str = "",
    quiet: bool = False,
) -> "AnyMethod":
    """The method with what was learned or the settings that fit the model and the data set, changed as asked for; quiet: without notes."""
    from kit.encode import Clip
    from kit.learned import check_belongs, load_learned
    from kit.methods import METHODS
    from kit.refine import has_dense_crf

    clip = Clip.load(model, device=device, precision=precision)
    if clip.is_untrained and not quiet:
        say("untrained weights: these masks mean nothing")
    if clip.is_tiny and data != "toy" and not quiet:
        say("note: the tiny CLIP knows the drawn world only, a photograph asks too much of it: take --model ViT-B-16-quickgelu:openai")
    kind = METHODS[name]
    if weights is not None:
        check_belongs(weights, load_learned(weights)[1], clip_name=clip.name, method=name, clip=clip.fingerprint)
        method = kind.load(weights, clip, **changes)
    else:
        method = kind(clip, kind.preset(preset_name(clip.is_tiny, data), **changes))
    if method.settings.refiner == "crf" and not has_dense_crf():
        raise OptionError(
            "the dense CRF needs the package pydensecrf2 (pip install pydensecrf2): install it, or take --refiner pixel-adaptive"
        )
    return method


def own_device(shard: "Shard") -> str | None:
    """Under torchrun the GPU of the process's number, where there are GPUs."""
    import torch

    return f"cuda:{shard.local}" if "LOCAL_RANK" in os.environ and torch.cuda.is_available() else None


def check_layers(method: "AnyMethod") -> None:
    layers, count = method.settings.layers, method.clip.layer_count
    if not isinstance(layers, int) and not all(0 <= layer < count for layer in layers):
        raise OptionError(f"{method.clip.name} has blocks 0 to {count - 1}, got layers {list(layers)}")


def check_words(methods: Sequence["AnyMethod"], names: tuple[str, ...], *, quiet: bool = False) -> None:
    """Refuses prompts that cannot be built or were learned for other classes, and names the words the model has never seen."""
    from kit.prompt import prompts

    clip, built = methods[0].clip, {}
    if methods[0].learned is not None:
        for name in names:
            methods[0].question((name,))
    elif hasattr(methods[0], "fit") and not quiet:
        say("note: hand-written prompts: nothing learned; python -m kit fit learns some")
    for settings in (method.settings for method in methods):
        built |= dict.fromkeys(prompts(settings.template, names, settings.synonyms) + prompts(settings.template, settings.background))
    unknown = dict.fromkeys(word for prompt in built for word in clip.unknown_words(prompt))
    if unknown and not quiet:
        shown = ", ".join(list(unknown)[:8]) + (f" and {len(unknown) - 8} more words" if len(unknown) > 8 else "")
        say(f"note: the {clip.name} CLIP has never seen {shown}: what it makes of that means nothing")


def processes(images: int, *, share: int = 1) -> int:
    """How many processes the refiner gets where nobody asked: one for each core, but a process takes seconds to start.

    share: how many programs work on this machine at once.
    """
    return min(max(1, (os.cpu_count() or 1) // share), 1 + images // 32)
