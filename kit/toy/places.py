"""The places of the drawn world and what stands in them, painted together with their truth.

Everything is laid out in shares of the picture (x of its width, y of its height, both from the upper left corner), so that a
place looks the same at every picture size. Each call that paints colour also names the stuff it paints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from kit.toy.pen import PAINT, WOOD, Pen, Stamp, darker, jitter, lighter, pick, rasterise, texture, uniform

STUFF = ("object", "sky", "cloud", "sea", "lake", "grass", "road", "railroad", "tree", "building", "house", "mountain", "rock", "ground",
         "wall", "floor", "beach", "sign", "bridge", "fence", "lamp", "paper", "picture", "window", "carpet", "flowers")
STUFF_ID = {name: index for index, name in enumerate(STUFF)}

Choice = TypeVar("Choice")


def weighted(rng: np.random.Generator, weights: Mapping[Choice, float]) -> Choice:
    """One of the keys, each as likely as its weight."""
    mark = rng.random() * sum(weights.values())
    for choice, weight in weights.items():
        mark -= weight
        if mark < 0:
            return choice
    return choice


class Canvas:
    """A picture in the making and its stuff map.

    colour float32 (H, W, 3) in [0, 255]; stuff uint8 (H, W), index into STUFF; rng lays things out, grain only textures them.
    ground: the (highest, lowest) row share at which things can stand; rail: the row share of the tracks, if there are any.
    """

    def __init__(self, rng: np.random.Generator, grain: np.random.Generator, height: int, width: int, *, roughness: float = 1.0) -> None:
        self.rng, self.grain = rng, grain
        self.height, self.width = height, width
        self.side = (height + width) / 2
        self.roughness = roughness
        self.colour = np.zeros((height, width, 3), np.float32)
        self.stuff = np.zeros((height, width), np.uint8)
        self.ground = (0.6, 0.95)
        self.rail: float | None = None

    def texture(self, height: int, width: int, kind: str | None = None, stretch: float = 1.0) -> np.ndarray:
        return texture(self.grain, height, width, side=self.side, kind=kind, stretch=stretch)

    def band(self, stuff: str, top: float, colour: ArrayLike, end_colour: ArrayLike | None = None, *, bottom: float = 1.0,
             rough: float = 0.05, kind: str | None = None, stretch: float = 1.0, wave: float = 0.0) -> None:
        """Fill from `top` to `bottom` with a gradient; wave: how far the upper edge goes up and down."""
        height, width, rng = self.height, self.width, self.rng
        edge = np.full(width, top, np.float32)
        if wave:
            along = np.arange(width, dtype=np.float32) / width
            for frequency in (1.0, 2.3, 4.1):
                speed, phase = uniform(rng, 0.5, 1.2), uniform(rng, 0, 6)
                edge += wave / frequency * np.sin(2 * np.pi * frequency * speed * along + phase)
        first = min(height, max(0, int((top - 2 * wave) * height) - 1))
        last = height if bottom >= 1 else min(height, int(bottom * height) + 2)
        grain = self.texture(last - first, width, kind, stretch)
        rows = np.arange(first, last, dtype=np.float32)[:, None]
        cover = np.clip(rows - edge * height + 0.5, 0, 1)   # (rows, W): half-covered pixels at the edge
        if bottom < 1:
            cover *= np.clip(bottom * height - rows + 0.5, 0, 1)
        part = np.clip((rows / height - top) / max(1e-3, bottom - top), 0, 1)[..., None]
        start = np.asarray(colour, np.float32)
        end = start if end_colour is None else np.asarray(end_colour, np.float32)
        shade = start + (end - start) * part
        region = self.colour[first:last]
        region += cover[..., None] * (shade * (1 + self.roughness * rough * grain)[..., None] - region)
        self.stuff[first:last][cover > 0.5] = STUFF_ID[stuff]

    def item(self, stuff: str, pen: Pen, x: float, y: float, *, width: float | None = None, height: float | None = None, turn: float = 0.0,
             rough: float = 0.05) -> None:
        """Stamp a thing whose lower edge has its middle at (x, y); exactly one of width and height, in shares."""
        low, high = pen.bounds()
        scale = width * self.width / (high - low)[0] if height is None else height * self.height / (high - low)[1]
        flip = bool(self.rng.random() < 0.5)
        stamp = rasterise(pen, self.height, self.width, x=x * self.width, y=y * self.height, scale=scale, flip=flip, turn=turn)
        shape = (1, 1) if stamp is None else stamp.alpha.shape
        grain = self.texture(*shape) if rough else None   # drawn for unseen things too: the next grain is then the same at every size
        if stamp is None:
            return
        self.put(stamp, stamp.colour if grain is None else stamp.colour * (1 + self.roughness * rough * grain)[..., None])
        self.stuff[stamp.window][stamp.alpha > 0.5] = STUFF_ID[stuff]

    def put(self, stamp: Stamp, colour: np.ndarray) -> None:
        """Lay a stamp's (perhaps shaded) colour over the picture."""
        region = self.colour[stamp.window]
        region *= 1 - stamp.alpha[..., None]
        region += colour

    def shade(self, factor: ArrayLike) -> None:
        """Multiply the colours by a factor that fits (H, W)."""
        self.colour *= np.asarray(factor, np.float32)[..., None]

    def dots(self, stuff: str, points: ArrayLike, colour: ArrayLike) -> None:
        """Small squares at (x, y) shares."""
        size = max(1, round(self.side / 72))
        for x, y in points:
            window = slice(int(y * self.height), int(y * self.height) + size), slice(int(x * self.width), int(x * self.width) + size)
            self.colour[window] = colour
            self.stuff[window] = STUFF_ID[stuff]

    def row_shares(self) -> np.ndarray:
        return (np.arange(self.height, dtype=np.float32)[:, None] + 0.5) / self.height

    def column_shares(self) -> np.ndarray:
        return (np.arange(self.width, dtype=np.float32)[None, :] + 0.5) / self.width


