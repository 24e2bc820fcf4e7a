"""A method's settings: frozen values whose types carry bounds, choices, a title and a sentence of help.

One declaration serves every door: a control of the page, a row of --help, a line of `help(...)` and the sentence that refuses a value.
"""

import difflib
import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

NOT_SETTINGS = ("method", "model", "learned", "code", "classes", "look", "picture", "kit")  # what stands beside the settings in a result


class SettingsError(ValueError):
    """A setting that does not exist or is out of its range, told in one sentence.   name: which one."""

    def __init__(self, sentence: str, name: str = ""):
        super().__init__(sentence)
        self.name = name


def _whole(value: Any) -> Any:
    """3.0 is 3 where a whole number is meant, as JSON may hold it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole(low: int, high: int | None = None) -> Any:
    """The type of a whole number within bounds."""
    return Annotated[int, BeforeValidator(_whole), Field(ge=low, le=high)]


def number(low: float, high: float) -> Any:
    """The type of a number within bounds."""
    return Annotated[float, Field(ge=low, le=high)]


@dataclass(frozen=True)
class Functions:
    """Marks a setting whose value is one of these functions by name, or a function of one's own with their signature."""

    named: Mapping[str, Callable]

    def check(self, value: Any) -> Any:
        if not callable(value) and (not isinstance(value, str) or value not in self.named):
            raise ValueError("neither a name nor a function")
        return value

    def __getitem__(self, value: str | Callable) -> Callable:
        return value if callable(value) else self.named[value]


def function(named: Mapping[str, Callable]) -> Any:
    """The type of a setting that names a function, or is one.   See Functions."""
    mark = Functions(named)
    return Annotated[Any, BeforeValidator(mark.check), mark]


Share = number(0, 1)
Side = whole(16, 2048)
Texts = Annotated[tuple[str, ...], Field(strict=False)]
Blocks = Annotated[int, BeforeValidator(_whole), Field(ge=1)] | Annotated[tuple[int, ...], Field(strict=False, min_length=1)]


@dataclass(frozen=True)
class Setting:
    """One setting as a door shows it.

    name: dotted within a group ("coarse.box_threshold"); kind: flag, whole, number, choice, text, texts, pairs, weights, numbers or blocks;
    functions: whether a function of one's own may stand in a choice's place; optional: whether None is a value.
    """

    name: str
    kind: str
    default: Any
    title: str = ""
    help: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    functions: bool = False
    optional: bool = False

    @property
    def wanted(self) -> str:
        """What is expected of a value, in words."""
        if self.low is None and self.high is None:
            bounds = ""
        elif self.high is None:
            bounds = f" of at least {self.low:g}"
        else:
            bounds = f" from {self.low or 0:g} to {self.high:,.12g}"
        words = {
            "flag": "true or false",
            "whole": f"a whole number{bounds}",
            "number": f"a number{bounds}",
            "choice": f"one of {', '.join(self.choices)}" + (", or a function with their signature" if self.functions else ""),
            "text": "a text",
            "texts": "a list of words",
            "pairs": "class names with the words in their place",
            "weights": "names of losses with their weights",
            "numbers": "a list of whole numbers",
            "blocks": "how many of the last blocks, at least 1, or a list of blocks, counted from 0",
        }[self.kind]
        return words + " or none" * self.optional


def _kind(annotation: Any, marks: Iterable[Any] = ()) -> dict[str, Any]:
    """What the type of a field says: the fields of Setting that come from it."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _kind(args[0], (*args[1:], *marks))
    if origin in (typing.Union, types.UnionType):
        parts = [_kind(part) for part in args if part is not types.NoneType]
        optional = {"optional": True} if types.NoneType in args else {}
        return ({"kind": "blocks"} if len(parts) > 1 else parts[0]) | optional
    found: dict[str, Any] = {}
    for mark in marks:
        if isinstance(mark, Functions):
            return {"kind": "choice", "choices": tuple(mark.named), "functions": True}
        for bound in mark.metadata if isinstance(mark, FieldInfo) else (mark,):
            found |= {name: getattr(bound, end) for name, end in (("low", "ge"), ("high", "le")) if getattr(bound, end, None) is not None}
    if origin is Literal:
        return {"kind": "choice", "choices": tuple(map(str, args))}
    if origin is tuple:
        return {"kind": "texts" if args[0] is str else "numbers"}
    if origin is dict:
        return {"kind": "pairs" if args[1] is str else "weights"}
    return found | {"kind": {bool: "flag", int: "whole", float: "number"}.get(annotation, "text")}


def plain(value: Any) -> Any:
    """A setting's value as JSON holds it."""
    if isinstance(value, Group):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    return name_of(value) if callable(value) else value


