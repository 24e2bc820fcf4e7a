"""The options that several commands share, and what is made of them: settings, a data set, methods ready for use."""

# Only light imports here: --help must be quick, and every process of the refiner reads this file again.
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kit import files
from kit.cli.output import say

if TYPE_CHECKING:
    from kit.data import DataSet
    from kit.encode import Clip
    from kit.method import Method as AnyMethod
    from kit.method import Pipeline
    from kit.shard import Shard

TOY_SIZE = 160
NO_WEIGHTS = "none"


class OptionError(ValueError):
    """An option that cannot be understood."""


_SPLIT_HELP = (
    "toy: val, train, web, or held_out, read only when named; voc: train, train_aug, val, trainval.  [default: val of toy, else train]"
)
_LABELS_HELP = "Image-level labels: xml (voc), instances (coco), masks (the truth says), or a list as CSV, JSON, npy.  [default: its own]"
_MODEL_HELP = "tiny; ARCHITECTURE:TAG from the Hugging Face hub (ViT-B-16-quickgelu:openai); ARCHITECTURE:FILE; or ARCHITECTURE:random."
_METHOD_HELP = (
    "A method by its name (python -m kit settings lists them), or a Python file with one of your own: it is code, and it is run.  "
    "[default: that of --weights, else the first]"
)
_WEIGHTS_HELP = (
    "What `python -m kit fit` learned; none: hand-crafted prompts.  [default: with the tiny CLIP what the kit brings, if it does]"
)
_SET_HELP = (
    "Any setting of the method, its value as JSON: --set power=1 --set layers=[0,1] --set group.name=2. May be repeated; "
    "python -m kit settings lists them all."
)
_SAM_HELP = "A SAM that proposes masks, such as facebook/sam-vit-base, where a method uses masks (its setting proposals)."
Data = Annotated[str, typer.Option(metavar="NAME", help="toy (the drawn world), voc, coco, or folder (pictures of your own).")]
Root = Annotated[Path | None, typer.Option(metavar="DIR", help="The folder the data set lies in; toy has none.", show_default=False)]
Split = Annotated[str | None, typer.Option(metavar="NAME", help=_SPLIT_HELP)]
Labels = Annotated[str | None, typer.Option(metavar="NAME|FILE", help=_LABELS_HELP)]
Images = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N images.  [default: 200 of toy, else all]")]
Size = Annotated[int | None, typer.Option(max=2048, metavar="PIXELS", help=f"Side of a drawn scene in pixels.  [default: {TOY_SIZE}]")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be used and name them, instead of stopping.")]
Method = Annotated[str | None, typer.Option(metavar="NAME|FILE.py", help=_METHOD_HELP)]
Weights = Annotated[str | None, typer.Option(metavar="FILE", help=_WEIGHTS_HELP)]
Sam = Annotated[str | None, typer.Option(metavar="NAME", help=_SAM_HELP)]
Model = Annotated[str, typer.Option(metavar="MODEL", help=_MODEL_HELP)]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1 or mps.  [default: a GPU if there is one]")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="float32, or bfloat16: a faster encoder, masks not bit for bit the same.")]
Refiner = Annotated[
    str | None, typer.Option(metavar="NAME", help="crf, pixel-adaptive or none, where a method has a refiner (its setting refiner).")
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_SET_HELP)]
Workers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Processes for the refiner.  [default: one for each core, fewer for few images]")
]
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


