"""A pen for the drawn world: coloured shapes in local units, and how they become pixels.

Local units: y points up, the ground is at y = 0, any scale (a drawing says itself how large it stands in a picture).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageChops, ImageDraw

PAINT = ((200, 40, 40), (40, 80, 190), (235, 235, 230), (40, 130, 70), (235, 190, 40), (60, 60, 65), (170, 175, 180), (230, 120, 40),
         (110, 60, 140), (70, 160, 190), (150, 30, 60))
WOOD = ((150, 100, 60), (110, 70, 40), (190, 145, 95), (225, 215, 200), (80, 55, 40))
SKIN = ((240, 200, 170), (225, 175, 140), (190, 135, 95), (140, 90, 60), (100, 65, 45))
GLASS = (120, 165, 190)

SUPERSAMPLING = 2


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between low and high."""
    return float(rng.uniform(low, high))


def jitter(rng: np.random.Generator, colour: ArrayLike, amount: float = 14) -> np.ndarray:
    """A colour near the given one: each channel moves a little, and all three together.   -> float (3,) in [0, 255]"""
    return np.clip(np.asarray(colour, float) + rng.uniform(-amount, amount, 3) + rng.uniform(-amount, amount), 0, 255)


def pick(rng: np.random.Generator, colours: Sequence[ArrayLike], amount: float = 14) -> np.ndarray:
    """One of the colours, jittered.   -> float (3,) in [0, 255]"""
    return jitter(rng, colours[rng.integers(len(colours))], amount)


def darker(colour: ArrayLike, factor: float = 0.7) -> np.ndarray:
    """The colour times a factor (above 1 it gets lighter).   -> float (3,) in [0, 255]"""
    return np.clip(np.asarray(colour, float) * factor, 0, 255)


def lighter(colour: ArrayLike, amount: float = 0.35) -> np.ndarray:
    """The colour moved towards white by a share.   -> float (3,) in [0, 255]"""
    colour = np.asarray(colour, float)
    return np.clip(colour + (255 - colour) * amount, 0, 255)


@dataclass(frozen=True)
class Part:
    """One filled polygon: points (P, 2) in local units, colour (3,) in [0, 255]; clip: index of the part it is kept inside."""

    points: np.ndarray
    colour: np.ndarray
    clip: int | None = None


