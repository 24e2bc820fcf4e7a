"""Birds, four-legged animals and people: each call draws one anew, looking to the right, standing on y = 0."""

from dataclasses import dataclass

import numpy as np

from kit.toy.pen import PAINT, SKIN, Drawing, Pen, darker, lighter, pick, uniform

INK = (15, 15, 15)
HOOF = (50, 45, 40)
OFF_WHITE = (240, 238, 235)


@dataclass(frozen=True)
class Build:
    """The measures of an animal on four legs, in local units; its trunk reaches from -half_length to half_length."""

    half_length: float
    half_height: float
    leg: float
    thickness: float

    @property
    def middle(self) -> float:
        """Height of the trunk's middle above the ground."""
        return self.leg + self.half_height


def choose(rng: np.random.Generator, chances: dict[str, float]) -> str:
    """One of the names, each as likely as its share says."""
    return str(rng.choice(list(chances), p=list(chances.values())))


def around(x, y, points, scale=1.0):
    """Points written around their own origin, scaled and moved to (x, y)."""
    return [(x + scale * across, y + scale * up) for across, up in points]


def pair_of_legs(pen, rng, build, places, colour, hoof):
    """A hind and a fore leg at `places` (shares of the half length), each with its own slant and a slightly bent knee."""
    for place in places:
        top, slant = build.half_length * place, uniform(rng, -.22, .22)
        knee, foot = top + slant * build.leg * .5 + uniform(rng, -.02, .02), top + slant * build.leg
        bones = [(top, build.leg + build.half_height * .3), (knee, build.leg * .5), (foot, .04)]
        pen.limb(bones, [build.thickness * 1.35, build.thickness, build.thickness * .85], colour)
        pen.rect(foot - build.thickness * .5, 0, foot + build.thickness * .55, .07, hoof)


def far_legs(pen, rng, build, colour, hoof=HOOF):
    """The two legs on the other side: darker, and drawn before the trunk."""
    pair_of_legs(pen, rng, build, (-.68, .62), darker(colour, .72), hoof)


def bird(rng: np.random.Generator) -> Drawing:
    """A bird: flying with raised wings, perched on two thin legs, or a swimming duck."""
    look = choose(rng, {"flying": .38, "perched": .42, "duck": .2})
    plumage = pick(rng, [(240, 240, 240), (70, 70, 75), (60, 120, 190), (190, 60, 50), (150, 110, 70), (90, 160, 70), (230, 190, 60)])
    wing = pick(rng, [darker(plumage, .7), lighter(plumage, .3), darker(plumage, .55)], 8)
    beak = pick(rng, [(235, 160, 40)])
    pen = Pen()
    if look == "flying":
        flying_bird(pen, rng, plumage, wing, beak)
        turn = uniform(rng, -.3, .4)
    elif look == "perched":
        perched_bird(pen, plumage, wing, beak)
        turn = uniform(rng, -.15, .15)
    else:
        duck(pen, plumage, wing, beak)
        turn = uniform(rng, -.08, .08)
    return Drawing(pen, look, width=(.28, .6), height=None, turn=turn, texture=.1)


def flying_bird(pen, rng, plumage, wing, beak):
    lift = uniform(rng, .5, 1.25)
    pen.poly([(-.2, .08), (.25, .1), (-.1, lift * .9), (-.55, lift * 1.25), (-.45, lift * .6)], darker(wing, .85))  # far wing
    pen.poly([(-.5, .05), (-1.15, .22), (-1.1, 0), (-1.2, -.12), (-.5, -.06)], wing)  # tail
    trunk = pen.blob([(.7, .12), (.55, .24), (.3, .2), (-.3, .14), (-.65, .02), (-.2, -.16), (.35, -.12), (.6, 0)], plumage)
    pen.ellipse(.05, -.14, .4, .14, lighter(plumage, .5), clip=trunk)  # belly
    pen.poly([(.3, .05), (-.25, .02), (-.75, lift * .55), (-1.05, lift * 1.05), (-.35, lift * .8), (.1, lift * .45)], wing)
    pen.poly([(.68, .2), (.9, .1), (.68, .06)], beak)
    pen.ellipse(.56, .16, .035, .035, INK, steps=8)