def check_file(option: str, path: Path | None) -> None:
    """Refuses, before the work, a file that cannot be written after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise OptionError(f"{option} {path}: there is no folder to write this file to")


def check_unused(context: typer.Context, because: str, options: Sequence[str]) -> None:
    """Refuses options (by their parameter) that were given though they change nothing."""
    written = {"changes": "--set"}
    given = [name for name in options if context.get_parameter_source(name).name == "COMMANDLINE"]
    if given:
        raise OptionError(f"{', '.join(written.get(name, f'--{name}'.replace('_', '-')) for name in given)}: {because}")


def listed(text: str, option: str) -> tuple[str, ...]:
    """Words between commas."""
    if not text.strip():
        return ()
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise OptionError(f"{option} has an empty word between its commas: {text!r}")
    return words


def from_json(name: str, text: str, *, option: str = "--set") -> Any:
    try:
        return files.from_json(text)
    except ValueError as error:
        raise OptionError(f'{option} {name}: expected JSON such as 2, 0.5, true, null, [0, 1] or "text", got {text!r}') from error


@dataclass(frozen=True)
class Choice:
    """A method with what is to be changed about it, checked before a model is loaded.

    learned: the file of what was learned, "shipped", or None for hand-crafted prompts.
    """

    method: "AnyMethod"
    learned: Path | str | None
    changes: dict[str, Any] = field(default_factory=dict)

    def name_of(self, name: str, *, option: str) -> str:
        """A setting's dotted name, also by what earlier versions called it.   Raises OptionError."""
        name = self.method.Settings.renamed.get(name, name).replace("__", ".")
        known = self.method.Settings.described()
        if name not in known:
            raise OptionError(f"{option} {name}: {self.method.name} has no such setting, it has {', '.join(known)}")
        return name

    def value_of(self, name: str, text: str, *, option: str) -> Any:
        """A value as it is written on the command line: text needs no quotes, all else is JSON."""
        setting = self.method.Settings.described()[name]
        as_it_is = setting.kind in ("text", "choice") and not text.startswith('"') and not (setting.optional and text == "null")
        return text if as_it_is else from_json(name, text, option=option)

    def check(self, model: str, data: str) -> None:
        """Raises SettingsError for changes that cannot be, LearnedError for a file that is none."""
        from kit.learned import load_learned

        if isinstance(self.learned, Path):
            base = self.method.settings_of(load_learned(self.learned)[1].get("settings", {}))
        else:
            base = self.method.preset(world(model == "tiny", data))
        base.changed(**self.changes)

    def pipeline(self, clip: "Clip", data: str = "") -> "Pipeline":
        from kit.method import SHIPPED
        from kit.refine import has_dense_crf

        is_own = isinstance(self.learned, Path) or (self.learned == SHIPPED and clip.is_tiny)  # then its settings are what was learned with
        pipeline = self.method(clip, learned=self.learned, world="" if is_own else world(clip.is_tiny, data), **self.changes)
        if getattr(pipeline.settings, "refiner", None) == "crf" and not has_dense_crf():
            raise OptionError(
                "the dense CRF needs the package pydensecrf2 (pip install pydensecrf2): install it, or take --refiner pixel-adaptive"
            )
        pipeline.layers  # noqa: B018  raises for blocks that are not there
        return pipeline


def world(is_tiny: bool, data: str) -> str:
    """The preset that fits a model and a data set."""
    return "toy" if is_tiny else "coco" if data == "coco" else "voc"


def choices(
    method: str | None, weights: str | None, assignments: Sequence[str] | None, *, model: str = "tiny", data: str = "", **options: Any
) -> list[Choice]:
    """The methods of --method with what was learned for them, the settings of --set, and those with an option of their own.

    A file of something learned goes to the method that it belongs to, a setting to every method that has it.
    Raises OptionError, MethodError, LearnedError or SettingsError.
    """
    from kit.learned import load_learned
    from kit.method import SHIPPED
    from kit.methods import METHODS
    from kit.own import method_named

    owner = None if weights in (None, NO_WEIGHTS) else load_learned(weights)[1].get("method")
    names = listed(method or "", "--method") or (owner or next(iter(METHODS)),)
    if owner is not None and method is None and owner not in METHODS:
        raise OptionError(f"--weights {weights}: this belongs to the method {owner}, which is none of the kit's: give its file as --method")
    found = [method_named(name) for name in names]
    if twice := [one.name for one in found if [other.name for other in found].count(one.name) > 1]:
        raise OptionError(f"--method names {twice[0]} twice")
    if owner is not None and owner not in [one.name for one in found]:
        raise OptionError(f"--weights {weights}: this belongs to the method {owner}, not to {' or '.join(one.name for one in found)}")
    default = None if weights == NO_WEIGHTS else SHIPPED
    chosen = [Choice(one, Path(weights) if one.name == owner else default) for one in found]
    for assignment in assignments or []:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise OptionError(f"--set {assignment}: expected NAME=VALUE, such as power=1")
        _change(chosen, name, text, "--set", is_text=True)
    for option, (name, value) in options.items():
        if value is not None:
            _change(chosen, name, value, f"--{option}", is_text=False)
    for choice in chosen:
        choice.check(model, data)
    return chosen


