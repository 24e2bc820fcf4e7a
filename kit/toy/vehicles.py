"""The vehicles of the drawn world: seen from the side and facing right, but for the aeroplane seen from above.

A part that is kept inside another one never reaches past it, so the bounds of a drawing are the bounds of what one sees.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike

from kit.toy.pen import GLASS, PAINT, SKIN, Drawing, Pen, darker, jitter, lighter, pick, uniform

RUBBER = (35, 35, 38)
BLACK = (45, 45, 48)
STEEL = (165, 168, 172)
WHITE = (240, 240, 240)
HEADLAMP = (255, 242, 180)
TAIL_LAMP = (195, 40, 38)
OAR = (150, 105, 60)


def _one_of(rng: np.random.Generator, *looks: tuple[Callable[[np.random.Generator], Drawing], float]) -> Drawing:
    """A drawing by one of the functions, each taken with the probability beside it."""
    functions, shares = zip(*looks, strict=True)
    return functions[rng.choice(len(functions), p=shares)](rng)


def _windows(pen: Pen, lefts: Iterable[float], bottom: float, top: float, width: float, colour: ArrayLike) -> None:
    for left in lefts:
        pen.rounded(left, bottom, left + width, top, 0.05, colour)


def _glass_on(rng: np.random.Generator, colour: ArrayLike, paint: np.ndarray) -> np.ndarray:
    """The colour of glass, darkened where windows would vanish in a paint much like it."""
    glass = jitter(rng, colour)
    return darker(glass, 0.6) if np.abs(glass - paint).max() < 55 else glass


def _aeroplane_paint(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours of the hull, of the tail and trim, and of the glass."""
    hull = pick(rng, [(235, 237, 240), (235, 237, 240), (200, 205, 212), (70, 110, 180), (200, 60, 50), (240, 200, 80)])
    return hull, pick(rng, PAINT), jitter(rng, (70, 95, 120))