def perched_bird(pen, plumage, wing, beak):
    for leg in ([(-.05, .05), (0, .35)], [(.15, .03), (.14, .35)], [(-.1, .03), (.1, .03)], [(.08, .01), (.3, .01)]):
        pen.limb(leg, .05, beak)
    pen.poly([(-.45, .5), (-1.15, .22), (-1.2, .4), (-.5, .75)], wing)  # tail
    outline = [(.55, 1.3), (.35, 1.42), (.15, 1.32), (-.1, 1.05), (-.6, .65), (-.5, .4), (0, .25), (.4, .4), (.52, .8), (.5, 1.05)]
    trunk = pen.blob(outline, plumage)
    pen.ellipse(.4, .6, .28, .4, lighter(plumage, .5), clip=trunk)  # breast
    pen.blob([(.15, .98), (-.1, 1.0), (-.75, .45), (-.2, .4), (.15, .6)], wing)
    pen.poly([(.52, 1.3), (.82, 1.17), (.52, 1.1)], beak)
    pen.ellipse(.38, 1.24, .045, .045, INK, steps=8)


def duck(pen, plumage, wing, beak):
    pen.poly([(-.7, .35), (-1.1, .62), (-.95, .3)], wing)  # tail
    pen.blob([(-.9, .4), (-.5, .42), (.1, .42), (.35, .55), (.42, .95), (.62, 1.12), (.8, 1.0), (.75, .75), (.8, .4), (.55, .1), (0, 0),
              (-.6, .08)], plumage)
    pen.blob([(.15, .4), (-.5, .42), (-.75, .3), (-.2, .14), (.2, .22)], wing)
    pen.poly([(.76, 1.0), (1.08, .9), (.78, .83)], beak)
    pen.ellipse(.62, .98, .045, .045, INK, steps=8)
    pen.ellipse(.42, .68, .14, .06, lighter(plumage, .8), turn=-.5, steps=10)  # ring round the neck


@dataclass(frozen=True)
class CatCoat:
    """What the parts of one cat have in common; stripes is None where the coat is plain."""

    fur: np.ndarray
    stripes: np.ndarray | None
    eyes: np.ndarray


def cat(rng: np.random.Generator) -> Drawing:
    """A cat with pointed ears and a raised tail, standing, as a kitten, or sitting and looking at us."""
    look = choose(rng, {"cat": .42, "kitten": .2, "sitting": .38})
    fur = pick(rng, [(225, 140, 60), (140, 135, 130), (50, 48, 50), (235, 230, 222), (180, 150, 110), (110, 95, 85)])
    stripes = darker(fur, .6) if rng.random() < .6 else None
    coat = CatCoat(fur, stripes, eyes=pick(rng, [(120, 190, 80), (230, 190, 50), (90, 170, 210)]))
    pen = Pen()
    if look == "sitting":
        sitting_cat(pen, rng, coat)
        width, height = None, (.38, .75)
    elif look == "kitten":
        standing_cat(pen, rng, coat, Build(.45, .2, leg=.28, thickness=.12), head_height=.22, head_scale=1.05)
        width, height = (.26, .46), None
    else:
        standing_cat(pen, rng, coat, Build(.7, .23, leg=.38, thickness=.12), head_height=.25, head_scale=.95)
        width, height = (.36, .68), None
    return Drawing(pen, look, width=width, height=height, turn=uniform(rng, -.06, .06), texture=.07)


