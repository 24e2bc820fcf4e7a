"""`python -m kit settings`: the methods there are, and what can be set of one."""

from typing import Annotated

import typer

from kit.cli import options


def settings(
    method: Annotated[
        str | None, typer.Argument(metavar="NAME|FILE.py", help="A method, or a file with one of your own.", show_default=False)
    ] = None,
) -> None:
    """List every method or, of one, every setting: its meaning, what it may be, and its default.

    \b
    python -m kit settings
    python -m kit settings my_method.py
    """
    from kit.methods import METHODS
    from kit.own import method_named
    from kit.settings import shortened

    with options.refusal():
        chosen = METHODS.values() if method is None else [method_named(method)]
    for one in chosen:
        learns = f"; learns {', '.join(one.lessons)}" if one.lessons else ""
        print(f"{one.name}: {one.title}{f' ({one.source})' if one.source else ''}{learns}")
        for setting in one.Settings.described().values() if method else ():
            about = ": ".join(filter(None, (setting.title, setting.help)))
            print(f"  {setting.name}  {about}\n      {setting.wanted}  [default: {shortened(setting.default)}]")