def name_of(function: Callable) -> str:
    """What a function is called: its own name, that of what a partial wraps, or of its class."""
    inner = getattr(function, "func", function)
    return getattr(inner, "__name__", type(inner).__name__)


def shortened(value: Any) -> str:
    """A setting's value in a few words."""
    value = plain(value)
    if isinstance(value, list | dict) and len(value) > 4:
        return f"{len(value)} words"
    return "none" if value in ({}, [], None) else str(value)


class Group(BaseModel):
    """Settings that belong together; a method's own may nest such groups."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)

    def __init__(self, **values: Any):
        for name, value in values.items():
            if isinstance(value, np.generic):
                values[name] = value.item()
            elif isinstance(value, Mapping) and isinstance(default := self._default(name), Group):
                values[name] = default.changed(**value)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self._refusal(error) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        lines = [
            f"    {setting.name}: {setting.title or setting.name}{f' ({setting.help})' if setting.help else ''}; "
            f"{setting.wanted}, default {shortened(setting.default)}."
            for setting in cls.described().values()
        ]
        cls.__doc__ = f"{(cls.__dict__.get('__doc__') or '').strip()}\n\n" + "\n".join(lines)

    @classmethod
    def described(cls, prefix: str = "") -> dict[str, Setting]:
        """Every setting by its dotted name, in the order of the declaration."""
        found: dict[str, Setting] = {}
        for name, field in cls.model_fields.items():
            default, path = cls._default(name), f"{prefix}{name}"
            if isinstance(default, Group):
                found |= {
                    inner: _with_default(setting, functools.reduce(getattr, inner.removeprefix(f"{path}.").split("."), default))
                    for inner, setting in default.described(f"{path}.").items()
                }
            else:
                known = _kind(field.annotation, field.metadata)
                found[path] = Setting(path, default=default, title=field.title or "", help=field.description or "", **known)
        return found

    @classmethod
    def _default(cls, name: str) -> Any:
        return cls.model_fields[name].get_default(call_default_factory=True) if name in cls.model_fields else None

    def changed(self, **changes: Any) -> typing.Self:
        """The same with changes, all checked; a group's setting is written coarse__box_threshold, or within a dict of the group's name.

        Raises SettingsError for a setting that does not exist or a value that it cannot have.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        inside: dict[str, dict] = {}
        for name, value in changes.items():
            group, _, inner = name.replace(".", "__").partition("__")
            if isinstance(values.get(group), Group) and (inner or isinstance(value, Mapping)):
                inside.setdefault(group, {}).update({inner: value} if inner else value)
            else:
                values[name] = value
        for group, own in inside.items():
            try:
                values[group] = values[group].changed(**own)
            except SettingsError as error:
                raise _within(group, error) from None
        return type(self)(**values)

    def value(self, name: str) -> Any:
        """A setting by its dotted name."""
        return functools.reduce(getattr, name.replace("__", ".").split("."), self)

    def to_dict(self) -> dict:
        """Plain values, as JSON holds them; a function of one's own goes by its name."""
        return {name: plain(getattr(self, name)) for name in type(self).model_fields}

    def flat(self) -> dict[str, Any]:
        """Plain values by dotted name, to tell two settings apart."""
        return {name: plain(self.value(name)) for name in self.described()}

    def unlike(self, other: "Group") -> dict[str, Any]:
        """Those settings, plain and by dotted name, in which this differs from the other."""
        theirs = other.flat()
        return {name: value for name, value in self.flat().items() if value != theirs.get(name)}

    @classmethod
    def _refusal(cls, error: ValidationError) -> SettingsError:
        """The first thing that is wrong, in one sentence."""
        wrong = error.errors()[0]
        inner = (wrong.get("ctx") or {}).get("error")
        if not wrong["loc"]:
            return inner if isinstance(inner, SettingsError) else SettingsError(str(inner or wrong["msg"]))
        name = str(wrong["loc"][0])
        if isinstance(inner, SettingsError):
            return _within(name, inner)
        known = cls.described()
        if name not in cls.model_fields:
            near = difflib.get_close_matches(name.replace("__", "."), known, 1)
            guess = f"did you mean {near[0]}? " if near else ""
            return SettingsError(f"unknown setting {name}: {guess}There are {', '.join(known)}", name)
        wanted = known[name].wanted if name in known else f"settings such as {', '.join(list(cls._default(name).described())[:3])}"
        value = getattr(wrong["input"], "__name__", wrong["input"]) if len(wrong["loc"]) == 1 else wrong["input"]
        return SettingsError(f"expected {name} to be {wanted}, got {value!r}"[:400], name)