class Pen:
    """Collects parts from back to front; every drawing method returns the index of the part it made."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def poly(self, points: ArrayLike, colour: ArrayLike, clip: int | None = None) -> int:
        """A filled polygon, kept inside the part with index `clip` if one is given."""
        self.parts.append(Part(np.asarray(points, float).reshape(-1, 2), np.asarray(colour, float), clip))
        return len(self.parts) - 1

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, colour: ArrayLike, *, turn: float = 0.0, clip: int | None = None,
                steps: int = 22) -> int:
        """An ellipse around (cx, cy), turned by radians against the clock."""
        angle = np.linspace(0, 2 * np.pi, steps, endpoint=False)
        x, y = rx * np.cos(angle), ry * np.sin(angle)
        cos, sin = math.cos(turn), math.sin(turn)
        return self.poly(np.stack([cx + cos * x - sin * y, cy + sin * x + cos * y], 1), colour, clip)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: ArrayLike, clip: int | None = None) -> int:
        """An upright rectangle between two corners."""
        return self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, clip)

    def rounded(self, x0: float, y0: float, x1: float, y1: float, radius: float, colour: ArrayLike, clip: int | None = None) -> int:
        """A rectangle with round corners."""
        radius = min(radius, abs(x1 - x0) / 2, abs(y1 - y0) / 2)
        corners = ((x1 - radius, y1 - radius), (x0 + radius, y1 - radius), (x0 + radius, y0 + radius), (x1 - radius, y0 + radius))
        points = []
        for quarter, (cx, cy) in enumerate(corners):
            for step in range(5):
                angle = math.radians(90 * quarter + 22.5 * step)
                points.append((cx + radius * math.cos(angle), cy + radius * math.sin(angle)))
        return self.poly(points, colour, clip)

    def blob(self, points: ArrayLike, colour: ArrayLike, clip: int | None = None, steps: int = 5) -> int:
        """A smooth closed shape through the points (Catmull-Rom spline)."""
        p1 = np.asarray(points, float)[:, None]
        p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
        t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
        curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
        return self.poly(curve, colour, clip)

    def limb(self, points: ArrayLike, width_or_widths: float | Sequence[float], colour: ArrayLike, clip: int | None = None) -> int:
        """A thick line with rounded ends; one width, or one for each point (tapered)."""
        path = np.asarray(points, float)
        width = np.broadcast_to(np.asarray(width_or_widths, float), len(path))
        along = np.gradient(path, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
        across = np.stack([-along[:, 1], along[:, 0]], 1)
        left, right = path + across * width[:, None] / 2, path - across * width[:, None] / 2

        def cap(end: int, way: float) -> list[np.ndarray]:
            forward, aside = along[end] * way, across[end] * way
            return [path[end] + (forward + aside) * width[end] * 0.36, path[end] + forward * width[end] / 2,
                    path[end] + (forward - aside) * width[end] * 0.36]

        outline = [*left, *cap(-1, 1.0), *right[::-1], *cap(0, -1.0)]
        return self.poly(outline, colour, clip)

    def wheel(self, x: float, y: float, radius: float, tyre: ArrayLike = (35, 35, 38), hub: ArrayLike = (175, 178, 182)) -> int:
        """A wheel seen from the side; returns the tyre's index."""
        index = self.ellipse(x, y, radius, radius, tyre, steps=24)
        self.ellipse(x, y, radius * 0.58, radius * 0.58, hub, steps=18)
        self.ellipse(x, y, radius * 0.18, radius * 0.18, darker(hub, 0.5), steps=10)
        return index

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest (x, y) of what is seen: clipped parts lie within others."""
        points = np.concatenate([part.points for part in self.parts if part.clip is None])
        return points.min(0), points.max(0)


@dataclass(frozen=True)
class Drawing:
    """What a class looks like once, and how large it stands: `width` or `height` as (low, high) share of the picture's.

    turn: radians against the clock; texture: how strong the surface's grain is, about 0 to 0.15.
    """

    pen: Pen
    look: str
    width: tuple[float, float] | None = None
    height: tuple[float, float] | None = None
    turn: float = 0.0
    texture: float = 0.04

    def __post_init__(self) -> None:
        if (self.width is None) == (self.height is None):
            raise ValueError(f"a drawing needs exactly one of width and height, got width={self.width}, height={self.height}")
        low, high = self.width or self.height
        if not 0 < low <= high:
            raise ValueError(f"a drawing's size must be (low, high) with 0 < low <= high, got {(low, high)}")
        if not self.pen.parts:
            raise ValueError(f"the drawing {self.look!r} has no parts: draw with its pen first")


@dataclass(frozen=True)
class Ink:
    """How parts are put on paper: outline width in pixels (0: none), strength of origami facets (0: none), colour change."""

    outline: float = 0.0
    facets: float = 0.0
    recolour: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class Stamp:
    """A rasterised pen: where it goes, its colour times its coverage, and its coverage.

    colour float32 (h, w, 3) in [0, 255], alpha float32 (h, w) in [0, 1]; row, column: its upper left corner in the picture.
    """

    row: int
    column: int
    colour: np.ndarray
    alpha: np.ndarray

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the picture that the stamp covers."""
        height, width = self.alpha.shape
        return slice(self.row, self.row + height), slice(self.column, self.column + width)


