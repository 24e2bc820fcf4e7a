"""A method's settings as controls of a page, each from what its type says; and back to plain values."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from kit.encode import Clip
from kit.method import Method
from kit.settings import Learning, Setting, Settings, plain
from kit.ui.session import Refused

SEPARATE = ("synonyms",)  # shown with the classes, for all methods alike
SENTENCE = ("template", "background")  # shown with the prompt
KNOBS = 3  # settings that stand open where a method names none


def shown_settings(method: Method) -> dict[str, Setting]:
    """Those of its settings that an answer depends on; those of its learning belong to another page."""
    learning = {f"{lesson.learning}.{name}" for lesson in method.lessons.values() for name in Learning.model_fields}
    return {name: setting for name, setting in method.Settings.described().items() if name not in learning and name not in SEPARATE}


def groups_of(settings: Mapping[str, Setting]) -> dict[str, dict[str, Setting]]:
    """Title of a group -> its settings: what stands alone, then the groups of the declaration."""
    found: dict[str, dict[str, Setting]] = {"More settings": {}}
    for name, setting in settings.items():
        group, dot, _ = name.rpartition(".")
        title = group.replace(".", ": ").capitalize() if dot else "More settings"
        found.setdefault(title, {})[name] = setting
    return {title: inner for title, inner in found.items() if inner}


def knobs(method: Method, settings: Mapping[str, Setting]) -> list[str]:
    """The settings that stand open: those that the method names, else the first of its own."""
    own = [name for name in settings if name not in Settings.model_fields]
    return [name for name in method.knobs or own[:KNOBS] if name in settings]


def control(setting: Setting, value: Any, clip: Clip, templates: list[str], *, info: bool = True) -> gr.components.Component:
    """The control that fits a setting, with its value; `info`: whether it tells what the setting does."""
    value = shown(setting, plain(value), clip)
    named = {"label": setting.title or setting.name, "info": setting.help or None if info else None}
    many = {"multiselect": True, "allow_custom_value": True}
    if setting.kind == "flag":
        return gr.Checkbox(value, **named)
    if setting.kind in ("whole", "number"):
        whole = setting.kind == "whole"
        if setting.optional:  # a number field would say 0 for nothing
            return gr.Textbox(value, placeholder="none", **named)
        if setting.high is None or setting.high - setting.low > 1000:
            return gr.Number(value, precision=0 if whole else None, minimum=setting.low, maximum=setting.high, **named)
        span = setting.high - setting.low
        step = 1 if whole else 0.01 if span <= 1 else 0.05 if span <= 20 else 0.1 if span <= 100 else 0.5
        return gr.Slider(setting.low, setting.high, value, step=step, **named)
    if setting.kind == "choice":
        return gr.Radio(list(dict.fromkeys([*setting.choices, value])), value=value, **named)
    if setting.kind == "blocks":
        return gr.CheckboxGroup([(str(block), block) for block in range(clip.layer_count)], value=value, **named)
    if setting.kind in ("texts", "pairs", "weights"):
        default = shown(setting, plain(setting.default), clip)
        return gr.Dropdown(list(dict.fromkeys([*default, *value])), value=value, **many, **named)
    if setting.name == "template":
        return gr.Dropdown(list(dict.fromkeys([*templates, value])), value=value, allow_custom_value=True, **named)
    return gr.Textbox(value, **named)


def shown(setting: Setting, value: Any, clip: Clip) -> Any:
    """A plain value as its control holds it."""
    if setting.kind == "blocks":
        return list(range(clip.layer_count))[-value:] if isinstance(value, int) else list(value)
    if setting.kind in ("pairs", "weights"):
        return [f"{name} = {inner}" for name, inner in value.items()]
    if setting.kind == "numbers":
        return ", ".join(map(str, value))
    if setting.optional and setting.kind in ("whole", "number"):
        return "" if value is None else str(value)
    return list(value) if setting.kind == "texts" else value


def read(setting: Setting, given: Any) -> Any:
    """What a control holds as a plain value; the settings check it."""
    if given is None and not setting.optional and setting.kind in ("whole", "number"):
        raise Refused(f"{setting.title or setting.name} is empty: expected {setting.wanted}")
    if not given and setting.kind == "blocks":
        raise Refused(f"{setting.title or setting.name}: choose at least one block")
    if isinstance(given, str) and setting.kind in ("numbers", "whole", "number"):
        try:
            values = [float(part) if setting.kind == "number" else int(part) for part in given.replace(",", " ").split()]
        except ValueError as error:
            raise Refused(f"expected {setting.name} to be {setting.wanted}, got {given!r}"[:200]) from error
        return values if setting.kind == "numbers" else values[0] if values else None
    if setting.kind in ("pairs", "weights"):
        return pairs(given, setting)
    return given or [] if setting.kind in ("texts", "blocks") else given


def pairs(given: Any, setting: Setting) -> dict:
    found = {}
    for entry in given or []:
        name, equals, value = (part.strip() for part in str(entry).partition("="))
        try:
            found[name] = float(value) if setting.kind == "weights" else value
        except ValueError:
            equals = ""
        if not (name and equals and value):
            raise Refused(f"write an entry of {setting.name} as 'name = value', got {str(entry)[:60]!r}")
    return found


def changes(settings: Settings, given: Mapping[str, Any], clip: Clip) -> dict[str, Any]:
    """Of the controls' values by setting, those that differ from these settings."""
    described, found = type(settings).described(), {}
    for name, value in given.items():
        before = shown(described[name], plain(settings.value(name)), clip)
        if type(value) is bool or type(before) is bool or value != before:
            value = read(described[name], value)
            if type(value) is not type(before) or value != before:
                found[name] = value
    return found