# Things that stand in places; like the drawings of the classes, in local units.

def tree(rng: np.random.Generator) -> Pen:
    pen, green = Pen(), pick(rng, [(50, 110, 50), (70, 130, 55), (40, 90, 50), (110, 130, 50), (170, 110, 40)])
    if rng.random() < 0.6:
        pen.rect(-0.1, 0, 0.1, 0.9, (95, 65, 42))
        for _ in range(9):
            angle, distance = uniform(rng, 0, 2 * np.pi), uniform(rng, 0.1, 0.5)
            x, y = distance * np.cos(angle), 1.3 + 0.9 * distance * np.sin(angle)
            pen.ellipse(x, y, 0.36, 0.32, green * uniform(rng, 0.8, 1.15), steps=12)
    else:
        pen.rect(-0.08, 0, 0.08, 0.4, (85, 60, 42))
        for tier in range(4):
            low, half = 0.3 + tier * 0.42, 0.62 - 0.13 * tier
            pen.poly([(-half, low), (half, low), (0, low + 0.75)], green * (1 - 0.05 * tier))
    return pen


def house(rng: np.random.Generator) -> Pen:
    pen = Pen()
    pen.rect(-0.8, 0, 0.8, 1, pick(rng, [(220, 200, 170), (200, 120, 90), (235, 230, 220), (170, 180, 190), (225, 190, 110)]))
    ridge = 0.0 if rng.random() < 0.6 else 0.5
    pen.poly([(-0.95, 1), (0.95, 1), (ridge, 1.7), (0, 1.7)], pick(rng, [(150, 60, 50), (90, 80, 80), (110, 70, 50)]))
    pen.rect(-0.12, 0, 0.18, 0.55, (100, 65, 40))
    for x in (-0.6, 0.35):
        pen.rect(x, 0.4, x + 0.3, 0.7, (130, 170, 190))
    return pen


def building(rng: np.random.Generator) -> Pen:
    pen, height, half = Pen(), uniform(rng, 1.6, 3.4), uniform(rng, 0.7, 1.1)
    pen.rect(-half, 0, half, height, pick(rng, [(150, 145, 145), (180, 160, 140), (120, 130, 145), (190, 110, 90), (205, 200, 190)]))
    glass = pick(rng, [(90, 115, 140), (220, 210, 150), (70, 80, 95)])
    for y in np.arange(0.25, height - 0.2, 0.4):
        for x in np.arange(-half + 0.15, half - 0.2, 0.38):
            pen.rect(x, y, x + 0.22, y + 0.24, glass)
    return pen


