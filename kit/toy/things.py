"""What stands in a room: bottle, chair, diningtable, pottedplant, sofa and tvmonitor, drawn with the pen.

Every function takes a numpy Generator and returns a Drawing in local units: y up, the ground at y = 0.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from kit.toy.pen import PAINT, WOOD, Drawing, Pen, darker, lighter, pick, uniform

WHITE_CHINA = (245, 245, 245)
RED = (220, 60, 50)
YELLOW = (240, 190, 60)
DARK_METAL = (50, 50, 54)
STEEL = (120, 120, 124)


def bottle(rng: Generator) -> Drawing:
    """A wine bottle with a cork, or a plastic water bottle with a screw cap."""
    pen = Pen()
    label = pick(rng, [(240, 235, 220), (200, 50, 45), (50, 90, 180), (240, 200, 70), (60, 140, 80)])
    if rng.random() < 0.55:
        look = "wine"
        _wine_bottle(pen, rng, label)
    else:
        look = "water"
        _water_bottle(pen, rng, label)
    return Drawing(pen, look, width=None, height=(0.42, 0.75), turn=uniform(rng, -0.06, 0.06), texture=0.02)


def _wine_bottle(pen: Pen, rng: Generator, label: np.ndarray) -> None:
    glass = pick(rng, [(40, 90, 50), (90, 50, 25), (30, 50, 35), (120, 20, 40)])
    right = [(0.3, 0.0), (0.33, 0.2), (0.33, 1.1), (0.28, 1.3), (0.12, 1.55), (0.11, 2.0)]
    left = [(-x, y) for x, y in reversed(right)]
    body = pen.blob([*right, *left], glass, steps=3)
    pen.rect(-0.13, 1.85, 0.13, 2.1, pick(rng, [(200, 170, 120), (150, 30, 40), (30, 30, 30)]))  # cork or foil
    pen.rect(-0.34, 0.35, 0.34, 0.95, label, clip=body)
    pen.rect(-0.2, 0.58, 0.2, 0.64, darker(label, 0.5))
    pen.rect(-0.24, 1.0, -0.18, 1.3, lighter(glass, 0.5), clip=body)  # the light on the shoulder


def _water_bottle(pen: Pen, rng: Generator, label: np.ndarray) -> None:
    plastic = pick(rng, [(150, 205, 235), (120, 200, 150), (235, 150, 60), (190, 225, 240)])
    body = pen.rounded(-0.32, 0, 0.32, 1.35, 0.16, plastic)
    pen.poly([(-0.3, 1.25), (0.3, 1.25), (0.13, 1.62), (-0.13, 1.62)], plastic)
    pen.rect(-0.13, 1.6, 0.13, 1.7, lighter(plastic, 0.4))
    pen.rect(-0.16, 1.68, 0.16, 1.9, label)  # the cap has the colour of the label
    pen.rect(-0.33, 0.55, 0.33, 1.0, label, clip=body)
    for y in (0.2, 0.36, 1.14):
        pen.rect(-0.33, y, 0.33, y + 0.04, darker(plastic, 0.8), clip=body)
    pen.rect(-0.23, 0.1, -0.16, 1.25, lighter(plastic, 0.6), clip=body)


def chair(rng: Generator) -> Drawing:
    """A four-legged chair seen from a corner, or an office chair on castors."""
    pen = Pen()
    colour = pick(rng, [*WOOD, *PAINT[:6]])
    if rng.random() < 0.65:
        look = "chair"
        _four_legged_chair(pen, rng, colour)
    else:
        look = "office"
        _office_chair(pen, colour)
    return Drawing(pen, look, width=None, height=(0.42, 0.75), turn=uniform(rng, -0.04, 0.04), texture=0.04)


def _four_legged_chair(pen: Pen, rng: Generator, frame: np.ndarray) -> None:
    seat = pick(rng, PAINT) if rng.random() < 0.5 else frame
    far_frame = darker(frame, 0.75)
    pen.rect(-0.42, 0, -0.33, 0.8, far_frame)
    pen.rect(0.22, 0.08, 0.3, 0.8, far_frame)
    pen.rect(-0.42, 0.7, -0.3, 1.75, frame)
    pen.rect(0.18, 0.75, 0.28, 1.7, darker(frame, 0.9))
    if rng.random() < 0.5:
        for y in (1.05, 1.3, 1.52):
            pen.rect(-0.35, y, 0.22, y + 0.13, frame)
    else:
        pen.poly([(-0.38, 1.0), (0.24, 1.02), (0.26, 1.72), (-0.4, 1.76)], seat)
    pen.poly([(-0.45, 0.78), (0.36, 0.76), (0.52, 0.62), (-0.36, 0.62)], seat)
    pen.poly([(-0.36, 0.62), (0.52, 0.62), (0.52, 0.55), (-0.36, 0.55)], darker(seat, 0.75))
    pen.rect(-0.36, 0, -0.27, 0.6, frame)
    pen.rect(0.42, 0, 0.51, 0.6, frame)


def _office_chair(pen: Pen, padding: np.ndarray) -> None:
    for foot in (-0.5, 0, 0.5):
        pen.limb([(0, 0.25), (foot, 0.08)], 0.07, DARK_METAL)
        pen.ellipse(foot, 0.05, 0.06, 0.05, DARK_METAL, steps=8)
    pen.rect(-0.04, 0.2, 0.04, 0.7, STEEL)
    pen.rect(-0.05, 0.8, 0.05, 1.0, DARK_METAL)
    pen.rounded(-0.45, 0.65, 0.45, 0.82, 0.08, darker(padding, 0.85))  # the seat, seen edge on
    pen.rounded(-0.38, 0.95, 0.38, 1.75, 0.15, padding)
    for side in (-1, 1):
        pen.limb([(side * 0.45, 0.8), (side * 0.55, 1.05), (side * 0.3, 1.08)], 0.07, DARK_METAL)


def diningtable(rng: Generator) -> Drawing:
    """A table on four legs or on one foot, with or without a cloth, and up to three things laid on it."""
    pen = Pen()
    wood = pick(rng, WOOD)
    cloth = rng.random() < 0.3
    top = pick(rng, [(240, 238, 230), (200, 60, 60), (80, 120, 190), (240, 220, 150)]) if cloth else wood
    half_width = uniform(rng, 1.2, 1.6)
    depth = uniform(rng, 0.22, 0.4)
    if rng.random() < 0.7:
        _four_legged_table(pen, wood, top, half_width, depth, cloth=cloth)
    else:
        _round_table(pen, wood, top, half_width, depth)
    for _ in range(rng.integers(0, 4)):
        x = uniform(rng, -half_width * 0.6, half_width * 0.6)
        y = 0.97 + uniform(rng, 0.2, 0.6) * depth
        _lay_on_table(pen, rng, x, y)
    return Drawing(pen, "table", width=(0.5, 0.85), height=None, turn=uniform(rng, -0.02, 0.02), texture=0.06)


def _four_legged_table(pen: Pen, wood: np.ndarray, top: np.ndarray, half_width: float, depth: float, *, cloth: bool) -> None:
    for x in (-half_width * 0.86, half_width * 0.78):
        pen.rect(x, 0.15, x + 0.12, 0.9, darker(wood))
    for x in (-half_width * 0.97, half_width * 0.88):
        pen.rect(x, 0, x + 0.14, 0.95, wood)
    far_edge = half_width * 0.82
    pen.poly([(-half_width, 0.92), (half_width, 0.92), (far_edge, 0.92 + depth), (-far_edge, 0.92 + depth)], top)
    pen.rect(-half_width, 0.8, half_width, 0.92, darker(top, 0.78))
    if cloth:
        hem = half_width * 0.96
        pen.poly([(-half_width, 0.92), (half_width, 0.92), (hem, 0.55), (-hem, 0.55)], darker(top, 0.85))


def _round_table(pen: Pen, wood: np.ndarray, top: np.ndarray, half_width: float, depth: float) -> None:
    pen.rect(-0.12, 0.1, 0.12, 0.95, darker(wood))
    pen.ellipse(0, 0.08, 0.5, 0.1, darker(wood))
    pen.ellipse(0, 0.96, half_width * 0.95, depth * 0.55 + 0.02, darker(top, 0.75))
    pen.ellipse(0, 1.02, half_width * 0.95, depth * 0.55, top)


def _lay_on_table(pen: Pen, rng: Generator, x: float, y: float) -> None:
    """A plate of food, a glass or a bowl of fruit."""
    what = rng.integers(3)
    if what == 0:
        pen.ellipse(x, y, 0.2, 0.07, WHITE_CHINA, steps=14)
        pen.ellipse(x, y, 0.12, 0.04, pick(rng, [(200, 80, 60), (120, 170, 80), (235, 235, 235)]), steps=12)
    elif what == 1:
        pen.rect(x - 0.06, y, x + 0.06, y + 0.22, (200, 225, 235))
    else:
        pen.ellipse(x - 0.05, y + 0.17, 0.07, 0.07, RED, steps=8)
        pen.ellipse(x + 0.05, y + 0.17, 0.07, 0.07, YELLOW, steps=8)
        pen.ellipse(x, y + 0.08, 0.16, 0.1, pick(rng, PAINT), steps=12)


def pottedplant(rng: Generator) -> Drawing:
    """A leafy plant, a plant in flower or a cactus, in a pot."""
    pen = Pen()
    chance = rng.random()
    look = "leafy" if chance < 0.5 else "flower" if chance < 0.85 else "cactus"
    pot = pick(rng, [(190, 95, 55), (190, 95, 55), (235, 230, 220), (70, 110, 160), (60, 60, 64), (220, 180, 60)])
    green = pick(rng, [(50, 130, 60), (80, 150, 60), (40, 100, 60), (110, 160, 70)])
    if look == "cactus":
        _cactus(pen, green)
    else:
        _foliage(pen, rng, green, in_flower=look == "flower")
    pen.poly([(-0.38, 0.58), (0.38, 0.58), (0.27, 0), (-0.27, 0)], pot)
    pen.rect(-0.43, 0.52, 0.43, 0.68, darker(pot, 0.88))
    return Drawing(pen, look, width=None, height=(0.4, 0.75), turn=uniform(rng, -0.04, 0.04), texture=0.06)


def _cactus(pen: Pen, green: np.ndarray) -> None:
    pen.rounded(-0.16, 0.6, 0.16, 1.6, 0.16, green)
    pen.limb([(0.1, 1.0), (0.36, 1.02), (0.38, 1.32)], 0.16, green)
    pen.limb([(-0.1, 0.9), (-0.34, 0.92), (-0.36, 1.15)], 0.15, green)
    for x in (-0.07, 0.0, 0.07):
        pen.rect(x - 0.01, 0.7, x + 0.01, 1.5, lighter(green, 0.4))


def _foliage(pen: Pen, rng: Generator, green: np.ndarray, *, in_flower: bool) -> None:
    """Stems fan out from the pot's rim, each with one leaf; every second one carries a blossom when in flower."""
    petals = pick(rng, [(230, 70, 90), (245, 200, 60), (240, 240, 240), (200, 90, 190), (240, 130, 60)])
    leaf_length = 0.18 if in_flower else 0.26
    for stem in range(rng.integers(9, 15)):
        angle = uniform(rng, 0.15, np.pi - 0.15)
        length = uniform(rng, 0.5, 1.05)
        x, rise = length * np.cos(angle) * 0.85, length * np.sin(angle)
        pen.limb([(0, 0.6), (x * 0.5, 0.61 + rise * 0.6), (x, 0.62 + rise)], 0.035, darker(green))
        leaf = darker(green, uniform(rng, 0.75, 1.2))
        pen.ellipse(x * 0.85, 0.62 + rise * 0.85, leaf_length, 0.11, leaf, turn=angle + uniform(rng, -0.3, 0.3), steps=12)
        if in_flower and stem % 2 == 0:
            _blossom(pen, x, 0.62 + rise, petals)