def placed_points(pen: Pen, *, x: float, y: float, scale: float, flip: bool = False, turn: float = 0.0) -> list[np.ndarray]:
    """The parts' points in pixels, the middle of the turned drawing's lower edge at column x, row y.   -> list of float (P, 2), x first"""
    sizes = [len(part.points) for part in pen.parts]
    seen = np.repeat([part.clip is None for part in pen.parts], sizes)
    low, high = pen.bounds()
    cos, sin = math.cos(turn), math.sin(turn)
    matrix = np.array([[cos, sin], [-sin, cos]]) @ np.diag([-scale if flip else scale, -scale])
    points = np.concatenate([part.points for part in pen.parts]) - (low + high) / 2
    points = points @ matrix
    least, most = points[seen].min(0), points[seen].max(0)
    points += np.array([x - (least[0] + most[0]) / 2, y - most[1]])
    return np.split(points, np.cumsum(sizes)[:-1])


def rasterise(pen: Pen, height: int, width: int, *, x: float, y: float, scale: float, flip: bool = False, turn: float = 0.0,
              ink: Ink | None = None) -> Stamp | None:
    """The pen as pixels of a (height, width) picture, drawn twice as large and averaged; None when it lies outside.

    x, y in pixels: the middle of its lower edge; scale: pixels per local unit.
    """
    ink = ink or Ink()
    shapes = placed_points(pen, x=x, y=y, scale=scale, flip=flip, turn=turn)
    points = np.concatenate([shape for part, shape in zip(pen.parts, shapes, strict=True) if part.clip is None])
    left, top = (math.floor(max(0.0, value - 2)) for value in points.min(0))
    right, bottom = (math.ceil(min(limit, value + 2)) for limit, value in zip((width, height), points.max(0), strict=True))
    if right - left < 2 or bottom - top < 2:
        return None
    image = Image.new("RGBA", ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING), (0, 0, 0, 0))
    shapes = [(shape - (left, top)) * SUPERSAMPLING for shape in shapes]
    paint_parts(image, pen.parts, shapes, ink)
    pixels = np.asarray(image.convert("RGBa").reduce(SUPERSAMPLING), np.float32)   # RGBa: averaging must not mix in the empty pixels
    return Stamp(top, left, pixels[..., :3], pixels[..., 3] / 255)


def paint_parts(image: Image.Image, parts: list[Part], shapes: list[np.ndarray], ink: Ink) -> None:
    """Paint the parts on the RGBA image from back to front; shapes: their points in the image's pixels, x first."""
    draw = ImageDraw.Draw(image)
    line = max(1, round(SUPERSAMPLING * ink.outline)) if ink.outline else 0
    for part, shape in zip(parts, shapes, strict=True):
        colour = part.colour if ink.recolour is None else ink.recolour(part.colour)
        fill = opaque(colour)
        if part.clip is not None:
            paste_inside(image, shape, shapes[part.clip], fill)
            continue
        corners = shape.ravel().tolist()
        draw.polygon(corners, fill=fill)
        if ink.facets and len(shape) >= 4:
            paint_facets(draw, shape, colour, ink.facets)
        if line:
            draw.line(corners + corners[:2], fill=opaque(colour * 0.35), width=line)


def opaque(colour: np.ndarray) -> tuple[int, int, int, int]:
    red, green, blue = (min(255, max(0, int(value))) for value in colour)
    return red, green, blue, 255


def paste_inside(image: Image.Image, shape: np.ndarray, frame: np.ndarray, fill: tuple[int, int, int, int]) -> None:
    """Paint a shape only where another shape is; both in the image's pixels, x first."""
    left, top = (math.floor(max(0.0, a, b)) for a, b in zip(shape.min(0), frame.min(0), strict=True))
    ends = zip(image.size, shape.max(0), frame.max(0), strict=True)
    right, bottom = (math.ceil(min(limit, a + 1, b + 1)) for limit, a, b in ends)
    if right <= left or bottom <= top:
        return
    masks = []
    for points in (shape, frame):
        mask = Image.new("L", (right - left, bottom - top), 0)
        ImageDraw.Draw(mask).polygon((points - (left, top)).ravel().tolist(), fill=255)
        masks.append(mask)
    image.paste(fill, (left, top), ImageChops.darker(*masks))