def rock(rng: np.random.Generator) -> Pen:
    pen, stone = Pen(), pick(rng, [(130, 125, 120), (150, 135, 115), (105, 105, 110)])
    pen.poly([(-1, 0), (-0.8, 0.5), (-0.3, 0.85), (0.3, 0.7), (0.8, 0.45), (1, 0)], stone)
    pen.poly([(-0.3, 0.85), (0.3, 0.7), (0.1, 0.2), (-0.4, 0.3)], lighter(stone, 0.2))
    return pen


def mountain(rng: np.random.Generator) -> Pen:
    pen, stone, top = Pen(), pick(rng, [(120, 125, 140), (110, 120, 110), (140, 120, 105), (95, 110, 135)]), uniform(rng, 0.6, 1.0)
    shape = pen.poly([(-1.2, 0), (-0.5, top * 0.6), (-0.1, top), (0.25, top * 0.75), (0.6, top * 0.82), (1.3, 0)], stone)
    pen.poly([(-0.1, top), (0.25, top * 0.75), (0.15, 0), (0.9, 0), (0.6, top * 0.82)], darker(stone, 0.85), clip=shape)
    if rng.random() < 0.4:
        snow = [(-0.35, 0.72), (-0.1, 1), (0.12, 0.84), (0, 0.74), (-0.12, 0.8), (-0.22, 0.7)]
        pen.poly([(x, y * top) for x, y in snow], (245, 246, 250))
    return pen


def cloud(rng: np.random.Generator) -> Pen:
    pen, white = Pen(), jitter(rng, (248, 249, 252), 5)
    for _ in range(7):
        x, y, rx, ry = (uniform(rng, *span) for span in ((-0.8, 0.8), (0.1, 0.45), (0.25, 0.45), (0.18, 0.3)))
        pen.ellipse(x, y, rx, ry, white, steps=14)
    return pen


def fence(rng: np.random.Generator) -> Pen:
    pen, wood = Pen(), pick(rng, [(150, 115, 80), (235, 232, 225)])
    for x in np.arange(-4, 4.1, 0.8):
        pen.rect(x - 0.08, 0, x + 0.08, 1, wood)
    for y in (0.3, 0.7):
        pen.rect(-4.2, y, 4.2, y + 0.12, wood)
    return pen


def lamp(rng: np.random.Generator) -> Pen:
    pen, metal = Pen(), jitter(rng, (70, 70, 74), 6)
    pen.rect(-0.05, 0, 0.05, 2.6, metal)
    pen.limb([(0, 2.6), (0.4, 2.7)], 0.07, metal)
    pen.ellipse(0.45, 2.64, 0.14, 0.08, (250, 240, 190))
    return pen


def sign(rng: np.random.Generator) -> Pen:
    pen, colour, shape, white = Pen(), pick(rng, [(210, 50, 45), (50, 90, 180), (245, 200, 50)]), rng.integers(3), (245, 245, 245)
    pen.rect(-0.05, 0, 0.05, 1.6, (120, 120, 124))
    if shape == 0:
        pen.ellipse(0, 1.85, 0.4, 0.4, colour)
        pen.rect(-0.25, 1.78, 0.25, 1.92, white)
    elif shape == 1:
        pen.poly([(-0.45, 1.5), (0.45, 1.5), (0, 2.3)], colour)
        pen.poly([(-0.25, 1.6), (0.25, 1.6), (0, 2.05)], white)
    else:
        pen.rounded(-0.5, 1.5, 0.5, 2.1, 0.05, colour)
        pen.rect(-0.35, 1.75, 0.35, 1.85, white)
    return pen


def picture(rng: np.random.Generator) -> Pen:
    pen = Pen()
    pen.rect(-0.6, 0, 0.6, 0.9, pick(rng, WOOD))
    pen.rect(-0.48, 0.1, 0.48, 0.8, pick(rng, PAINT))
    pen.poly([(-0.48, 0.1), (0.48, 0.1), (0.2, 0.5), (-0.2, 0.3)], pick(rng, [(70, 130, 70), (220, 200, 150), (60, 90, 150)]))
    return pen