def _blossom(pen: Pen, x: float, y: float, petals: np.ndarray) -> None:
    for angle in np.linspace(0, 2 * np.pi, 5, endpoint=False):
        pen.ellipse(x + 0.09 * np.cos(angle), y + 0.09 * np.sin(angle), 0.08, 0.08, petals, steps=8)
    heart = YELLOW if petals[2] > 90 else (150, 80, 40)  # a yellow heart would vanish among yellow petals
    pen.ellipse(x, y, 0.05, 0.05, heart, steps=8)


def sofa(rng: Generator) -> Drawing:
    """A sofa for two or three with arm rests and up to two cushions."""
    pen = Pen()
    cover = pick(rng, [*PAINT, (150, 110, 80), (190, 180, 165), (110, 120, 100)])
    half_width = uniform(rng, 1.3, 1.7)
    back = uniform(rng, 0.95, 1.15)
    seams = np.linspace(-half_width + 0.25, half_width - 0.25, rng.integers(2, 4) + 1)
    seats = list(zip(seams[:-1], seams[1:], strict=True))
    for x in (-half_width + 0.1, half_width - 0.2):
        pen.rect(x, 0, x + 0.1, 0.15, (70, 50, 35))
    pen.rounded(-half_width + 0.1, 0.3, half_width - 0.1, back, 0.18, darker(cover, 0.85))
    for left, right in seats:
        pen.rounded(left + 0.01, 0.5, right - 0.01, back - 0.04, 0.12, cover)
    pen.rect(-half_width + 0.1, 0.1, half_width - 0.1, 0.4, darker(cover, 0.75))
    for left, right in seats:
        pen.rounded(left + 0.01, 0.36, right - 0.01, 0.58, 0.08, lighter(cover, 0.12))
    pen.rounded(-half_width, 0.1, -half_width + 0.32, 0.8, 0.14, darker(cover, 0.93))
    pen.rounded(half_width - 0.32, 0.1, half_width, 0.8, 0.14, darker(cover, 0.93))
    for _ in range(rng.integers(0, 3)):
        x = uniform(rng, -half_width * 0.6, half_width * 0.6)
        pen.rounded(x - 0.2, 0.55, x + 0.2, 0.92, 0.08, pick(rng, PAINT))
    return Drawing(pen, "sofa", width=(0.55, 0.9), height=None, turn=uniform(rng, -0.02, 0.02), texture=0.07)