class Settings(Group):
    """What every method has; a paper adds its own fields. A value is strict: no true for 1, no "3" for 3."""

    renamed: ClassVar[Mapping[str, str]] = {}  # names in files of earlier versions -> today's, dotted

    template: str = Field("a photo of a {}.", title="Template", description="the sentence of a prompt; {} is where the class name goes")
    background: Texts = Field((), title="Background words", description="what else a picture may show, competing with the classes")
    synonyms: dict[str, str] = Field({}, title="Words", description="class name -> the words that are asked in its place")
    background_power: number(0.1, 20) = Field(
        1.0, title="Background power", description="background scores (1 - the best class) to this power; higher: less background"
    )
    confidence: Share = Field(0.0, title="Confidence", description="pixels whose best score is a smaller share than this become 255")
    side: Side | None = Field(None, title="Encoder side", description="longer side that the encoder sees, in pixels; none: the picture's")
    side_limit: whole(32, 2048) = Field(640, title="Side limit", description="larger pictures are worked on at this longer side, in pixels")

    @classmethod
    def from_dict(cls, values: Mapping) -> typing.Self:
        """Settings from plain values, those of a result or of an earlier version's file too; a name that is no setting is refused."""
        if not isinstance(values, Mapping):
            raise SettingsError(f"expected settings as names with values, got {type(values).__name__}")
        values = {cls.renamed.get(name, name): value for name, value in values.items() if name not in NOT_SETTINGS}
        whole_groups = {name: value for name, value in values.items() if "." not in name}
        return cls(**whole_groups).changed(**{name: value for name, value in values.items() if "." in name})


class Learning(Group):
    """How one thing is learned: steps of gradient descent whose rate warms up, then falls along a cosine."""

    batch: whole(1, 1024) = Field(16, title="Batch", description="pictures of a step")
    rate: number(1e-8, 100) = Field(1e-3, title="Learning rate", description="the highest one")
    steps: whole(1, 1_000_000) = Field(1000, title="Steps")
    horizon: whole(1, 1_000_000) | None = Field(None, title="Horizon", description="the step at which the rate would be 0; none: the last")
    warm_up: whole(0, 1_000_000) = Field(0, title="Warm-up", description="steps at a rate of 1e-5")
    parts: whole(1, 1024) = Field(1, title="Parts", description="pieces a batch is cut into, for less memory")
    losses: dict[str, float] = Field({}, title="Loss weights", description="name of a loss -> its weight, 1 where it is not named")

    def model_post_init(self, _: Any) -> None:
        if not self.warm_up < self.steps <= (self.horizon or self.steps):
            values = f"warm_up {self.warm_up}, steps {self.steps}, horizon {self.horizon}"
            raise SettingsError(
                f"expected warm_up to be less than steps, and horizon at least steps or none, got {values}: change them together, "
                f"such as steps={self.steps}, warm_up={min(self.warm_up, self.steps // 10)}, horizon=None",
                "steps",
            )

    def lasting(self, steps: int) -> typing.Self:
        """The same for so many steps: the warm-up is at most a tenth of them, and the rate reaches 0 at the end."""
        return self.changed(steps=steps, warm_up=min(self.warm_up, steps // 10), horizon=None)


def _with_default(setting: Setting, default: Any) -> Setting:
    return replace(setting, default=default)


def _within(group: str, error: SettingsError) -> SettingsError:
    """The error of a group's setting, named from outside."""
    name = f"{group}.{error.name}"
    return SettingsError(str(error).replace(f" {error.name}", f" {name}", 1) if error.name else f"{group}: {error}", name)