def window(rng: np.random.Generator) -> Pen:
    pen, frame, glass = Pen(), pick(rng, [(240, 240, 240), (140, 100, 65)]), pick(rng, [(170, 210, 240), (60, 70, 110), (200, 225, 240)])
    pen.rect(-0.6, 0, 0.6, 1.3, frame)
    for x in (-0.5, 0.04):
        pen.rect(x, 0.1, x + 0.46, 1.2, glass)
    pen.rect(-0.5, 0.6, 0.5, 0.66, frame)
    return pen


def bridge(rng: np.random.Generator) -> Pen:
    pen, stone = Pen(), pick(rng, [(150, 140, 130), (170, 80, 60), (120, 125, 130)])
    pen.rect(-3, 0.9, 3, 1.2, stone)
    for x in (-2.2, -0.8, 0.8, 2.2):
        pen.rect(x - 0.15, 0, x + 0.15, 0.95, darker(stone, 0.85))
    pen.limb([(-3, 1.3), (-1.5, 2), (0, 1.3), (1.5, 2), (3, 1.3)], 0.1, stone)
    return pen


def ripple(rng: np.random.Generator, colour: np.ndarray) -> Pen:
    pen, half = Pen(), uniform(rng, 0.3, 1)
    pen.blob([(-half, 0), (0, 0.06), (half, 0), (0, -0.02)], colour)
    return pen


def lane_marking(rng: np.random.Generator) -> Pen:
    pen, colour = Pen(), (245, 240, 225) if rng.random() < 0.6 else (235, 190, 60)
    for x in np.arange(-3, 3.1, 1):
        pen.poly([(x, 0), (x + 0.5, 0), (x + 0.56, 0.09), (x + 0.06, 0.09)], colour)
    return pen


def track(rng: np.random.Generator) -> Pen:
    pen, slant = Pen(), uniform(rng, 0.07, 0.24) * (1 if rng.random() < 0.5 else -1)
    for x in np.arange(-4, 4.1, 0.34):
        pen.poly([(x, 0), (x + 0.16, 0), (x + 0.16 + slant, 0.34), (x + slant, 0.34)], (92, 66, 48))
    for y in (0.05, 0.25):
        pen.rect(-4.3, y, 4.3, y + 0.035, (175, 178, 184))
        pen.rect(-4.3, y - 0.015, 4.3, y, (90, 85, 85))
    return pen


def carpet(rng: np.random.Generator) -> Pen:
    pen, colour = Pen(), pick(rng, PAINT)
    pen.ellipse(0, 0.1, 1, 0.2, colour, steps=30)
    pen.ellipse(0, 0.1, 0.8, 0.15, lighter(colour, 0.3), steps=30)
    return pen


# What several places share.

def paint_sky(canvas: Canvas, horizon: float) -> None:
    rng = canvas.rng
    clear, hazy, evening, deep = (((70, 125, 205), (165, 205, 240)), ((140, 165, 190), (205, 215, 222)), ((90, 110, 170), (250, 190, 140)),
                                  ((45, 95, 185), (120, 175, 230)))
    top, low = weighted(rng, {clear: 0.55, hazy: 0.2, evening: 0.15, deep: 0.1})
    canvas.band("sky", -0.01, jitter(rng, top, 10), jitter(rng, low, 10), bottom=horizon + 0.05, rough=0.012, kind="smooth")
    for _ in range(rng.integers(0, 4 if horizon < 0.9 else 6)):
        x, y = uniform(rng, 0, 1), uniform(rng, 0.08, max(0.12, horizon * 0.75))
        canvas.item("cloud", cloud(rng), x, y, width=uniform(rng, 0.15, 0.45), rough=0.015)


# what stands on the horizon: how many, how large (a mountain by its width, all else by its height), how far below the horizon, how rough
SKYLINE: dict[str, tuple[Callable[[np.random.Generator], Pen], tuple[int, int], str, tuple[float, float], float, float]] = {
    "tree": (tree, (2, 8), "height", (0.14, 0.34), 0.015, 0.15),
    "mountain": (mountain, (1, 4), "width", (0.45, 0.9), 0.02, 0.06),
    "building": (building, (3, 7), "height", (0.18, 0.42), 0.02, 0.04),
    "house": (house, (1, 4), "height", (0.14, 0.26), 0.02, 0.04),
}