def standing_cat(pen, rng, coat, build, *, head_height, head_scale):
    length, height, middle = build.half_length, build.half_height, build.middle
    paw = lighter(coat.fur, .3)
    far_legs(pen, rng, build, coat.fur, paw)
    raised = uniform(rng, -.2, .5) * .3
    tail = [(-length * .9, middle + .08), (-length * 1.25, middle + .15), (-length * 1.45, middle + .45 + raised),
            (-length * 1.3, middle + .75 + raised)]
    pen.limb(tail, [.11, .1, .09, .07], coat.fur)
    pair_of_legs(pen, rng, build, (-.78, .75), coat.fur, paw)
    trunk = pen.blob([(-length, middle + .06), (-length * .5, middle + height * .95), (length * .3, middle + height * .75),
                      (length * .98, middle + height * .8), (length, middle - height * .3), (length * .5, middle - height * .85),
                      (-length * .4, middle - height * .75), (-length * .95, middle - height * .7)], coat.fur)
    if coat.stripes is not None:
        top, bottom = middle + height * 1.2, middle - height * .2
        for x in np.linspace(-.75, .6, 6) * length:
            pen.poly([(x, top), (x + .07, top), (x + .04, bottom)], coat.stripes, clip=trunk)
    cat_head(pen, length * 1.05, middle + head_height, coat, head_scale)


def sitting_cat(pen, rng, coat):
    side = 1 if rng.random() < .5 else -1
    pen.limb([(side * .35, .12), (side * .7, .1), (side * .9, .25), (side * .85, .5)], [.13, .12, .1, .06], coat.fur)  # tail
    outline = [(-.2, .95), (.2, .95), (.36, .5), (.46, .2), (.35, .02), (-.35, .02), (-.46, .2), (-.36, .5)]
    trunk = pen.blob(outline, coat.fur)
    if coat.stripes is not None:
        for y in (.25, .45, .65):
            for flank in (-1, 1):
                pen.poly([(flank * .5, y + .05), (flank * .5, y - .03), (flank * .2, y)], coat.stripes, clip=trunk)
    pen.ellipse(0, .6, .15, .26, lighter(coat.fur, .55), steps=14)  # breast
    for x in (-1, 1):
        pen.limb([(x * .12, .55), (x * .12, .08)], [.16, .14], darker(coat.fur, .93))
        pen.ellipse(x * .13, .06, .11, .07, lighter(coat.fur, .4), steps=10)
    cat_head(pen, 0, 1.1, coat, 1.15)


def cat_head(pen, x, y, coat, scale):
    for side in (-1, 1):
        pen.poly(around(x, y, [(side * .27, .02), (side * .05, .2), (side * .25, .43)], scale), coat.fur)
        pen.poly(around(x, y, [(side * .22, .12), (side * .1, .2), (side * .21, .34)], scale), (235, 165, 160))
    skull = pen.ellipse(x, y, .3 * scale, .25 * scale, coat.fur)
    if coat.stripes is not None:
        for across in (-.1, 0, .1):
            pen.rect(x + (across - .02) * scale, y + .12 * scale, x + (across + .02) * scale, y + .3 * scale, coat.stripes, clip=skull)
    pen.ellipse(x, y - .12 * scale, .15 * scale, .1 * scale, lighter(coat.fur, .5), steps=12)
    for side in (-1, 1):
        pen.ellipse(x + side * .12 * scale, y + .03 * scale, .06 * scale, .055 * scale, coat.eyes, steps=10)
        pen.ellipse(x + side * .12 * scale, y + .03 * scale, .022 * scale, .05 * scale, INK, steps=8)
    pen.poly(around(x, y, [(-.04, -.06), (.04, -.06), (0, -.11)], scale), (225, 120, 120))


