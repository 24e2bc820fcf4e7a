"""Pictures of what the stages make: the only file that knows matplotlib."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from kit.images import PALETTE
from kit.words import label_numbers

COLOUR_MAPS = ("inferno", "viridis", "magma", "turbo", "jet")  # the first ones are sequential: one end dark, the other bright


def heat_overlay(image: np.ndarray, cam: Any, *, opacity: float = 0.5, colour_map: str = "turbo") -> np.ndarray:
    """A class map as heat over its picture.

    image uint8 (H, W, 3), cam (H, W) in [0, 1], an array or a tensor -> uint8 (H, W, 3). Raises ValueError if they do not fit.
    """
    image, cam = _picture(image), _unit_map(cam)
    _check_same_size(image, cam, "cam")
    table, levels = _colour_table(colour_map), (cam * 255 + 0.5).astype(np.uint8)
    return _blend(image, table, levels, _share(opacity))


def colour_bar(colour_map: str, *, stops: int = 9) -> list[tuple[int, int, int]]:
    """The colours of a map from its lowest value to its highest, evenly spaced: `stops` times (red, green, blue) in 0..255.

    Raises ValueError for a map that is none of COLOUR_MAPS.
    """
    table = _colour_table(colour_map)
    return [tuple(table[place].tolist()) for place in np.linspace(0, 255, stops).round().astype(int)]


def mask_overlay(image: np.ndarray, labels: Any, *, opacity: float = 0.6) -> np.ndarray:
    """A label map in VOC's colours over its picture; the background (0) shows the picture as it is.

    image uint8 (H, W, 3), labels (H, W) in whole numbers 0..255 -> uint8 (H, W, 3). Raises ValueError if they do not fit.
    """
    image, labels = _picture(image), _label_map(labels)
    _check_same_size(image, labels, "labels")
    painted = _blend(image, PALETTE, labels, _share(opacity))
    return np.where((labels == 0)[..., None], image, painted)


def hatch(rgb: np.ndarray, where: Any) -> np.ndarray:
    """A picture with slanted light and dark lines over its uncertain pixels, readable on any colour.

    rgb uint8 (H, W, 3), where bool (H, W) -> uint8 (H, W, 3). Raises ValueError if they do not fit.
    """
    rgb, where = _picture(rgb), _array(where)
    if where.dtype != bool or where.ndim != 2:
        raise ValueError(f"expected `where` bool (H, W), got {where.dtype} {where.shape}; compare the map with a threshold first")
    _check_same_size(rgb, where, "where")
    rows, columns = np.ogrid[: where.shape[0], : where.shape[1]]
    phase = (rows + columns) % 8
    hatched = rgb.copy()
    hatched[where & (phase < 2)] = 255
    hatched[where & ((phase == 2) | (phase == 3))] = 40
    return hatched


def labels_to_rgb(labels: Any) -> np.ndarray:
    """A label map in VOC's colours. labels (H, W) in whole numbers 0..255 -> uint8 (H, W, 3)."""
    return np.take(PALETTE, _label_map(labels), axis=0)


def in_voc_colours(labels: Any, names: Sequence[str]) -> np.ndarray:
    """A method's labels as VOC numbers them, so that a class has its own colour whichever others were asked for.

    labels (H, W): 0 background, 1.. by the order of `names`, 255 unsure -> uint8 (H, W); a name that VOC lacks becomes 21, 22, ...
    Raises ValueError for a label without a name.
    """
    labels = _label_map(labels)
    table = np.zeros(256, np.uint8)
    table[255] = 255
    table[1 : 1 + len(names)] = list(label_numbers(tuple(names)).values())
    nameless = labels[(labels > len(names)) & (labels < 255)]
    if nameless.size:
        raise ValueError(f"expected labels 0..{len(names)} of {', '.join(names)}, or 255, got {nameless.max()}; give all names in order")
    return table[labels]