def paint_skyline(canvas: Canvas, horizon: float, weights: Mapping[str, float]) -> None:
    """A row of one kind of thing on the horizon; weights over the keys of SKYLINE and "none"."""
    rng = canvas.rng
    kind = weighted(rng, weights)
    if kind == "none":
        return
    thing, count, measure, size, depth, rough = SKYLINE[kind]
    for _ in range(rng.integers(*count)):
        x = uniform(rng, -0.05, 1.05)
        canvas.item(kind, thing(rng), x, horizon + depth, rough=rough, **{measure: uniform(rng, *size)})


# The places.

def sky(canvas: Canvas) -> None:
    """Nothing but sky and perhaps clouds."""
    paint_sky(canvas, 1.05)
    canvas.ground = (0.25, 0.9)


def sea(canvas: Canvas) -> None:
    """Open water under the sky, sometimes mountains behind it or a beach before it."""
    rng, horizon = canvas.rng, uniform(canvas.rng, 0.3, 0.55)
    paint_sky(canvas, horizon)
    paint_skyline(canvas, horizon, {"mountain": 0.25, "none": 0.75})
    water = pick(rng, [(35, 95, 150), (40, 120, 150), (60, 130, 170), (70, 105, 125)])
    canvas.band("sea", horizon, lighter(water, 0.25), darker(water, 0.85), rough=0.09, kind="fine", stretch=5)
    for _ in range(rng.integers(3, 12)):
        x, y = uniform(rng, 0, 1), uniform(rng, horizon + 0.04, 1)
        canvas.item("sea", ripple(rng, lighter(water, 0.55)), x, y, width=uniform(rng, 0.05, 0.16) * (0.5 + y), rough=0)
    if rng.random() < 0.2:
        canvas.band("beach", uniform(rng, 0.85, 0.94), (225, 205, 160), (205, 180, 135), kind="fine", wave=0.012)
    canvas.ground = (horizon + 0.1, 0.95)


def lake(canvas: Canvas) -> None:
    """Still water between grassy banks, trees or mountains behind it, sometimes a bridge."""
    rng, horizon = canvas.rng, uniform(canvas.rng, 0.25, 0.42)
    paint_sky(canvas, horizon)
    paint_skyline(canvas, horizon, {"tree": 0.5, "mountain": 0.5})
    green = pick(rng, [(90, 145, 60), (110, 140, 70)])
    canvas.band("grass", horizon, green, rough=0.1, kind="fine", wave=0.01)
    shore = horizon + uniform(rng, 0.04, 0.1)
    water = pick(rng, [(60, 110, 130), (70, 125, 120), (50, 100, 110), (90, 130, 150)])
    canvas.band("lake", shore, lighter(water, 0.2), water, kind="smooth", stretch=4, wave=0.008)
    if rng.random() < 0.25:
        canvas.item("bridge", bridge(rng), 0.5, shore + 0.05, width=uniform(rng, 0.8, 1.3))
    if rng.random() < 0.45:
        canvas.band("grass", uniform(rng, 0.88, 0.95), green, darker(green, 0.8), rough=0.12, kind="fine", wave=0.015)
    canvas.ground = (shore + 0.1, 0.9)


def grass(canvas: Canvas) -> None:
    """A meadow, sometimes with a fence or flowers."""
    rng, horizon = canvas.rng, uniform(canvas.rng, 0.22, 0.5)
    paint_sky(canvas, horizon)
    paint_skyline(canvas, horizon, {"tree": 0.32, "mountain": 0.2, "building": 0.16, "house": 0.12, "none": 0.2})
    green = pick(rng, [(85, 150, 55), (110, 160, 60), (70, 125, 50), (150, 160, 80)])
    wave = 0.015 if rng.random() < 0.5 else 0.0
    canvas.band("grass", horizon, lighter(green, 0.12), darker(green, 0.85), rough=0.12, kind="fine", wave=wave)
    if rng.random() < 0.25:
        canvas.item("fence", fence(rng), 0.5, horizon + uniform(rng, 0.04, 0.12), height=uniform(rng, 0.1, 0.16))
    if rng.random() < 0.35:
        colour, count = pick(rng, [(245, 220, 80), (240, 240, 245), (220, 90, 120)]), rng.integers(6, 20)
        canvas.dots("flowers", rng.uniform((0, horizon + 0.08), (0.99, 0.99), (count, 2)), colour)
    canvas.ground = (horizon + 0.2, 0.97)