def cow(rng: np.random.Generator) -> Drawing:
    """Cattle: a patched cow with an udder, a dark bull, or a hornless calf."""
    look = choose(rng, {"cow": .6, "bull": .25, "calf": .15})
    bull_hides = [(90, 55, 38), (55, 48, 46), (130, 80, 50)]
    hides = [(240, 238, 232), (240, 238, 232), (125, 75, 45), (60, 50, 48), (170, 120, 80)]
    hide = pick(rng, bull_hides if look == "bull" else hides)
    leg = uniform(rng, .5, .62)
    build = Build(.75, .36, leg=leg * 1.1, thickness=.17) if look == "calf" else Build(1.0, .47, leg=leg, thickness=.19)
    length, height, middle, shade = build.half_length, build.half_height, build.middle, darker(hide, .92)
    pen = Pen()
    far_legs(pen, rng, build, shade)
    cow_tail(pen, -length * 1.02, middle, hide)
    if look == "cow":
        pen.ellipse(-length * .4, build.leg - .02, .2, .14, (235, 170, 165), steps=14)  # udder
    trunk = pen.blob([(-length, middle + .25), (-length * .6, middle + height * .95), (0, middle + height * .82),
                      (length * .6, middle + height), (length, middle + height * .7), (length, middle - height * .4),
                      (length * .55, middle - height * .95), (-length * .3, middle - height), (-length * .95, middle - height * .7)], hide)
    if np.mean(hide) > 200 or rng.random() < .35:
        cow_patches(pen, rng, build, hide, trunk)
    pair_of_legs(pen, rng, build, (-.82, .8), shade, HOOF)
    raised = uniform(rng, .05, .4) * (1 if rng.random() < .75 else -1.2)  # one in four grazes
    x, y = length * 1.42, middle + raised
    pen.poly([(length * .6, middle + height * .9), (length * .7, middle - height * .85), (length, middle - height * .75),  # with a dewlap
              (x - .05, y - .16), (x - .12, y + .22)], hide)
    cow_head(pen, rng, x, y, hide, horns=look != "calf")
    return Drawing(pen, look, width=(.42, .8), height=None, turn=uniform(rng, -.05, .05), texture=.07)


def cow_tail(pen, x, y, hide):
    pen.limb([(x, y + .25), (x - .16, y - .05), (x - .12, y - .5)], .05, darker(hide, .8))
    pen.ellipse(x - .12, y - .56, .07, .12, darker(hide, .4), steps=10)


def cow_patches(pen, rng, build, hide, trunk):
    patch = pick(rng, [(35, 32, 32), (35, 32, 32), (130, 80, 45)]) if np.mean(hide) > 200 else (238, 236, 230)
    angles = np.linspace(0, 2 * np.pi, 7, endpoint=False)
    low, high = build.middle - build.half_height, build.middle + build.half_height
    for _ in range(rng.integers(3, 6)):
        x, y = uniform(rng, -build.half_length, build.half_length), uniform(rng, low, high)
        radii = rng.uniform(.12, .34, 7)
        across, up = x + radii * np.cos(angles), y + radii * np.sin(angles) * .9
        # Points stay in the trunk's box: what is clipped away must not widen the pen's bounds.
        box = [across.clip(-build.half_length, build.half_length), up.clip(low, high)]
        pen.blob(np.stack(box, axis=1), patch, clip=trunk)


def cow_head(pen, rng, x, y, hide, *, horns):
    if horns:
        for horn in ([(-.1, .2), (-.26, .38), (-.2, .6)], [(.04, .2), (.2, .38), (.14, .6)]):
            pen.limb(around(x, y, horn), [.14, .1, .04], (235, 225, 200))
    pen.ellipse(x - .3, y + .14, .22, .1, darker(hide, .7), turn=-.25, steps=12)  # ear, hanging sideways
    pen.ellipse(x - .3, y + .14, .13, .05, (225, 165, 155), turn=-.25, steps=12)
    face = hide if rng.random() < .6 else darker(hide, .6)
    pen.blob(around(x, y, [(-.2, .24), (.08, .26), (.26, .05), (.4, -.2), (.3, -.4), (.06, -.32), (-.18, -.05)]), face)
    muzzle = pen.blob(around(x, y, [(.16, -.1), (.34, -.04), (.48, -.2), (.46, -.38), (.3, -.46), (.1, -.36)]), (232, 172, 162))
    pen.ellipse(x + .38, y - .2, .035, .045, (120, 70, 70), turn=-.6, steps=8, clip=muzzle)  # nostril
    pen.ellipse(x + .08, y + .08, .045, .045, INK, steps=8)


@dataclass(frozen=True)
class DogCoat:
    """What the parts of one dog have in common; collar is None where it wears none."""

    fur: np.ndarray
    ear: np.ndarray
    muzzle: np.ndarray
    floppy: bool
    collar: np.ndarray | None