def tvmonitor(rng: Generator) -> Drawing:
    """A wide television or a narrower computer monitor on its foot, a landscape or a sheen of light on the screen."""
    pen = Pen()
    look = "tv" if rng.random() < 0.6 else "monitor"
    half_width = 1.0 if look == "tv" else 0.8
    case = pick(rng, [(35, 35, 38), (35, 35, 38), (190, 190, 194), (120, 85, 55)])
    glow = pick(rng, [(30, 35, 45), (70, 130, 200), (60, 160, 110), (200, 120, 70), (120, 90, 180)])
    pen.poly([(-0.35, 0), (0.35, 0), (0.3, 0.07), (-0.3, 0.07)], case)
    pen.rect(-0.08, 0.05, 0.08, 0.3, darker(case, 0.8))
    pen.rounded(-half_width, 0.25, half_width, 1.49, 0.07, case)
    screen = pen.rect(-half_width + 0.09, 0.36, half_width - 0.09, 1.4, glow)
    if rng.random() < 0.6:
        hills = [(half_width, 0.2, 0.5), (0, 0.2, 0.6), (-half_width, 0.2, 0.5)]
        ridge = [(x, 0.36 + uniform(rng, low, high)) for x, low, high in hills]
        pen.poly([(-half_width, 0.36), (half_width, 0.36), *ridge], pick(rng, [(60, 130, 60), (220, 190, 120), (40, 60, 110)]), clip=screen)
        pen.ellipse(uniform(rng, -0.5, 0.5), 1.05, 0.12, 0.12, (250, 220, 120), clip=screen)
    else:
        sheen = [(-half_width + 0.09, 0.6), (-0.2, 1.4), (0.1, 1.4), (-half_width + 0.3, 0.36), (-half_width + 0.09, 0.36)]
        pen.poly(sheen, lighter(glow, 0.25), clip=screen)
    pen.ellipse(half_width - 0.12, 0.3, 0.03, 0.03, RED, steps=6)  # the stand-by light
    return Drawing(pen, look, width=(0.38, 0.72), height=None, turn=uniform(rng, -0.02, 0.02), texture=0.02)


THINGS: dict[str, Callable[[Generator], Drawing]] = {
    "bottle": bottle,
    "chair": chair,
    "diningtable": diningtable,
    "pottedplant": pottedplant,
    "sofa": sofa,
    "tvmonitor": tvmonitor,
}