def road(canvas: Canvas) -> None:
    """A street seen from the side: a verge, tarmac with markings, sometimes a lamp or a sign."""
    rng, horizon = canvas.rng, uniform(canvas.rng, 0.28, 0.48)
    paint_sky(canvas, horizon)
    paint_skyline(canvas, horizon, {"building": 0.45, "house": 0.2, "tree": 0.25, "mountain": 0.1})
    verge, verge_colour = weighted(rng, {("ground", (175, 172, 168)): 1, ("grass", (105, 145, 70)): 1, ("ground", (190, 180, 165)): 1})
    canvas.band(verge, horizon, jitter(rng, verge_colour), rough=0.06, kind="fine")
    kerb = horizon + uniform(rng, 0.08, 0.2)
    tarmac = pick(rng, [(85, 86, 90), (105, 105, 108), (70, 70, 75)])
    canvas.band("road", kerb, tarmac, darker(tarmac, 0.9), kind="fine")
    canvas.band("road", kerb - 0.012, (200, 198, 194), bottom=kerb + 0.006, rough=0.03)
    if rng.random() < 0.8:
        x, y = 0.5 + uniform(rng, -0.1, 0.1), (kerb + 1) / 2 + uniform(rng, -0.04, 0.06)
        canvas.item("road", lane_marking(rng), x, y, width=1.4, turn=uniform(rng, -0.01, 0.01), rough=0.02)
    if rng.random() < 0.35:
        canvas.item("lamp", lamp(rng), uniform(rng, 0.05, 0.95), kerb, height=uniform(rng, 0.25, 0.5))
    if rng.random() < 0.3:
        canvas.item("sign", sign(rng), uniform(rng, 0.05, 0.95), kerb + 0.01, height=uniform(rng, 0.16, 0.3))
    canvas.ground = (kerb + 0.08, 0.96)


def railroad(canvas: Canvas) -> None:
    """A gravel bed with tracks before a field."""
    rng, horizon = canvas.rng, uniform(canvas.rng, 0.28, 0.5)
    paint_sky(canvas, horizon)
    paint_skyline(canvas, horizon, {"tree": 0.4, "mountain": 0.25, "building": 0.2, "none": 0.15})
    field, field_colour = weighted(rng, {("grass", (130, 150, 80)): 1, ("ground", (150, 135, 105)): 1, ("grass", (110, 140, 70)): 1})
    canvas.band(field, horizon, jitter(rng, field_colour), rough=0.1, kind="fine")
    bed = uniform(rng, 0.68, 0.8)
    gravel = pick(rng, [(135, 125, 118), (150, 138, 122), (115, 110, 108)])
    canvas.band("railroad", bed, gravel, darker(gravel, 0.9), rough=0.16, kind="fine")
    low = bed + uniform(rng, 0.14, 0.22) + uniform(rng, 0.0, 0.05)
    canvas.item("railroad", track(rng), 0.5, low, width=uniform(rng, 2.2, 3.0), rough=0.04)
    canvas.rail = low - 0.07
    canvas.ground = (bed + 0.03, 0.97)