def dog(rng: np.random.Generator) -> Drawing:
    """A dog with a long muzzle and a wagging tail: standing, as a puppy, or sitting."""
    look = choose(rng, {"dog": .5, "puppy": .2, "sitting": .3})
    fur = pick(rng, [(160, 110, 60), (110, 70, 40), (60, 50, 45), (215, 185, 140), (230, 222, 210), (190, 140, 85)])
    coat = DogCoat(fur, ear=pick(rng, [darker(fur, .65), darker(fur, .5), fur], 6), muzzle=lighter(fur, .3) if rng.random() < .5 else fur,
                   floppy=rng.random() < .65, collar=pick(rng, PAINT) if rng.random() < .5 else None)
    pen = Pen()
    if look == "sitting":
        sitting_dog(pen, rng, coat)
        width, height = None, (.4, .75)
    elif look == "puppy":
        standing_dog(pen, rng, coat, Build(.5, .24, leg=.32, thickness=.14), head_height=.38, head_scale=1.15)
        width, height = (.28, .5), None
    else:
        standing_dog(pen, rng, coat, Build(.72, .25, leg=uniform(rng, .45, .6), thickness=.14), head_height=.42, head_scale=1.0)
        width, height = (.38, .72), None
    return Drawing(pen, look, width=width, height=height, turn=uniform(rng, -.06, .06), texture=.07)


def standing_dog(pen, rng, coat, build, *, head_height, head_scale):
    length, height, middle = build.half_length, build.half_height, build.middle
    paw = darker(coat.fur, .8)
    far_legs(pen, rng, build, coat.fur, paw)
    wag = uniform(rng, .2, .5)
    pen.limb([(-length * .9, middle + .1), (-length * 1.2, middle + .2), (-length * 1.3, middle + .2 + wag)], [.13, .1, .05], coat.fur)
    pair_of_legs(pen, rng, build, (-.78, .75), coat.fur, paw)
    neck = [(length * .4, middle + height * .8), (length * .95, middle - height * .5), (length * 1.15 + .15, middle + .28),
            (length - .1, middle + .5)]
    pen.poly(neck, coat.fur)
    trunk = pen.blob([(-length, middle + .1), (-length * .5, middle + height * .85), (length * .4, middle + height * .9),
                      (length * .98, middle + height * .5), (length * .95, middle - height * .5), (length * .5, middle - height),
                      (-length * .4, middle - height * .65), (-length * .9, middle - height * .6)], coat.fur)
    if rng.random() < .4:
        patch = pick(rng, [(240, 235, 225), (50, 42, 38), darker(coat.fur, .6)])
        pen.ellipse(uniform(rng, -.4, .2), middle + .05, .25, .2, patch, clip=trunk)
    if coat.collar is not None:
        pen.limb([(length * .85, middle + .36), (length * 1.12, middle + .14)], .08, coat.collar)
    dog_head(pen, rng, length * 1.18, middle + head_height, coat, head_scale)


def sitting_dog(pen, rng, coat):
    fur = coat.fur
    pen.limb([(-.4, .12), (-.75, .14), (-.95, .4)], [.14, .11, .05], fur)  # tail
    pen.ellipse(-.22, .3, .4, .3, fur)  # haunch
    pen.limb([(-.1, .08), (.22, .08)], .14, darker(fur, .85))
    pen.blob([(.28, .3), (.3, .85), (.2, 1.12), (-.05, 1.15), (-.35, .75), (-.55, .3), (-.2, .05), (.2, .1)], fur)
    if rng.random() < .5:
        pen.ellipse(.2, .65, .14, .28, lighter(fur, .5), steps=14)  # breast
    pen.limb([(.12, .7), (.18, .3), (.2, .07)], [.2, .14, .13], darker(fur, .9))
    pen.limb([(.25, .7), (.34, .3), (.36, .06)], [.2, .14, .13], fur)
    pen.rounded(.28, 0, .52, .11, .05, fur)
    if coat.collar is not None:
        pen.limb([(-.08, 1.06), (.3, 1.0)], .1, coat.collar)
    dog_head(pen, rng, .16, 1.28, coat, 1.12)


