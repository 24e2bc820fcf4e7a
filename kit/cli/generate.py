"""`python -m kit generate`: the pseudo masks of a whole data set, as files."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from kit.cli import options, output

if TYPE_CHECKING:
    from kit.data import DataSet
    from kit.shard import Shard

LONG = 100  # pictures: what such a run takes is told first


def generate(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the masks; it is made if it is not there.")],
    data: options.Data = "toy",
    root: options.Root = None,
    split: options.Split = None,
    labels: options.Labels = None,
    images: options.Images = None,
    size: options.Size = None,
    skip_bad: options.SkipBad = False,
    maps: Annotated[bool, typer.Option("--maps", help="Also keep the maps of every stage, as float16.")] = False,
    overlays: Annotated[bool, typer.Option("--overlays", help="Also draw each mask over its picture.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Make every mask anew; what an earlier run made in DIR is removed.")] = False,
    method: options.Method = None,
    weights: options.Weights = None,
    model: options.Model = "tiny",
    device: options.Device = None,
    precision: options.Precision = "float32",
    refiner: options.Refiner = None,
    sam: options.Sam = None,
    changes: options.Settings = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Pictures of one size that are encoded together.")] = 16,
    workers: options.Workers = None,
) -> None:
    """Make the pseudo masks of a whole data set; a run that was stopped goes on where it was when the same command is given again.

    \b
    python -m kit generate --images 20 --out toy_masks --overlays
    python -m kit generate --data voc --root VOC2012 --split train_aug --out masks --model ViT-B-16-quickgelu:openai
    torchrun --nproc-per-node 4 -m kit generate --data coco --root COCO2014 --out masks --model ViT-B-16-quickgelu:openai

    \b
    DIR gets
      SegmentationClass/ID.png  a palette PNG of the picture's size: 0 = background, then the data set's classes, 255 = uncertain
      maps/ID.npz               with --maps: every stage as float16, the classes' names and numbers
      overlays/ID.png           with --overlays
      manifest.json             what made the masks, and what became of every picture

    Under torchrun each process takes its share, and the GPU of its number. Exit code 1 if pictures were refused, 2 for a wrong
    option, 130 or 143 after Ctrl-C or a signal to end.
    """
    from kit.generate import GenerateError, generate_steps
    from kit.manifest import ManifestError
    from kit.shard import Shard, ShardError

    with options.refusal():
        shard = Shard.from_environment()
        quiet = shard.rank > 0
        chosen = options.choices(method, weights, changes, model=model, data=data, refiner=("refiner", refiner), sam=("proposals", sam))
        choice = options.the_only(chosen)
        pictures = options.opened_data(data, root=root, split=split, labels=labels, images=images, size=size, skip_bad=skip_bad)
        own = options.own_device(shard) if device is None else device
        pipeline = choice.pipeline(options.loaded_clip(model, own, precision=precision, data=data, quiet=quiet), data)
        options.check_words([pipeline], pictures.classes, quiet=quiet)
        if workers is None:
            here = int(os.environ.get("LOCAL_WORLD_SIZE", shard.world))
            workers = options.processes(len(pictures) // shard.world, share=here)
        steps = generate_steps(
            pipeline, pictures, out, maps=maps, overlays=overlays, batch=batch, workers=workers, restart=restart, skip_bad=skip_bad,
            shard=shard, tell=lambda sentence: output.say(f"note: {sentence}") if len(pictures) >= LONG and not quiet else None,
        )  # fmt: skip
    states: Counter[str] = Counter()
    title = f"{pictures.name} {pictures.split}{f' (process 1 of {shard.world})' if shard.world > 1 else ''}"
    with (
        output.progress(title, -(-len(pictures) // shard.world), quiet=quiet) as bar,
        output.failure(hint=not skip_bad),
        _stoppable(quiet=quiet),
        closing(steps),
    ):
        try:
            for step in steps:
                states[step.state] += 1
                bar.update()
        except (GenerateError, ManifestError, ShardError) as error:
            if states:
                raise
            if not quiet:  # before the first step it is everybody's refusal, and said once
                output.say(f"Error: {error}")
            raise typer.Exit(2) from None
    if not quiet:  # the first process waits for the others: then the manifest knows what became of every picture
        _summary(out, pictures, states, shard)


def _summary(out: Path, pictures: "DataSet", states: Counter, shard: "Shard") -> None:
    """What is there now; exit code 1 if pictures were refused."""
    from kit.manifest import MASKS, read_manifest

    records = read_manifest(out)["images"]
    refused = [*pictures.refused, *((name, record.get("why", "")) for name, record in records.items() if record["state"] == "refused")]
    output.name_refused(refused, "refused", f", all named in {out / 'manifest.json'}")
    there = sum(record["state"] in ("written", "kept") for record in records.values())
    now = f"{states['written']:,} written now, {states['kept']:,} kept" + (f" by process 1 of {shard.world}" if shard.world > 1 else "")
    total = len(records) + len(pictures.refused)
    masks = f"{output.counted(total, 'masks')} {'is' if total == 1 else 'are'}"
    print(f"{there:,} of {masks} in {out / MASKS}: {now}, {len(refused):,} refused")
    print(f"labels: 0 = background, 1 to {len(pictures.classes)} = {pictures.classes[0]} to {pictures.classes[-1]}, 255 = uncertain")
    if refused:
        raise typer.Exit(1)


class _Ended(BaseException):
    """SIGTERM, as Slurm and torchrun send it."""


@contextmanager
def _stoppable(*, quiet: bool) -> Iterator[None]:
    """Ctrl-C or SIGTERM ends the run in good order, and says that it can go on."""

    def end(*_) -> NoReturn:
        raise _Ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except (KeyboardInterrupt, _Ended) as stop:
        if not quiet:
            output.say("stopped; run the same command again to go on")
        raise typer.Exit(130 if isinstance(stop, KeyboardInterrupt) else 143) from None
    finally:
        signal.signal(signal.SIGTERM, before)