def indoor(canvas: Canvas) -> None:
    """A room: a wall with pictures and windows, a floor, sometimes a carpet."""
    rng, corner = canvas.rng, uniform(canvas.rng, 0.55, 0.78)
    wall = pick(rng, [(225, 215, 195), (200, 210, 215), (190, 205, 180), (235, 225, 215), (215, 180, 165), (170, 185, 205),
                      (240, 235, 225)])
    canvas.band("wall", -0.01, wall, darker(wall, 0.93), rough=0.02, kind="smooth")
    paper = weighted(rng, {"stripes": 0.25, "bricks": 0.15, "plain": 0.6})
    if paper == "stripes":
        stripe = np.floor(canvas.column_shares() / uniform(rng, 0.03, 0.07)) % 2
        canvas.shade(1 - 0.07 * stripe)
    elif paper == "bricks":
        canvas.shade(np.where(mortar(canvas), 0.85, 1.0))
    for _ in range(rng.integers(0, 3)):
        kind, thing = ("picture", picture) if rng.random() < 0.55 else ("window", window)
        x, y = uniform(rng, 0.08, 0.92), uniform(rng, 0.28, 0.45)
        canvas.item(kind, thing(rng), x, y, height=uniform(rng, 0.14, 0.26), rough=0.02)
    floor = pick(rng, [(165, 115, 70), (120, 80, 50), (190, 150, 105), (180, 175, 170), (150, 70, 70), (110, 120, 140)])
    canvas.band("floor", corner, floor, darker(floor, 0.82), kind="mottled", stretch=6)
    canvas.band("wall", corner - 0.02, lighter(wall, 0.5), bottom=corner + 0.004, rough=0)
    wooden = floor[0] > floor[2] + 35
    if wooden and rng.random() < 0.8:
        below = (canvas.row_shares() - corner) / 0.055
        canvas.shade(np.where((below > 0) & (below % 1 < 0.16), 0.78, 1.0))
    elif rng.random() < 0.5:
        canvas.item("carpet", carpet(rng), uniform(rng, 0.3, 0.7), uniform(rng, 0.9, 0.98), width=uniform(rng, 0.5, 0.8))
    canvas.ground = (corner + 0.06, 0.97)


def mortar(canvas: Canvas) -> np.ndarray:
    """Where the joints of a brick wall are.   -> bool (H, W)"""
    row, column = canvas.row_shares() / 0.045, canvas.column_shares() / 0.1
    shifted = column + 0.5 * (np.floor(row) % 2)
    return (row % 1 < 0.18) | (shifted % 1 < 0.08)


def ground(canvas: Canvas) -> None:
    """Bare earth or sand, sometimes with rocks."""
    rng, horizon = canvas.rng, uniform(canvas.rng, 0.28, 0.5)
    paint_sky(canvas, horizon)
    paint_skyline(canvas, horizon, {"mountain": 1, "none": 1, "tree": 1})
    earth = pick(rng, [(205, 180, 135), (170, 140, 105), (190, 165, 130), (150, 130, 110)])
    canvas.band("ground", horizon, lighter(earth, 0.1), darker(earth, 0.88), rough=0.07, kind="fine", wave=0.01)
    for _ in range(rng.integers(0, 5)):
        x, y = uniform(rng, 0, 1), uniform(rng, horizon + 0.08, 0.98)
        canvas.item("rock", rock(rng), x, y, width=uniform(rng, 0.08, 0.22), rough=0.1)
    canvas.ground = (horizon + 0.2, 0.96)


def forest(canvas: Canvas) -> None:
    """Trees before a dark wood, and a floor of grass."""
    rng, horizon = canvas.rng, uniform(canvas.rng, 0.35, 0.55)
    paint_sky(canvas, horizon)
    green = pick(rng, [(70, 110, 50), (90, 120, 60), (110, 100, 60)])
    canvas.band("tree", horizon - 0.12, darker(green, 0.55), darker(green, 0.6), rough=0.2, kind="fine", wave=0.03)
    canvas.band("grass", horizon + 0.05, green, darker(green, 0.8), rough=0.14, kind="fine")
    for _ in range(rng.integers(5, 11)):
        x, y = uniform(rng, 0, 1), uniform(rng, horizon + 0.04, 0.75)
        canvas.item("tree", tree(rng), x, y, height=uniform(rng, 0.3, 0.6) * (0.6 + 0.6 * y), rough=0.15)
    canvas.ground = (0.7, 0.97)


def plain(canvas: Canvas) -> None:
    """A sheet of coloured paper."""
    sheet = pick(canvas.rng, [(245, 244, 240), (235, 225, 205), (215, 225, 235), (235, 215, 215), (220, 230, 215), (60, 62, 68)])
    canvas.band("paper", -0.01, sheet, darker(sheet, 0.95), rough=0.012, kind="smooth")
    canvas.ground = (0.6, 0.9)


PAINTERS: dict[str, Callable[[Canvas], None]] = {
    "sky": sky, "sea": sea, "lake": lake, "grass": grass, "road": road, "railroad": railroad, "indoor": indoor, "ground": ground,
    "forest": forest, "plain": plain,
}
PLACES = tuple(PAINTERS)
OUTSIDE_PAPER = tuple(name for name in PLACES if name != "plain")