def dog_head(pen, rng, x, y, coat, scale):
    if not coat.floppy:
        pen.poly(around(x, y, [(-.22, .15), (-.02, .2), (-.16, .52)], scale), coat.ear)
    pen.ellipse(x, y, .27 * scale, .25 * scale, coat.fur)
    pen.blob(around(x, y, [(.1, .08), (.4, .02), (.5, -.08), (.42, -.2), (.05, -.2)], scale), coat.muzzle)
    pen.ellipse(x + .48 * scale, y - .01 * scale, .07 * scale, .06 * scale, (20, 20, 20), steps=10)  # nose
    pen.ellipse(x + .1 * scale, y + .08 * scale, .04 * scale, .04 * scale, INK, steps=8)
    if coat.floppy:
        pen.blob(around(x, y, [(-.18, .2), (0, .15), (-.02, -.2), (-.16, -.32), (-.28, -.1)], scale), coat.ear)
    if rng.random() < .35:
        pen.blob(around(x, y, [(.28, -.17), (.38, -.17), (.36, -.34), (.28, -.32)], scale), (230, 110, 120))  # tongue


HORSE_BUILDS = {"pony": Build(.85, .38, leg=.62, thickness=.13), "foal": Build(.62, .25, leg=.95, thickness=.13)}


def horse(rng: np.random.Generator) -> Drawing:
    """A horse with a long neck, a mane and a full tail; a pony is low and round, a foal short and long-legged."""
    look = choose(rng, {"horse": .65, "pony": .2, "foal": .15})
    coat = pick(rng, [(125, 70, 40), (85, 50, 32), (160, 100, 55), (45, 40, 40), (225, 220, 212), (150, 140, 135)])
    hair = pick(rng, [(40, 30, 25), (30, 28, 28), (235, 225, 200), darker(coat, .5)], 8)
    build = Build(.85, .33, leg=uniform(rng, .85, 1.0), thickness=.13) if look == "horse" else HORSE_BUILDS[look]
    length, height, middle = build.half_length, build.half_height, build.middle
    pen = Pen()
    far_legs(pen, rng, build, coat)
    pen.blob([(-length * .92, middle + .24), (-length * 1.15, middle + .18), (-length * 1.38, middle - .3), (-length * 1.25, middle - .75),
              (-length * 1.12, middle - .3), (-length, middle - .02)], hair)  # tail
    pair_of_legs(pen, rng, build, (-.8, .78), coat, HOOF)
    if rng.random() < .15:  # grazing: the head down at the grass, the mane on the neck's far edge
        x, y = length * .82 + .6, .42
        neck = [(length * .45, middle + height * .9), (length * .75, middle - height * .85), (x - .26, y + .02), (x + .04, y + .24),
                (length * 1.1, middle + height * .5)]
        mane = [(length * .6, middle + height * .98), (length * 1.1, middle + height * .72), (x + .12, y + .32), (x, y + .22),
                (length * 1.0, middle + height * .3)]
    else:
        x, y = length * .82 + uniform(rng, .42, .6), middle + uniform(rng, .55, .8)
        neck = [(length * .4, middle + height * .85), (length * .95, middle - height * .35), (x + length * .03 + .12, y - .1),
                (x - length * .02 - .22, y + .2)]
        mane = [(length * .35, middle + height * .95), (length * .55, middle + height * 1.35), (x - .32, y + .22), (x - .12, y + .32),
                (x - .08, y + .1), (length * .75, middle + height * .9)]
    pen.poly(neck, coat)
    pen.blob([(-length, middle + .16), (-length * .6, middle + height * .95), (0, middle + height * .7),
              (length * .55, middle + height * .95), (length * .98, middle + height * .5), (length * .98, middle - height * .5),
              (length * .55, middle - height * .95), (-length * .2, middle - height * .8), (-length * .75, middle - height * .95),
              (-length * 1.02, middle - height * .3)], coat)
    pen.blob(mane, hair)
    horse_head(pen, rng, x, y, coat)
    if rng.random() < .2:
        saddle = pick(rng, [(120, 60, 30), (170, 40, 40), (40, 60, 130)])
        pen.blob([(-.3, middle + height * .95), (.25, middle + height * .95), (.2, middle + .05), (-.25, middle + .05)], saddle)
    return Drawing(pen, look, width=(.42, .8), height=None, turn=uniform(rng, -.05, .05), texture=.05)