def _airliner(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim, glass = _aeroplane_paint(rng)
    belly = uniform(rng, 0.84, 1.16)
    pen.poly([(-1.55, 1.2), (-1.15, 1.15), (-1.5, 0.15), (-1.95, 0.1)], trim)  # fin
    pen.poly([(0.1, 0.05), (0.75, 0.02), (-0.35, 0.85), (-0.65, 0.85)], darker(hull, 0.78))  # far wing
    body = pen.blob(
        [
            (2, -0.02),
            (1.75, 0.2),
            (1.3, 0.28 * belly),
            (-1, 0.28 * belly),
            (-2, 0.2),
            (-2.1, 0.12),
            (-1, -0.25 * belly),
            (1.4, -0.27 * belly),
            (1.8, -0.18),
        ],
        hull,
    )
    pen.rect(-2.1, -0.06, 2, 0, trim, clip=body)
    for x in np.arange(-1.3, 1.35, 0.24):
        pen.ellipse(x, 0.1, 0.055, 0.06, glass, steps=8)
    pen.poly([(1.55, 0.1), (1.85, 0.06), (1.7, 0.22), (1.5, 0.25)], glass)  # cockpit
    near_tailplane = [(-2.15, -0.2), (-1.95, -0.2), (-1.5, 0.12), (-1.9, 0.12)]
    far_tailplane = [(-1.85, 0.15), (-1.4, 0.12), (-2.0, 0.36), (-2.2, 0.36)]
    pen.poly(near_tailplane if rng.random() < 0.5 else far_tailplane, darker(hull, 0.85))
    pen.poly([(0.65, -0.1), (-0.05, -0.12), (-1.05, -0.95), (-0.75, -0.98)], darker(hull, 0.88))  # near wing
    pen.ellipse(0.02, -0.47, 0.26, 0.13, trim, steps=14)  # engine
    pen.ellipse(0.24, -0.47, 0.07, 0.11, (50, 50, 55), steps=10)
    return Drawing(pen, "airliner", width=(0.5, 0.9), turn=uniform(rng, -0.12, 0.35), texture=0.04)


def _propeller(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim, glass = _aeroplane_paint(rng)
    pen.poly([(-1.5, 0.1), (-1.1, 0.1), (-1.25, 0.75), (-1.55, 0.75)], trim)  # fin
    pen.blob([(1.3, 0), (1.2, 0.25), (0.8, 0.3), (0.3, 0.33), (-1.4, 0.14), (-1.55, 0.05), (-1.0, -0.12), (0.6, -0.28), (1.2, -0.22)], hull)
    pen.poly([(-0.1, 0.3), (0.55, 0.3), (0.4, 0.55), (0.05, 0.55)], glass)
    if rng.random() < 0.6:
        pen.rect(-0.45, 0.52, 0.75, 0.62, trim)  # wing above the cabin
    pen.poly([(0.6, -0.08), (0, -0.1), (-0.25, -0.42), (0.4, -0.42)], trim)  # near wing
    pen.rect(-1.65, 0.08, -1.15, 0.15, darker(trim, 0.8))  # tailplane
    pen.ellipse(1.34, 0, 0.05, 0.5, (60, 60, 62), turn=uniform(rng, -0.3, 0.3), steps=12)  # propeller
    pen.ellipse(1.33, 0, 0.1, 0.1, trim, steps=10)
    pen.limb([(0.5, -0.25), (0.6, -0.5)], 0.06, (70, 70, 70))
    pen.ellipse(0.62, -0.55, 0.13, 0.13, (40, 40, 40), steps=12)
    return Drawing(pen, "propeller", width=(0.5, 0.9), turn=uniform(rng, -0.15, 0.3), texture=0.04)


def _aeroplane_from_above(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim, glass = _aeroplane_paint(rng)
    pen.poly([(0.45, 0), (-0.25, 1.75), (-0.65, 1.75), (-0.35, 0), (-0.65, -1.75), (-0.25, -1.75)], darker(hull, 0.85))  # wings
    pen.poly([(-1.45, 0), (-1.75, 0.6), (-2, 0.6), (-1.85, 0), (-2, -0.6), (-1.75, -0.6)], trim)  # tailplane
    pen.blob([(2, 0), (1.6, 0.2), (0.5, 0.24), (-1, 0.2), (-2, 0.06), (-2, -0.06), (-1, -0.2), (0.5, -0.24), (1.6, -0.2)], hull)
    pen.poly([(1.55, 0.14), (1.8, 0.08), (1.8, -0.08), (1.55, -0.14)], glass)
    pen.rect(-2, -0.03, -1.3, 0.03, trim)
    for y in (0.75, -0.75):
        pen.ellipse(0.18, y, 0.22, 0.1, trim, steps=12)  # engines
    return Drawing(pen, "top", width=(0.5, 0.9), turn=uniform(rng, -1.2, 1.6), texture=0.04)


def aeroplane(rng: np.random.Generator) -> Drawing:
    """An airliner or a propeller aeroplane from the side, or an airliner from above."""
    return _one_of(rng, (_airliner, 0.5), (_propeller, 0.25), (_aeroplane_from_above, 0.25))


def bicycle(rng: np.random.Generator) -> Drawing:
    """A bicycle with a frame of any paint; its wheels are filled, as they are in VOC's truth."""
    pen = Pen()
    frame, spokes_and_air = pick(rng, PAINT), jitter(rng, (196, 198, 200), 8)
    radius = 0.5
    for x in (-0.75, 0.75):
        pen.ellipse(x, radius, radius, radius, RUBBER, steps=26)
        pen.ellipse(x, radius, radius * 0.86, radius * 0.86, spokes_and_air, steps=24)
        first_angle = uniform(rng, 0, 1)
        for angle in first_angle + np.arange(4) * math.pi / 4:
            across, up = radius * 0.85 * math.cos(angle), radius * 0.85 * math.sin(angle)
            pen.limb([(x - across, radius - up), (x + across, radius + up)], 0.025, (110, 110, 112))
        pen.ellipse(x, radius, 0.08, 0.08, RUBBER, steps=10)
    rear, front, pedals, seat, head = (-0.75, radius), (0.75, radius), (-0.08, 0.42), (-0.25, 1.1), (0.5, 1.1)
    for start, end in ((rear, pedals), (rear, seat), (pedals, seat), (pedals, head), (seat, head), (head, front)):
        pen.limb([start, end], 0.085, frame)
    pen.limb([seat, (-0.29, 1.25)], 0.06, RUBBER)
    pen.blob([(-0.5, 1.3), (-0.2, 1.33), (-0.05, 1.27), (-0.3, 1.22)], RUBBER)  # saddle
    pen.limb([head, (0.46, 1.32)], 0.06, (120, 120, 122))
    pen.limb([(0.46, 1.32), (0.7, 1.36), (0.74, 1.24)], 0.07, RUBBER)  # handlebar
    pen.ellipse(*pedals, 0.12, 0.12, (90, 90, 92), steps=12)
    pen.limb([pedals, (0.06, 0.26)], 0.05, RUBBER)
    pen.rect(-0.02, 0.22, 0.16, 0.27, RUBBER)
    return Drawing(pen, "bicycle", width=(0.4, 0.75), turn=uniform(rng, -0.05, 0.05), texture=0.03)


def _boat_paint(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the hull and of its trim."""
    hull = pick(rng, [*PAINT, (140, 90, 50), (235, 235, 235), (235, 235, 235)])
    return hull, pick(rng, [WHITE, (200, 50, 40), (40, 60, 120), (240, 200, 80)])


def _sailboat(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim = _boat_paint(rng)
    mast = uniform(rng, 1.9, 2.6)
    bright = [(245, 245, 240), (220, 70, 60), (70, 120, 200), (245, 200, 80)]
    main_colour = pick(rng, [*bright, (245, 245, 240), (235, 220, 190)], 8)
    front_colour = main_colour if rng.random() < 0.5 else pick(rng, bright, 8)
    pen.rect(-0.04, 0.3, 0.04, mast, (120, 85, 55))
    main_sail = pen.poly([(-0.08, 0.5), (-0.08, mast - 0.1), (-1.05, 0.55)], main_colour)
    pen.poly([(0.1, 0.5), (0.1, mast * 0.88), (0.95, 0.5)], front_colour)
    if rng.random() < 0.5:
        pen.rect(-1.05, mast * 0.45, -0.08, mast * 0.53, trim, clip=main_sail)
    body = pen.blob([(-1.15, 0.42), (-0.3, 0.36), (0.6, 0.38), (1.35, 0.5), (1.05, 0.1), (0.85, -0.02), (-0.8, -0.02), (-1.05, 0.1)], hull)
    pen.rect(-1.15, 0.26, 1.35, 0.34, trim, clip=body)
    return Drawing(pen, "sailboat", height=(0.45, 0.85), turn=uniform(rng, -0.07, 0.07), texture=0.04)


def _ship(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim = _boat_paint(rng)
    for x0, y0, x1, y1 in ((-0.9, 0.4, 0.85, 0.72), (-0.7, 0.72, 0.55, 1.0)):  # decks
        pen.rect(x0, y0, x1, y1, jitter(rng, (238, 238, 235), 8))
    if rng.random() < 0.6:
        pen.rect(-0.5, 1.0, 0.2, 1.2, (238, 238, 235))  # bridge
    for x in (-0.35, 0.1)[: rng.integers(1, 3)]:  # funnels
        pen.poly([(x - 0.13, 0.98), (x + 0.13, 0.98), (x + 0.1, 1.5), (x - 0.16, 1.5)], trim)
        pen.rect(x - 0.16, 1.42, x + 0.1, 1.5, (40, 40, 40))
    for lefts, bottom in ((np.arange(-0.75, 0.75, 0.22), 0.5), (np.arange(-0.55, 0.45, 0.22), 0.8)):
        for left in lefts:
            pen.rect(left, bottom, left + 0.12, bottom + 0.12, GLASS)
    body = pen.poly([(-1.45, 0.5), (1.75, 0.62), (1.3, -0.02), (-1.25, -0.02)], hull)
    pen.rect(-1.45, -0.02, 1.75, 0.1, darker(trim, 0.7) if rng.random() < 0.5 else (150, 40, 35), clip=body)  # waterline
    for x in np.arange(-1.1, 1.2, 0.3):
        pen.ellipse(x, 0.32, 0.05, 0.05, (235, 235, 235), steps=8)  # portholes
    return Drawing(pen, "ship", width=(0.5, 0.9), turn=uniform(rng, -0.07, 0.07), texture=0.04)


def _rowboat(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim = _boat_paint(rng)
    if rng.random() < 0.5:  # somebody sits in it: part of the boat, too small to count as a person
        pen.blob([(-0.15, 0.3), (0.15, 0.3), (0.17, 0.75), (-0.17, 0.75)], pick(rng, PAINT))
        pen.ellipse(0, 0.92, 0.14, 0.16, pick(rng, SKIN))
    pen.limb([(-0.1, 0.62), (0.9, 0.02)], 0.05, OAR)
    pen.ellipse(0.95, -0.02, 0.16, 0.06, OAR, turn=-0.5, steps=10)
    body = pen.blob(
        [(-1.35, 0.55), (-0.8, 0.36), (0, 0.32), (0.8, 0.36), (1.35, 0.55), (1.05, 0.1), (0.8, -0.02), (-0.8, -0.02), (-1.05, 0.1)], hull
    )
    pen.rect(-1.35, 0.28, 1.35, 0.36, trim, clip=body)
    pen.rect(-1.35, 0.12, 1.35, 0.16, darker(hull, 0.7), clip=body)
    return Drawing(pen, "rowboat", width=(0.4, 0.75), turn=uniform(rng, -0.07, 0.07), texture=0.04)


def boat(rng: np.random.Generator) -> Drawing:
    """A sailing boat, a ship with funnels, or a rowing boat."""
    return _one_of(rng, (_sailboat, 0.45), (_ship, 0.33), (_rowboat, 0.22))


def bus(rng: np.random.Generator) -> Drawing:
    """A bus with one or two decks."""
    pen = Pen()
    paint = pick(rng, PAINT)
    stripe = pick(rng, [WHITE, lighter(paint, 0.5), darker(paint, 0.6)])
    glass = _glass_on(rng, (100, 140, 165), paint)
    double = rng.random() < 0.3
    half, top, window_count, sills = (1.45, 1.9, 5, (0.66, 1.28)) if double else (1.75, 1.25, 6, (0.72,))
    body = pen.rounded(-half, 0.22, half, top, 0.16, paint)
    pen.rect(-half, 0.42, half, 0.5, stripe, clip=body)
    step = (2 * half - 0.62) / window_count
    for sill in sills:
        _windows(pen, -half + 0.12 + step * np.arange(window_count), sill, sill + 0.36, step - 0.08, glass)
        pen.rounded(half - 0.28, sill - 0.05, half - 0.03, sill + 0.38, 0.05, lighter(glass, 0.2))  # windscreen
    pen.rect(half - 0.62, 0.28, half - 0.34, 1.06, darker(glass, 0.8))  # door
    pen.rect(half - 0.49, 0.28, half - 0.47, 1.06, stripe)
    if double:
        pen.rect(-half, 1.1, half, 1.2, stripe, clip=body)
    pen.ellipse(half - 0.06, 0.42, 0.06, 0.06, HEADLAMP, steps=10)
    pen.rect(-half, 0.36, -half + 0.06, 0.48, TAIL_LAMP)
    pen.rect(-half + 0.05, 0.18, half - 0.05, 0.26, (60, 60, 62))
    for x in (-half * 0.6, half * 0.5):
        pen.wheel(x, 0.24, 0.24)
    width = (0.42, 0.75) if double else (0.5, 0.92)
    return Drawing(pen, "double" if double else "single", width=width, turn=uniform(rng, -0.03, 0.03), texture=0.03)


def _car_fittings(pen: Pen, paint: np.ndarray, end: float) -> None:
    """Lamps, door and wheels of a car whose bumpers stand at -end and end."""
    pen.ellipse(end - 0.1, 0.5, 0.1, 0.07, HEADLAMP, steps=10)
    pen.rect(-end + 0.02, 0.46, -end + 0.14, 0.58, TAIL_LAMP)
    pen.rect(-0.02, 0.3, 0.02, 0.66, darker(paint, 0.6))
    pen.rect(0.1, 0.56, 0.26, 0.6, darker(paint, 0.5))
    for x in (-0.88, 0.9):
        pen.wheel(x, 0.25, 0.27)


def _low_car(rng: np.random.Generator, look: str, paint: np.ndarray) -> Drawing:
    """A car with bonnet and boot: the sedan and, with a sign and a chequered band, the taxi."""
    pen = Pen()
    glass = _glass_on(rng, (110, 150, 175), paint)
    pen.blob([(-0.85, 0.62), (-0.5, 0.98), (-0.2, 1.03), (0.2, 1.02), (0.5, 0.92), (0.85, 0.62)], paint, steps=3)  # roof
    pen.poly([(-0.68, 0.66), (-0.42, 0.93), (-0.05, 0.96), (-0.05, 0.66)], glass)
    pen.poly([(0.03, 0.66), (0.03, 0.96), (0.36, 0.9), (0.68, 0.66)], glass)
    body = pen.blob(
        [
            (-1.5, 0.3),
            (-1.48, 0.58),
            (-1.2, 0.68),
            (-0.5, 0.7),
            (0.8, 0.68),
            (1.35, 0.58),
            (1.52, 0.42),
            (1.5, 0.22),
            (1.2, 0.18),
            (-1.3, 0.18),
        ],
        paint,
        steps=4,
    )
    pen.rect(-1.5, 0.36, 1.5, 0.4, darker(paint, 0.75), clip=body)
    if look == "taxi":
        pen.rounded(-0.16, 1.02, 0.16, 1.16, 0.03, (250, 250, 240))
        for number in range(12):
            left, bottom = -1.2 + number * 0.2, 0.44 + 0.05 * (number % 2)
            pen.rect(left, bottom, left + 0.1, bottom + 0.05, (30, 30, 30), clip=body)
    _car_fittings(pen, paint, 1.5)
    return Drawing(pen, look, width=(0.4, 0.8), turn=uniform(rng, -0.04, 0.04), texture=0.03)


def _sedan(rng: np.random.Generator) -> Drawing:
    return _low_car(rng, "sedan", pick(rng, PAINT))


def _taxi(rng: np.random.Generator) -> Drawing:
    return _low_car(rng, "taxi", jitter(rng, (245, 195, 40), 8))


def _van(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint = pick(rng, PAINT)
    glass = _glass_on(rng, (110, 150, 175), paint)
    body = pen.blob(
        [
            (-1.35, 0.25),
            (-1.38, 0.9),
            (-1.25, 1.2),
            (-0.5, 1.26),
            (0.5, 1.24),
            (0.95, 0.8),
            (1.42, 0.66),
            (1.48, 0.3),
            (1.3, 0.18),
            (-1.2, 0.18),
        ],
        paint,
        steps=4,
    )
    pen.poly([(-1.2, 0.78), (-1.12, 1.1), (-0.62, 1.14), (-0.62, 0.78)], glass)
    pen.poly([(-0.52, 0.78), (-0.52, 1.14), (0.02, 1.14), (0.02, 0.78)], glass)
    pen.poly([(0.12, 0.78), (0.12, 1.14), (0.46, 1.12), (0.78, 0.78)], glass)
    pen.rect(-1.35, 0.4, 1.45, 0.45, darker(paint, 0.75), clip=body)
    _car_fittings(pen, paint, 1.4)
    return Drawing(pen, "van", width=(0.4, 0.8), turn=uniform(rng, -0.04, 0.04), texture=0.03)


def car(rng: np.random.Generator) -> Drawing:
    """A sedan, a van or a yellow taxi."""
    return _one_of(rng, (_sedan, 0.5), (_van, 0.3), (_taxi, 0.2))


def _motorbike(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint = pick(rng, PAINT)
    for x in (-0.8, 0.85):
        pen.wheel(x, 0.38, 0.38, tyre=(30, 30, 32), hub=STEEL)
    pen.limb([(0.85, 0.38), (0.5, 1.1)], 0.1, STEEL)  # fork
    pen.limb([(-0.8, 0.38), (-0.15, 0.5)], 0.12, BLACK)
    pen.rounded(-0.32, 0.25, 0.32, 0.65, 0.1, darker(STEEL, 0.7))  # engine
    pen.ellipse(0, 0.45, 0.16, 0.16, STEEL, steps=12)
    pen.limb([(0.1, 0.3), (-0.5, 0.24), (-1.1, 0.36)], [0.08, 0.1, 0.14], STEEL)  # exhaust
    pen.blob([(-0.05, 0.7), (0.05, 0.95), (0.4, 1.02), (0.56, 0.86), (0.4, 0.66)], paint)  # tank
    pen.blob([(-1.0, 0.98), (-0.7, 0.86), (-0.05, 0.84), (0.02, 0.72), (-0.4, 0.66), (-0.85, 0.8)], BLACK)  # seat
    pen.blob([(-1.1, 0.62), (-0.95, 0.78), (-0.55, 0.72), (-0.5, 0.62), (-0.85, 0.66)], paint)  # mudguards
    pen.blob([(0.62, 0.72), (0.95, 0.8), (1.2, 0.62), (1.15, 0.55), (0.9, 0.7)], paint)
    pen.limb([(0.5, 1.1), (0.34, 1.26)], 0.07, BLACK)  # handlebar
    pen.ellipse(0.64, 1.03, 0.13, 0.12, (250, 240, 190), steps=12)
    if rng.random() < 0.4:
        pen.poly([(0.5, 1.1), (0.72, 1.1), (0.55, 1.42)], (180, 205, 220))  # windshield
    return Drawing(pen, "motorbike", width=(0.4, 0.75), turn=uniform(rng, -0.05, 0.05), texture=0.03)


def _scooter(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint = pick(rng, PAINT)
    for x in (-0.65, 0.75):
        pen.wheel(x, 0.27, 0.27, tyre=(30, 30, 32), hub=STEEL)
    pen.blob([(-1.0, 0.45), (-0.95, 0.8), (-0.2, 0.85), (-0.1, 0.45), (0.3, 0.3), (0.3, 0.2), (-0.3, 0.2), (-0.4, 0.45)], paint)
    pen.poly([(0.3, 0.2), (0.5, 0.3), (0.62, 1.05), (0.42, 1.05)], paint)  # leg shield
    pen.blob([(0.5, 0.5), (0.8, 0.62), (1.05, 0.45), (0.75, 0.5)], paint)  # mudguard
    pen.rounded(-0.98, 0.8, -0.12, 0.97, 0.08, BLACK)  # seat
    pen.limb([(0.5, 1.05), (0.4, 1.3)], 0.08, BLACK)  # handlebar
    pen.ellipse(0.6, 1.0, 0.1, 0.11, (250, 240, 190), steps=10)
    pen.limb([(0.5, 0.9), (0.75, 0.27)], 0.08, STEEL)  # fork
    return Drawing(pen, "scooter", width=(0.4, 0.75), turn=uniform(rng, -0.05, 0.05), texture=0.03)


def motorbike(rng: np.random.Generator) -> Drawing:
    """A motorbike or a scooter."""
    return _one_of(rng, (_motorbike, 0.65), (_scooter, 0.35))


def _train_paint(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours of the body, of its trim and of the glass."""
    paint = pick(rng, PAINT)
    trim = pick(rng, [WHITE, (245, 200, 60), (200, 50, 45), lighter(paint, 0.5)])
    return paint, trim, _glass_on(rng, (90, 130, 155), paint)


def _rail_wheels(pen: Pen, centres: Iterable[float]) -> None:
    """Small wheels, half hidden under modern rolling stock."""
    for x in centres:
        pen.ellipse(x, 0.13, 0.14, 0.14, (70, 70, 72), steps=14)


def _steam_coach(pen: Pen, rng: np.random.Generator, glass: np.ndarray) -> None:
    """A passenger coach behind the steam engine."""
    paint = pick(rng, PAINT)
    pen.rect(-2.6, 0.3, -1.15, 1.25, paint)
    pen.rect(-2.68, 1.22, -1.08, 1.34, darker(paint, 0.6))
    pen.rect(-1.2, 0.35, -0.9, 0.45, BLACK)  # coupling
    _windows(pen, (-2.4, -2.0, -1.6), 0.75, 1.08, 0.25, glass)
    for x in (-2.3, -1.5):
        pen.wheel(x, 0.18, 0.17, tyre=BLACK, hub=(150, 150, 150))


def _steam_train(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint, trim, glass = _train_paint(rng)
    pen.rect(-0.9, 0.35, 1.5, 0.5, BLACK)
    pen.rounded(-0.2, 0.45, 1.45, 1.0, 0.2, paint)  # boiler and its bands
    for x in (0.3, 0.9):
        pen.rect(x, 0.45, x + 0.06, 1.0, darker(paint, 0.6))
    pen.rounded(1.38, 0.5, 1.55, 0.96, 0.06, BLACK)
    pen.poly([(1.05, 0.98), (1.25, 0.98), (1.32, 1.45), (0.98, 1.45)], BLACK)  # chimney
    pen.ellipse(0.45, 1.0, 0.16, 0.16, trim)  # dome
    pen.rect(-0.95, 0.4, -0.2, 1.35, paint)  # cab
    pen.rect(-1.05, 1.33, -0.1, 1.45, darker(paint, 0.6))
    pen.rect(-0.8, 0.9, -0.35, 1.22, glass)
    pen.poly([(1.45, 0.35), (1.85, 0.08), (1.45, 0.08)], darker(trim, 0.8))  # cow-catcher
    rim = (150, 35, 30) if rng.random() < 0.6 else BLACK
    for x in (-0.65, -0.1, 0.45):
        pen.wheel(x, 0.28, 0.27, tyre=rim, hub=(90, 90, 92))
    for x in (0.95, 1.3):
        pen.wheel(x, 0.18, 0.17, tyre=BLACK, hub=(150, 150, 150))
    pen.limb([(-0.65, 0.28), (0.45, 0.28)], 0.07, (170, 170, 172))  # coupling rod
    pen.ellipse(1.5, 1.02, 0.09, 0.09, HEADLAMP, steps=10)
    if rng.random() < 0.8:
        _steam_coach(pen, rng, glass)
    return Drawing(pen, "steam", width=(0.6, 0.98), turn=uniform(rng, -0.02, 0.02), texture=0.03)


def _modern_train(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint, trim, glass = _train_paint(rng)
    rear = -uniform(rng, 1.7, 2.3)
    body = pen.blob([(rear, 0.25), (rear, 1.2), (0.9, 1.22), (1.5, 1.05), (1.95, 0.62), (2.05, 0.35), (1.9, 0.22)], paint, steps=4)
    pen.rect(rear, 0.42, 2.05, 0.56, trim, clip=body)
    pen.poly([(1.15, 0.8), (1.2, 1.05), (1.5, 0.97), (1.72, 0.74)], glass)  # windscreen
    _windows(pen, np.arange(rear + 0.15, 0.85, 0.42), 0.7, 1.0, 0.3, glass)
    pen.rect(rear * 0.35, 0.28, rear * 0.35 + 0.28, 1.08, darker(paint, 0.8))  # door
    pen.ellipse(1.9, 0.5, 0.08, 0.06, HEADLAMP, steps=10)
    pen.rect(rear + 0.1, 0.1, 1.7, 0.25, BLACK)
    _rail_wheels(pen, (rear * 0.85, rear * 0.6, 0.7, 1.2))
    if rng.random() < 0.5:  # a second carriage
        pen.rect(rear - 0.12, 0.35, rear, 1.1, BLACK)
        pen.rect(rear - 1.4, 0.25, rear - 0.12, 1.2, paint)
        pen.rect(rear - 1.4, 0.42, rear - 0.12, 0.56, trim)
        _windows(pen, np.arange(rear - 1.3, rear - 0.35, 0.42), 0.7, 1.0, 0.28, glass)
        pen.rect(rear - 1.4, 0.1, rear - 0.12, 0.25, BLACK)
    return Drawing(pen, "modern", width=(0.65, 0.99), turn=uniform(rng, -0.02, 0.02), texture=0.03)


def _tram(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint, trim, glass = _train_paint(rng)
    pen.rect(-0.05, 1.45, 0.05, 1.75, BLACK)  # pantograph
    pen.limb([(-0.35, 1.78), (0.35, 1.78)], 0.06, BLACK)
    body = pen.rounded(-1.45, 0.22, 1.45, 1.45, 0.14, paint)
    pen.rect(-1.45, 0.55, 1.45, 0.64, trim, clip=body)
    pen.rect(-1.35, 1.4, 1.35, 1.5, darker(paint, 0.6))
    _windows(pen, np.arange(-1.3, 1.2, 0.44), 0.76, 1.25, 0.34, glass)
    pen.rect(-0.15, 0.28, 0.2, 1.27, darker(trim, 0.85))  # door
    pen.rect(-0.08, 0.7, 0.13, 1.2, glass)
    pen.ellipse(1.38, 0.42, 0.08, 0.08, HEADLAMP, steps=10)
    pen.rect(-1.3, 0.1, 1.3, 0.24, BLACK)
    _rail_wheels(pen, (-0.95, -0.6, 0.6, 0.95))
    return Drawing(pen, "tram", width=(0.5, 0.85), turn=uniform(rng, -0.02, 0.02), texture=0.03)


def train(rng: np.random.Generator) -> Drawing:
    """A steam train, a modern train or a tram."""
    return _one_of(rng, (_steam_train, 0.33), (_modern_train, 0.45), (_tram, 0.22))


VEHICLES = {
    "aeroplane": aeroplane,
    "bicycle": bicycle,
    "boat": boat,
    "bus": bus,
    "car": car,
    "motorbike": motorbike,
    "train": train,
}
