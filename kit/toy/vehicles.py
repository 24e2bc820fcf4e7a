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
        pen.rounded(left, bottom, left + width, top, .05, colour)


def _glass_on(rng: np.random.Generator, colour: ArrayLike, paint: np.ndarray) -> np.ndarray:
    """The colour of glass, darkened where windows would vanish in a paint much like it."""
    glass = jitter(rng, colour)
    return darker(glass, .6) if np.abs(glass - paint).max() < 55 else glass


def _aeroplane_paint(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours of the hull, of the tail and trim, and of the glass."""
    hull = pick(rng, [(235, 237, 240), (235, 237, 240), (200, 205, 212), (70, 110, 180), (200, 60, 50), (240, 200, 80)])
    return hull, pick(rng, PAINT), jitter(rng, (70, 95, 120))


def _airliner(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim, glass = _aeroplane_paint(rng)
    belly = uniform(rng, .84, 1.16)
    pen.poly([(-1.55, 1.2), (-1.15, 1.15), (-1.5, .15), (-1.95, .1)], trim)  # fin
    pen.poly([(.1, .05), (.75, .02), (-.35, .85), (-.65, .85)], darker(hull, .78))  # far wing
    body = pen.blob([(2, -.02), (1.75, .2), (1.3, .28 * belly), (-1, .28 * belly), (-2, .2), (-2.1, .12), (-1, -.25 * belly),
                     (1.4, -.27 * belly), (1.8, -.18)], hull)
    pen.rect(-2.1, -.06, 2, 0, trim, clip=body)
    for x in np.arange(-1.3, 1.35, .24):
        pen.ellipse(x, .1, .055, .06, glass, steps=8)
    pen.poly([(1.55, .1), (1.85, .06), (1.7, .22), (1.5, .25)], glass)  # cockpit
    near_tailplane = [(-2.15, -.2), (-1.95, -.2), (-1.5, .12), (-1.9, .12)]
    far_tailplane = [(-1.85, .15), (-1.4, .12), (-2.0, .36), (-2.2, .36)]
    pen.poly(near_tailplane if rng.random() < .5 else far_tailplane, darker(hull, .85))
    pen.poly([(.65, -.1), (-.05, -.12), (-1.05, -.95), (-.75, -.98)], darker(hull, .88))  # near wing
    pen.ellipse(.02, -.47, .26, .13, trim, steps=14)  # engine
    pen.ellipse(.24, -.47, .07, .11, (50, 50, 55), steps=10)
    return Drawing(pen, "airliner", width=(.5, .9), turn=uniform(rng, -.12, .35), texture=.04)


def _propeller(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim, glass = _aeroplane_paint(rng)
    pen.poly([(-1.5, .1), (-1.1, .1), (-1.25, .75), (-1.55, .75)], trim)  # fin
    pen.blob([(1.3, 0), (1.2, .25), (.8, .3), (.3, .33), (-1.4, .14), (-1.55, .05), (-1.0, -.12), (.6, -.28), (1.2, -.22)], hull)
    pen.poly([(-.1, .3), (.55, .3), (.4, .55), (.05, .55)], glass)
    if rng.random() < .6:
        pen.rect(-.45, .52, .75, .62, trim)  # wing above the cabin
    pen.poly([(.6, -.08), (0, -.1), (-.25, -.42), (.4, -.42)], trim)  # near wing
    pen.rect(-1.65, .08, -1.15, .15, darker(trim, .8))  # tailplane
    pen.ellipse(1.34, 0, .05, .5, (60, 60, 62), turn=uniform(rng, -.3, .3), steps=12)  # propeller
    pen.ellipse(1.33, 0, .1, .1, trim, steps=10)
    pen.limb([(.5, -.25), (.6, -.5)], .06, (70, 70, 70))
    pen.ellipse(.62, -.55, .13, .13, (40, 40, 40), steps=12)
    return Drawing(pen, "propeller", width=(.5, .9), turn=uniform(rng, -.15, .3), texture=.04)


def _aeroplane_from_above(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim, glass = _aeroplane_paint(rng)
    pen.poly([(.45, 0), (-.25, 1.75), (-.65, 1.75), (-.35, 0), (-.65, -1.75), (-.25, -1.75)], darker(hull, .85))  # wings
    pen.poly([(-1.45, 0), (-1.75, .6), (-2, .6), (-1.85, 0), (-2, -.6), (-1.75, -.6)], trim)  # tailplane
    pen.blob([(2, 0), (1.6, .2), (.5, .24), (-1, .2), (-2, .06), (-2, -.06), (-1, -.2), (.5, -.24), (1.6, -.2)], hull)
    pen.poly([(1.55, .14), (1.8, .08), (1.8, -.08), (1.55, -.14)], glass)
    pen.rect(-2, -.03, -1.3, .03, trim)
    for y in (.75, -.75):
        pen.ellipse(.18, y, .22, .1, trim, steps=12)  # engines
    return Drawing(pen, "top", width=(.5, .9), turn=uniform(rng, -1.2, 1.6), texture=.04)


def aeroplane(rng: np.random.Generator) -> Drawing:
    """An airliner or a propeller aeroplane from the side, or an airliner from above."""
    return _one_of(rng, (_airliner, .5), (_propeller, .25), (_aeroplane_from_above, .25))


def bicycle(rng: np.random.Generator) -> Drawing:
    """A bicycle with a frame of any paint; its wheels are filled, as they are in VOC's truth."""
    pen = Pen()
    frame, spokes_and_air = pick(rng, PAINT), jitter(rng, (196, 198, 200), 8)
    radius = .5
    for x in (-.75, .75):
        pen.ellipse(x, radius, radius, radius, RUBBER, steps=26)
        pen.ellipse(x, radius, radius * .86, radius * .86, spokes_and_air, steps=24)
        first_angle = uniform(rng, 0, 1)
        for angle in first_angle + np.arange(4) * math.pi / 4:
            across, up = radius * .85 * math.cos(angle), radius * .85 * math.sin(angle)
            pen.limb([(x - across, radius - up), (x + across, radius + up)], .025, (110, 110, 112))
        pen.ellipse(x, radius, .08, .08, RUBBER, steps=10)
    rear, front, pedals, seat, head = (-.75, radius), (.75, radius), (-.08, .42), (-.25, 1.1), (.5, 1.1)
    for start, end in ((rear, pedals), (rear, seat), (pedals, seat), (pedals, head), (seat, head), (head, front)):
        pen.limb([start, end], .085, frame)
    pen.limb([seat, (-.29, 1.25)], .06, RUBBER)
    pen.blob([(-.5, 1.3), (-.2, 1.33), (-.05, 1.27), (-.3, 1.22)], RUBBER)  # saddle
    pen.limb([head, (.46, 1.32)], .06, (120, 120, 122))
    pen.limb([(.46, 1.32), (.7, 1.36), (.74, 1.24)], .07, RUBBER)  # handlebar
    pen.ellipse(*pedals, .12, .12, (90, 90, 92), steps=12)
    pen.limb([pedals, (.06, .26)], .05, RUBBER)
    pen.rect(-.02, .22, .16, .27, RUBBER)
    return Drawing(pen, "bicycle", width=(.4, .75), turn=uniform(rng, -.05, .05), texture=.03)


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
    front_colour = main_colour if rng.random() < .5 else pick(rng, bright, 8)
    pen.rect(-.04, .3, .04, mast, (120, 85, 55))
    main_sail = pen.poly([(-.08, .5), (-.08, mast - .1), (-1.05, .55)], main_colour)
    pen.poly([(.1, .5), (.1, mast * .88), (.95, .5)], front_colour)
    if rng.random() < .5:
        pen.rect(-1.05, mast * .45, -.08, mast * .53, trim, clip=main_sail)
    body = pen.blob([(-1.15, .42), (-.3, .36), (.6, .38), (1.35, .5), (1.05, .1), (.85, -.02), (-.8, -.02), (-1.05, .1)], hull)
    pen.rect(-1.15, .26, 1.35, .34, trim, clip=body)
    return Drawing(pen, "sailboat", height=(.45, .85), turn=uniform(rng, -.07, .07), texture=.04)


def _ship(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim = _boat_paint(rng)
    for x0, y0, x1, y1 in ((-.9, .4, .85, .72), (-.7, .72, .55, 1.0)):  # decks
        pen.rect(x0, y0, x1, y1, jitter(rng, (238, 238, 235), 8))
    if rng.random() < .6:
        pen.rect(-.5, 1.0, .2, 1.2, (238, 238, 235))  # bridge
    for x in (-.35, .1)[:rng.integers(1, 3)]:  # funnels
        pen.poly([(x - .13, .98), (x + .13, .98), (x + .1, 1.5), (x - .16, 1.5)], trim)
        pen.rect(x - .16, 1.42, x + .1, 1.5, (40, 40, 40))
    for lefts, bottom in ((np.arange(-.75, .75, .22), .5), (np.arange(-.55, .45, .22), .8)):
        for left in lefts:
            pen.rect(left, bottom, left + .12, bottom + .12, GLASS)
    body = pen.poly([(-1.45, .5), (1.75, .62), (1.3, -.02), (-1.25, -.02)], hull)
    pen.rect(-1.45, -.02, 1.75, .1, darker(trim, .7) if rng.random() < .5 else (150, 40, 35), clip=body)  # waterline
    for x in np.arange(-1.1, 1.2, .3):
        pen.ellipse(x, .32, .05, .05, (235, 235, 235), steps=8)  # portholes
    return Drawing(pen, "ship", width=(.5, .9), turn=uniform(rng, -.07, .07), texture=.04)


def _rowboat(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    hull, trim = _boat_paint(rng)
    if rng.random() < .5:  # somebody sits in it: part of the boat, too small to count as a person
        pen.blob([(-.15, .3), (.15, .3), (.17, .75), (-.17, .75)], pick(rng, PAINT))
        pen.ellipse(0, .92, .14, .16, pick(rng, SKIN))
    pen.limb([(-.1, .62), (.9, .02)], .05, OAR)
    pen.ellipse(.95, -.02, .16, .06, OAR, turn=-.5, steps=10)
    body = pen.blob([(-1.35, .55), (-.8, .36), (0, .32), (.8, .36), (1.35, .55), (1.05, .1), (.8, -.02), (-.8, -.02), (-1.05, .1)], hull)
    pen.rect(-1.35, .28, 1.35, .36, trim, clip=body)
    pen.rect(-1.35, .12, 1.35, .16, darker(hull, .7), clip=body)
    return Drawing(pen, "rowboat", width=(.4, .75), turn=uniform(rng, -.07, .07), texture=.04)


def boat(rng: np.random.Generator) -> Drawing:
    """A sailing boat, a ship with funnels, or a rowing boat."""
    return _one_of(rng, (_sailboat, .45), (_ship, .33), (_rowboat, .22))


def bus(rng: np.random.Generator) -> Drawing:
    """A bus with one or two decks."""
    pen = Pen()
    paint = pick(rng, PAINT)
    stripe = pick(rng, [WHITE, lighter(paint, .5), darker(paint, .6)])
    glass = _glass_on(rng, (100, 140, 165), paint)
    double = rng.random() < .3
    half, top, window_count, sills = (1.45, 1.9, 5, (.66, 1.28)) if double else (1.75, 1.25, 6, (.72,))
    body = pen.rounded(-half, .22, half, top, .16, paint)
    pen.rect(-half, .42, half, .5, stripe, clip=body)
    step = (2 * half - .62) / window_count
    for sill in sills:
        _windows(pen, -half + .12 + step * np.arange(window_count), sill, sill + .36, step - .08, glass)
        pen.rounded(half - .28, sill - .05, half - .03, sill + .38, .05, lighter(glass, .2))  # windscreen
    pen.rect(half - .62, .28, half - .34, 1.06, darker(glass, .8))  # door
    pen.rect(half - .49, .28, half - .47, 1.06, stripe)
    if double:
        pen.rect(-half, 1.1, half, 1.2, stripe, clip=body)
    pen.ellipse(half - .06, .42, .06, .06, HEADLAMP, steps=10)
    pen.rect(-half, .36, -half + .06, .48, TAIL_LAMP)
    pen.rect(-half + .05, .18, half - .05, .26, (60, 60, 62))
    for x in (-half * .6, half * .5):
        pen.wheel(x, .24, .24)
    width = (.42, .75) if double else (.5, .92)
    return Drawing(pen, "double" if double else "single", width=width, turn=uniform(rng, -.03, .03), texture=.03)


def _car_fittings(pen: Pen, paint: np.ndarray, end: float) -> None:
    """Lamps, door and wheels of a car whose bumpers stand at -end and end."""
    pen.ellipse(end - .1, .5, .1, .07, HEADLAMP, steps=10)
    pen.rect(-end + .02, .46, -end + .14, .58, TAIL_LAMP)
    pen.rect(-.02, .3, .02, .66, darker(paint, .6))
    pen.rect(.1, .56, .26, .6, darker(paint, .5))
    for x in (-.88, .9):
        pen.wheel(x, .25, .27)


def _low_car(rng: np.random.Generator, look: str, paint: np.ndarray) -> Drawing:
    """A car with bonnet and boot: the sedan and, with a sign and a chequered band, the taxi."""
    pen = Pen()
    glass = _glass_on(rng, (110, 150, 175), paint)
    pen.blob([(-.85, .62), (-.5, .98), (-.2, 1.03), (.2, 1.02), (.5, .92), (.85, .62)], paint, steps=3)  # roof
    pen.poly([(-.68, .66), (-.42, .93), (-.05, .96), (-.05, .66)], glass)
    pen.poly([(.03, .66), (.03, .96), (.36, .9), (.68, .66)], glass)
    body = pen.blob([(-1.5, .3), (-1.48, .58), (-1.2, .68), (-.5, .7), (.8, .68), (1.35, .58), (1.52, .42), (1.5, .22), (1.2, .18),
                     (-1.3, .18)], paint, steps=4)
    pen.rect(-1.5, .36, 1.5, .4, darker(paint, .75), clip=body)
    if look == "taxi":
        pen.rounded(-.16, 1.02, .16, 1.16, .03, (250, 250, 240))
        for number in range(12):
            left, bottom = -1.2 + number * .2, .44 + .05 * (number % 2)
            pen.rect(left, bottom, left + .1, bottom + .05, (30, 30, 30), clip=body)
    _car_fittings(pen, paint, 1.5)
    return Drawing(pen, look, width=(.4, .8), turn=uniform(rng, -.04, .04), texture=.03)


def _sedan(rng: np.random.Generator) -> Drawing:
    return _low_car(rng, "sedan", pick(rng, PAINT))


def _taxi(rng: np.random.Generator) -> Drawing:
    return _low_car(rng, "taxi", jitter(rng, (245, 195, 40), 8))


def _van(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint = pick(rng, PAINT)
    glass = _glass_on(rng, (110, 150, 175), paint)
    body = pen.blob([(-1.35, .25), (-1.38, .9), (-1.25, 1.2), (-.5, 1.26), (.5, 1.24), (.95, .8), (1.42, .66), (1.48, .3), (1.3, .18),
                     (-1.2, .18)], paint, steps=4)
    pen.poly([(-1.2, .78), (-1.12, 1.1), (-.62, 1.14), (-.62, .78)], glass)
    pen.poly([(-.52, .78), (-.52, 1.14), (.02, 1.14), (.02, .78)], glass)
    pen.poly([(.12, .78), (.12, 1.14), (.46, 1.12), (.78, .78)], glass)
    pen.rect(-1.35, .4, 1.45, .45, darker(paint, .75), clip=body)
    _car_fittings(pen, paint, 1.4)
    return Drawing(pen, "van", width=(.4, .8), turn=uniform(rng, -.04, .04), texture=.03)


def car(rng: np.random.Generator) -> Drawing:
    """A sedan, a van or a yellow taxi."""
    return _one_of(rng, (_sedan, .5), (_van, .3), (_taxi, .2))


def _motorbike(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint = pick(rng, PAINT)
    for x in (-.8, .85):
        pen.wheel(x, .38, .38, tyre=(30, 30, 32), hub=STEEL)
    pen.limb([(.85, .38), (.5, 1.1)], .1, STEEL)  # fork
    pen.limb([(-.8, .38), (-.15, .5)], .12, BLACK)
    pen.rounded(-.32, .25, .32, .65, .1, darker(STEEL, .7))  # engine
    pen.ellipse(0, .45, .16, .16, STEEL, steps=12)
    pen.limb([(.1, .3), (-.5, .24), (-1.1, .36)], [.08, .1, .14], STEEL)  # exhaust
    pen.blob([(-.05, .7), (.05, .95), (.4, 1.02), (.56, .86), (.4, .66)], paint)  # tank
    pen.blob([(-1.0, .98), (-.7, .86), (-.05, .84), (.02, .72), (-.4, .66), (-.85, .8)], BLACK)  # seat
    pen.blob([(-1.1, .62), (-.95, .78), (-.55, .72), (-.5, .62), (-.85, .66)], paint)  # mudguards
    pen.blob([(.62, .72), (.95, .8), (1.2, .62), (1.15, .55), (.9, .7)], paint)
    pen.limb([(.5, 1.1), (.34, 1.26)], .07, BLACK)  # handlebar
    pen.ellipse(.64, 1.03, .13, .12, (250, 240, 190), steps=12)
    if rng.random() < .4:
        pen.poly([(.5, 1.1), (.72, 1.1), (.55, 1.42)], (180, 205, 220))  # windshield
    return Drawing(pen, "motorbike", width=(.4, .75), turn=uniform(rng, -.05, .05), texture=.03)


def _scooter(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint = pick(rng, PAINT)
    for x in (-.65, .75):
        pen.wheel(x, .27, .27, tyre=(30, 30, 32), hub=STEEL)
    pen.blob([(-1.0, .45), (-.95, .8), (-.2, .85), (-.1, .45), (.3, .3), (.3, .2), (-.3, .2), (-.4, .45)], paint)
    pen.poly([(.3, .2), (.5, .3), (.62, 1.05), (.42, 1.05)], paint)  # leg shield
    pen.blob([(.5, .5), (.8, .62), (1.05, .45), (.75, .5)], paint)  # mudguard
    pen.rounded(-.98, .8, -.12, .97, .08, BLACK)  # seat
    pen.limb([(.5, 1.05), (.4, 1.3)], .08, BLACK)  # handlebar
    pen.ellipse(.6, 1.0, .1, .11, (250, 240, 190), steps=10)
    pen.limb([(.5, .9), (.75, .27)], .08, STEEL)  # fork
    return Drawing(pen, "scooter", width=(.4, .75), turn=uniform(rng, -.05, .05), texture=.03)


def motorbike(rng: np.random.Generator) -> Drawing:
    """A motorbike or a scooter."""
    return _one_of(rng, (_motorbike, .65), (_scooter, .35))


def _train_paint(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours of the body, of its trim and of the glass."""
    paint = pick(rng, PAINT)
    trim = pick(rng, [WHITE, (245, 200, 60), (200, 50, 45), lighter(paint, .5)])
    return paint, trim, _glass_on(rng, (90, 130, 155), paint)


def _rail_wheels(pen: Pen, centres: Iterable[float]) -> None:
    """Small wheels, half hidden under modern rolling stock."""
    for x in centres:
        pen.ellipse(x, .13, .14, .14, (70, 70, 72), steps=14)


def _steam_coach(pen: Pen, rng: np.random.Generator, glass: np.ndarray) -> None:
    """A passenger coach behind the steam engine."""
    paint = pick(rng, PAINT)
    pen.rect(-2.6, .3, -1.15, 1.25, paint)
    pen.rect(-2.68, 1.22, -1.08, 1.34, darker(paint, .6))
    pen.rect(-1.2, .35, -.9, .45, BLACK)  # coupling
    _windows(pen, (-2.4, -2.0, -1.6), .75, 1.08, .25, glass)
    for x in (-2.3, -1.5):
        pen.wheel(x, .18, .17, tyre=BLACK, hub=(150, 150, 150))


def _steam_train(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint, trim, glass = _train_paint(rng)
    pen.rect(-.9, .35, 1.5, .5, BLACK)
    pen.rounded(-.2, .45, 1.45, 1.0, .2, paint)  # boiler and its bands
    for x in (.3, .9):
        pen.rect(x, .45, x + .06, 1.0, darker(paint, .6))
    pen.rounded(1.38, .5, 1.55, .96, .06, BLACK)
    pen.poly([(1.05, .98), (1.25, .98), (1.32, 1.45), (.98, 1.45)], BLACK)  # chimney
    pen.ellipse(.45, 1.0, .16, .16, trim)  # dome
    pen.rect(-.95, .4, -.2, 1.35, paint)  # cab
    pen.rect(-1.05, 1.33, -.1, 1.45, darker(paint, .6))
    pen.rect(-.8, .9, -.35, 1.22, glass)
    pen.poly([(1.45, .35), (1.85, .08), (1.45, .08)], darker(trim, .8))  # cow-catcher
    rim = (150, 35, 30) if rng.random() < .6 else BLACK
    for x in (-.65, -.1, .45):
        pen.wheel(x, .28, .27, tyre=rim, hub=(90, 90, 92))
    for x in (.95, 1.3):
        pen.wheel(x, .18, .17, tyre=BLACK, hub=(150, 150, 150))
    pen.limb([(-.65, .28), (.45, .28)], .07, (170, 170, 172))  # coupling rod
    pen.ellipse(1.5, 1.02, .09, .09, HEADLAMP, steps=10)
    if rng.random() < .8:
        _steam_coach(pen, rng, glass)
    return Drawing(pen, "steam", width=(.6, .98), turn=uniform(rng, -.02, .02), texture=.03)


def _modern_train(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint, trim, glass = _train_paint(rng)
    rear = -uniform(rng, 1.7, 2.3)
    body = pen.blob([(rear, .25), (rear, 1.2), (.9, 1.22), (1.5, 1.05), (1.95, .62), (2.05, .35), (1.9, .22)], paint, steps=4)
    pen.rect(rear, .42, 2.05, .56, trim, clip=body)
    pen.poly([(1.15, .8), (1.2, 1.05), (1.5, .97), (1.72, .74)], glass)  # windscreen
    _windows(pen, np.arange(rear + .15, .85, .42), .7, 1.0, .3, glass)
    pen.rect(rear * .35, .28, rear * .35 + .28, 1.08, darker(paint, .8))  # door
    pen.ellipse(1.9, .5, .08, .06, HEADLAMP, steps=10)
    pen.rect(rear + .1, .1, 1.7, .25, BLACK)
    _rail_wheels(pen, (rear * .85, rear * .6, .7, 1.2))
    if rng.random() < .5:  # a second carriage
        pen.rect(rear - .12, .35, rear, 1.1, BLACK)
        pen.rect(rear - 1.4, .25, rear - .12, 1.2, paint)
        pen.rect(rear - 1.4, .42, rear - .12, .56, trim)
        _windows(pen, np.arange(rear - 1.3, rear - .35, .42), .7, 1.0, .28, glass)
        pen.rect(rear - 1.4, .1, rear - .12, .25, BLACK)
    return Drawing(pen, "modern", width=(.65, .99), turn=uniform(rng, -.02, .02), texture=.03)


def _tram(rng: np.random.Generator) -> Drawing:
    pen = Pen()
    paint, trim, glass = _train_paint(rng)
    pen.rect(-.05, 1.45, .05, 1.75, BLACK)  # pantograph
    pen.limb([(-.35, 1.78), (.35, 1.78)], .06, BLACK)
    body = pen.rounded(-1.45, .22, 1.45, 1.45, .14, paint)
    pen.rect(-1.45, .55, 1.45, .64, trim, clip=body)
    pen.rect(-1.35, 1.4, 1.35, 1.5, darker(paint, .6))
    _windows(pen, np.arange(-1.3, 1.2, .44), .76, 1.25, .34, glass)
    pen.rect(-.15, .28, .2, 1.27, darker(trim, .85))  # door
    pen.rect(-.08, .7, .13, 1.2, glass)
    pen.ellipse(1.38, .42, .08, .08, HEADLAMP, steps=10)
    pen.rect(-1.3, .1, 1.3, .24, BLACK)
    _rail_wheels(pen, (-.95, -.6, .6, .95))
    return Drawing(pen, "tram", width=(.5, .85), turn=uniform(rng, -.02, .02), texture=.03)


def train(rng: np.random.Generator) -> Drawing:
    """A steam train, a modern train or a tram."""
    return _one_of(rng, (_steam_train, .33), (_modern_train, .45), (_tram, .22))


VEHICLES = {
    "aeroplane": aeroplane,
    "bicycle": bicycle,
    "boat": boat,
    "bus": bus,
    "car": car,
    "motorbike": motorbike,
    "train": train,
}