def horse_head(pen, rng, x, y, coat):
    pen.poly(around(x, y, [(-.12, .22), (.02, .22), (-.08, .46)]), coat)  # ear
    pen.blob(around(x, y, [(-.16, .24), (.06, .22), (.3, -.08), (.44, -.26), (.36, -.4), (.2, -.36), (-.06, -.12), (-.2, -.02)]), coat)
    pen.ellipse(x + .36, y - .3, .09, .09, darker(coat, .6), steps=10)  # nostrils
    pen.ellipse(x + .05, y + .08, .035, .035, INK, steps=8)
    if rng.random() < .3:
        pen.limb(around(x, y, [(.08, .12), (.28, -.18)]), .06, OFF_WHITE)  # blaze


def sheep(rng: np.random.Generator) -> Drawing:
    """A sheep in a cloud of wool: grown, as a lamb, or a ram with curled horns."""
    look = choose(rng, {"sheep": .6, "lamb": .2, "ram": .2})
    wool = pick(rng, [(238, 232, 215), (238, 232, 215), (215, 208, 192), (170, 160, 150), (90, 80, 72)])
    face = pick(rng, [(45, 42, 42), (45, 42, 42), (225, 205, 185), darker(wool, .7)], 8)
    build = Build(.6, .3, leg=.45, thickness=.12) if look == "lamb" else Build(.8, .42, leg=.38, thickness=.12)
    pen = Pen()
    far_legs(pen, rng, build, face)
    pair_of_legs(pen, rng, build, (-.72, .66), face, HOOF)
    fleece(pen, rng, build, wool)
    sheep_head(pen, build.half_length * 1.12, build.middle + uniform(rng, -.05, .35), wool, face, horns=look == "ram")
    return Drawing(pen, look, width=(.36, .7), height=None, turn=uniform(rng, -.05, .05), texture=.12)


def fleece(pen, rng, build, wool):
    length, height, middle, shade = build.half_length, build.half_height, build.middle, darker(wool, .9)
    pen.ellipse(0, middle, length * .98, height * .95, wool)
    for angle in np.linspace(0, 2 * np.pi, 15, endpoint=False):
        across, up = np.cos(angle), np.sin(angle)
        pen.ellipse(length * .88 * across, middle + height * .82 * up, .2, .19, wool if up > -.2 else shade, steps=10)
    pen.ellipse(0, middle, length * .9, height * .85, wool)
    for _ in range(9):
        x, y = uniform(rng, -.6, .6) * length, middle + uniform(rng, -.6, .6) * height
        pen.ellipse(x, y, .09, .06, shade, turn=uniform(rng, -1, 1), steps=8)


def sheep_head(pen, x, y, wool, face, *, horns):
    pen.ellipse(x - .24, y + .1, .15, .06, darker(face, .8), turn=.5, steps=10)  # ear
    pen.blob(around(x, y, [(-.18, .22), (.06, .2), (.26, -.1), (.2, -.25), (.02, -.22), (-.2, -.08)]), face)
    pen.ellipse(x - .08, y + .22, .17, .12, wool, steps=12)
    pen.ellipse(x + .04, y + .05, .035, .035, (240, 240, 240) if np.mean(face) < 120 else (20, 20, 20), steps=8)
    if horns:
        angle, radius = np.linspace(.3 * np.pi, 1.95 * np.pi, 10), np.linspace(.26, .17, 10)
        curl = zip(radius * np.cos(angle) - .2, radius * np.sin(angle) + .1, strict=True)
        pen.limb(around(x, y, curl), np.linspace(.18, .05, 10), (190, 155, 100))


TROUSERS = [(50, 60, 100), (40, 40, 45), (110, 90, 60), (120, 125, 130), (70, 90, 60)]
HAIR = [(40, 28, 22), (90, 55, 30), (200, 160, 80), (30, 30, 32), (150, 70, 40), (150, 150, 150)]
SHOES = [(40, 35, 35), (120, 70, 40), (230, 230, 230), (180, 40, 40)]


