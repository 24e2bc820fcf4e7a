"""The command line: `python -m kit` lists the commands, one file each in kit/cli."""

# Only light imports here: --help must be quick, and every process of the refiner reads this file again.
from typing import Annotated

import typer

from kit import __version__
from kit.cli.evaluate import evaluate
from kit.cli.fit import fit
from kit.cli.generate import generate
from kit.cli.segment import segment
from kit.cli.settings import settings
from kit.cli.sweep import sweep

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kit {__version__}")
        raise typer.Exit()


@app.callback(epilog="Try: python -m kit evaluate --images 20")
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")] = False,
) -> None:
    """From a text prompt to a mask: weakly supervised semantic segmentation with CLIP."""


app.command(short_help="Make masks of pictures from the names of what they show.")(segment)
app.command(short_help="Make pseudo masks of a whole data set; can be stopped and goes on where it was.")(generate)
app.command(short_help="Measure methods, or masks made elsewhere, on a data set.")(evaluate)
app.command(short_help="Learn what a method learns; can be stopped and goes on where it was.")(fit)
app.command(short_help="Vary one or two settings and measure each value.")(sweep)
app.command(short_help="List the methods, and what can be set of one.")(settings)


if __name__ == "__main__":
    app(prog_name="python -m kit")