def the_only(chosen: list[Choice]) -> Choice:
    """The one method of a command that takes no more."""
    if len(chosen) > 1:
        raise OptionError(f"--method: expected one method, got {', '.join(choice.method.name for choice in chosen)}")
    return chosen[0]


def _change(chosen: list[Choice], name: str, value: Any, option: str, *, is_text: bool) -> None:
    """Adds a change to the methods that have this setting."""
    having = [choice for choice in chosen if choice.method.Settings.renamed.get(name, name) in choice.method.Settings.described()]
    if not having and not is_text:
        shown = ", ".join(value) if isinstance(value, tuple) else value
        raise OptionError(f"{option} {shown}: {' and '.join(choice.method.name for choice in chosen)} has no setting {name}")
    for choice in having or chosen[:1]:
        dotted = choice.name_of(name, option=option)
        if dotted in choice.changes:
            both = f"as --set {name} and as {option}" if option != "--set" else "as --set"
            raise OptionError(f"{dotted} is given twice: {both}")
        choice.changes[dotted] = choice.value_of(dotted, value, option=option) if is_text else value


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
    opened = open_data(data, root=root, split=split, labels=labels, count=images, size=side, skip_bad=skip_bad)
    for note in opened.notes:
        say(f"note: {note}")
    return opened


def loaded_clip(model: str, device: str | None, *, precision: str = "float32", data: str = "", quiet: bool = False) -> "Clip":
    """The model, with what is to be said of it; quiet: without."""
    from kit.encode import Clip

    clip = Clip.load(model, device=device, precision=precision)
    if clip.is_untrained and not quiet:
        say("untrained weights: these masks mean nothing")
    if clip.is_tiny and data != "toy" and not quiet:
        say("note: the tiny CLIP knows the drawn world only, a photograph asks too much of it: take --model ViT-B-16-quickgelu:openai")
    return clip


def own_device(shard: "Shard") -> str | None:
    """Under torchrun the GPU of the process's number, where there are GPUs."""
    import torch

    return f"cuda:{shard.local}" if "LOCAL_RANK" in os.environ and torch.cuda.is_available() else None


def check_words(pipelines: Sequence["Pipeline"], names: tuple[str, ...], *, quiet: bool = False) -> None:
    """Refuses prompts that cannot be built or were learned for other classes, and names the words the model has never seen."""
    import numpy as np

    from kit.generate import ask_each
    from kit.prompt import prompts

    clip, built, told = pipelines[0].clip, {}, {}
    blank = np.zeros((clip.patch, clip.patch, 3), np.uint8)
    tokens = clip.encode(clip.prepare(blank)[None])
    for pipeline in pipelines:
        asked = ask_each(pipeline, names, blank, tokens)
        if pipeline.learned is None:
            built |= dict.fromkeys([*asked, *prompts(pipeline.settings.template, pipeline.settings.background)])
            told |= dict.fromkeys([pipeline.prompts_told()] * bool(pipeline.method.lessons))
    unknown = dict.fromkeys(word for prompt in built for word in clip.unknown_words(prompt))
    if quiet:
        return
    for sentence in told:
        say(f"note: {sentence} python -m kit fit learns some")
    if unknown:
        shown = ", ".join(list(unknown)[:8]) + (f" and {len(unknown) - 8} more words" if len(unknown) > 8 else "")
        say(f"note: the {clip.name} CLIP has never seen {shown}: what it makes of that means nothing")


def processes(images: int, *, share: int = 1) -> int:
    """How many processes the refiner gets where nobody asked: one for each core, but a process takes seconds to start.

    share: how many programs work on this machine at once.
    """
    return min(max(1, (os.cpu_count() or 1) // share), 1 + images // 32)