def person(rng: np.random.Generator) -> Drawing:
    """A standing man, woman (long hair, often a skirt) or child (short, with a large head)."""
    look = choose(rng, {"man": .4, "woman": .4, "child": .2})
    skin, shirt = pick(rng, SKIN, 6), pick(rng, [*PAINT, (240, 150, 170)])
    trousers, hair, shoe = pick(rng, TROUSERS), pick(rng, HAIR, 6), pick(rng, SHOES)
    hip, shoulder, head_scale = (.62, 1.17, 1.3) if look == "child" else (.85, 1.6, 1.0)
    skirted = look == "woman" and rng.random() < .6
    pen = Pen()
    person_arm(pen, rng, -1, shoulder, darker(shirt, .85), skin)
    if look == "woman":
        pen.blob(around(0, shoulder, [(-.2, .42), (.2, .42), (.26, .1), (.22, -.15), (-.22, -.15), (-.26, .1)]), hair)
    person_legs(pen, rng, hip, skin if skirted else trousers, shoe)
    if skirted:
        skirt = shirt if rng.random() < .5 else trousers
        pen.poly([(-.2, hip + .15), (.2, hip + .15), (.36, hip * .45), (-.36, hip * .45)], skirt)
    trunk = pen.blob([(-.27, shoulder), (-.08, shoulder + .06), (.08, shoulder + .06), (.27, shoulder), (.23, hip + .3), (.22, hip - .04),
                      (-.22, hip - .04), (-.23, hip + .3)], shirt, steps=4)
    if rng.random() < .3:
        for y in np.arange(hip, shoulder, .16):
            pen.rect(-.4, y, .4, y + .07, lighter(shirt, .6), clip=trunk)
    person_arm(pen, rng, 1, shoulder, shirt, skin)
    pen.rect(-.07, shoulder, .07, shoulder + .14, darker(skin, .9))
    person_head(pen, shoulder + .28 * head_scale, head_scale, skin, hair)
    width, height = None, (.38, .65) if look == "child" else (.5, .88)
    return Drawing(pen, look, width=width, height=height, turn=uniform(rng, -.05, .05), texture=.04)


def person_arm(pen, rng, side, shoulder, sleeve, skin):
    """One arm, held out at a random angle; one in four is raised to wave."""
    spread = uniform(rng, -.3, .9)
    x, y = side * .24, shoulder - .08
    elbow_x, elbow_y = x + side * (.1 + .2 * spread), y - .32 + .15 * max(spread, 0)
    hand = (elbow_x + side * .2, elbow_y + .3) if rng.random() < .25 else (elbow_x + side * .12, elbow_y - .28)
    pen.limb([(x, y), (elbow_x, elbow_y), hand], [.15, .13, .1], sleeve)
    pen.ellipse(*hand, .07, .07, skin, steps=10)


def person_legs(pen, rng, hip, colour, shoe):
    stride = uniform(rng, -.18, .18)
    for side in (-1, 1):
        x = side * (.14 + stride)
        bones = [(side * .11, hip + .05), (side * (.13 + stride * .4), hip * .5), (x, .08)]
        pen.limb(bones, [.2, .17, .13], colour if side > 0 else darker(colour, .85))
        pen.blob([(x - .1, 0), (x + .16, 0), (x + .14, .08), (x - .08, .12)], shoe)


def person_head(pen, y, scale, skin, hair):
    pen.ellipse(0, y, .18 * scale, .21 * scale, skin)
    pen.blob([(-.2 * scale, y + .02), (-.17 * scale, y + .2 * scale), (0, y + .26 * scale), (.17 * scale, y + .2 * scale),
              (.2 * scale, y + .02), (.12 * scale, y + .11 * scale), (-.1 * scale, y + .12 * scale)], hair)
    for side in (-1, 1):
        pen.ellipse(side * .07 * scale, y, .022, .025, (20, 20, 20), steps=6)
    pen.rect(-.05 * scale, y - .11 * scale, .05 * scale, y - .09 * scale, (160, 60, 60))


ANIMALS = {"bird": bird, "cat": cat, "cow": cow, "dog": dog, "horse": horse, "sheep": sheep, "person": person}