def paint_facets(draw: ImageDraw.ImageDraw, shape: np.ndarray, colour: np.ndarray, strength: float) -> None:
    """Six triangles of unlike brightness around the middle of a shape: folded paper."""
    middle = tuple(shape.mean(0))
    corners = [tuple(point) for point in shape]
    step = max(1, len(corners) // 6)
    for start in range(0, len(corners), step):
        end = min(start + step, len(corners))
        shade = 1 + strength * math.sin(2.3 * start / step + 1.0)
        draw.polygon([middle, *corners[start:end], corners[end % len(corners)]], fill=opaque(colour * shade))


# Textures: periodic noise of three kinds, eight sheets each, at three resolutions. A picture's side spans 320 texels of the finest.
SHEETS_PER_KIND = 8
TEXTURE_SIDE = 512
TEXELS_PER_PICTURE = 320
OCTAVES = (4, 8, 16, 32, 64, 128, 256, 512)
OCTAVE_WEIGHTS = {
    "mottled": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0),
    "smooth": (1.0, 1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.1),
    "fine": (0.0, 0.0, 0.1, 0.3, 0.6, 1.0, 1.0, 0.8),
}


@lru_cache(maxsize=1)
def texture_sheets() -> dict[str, list[list[np.ndarray]]]:
    """The constant stock of noise: kind -> sheets -> resolutions (full, half, quarter), float32 with mean 0 and deviation 1."""
    rng = np.random.default_rng(1234)
    return {kind: [resolutions(noise_sheet(rng, weights)) for _ in range(SHEETS_PER_KIND)] for kind, weights in OCTAVE_WEIGHTS.items()}


def noise_sheet(rng: np.random.Generator, weights: Sequence[float]) -> Image.Image:
    total = np.zeros((TEXTURE_SIDE, TEXTURE_SIDE), np.float32)
    for size, weight in zip(OCTAVES, weights, strict=True):
        grid = np.pad(rng.standard_normal((size, size)).astype(np.float32), 2, mode="wrap")   # wrapped: no seam where the sheet repeats
        cell = TEXTURE_SIDE // size
        border = 2 * cell
        smooth = Image.fromarray(grid).resize(((size + 4) * cell,) * 2, Image.Resampling.BICUBIC)
        total += weight * np.asarray(smooth)[border:border + TEXTURE_SIDE, border:border + TEXTURE_SIDE]
    return Image.fromarray(total)


def resolutions(sheet: Image.Image) -> list[np.ndarray]:
    levels = [np.asarray(sheet), np.asarray(sheet.reduce(2)), np.asarray(sheet.reduce(4))]
    return [(level - level.mean()) / level.std() for level in levels]


def texture(rng: np.random.Generator, height: int, width: int, *, side: float, kind: str | None = None, stretch: float = 1.0) -> np.ndarray:
    """Noise for a (height, width) patch of a picture whose side is `side` pixels: the same pattern at every picture size.

    stretch: how much longer the pattern is along the rows.   -> float32 (height, width), mean about 0, deviation about 1
    """
    choice, sheet, row, column = rng.random(4)   # always four numbers, so that the next texture does not depend on this one
    kind = kind or tuple(OCTAVE_WEIGHTS)[int(choice * len(OCTAVE_WEIGHTS))]
    step = TEXELS_PER_PICTURE / side
    level = min(2, max(0, int(math.log2(step)))) if step > 1 else 0
    values = texture_sheets()[kind][int(sheet * SHEETS_PER_KIND)][level]
    texels = len(values)
    step /= 2**level
    rows = (row * texels + np.arange(height) * step).astype(np.intp) % texels
    columns = (column * texels + np.arange(width) * (step / stretch)).astype(np.intp) % texels
    return values[rows].take(columns, axis=1)
