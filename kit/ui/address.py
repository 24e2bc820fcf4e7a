"""The page's address: picture, classes, method and settings, so that what is seen can be sent as a link."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from kit.files import from_json
from kit.settings import Setting, Settings
from kit.ui.session import Refused, View

PICTURE = ("scene", "seed", "objects", "place")
THEIRS = ("view", "deep_link")  # Gradio's own, beside all that begin with __


@dataclass(frozen=True)
class Asked:
    """What an address names: picture, a scene's number or what a drawing is made of; values: class, method, settings by dotted name."""

    picture: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)


def read(parameters: Mapping[str, str]) -> Asked:
    """The parts of an address, still as texts."""
    known = {name: text for name, text in parameters.items() if not name.startswith("__") and name not in THEIRS}
    return Asked(
        {name: text for name, text in known.items() if name in PICTURE}, {name: text for name, text in known.items() if name not in PICTURE}
    )


def value(setting: Setting | None, text: str) -> Any:
    """A setting's plain value; the settings check it."""
    if setting is not None and setting.kind in ("text", "choice"):
        return text
    if setting is not None and setting.kind == "texts":
        return words(text)
    try:
        return from_json(text)
    except ValueError:
        return text


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def whole(text: str | int, what: str) -> int:
    """Raises Refused for what is no whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise Refused(f"expected {what} as a whole number, got {text!r}"[:200]) from error


def written(picture: Mapping[str, str], view: View, usual: Settings, default: str) -> str:
    """The address of a view, with its question mark: only what is not as a visitor finds it.

    picture: its part of the address; usual: the method's settings as a visitor finds them; default: the method that is chosen at first.
    """
    method, settings = view.pipeline.method.name, view.pipeline.settings
    parts = {name: text for name, text in picture.items() if text}
    parts["class"] = ",".join(view.sample.names)
    parts |= {} if method == default else {"method": method}
    for name, changed in settings.unlike(usual).items():
        listed = type(settings).described()[name].kind == "texts"
        parts[name] = ",".join(changed) if listed else changed if isinstance(changed, str) else json.dumps(changed, separators=(",", ":"))
    return "?" + urlencode(parts)