def framed_patch(rgb: np.ndarray, grid: tuple[int, int], row: int, column: int) -> np.ndarray:
    """A picture with a white frame, edged in black, around one of its patches.

    rgb uint8 (H, W, 3), grid (h, w), row and column from 0 -> uint8 (H, W, 3). Raises ValueError for a patch outside the grid.
    """
    framed = _picture(rgb).copy()
    if not (0 <= row < grid[0] and 0 <= column < grid[1]):
        raise ValueError(f"expected a patch in rows 0..{grid[0] - 1} and columns 0..{grid[1] - 1}, got {row}, {column}")
    height, width = framed.shape[:2]
    top, bottom = (round(edge * height / grid[0]) for edge in (row, row + 1))
    left, right = (round(edge * width / grid[1]) for edge in (column, column + 1))
    inside = framed[top:bottom, left:right].copy()
    for margin, colour in ((2, 0), (1, 255)):
        framed[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = colour
    framed[top:bottom, left:right] = inside
    return framed


def strip(pictures: dict[str, Any], *, columns: int = 6, colour_map: str = "turbo") -> Figure:
    """Pictures side by side under their titles, in rows of at most `columns`.

    pictures: title -> uint8 (H, W, 3) as it is, a map (H, W) of fractions in [0, 1] as heat,
    or labels (H, W) of whole numbers in VOC's colours.
    -> a Figure that belongs to no window and no pyplot, so that any thread may draw it. Raises ValueError for anything else.
    """
    if not pictures or columns < 1:
        raise ValueError(f"expected at least one picture and one column, got {len(pictures)} and {columns}; give something to show")
    drawn = {title: _drawn(picture, title, colour_map) for title, picture in pictures.items()}
    across = min(columns, len(drawn))
    down = math.ceil(len(drawn) / across)
    tallest = max(picture.shape[0] / picture.shape[1] for picture in drawn.values())
    figure = Figure(figsize=(2.2 * across, down * (2.2 * min(tallest, 2) + 0.35)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, picture) in enumerate(drawn.items(), start=1):
        axes = figure.add_subplot(down, across, place)
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return figure


def panels(pictures: Mapping[str, Callable[[Axes], None]], *, columns: int = 3, side: int = 320) -> Figure:
    """Pictures to be read from the back row, each under its title with its colour bar or legend beside it, in rows of at most `columns`.

    pictures: title -> what draws it, as `panel`, `heat_panel`, `signed_panel` and `mask_panel` make it; side: width and height of each, in
    pixels. -> a Figure of 100 dots an inch that belongs to no window. Raises ValueError without a picture or a column.
    """
    if not pictures or columns < 1:
        raise ValueError(f"expected at least one picture and one column, got {len(pictures)} and {columns}; give something to show")
    across, (cell, row) = min(columns, len(pictures)), (side + 100, side + 36)
    wide, high = cell * across, row * math.ceil(len(pictures) / across)
    figure = Figure((wide / 100, high / 100), dpi=100)
    FigureCanvasAgg(figure)
    for place, (title, draw) in enumerate(pictures.items()):
        down, right = divmod(place, across)
        corner = (cell * right + 8) / wide, 1 - (row * down + row - 6) / high
        draw(figure.add_axes((*corner, side / wide, side / high), title=title, xticks=[], yticks=[]))
    return figure


def panel(
    image: Any,
    truth: np.ndarray | None = None,
    *,
    colour_map: str | None = None,
    low: float = 0,
    high: float = 1,
    label: str = "",
    bar: str | None = None,
    names: Sequence[str] = (),
) -> Callable[[Axes], None]:
    """What draws one picture of `panels`.

    image: uint8 (H, W, 3), or values (h, w) in the colours of `colour_map` from `low` to `high`; truth: labels (H, W) whose outlines are
    drawn as thin lines; bar: a colour map whose bar stands beside a picture, label: what it measures; names: classes for a legend in VOC's
    colours.
    """
    image, bar = _array(image), bar or colour_map

    def draw(axes: Axes) -> None:
        height, width = image.shape[:2] if truth is None else truth.shape
        axes.imshow(image, colour_map, vmin=low, vmax=high, extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
        for number in () if truth is None else set(np.unique(truth).tolist()) - {0, 255}:
            axes.contour(truth == number, [0.5], colors="black", linewidths=1, extent=(0, width, 0, height))
        if bar:
            source = ScalarMappable(Normalize(low, high), bar)
            axes.figure.colorbar(source, axes.inset_axes((1.02, 0, 0.04, 1)), label=label, format="%.2g")
        for row, (name, number) in enumerate(label_numbers(tuple(names)).items()):
            colour = labels_to_rgb(np.array([[number]]))[0, 0] / 255
            axes.text(0.02, 0.94 - 0.09 * row, name, color="white", backgroundcolor=colour, fontsize=11, transform=axes.transAxes)

    return draw


def heat_panel(image: np.ndarray, cam: Any, truth: np.ndarray | None = None) -> Callable[[Axes], None]:
    """A map (H, W) in [0, 1] over its picture, for `panels`."""
    return panel(heat_overlay(image, cam), truth, bar="turbo", label="share of the highest value")


def signed_panel(plane: Any, truth: np.ndarray | None = None) -> Callable[[Axes], None]:
    """A map (h, w) with a sign, times 1000, one square a patch, for `panels`: red speaks for a class, blue against it."""
    plane = 1000 * _array(plane).astype(float)
    top = float(np.abs(plane).max()) or 1.0
    return panel(plane, truth, colour_map="RdBu_r", low=-top, high=top, label="times 1000; blue: against the class")


def mask_panel(image: np.ndarray, labels: Any, names: Sequence[str] = (), unsure: Any = None) -> Callable[[Axes], None]:
    """Labels (H, W) with VOC's numbers over their picture, for `panels`; what is `unsure` (bool (H, W)) is hatched."""
    painted = mask_overlay(image, labels)
    return panel(painted if unsure is None else hatch(painted, unsure), names=names)


def flow(
    boxes: Mapping[str, tuple[float, float, str]],
    arrows: Sequence[tuple],
    values: Mapping[str, Any] | None = None,
    *,
    size: tuple[float, float] = (82, 32),
) -> Figure:
    """The data flow of a method as boxes and arrows, with the shape of what flows.

    boxes: key -> x and y of the middle, and a text; a box that names a loss is red. arrows: (from, to, x, y, text), with a bend as a sixth
    for a gradient, which is red; values: text of an arrow -> an array whose shape stands there. size: the largest x and y; 11 below zero
    and 7.5 left of it are visible. -> a Figure that belongs to no window.
    """
    values, placed, figure = values or {}, {}, Figure((12, 12 * (size[1] + 11) / (size[0] + 7.5)), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-7.5, size[0]), ylim=(-11, size[1]), frame_on=False, xticks=[], yticks=[])
    middle = {"ha": "center", "va": "center", "fontsize": 12}
    for key, (x, y, text) in boxes.items():
        style = {"boxstyle": "round,pad=0.5", "fc": "#ffe3e3" if "loss" in text else "#e8f0fb"}
        placed[key] = axes.text(x, y, text, bbox=style, **middle)
    for start, end, x, y, text, *bend in arrows:
        colour, a, b = "#b00000" if bend else "black", placed[start], placed[end]
        way = {"arrowstyle": "-|>", "color": colour, "connectionstyle": f"arc3,rad={sum(bend)}"}
        way |= {"patchA": a.get_bbox_patch(), "patchB": b.get_bbox_patch()}
        axes.annotate("", b.get_position(), a.get_position(), arrowprops=way)
        shape = "×".join(map(str, values[text].shape)) if text in values else ""
        axes.text(x, y, f"{text}\n{shape}".strip(), color=colour, backgroundcolor="white", **middle)
    return figure


def curve(
    places: Sequence, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x_title: str = "", y_title: str = "", title: str = ""
) -> Figure:
    """Measured values with their spread as bars, over numbers or over words.

    places: what was varied, numbers (drawn at their distances) or words (drawn evenly);
    lines: title -> values and spreads, one each a place; a value of nan leaves a gap, a spread of nan has no bar.
    -> a Figure that belongs to no window. Raises ValueError if nothing is given or the lengths differ.
    """
    if not places or not lines:
        raise ValueError(f"expected at least one place and one line, got {len(places)} and {len(lines)}; give something to show")
    for name, (values, spreads) in lines.items():
        if not len(places) == len(values) == len(spreads):
            got = f"{len(values)} and {len(spreads)}"
            raise ValueError(f"expected {len(places)} values and spreads for {name!r}, got {got}; give one for each place")
    are_numbers = all(isinstance(place, int | float) and not isinstance(place, bool) for place in places)
    across = list(places) if are_numbers else list(range(len(places)))
    figure = Figure(figsize=(5.6, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    line = "-" if are_numbers else "none"  # between words there is nothing
    for name, (values, spreads) in lines.items():
        axes.errorbar(across, values, yerr=np.nan_to_num(np.asarray(spreads, float)), marker="o", linestyle=line, capsize=3, label=name)
    names = [f"{place:g}" if are_numbers else str(place) for place in places]
    straight = _are_short(names)
    axes.set_xticks(across, names, rotation=0 if straight else 30, ha="center" if straight else "right")
    axes.set(xlabel=x_title, ylabel=y_title)
    axes.set_title(title, fontsize=9)
    axes.margins(x=0.05 if are_numbers else 0.15)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def grid_map(
    values: Any,
    rows: Sequence,
    columns: Sequence,
    *,
    row_title: str = "",
    column_title: str = "",
    title: str = "",
    colour_map: str = "viridis",
) -> Figure:
    """A table of values as colours, each with its number: two things varied at once.

    values (R, C), any numbers, nan where nothing was measured; rows, columns: what each row and column stands for.
    -> a Figure that belongs to no window. Raises ValueError if they do not fit.
    """
    values = _array(values).astype(float)
    if values.shape != (len(rows), len(columns)) or not values.size:
        raise ValueError(f"expected values ({len(rows)}, {len(columns)}), one for each row and column, got {values.shape}")
    table = _colour_table(colour_map)
    known = values[~np.isnan(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    figure = Figure(figsize=(1.9 + 0.75 * len(columns), 1.3 + 0.42 * len(rows)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    share = np.nan_to_num((values - low) / ((high - low) or 1.0))
    colours = table[(share * 255 + 0.5).astype(np.uint8)]
    colours[np.isnan(values)] = 230
    axes.imshow(colours, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = colours[row, column].mean() < 120
        axes.text(
            column,
            row,
            "–" if np.isnan(value) else f"{value:.1f}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if dark else "black",
        )
    straight = _are_short(columns)
    axes.set_xticks(
        range(len(columns)), [str(name) for name in columns], rotation=0 if straight else 30, ha="center" if straight else "right"
    )
    axes.set_yticks(range(len(rows)), [str(name) for name in rows])
    axes.set(xlabel=column_title, ylabel=row_title)
    axes.set_title(title, fontsize=9)
    return figure


def scatter(
    x: Sequence[float],
    y: Sequence[float],
    *,
    marked: Mapping[str, int] | None = None,
    x_title: str = "",
    y_title: str = "",
    title: str = "",
) -> Figure:
    """Two measured values of the same things against each other, some of them named.

    x, y: numbers, as many of each; marked: name -> its place in them. -> a Figure that belongs to no window. Raises ValueError if they
    do not fit.
    """
    if not len(x) or len(x) != len(y):
        raise ValueError(f"expected as many values of one as of the other, at least one, got {len(x)} and {len(y)}")
    figure = Figure(figsize=(5.6, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(x, y, s=22, alpha=0.7)
    for name, place in (marked or {}).items():
        axes.scatter([x[place]], [y[place]], s=40, color="tab:red")
        axes.annotate(name, (x[place], y[place]), textcoords="offset points", xytext=(6, 5), fontsize=8)
    axes.set(xlabel=x_title, ylabel=y_title)
    axes.set_title(title, fontsize=9)
    axes.margins(0.1)
    axes.grid(alpha=0.3)
    return figure


def png(figure: Figure, *, dpi: int = 70, colours: int | None = None) -> bytes:
    """A figure as the bytes of a PNG file; a palette of so many `colours` (2 to 256) makes it a quarter as large."""
    if colours is not None and not 2 <= colours <= 256:
        raise ValueError(f"expected 2 to 256 colours, got {colours}; leave them out to keep all")
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=dpi)
        if colours is None:
            return file.getvalue()
        picture = Image.open(file).convert("RGB").quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    with io.BytesIO() as file:
        picture.save(file, "PNG", optimize=True)
        return file.getvalue()


def _are_short(names: Sequence) -> bool:
    """Whether tick labels can stand side by side."""
    return max(len(str(name)) for name in names) * len(names) <= 40


def _drawn(picture: Any, title: str, colour_map: str) -> np.ndarray:
    picture = _array(picture)
    if picture.ndim == 3:
        return _picture(picture)
    if picture.ndim != 2 or not picture.size:
        raise ValueError(f"expected {title!r} as (H, W, 3) or (H, W), got {picture.shape}; choose one picture or one map")
    if np.issubdtype(picture.dtype, np.floating):
        return _colour_table(colour_map)[(_unit_map(picture) * 255 + 0.5).astype(np.uint8)]
    return labels_to_rgb(picture.astype(np.uint8) if picture.dtype == bool else picture)


@lru_cache(maxsize=len(COLOUR_MAPS))
def _colour_table(name: str) -> np.ndarray:
    """uint8 (256, 3): the colours of a map from 0 to 1, looked up once per name."""
    if name not in COLOUR_MAPS:
        raise ValueError(f"expected a colour map among {', '.join(COLOUR_MAPS)}, got {name!r}; choose one of those")
    table = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3].copy()
    table.flags.writeable = False
    return table


def _blend(image: np.ndarray, table: np.ndarray, levels: np.ndarray, share: int) -> np.ndarray:
    """(256 - share) parts of the picture and `share` parts of the colours table[levels], in whole numbers because that is fast."""
    colours = np.take(table.astype(np.uint16) * share + 128, levels, axis=0)  # at most 255 * 256 + 128: fits 16 bit
    colours += image * np.uint16(256 - share)
    colours >>= 8
    return colours.astype(np.uint8)


def _share(opacity: float) -> int:
    if not 0 <= opacity <= 1:
        raise ValueError(f"expected an opacity in [0, 1], got {opacity}; 0 shows the picture alone, 1 the colours alone")
    return round(opacity * 256)


def _array(values: Any) -> np.ndarray:
    """An array, also of a tensor that is on a GPU, in a graph or in half precision."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _picture(image: Any) -> np.ndarray:
    image = _array(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"expected a picture uint8 (H, W, 3), got {image.dtype} {image.shape}; load_image makes one")
    return image


def _unit_map(cam: Any) -> np.ndarray:
    cam = _array(cam)
    if cam.ndim != 2 or not cam.size:
        raise ValueError(f"expected a map (H, W), got {cam.shape}; choose one class of one picture")
    low, high = cam.min(), cam.max()
    if not (low >= -1e-4 and high <= 1 + 1e-4):  # so written that nan fails too; the slack is what resizing may overshoot
        raise ValueError(f"expected a map in [0, 1], got {low:.3g}..{high:.3g}; normalise it first")
    return cam.clip(0, 1)


def _label_map(labels: Any) -> np.ndarray:
    labels = _array(labels)
    if labels.ndim != 2 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"expected labels (H, W) in whole numbers, got {labels.dtype} {labels.shape}; make a label map first")
    if labels.dtype != np.uint8 and (labels.min() < 0 or labels.max() > 255):
        raise ValueError(f"expected labels 0..255, got {labels.min()}..{labels.max()}; VOC's palette has no other colours")
    return labels


def _check_same_size(image: np.ndarray, other: np.ndarray, name: str) -> None:
    if image.shape[:2] != other.shape:
        raise ValueError(f"expected {name} of the picture's size {image.shape[:2]}, got {other.shape}; resize it first")
