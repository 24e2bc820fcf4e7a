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
        top, slant = build.half_length * place, uniform(rng, -0.22, 0.22)
        knee, foot = top + slant * build.leg * 0.5 + uniform(rng, -0.02, 0.02), top + slant * build.leg
        bones = [(top, build.leg + build.half_height * 0.3), (knee, build.leg * 0.5), (foot, 0.04)]
        pen.limb(bones, [build.thickness * 1.35, build.thickness, build.thickness * 0.85], colour)
        pen.rect(foot - build.thickness * 0.5, 0, foot + build.thickness * 0.55, 0.07, hoof)


def far_legs(pen, rng, build, colour, hoof=HOOF):
    """The two legs on the other side: darker, and drawn before the trunk."""
    pair_of_legs(pen, rng, build, (-0.68, 0.62), darker(colour, 0.72), hoof)


# Birds


def bird(rng: np.random.Generator) -> Drawing:
    """A bird: flying with raised wings, perched on two thin legs, or a swimming duck."""
    look = choose(rng, {"flying": 0.38, "perched": 0.42, "duck": 0.2})
    plumage = pick(rng, [(240, 240, 240), (70, 70, 75), (60, 120, 190), (190, 60, 50), (150, 110, 70), (90, 160, 70), (230, 190, 60)])
    wing = pick(rng, [darker(plumage, 0.7), lighter(plumage, 0.3), darker(plumage, 0.55)], 8)
    beak = pick(rng, [(235, 160, 40)])
    pen = Pen()
    if look == "flying":
        flying_bird(pen, rng, plumage, wing, beak)
        turn = uniform(rng, -0.3, 0.4)
    elif look == "perched":
        perched_bird(pen, plumage, wing, beak)
        turn = uniform(rng, -0.15, 0.15)
    else:
        duck(pen, plumage, wing, beak)
        turn = uniform(rng, -0.08, 0.08)
    return Drawing(pen, look, width=(0.28, 0.6), height=None, turn=turn, texture=0.1)


def flying_bird(pen, rng, plumage, wing, beak):
    lift = uniform(rng, 0.5, 1.25)
    pen.poly([(-0.2, 0.08), (0.25, 0.1), (-0.1, lift * 0.9), (-0.55, lift * 1.25), (-0.45, lift * 0.6)], darker(wing, 0.85))  # far wing
    pen.poly([(-0.5, 0.05), (-1.15, 0.22), (-1.1, 0), (-1.2, -0.12), (-0.5, -0.06)], wing)  # tail
    trunk = pen.blob([(0.7, 0.12), (0.55, 0.24), (0.3, 0.2), (-0.3, 0.14), (-0.65, 0.02), (-0.2, -0.16), (0.35, -0.12), (0.6, 0)], plumage)
    pen.ellipse(0.05, -0.14, 0.4, 0.14, lighter(plumage, 0.5), clip=trunk)  # belly
    pen.poly([(0.3, 0.05), (-0.25, 0.02), (-0.75, lift * 0.55), (-1.05, lift * 1.05), (-0.35, lift * 0.8), (0.1, lift * 0.45)], wing)
    pen.poly([(0.68, 0.2), (0.9, 0.1), (0.68, 0.06)], beak)
    pen.ellipse(0.56, 0.16, 0.035, 0.035, INK, steps=8)


def perched_bird(pen, plumage, wing, beak):
    for leg in ([(-0.05, 0.05), (0, 0.35)], [(0.15, 0.03), (0.14, 0.35)], [(-0.1, 0.03), (0.1, 0.03)], [(0.08, 0.01), (0.3, 0.01)]):
        pen.limb(leg, 0.05, beak)
    pen.poly([(-0.45, 0.5), (-1.15, 0.22), (-1.2, 0.4), (-0.5, 0.75)], wing)  # tail
    outline = [
        (0.55, 1.3),
        (0.35, 1.42),
        (0.15, 1.32),
        (-0.1, 1.05),
        (-0.6, 0.65),
        (-0.5, 0.4),
        (0, 0.25),
        (0.4, 0.4),
        (0.52, 0.8),
        (0.5, 1.05),
    ]
    trunk = pen.blob(outline, plumage)
    pen.ellipse(0.4, 0.6, 0.28, 0.4, lighter(plumage, 0.5), clip=trunk)  # breast
    pen.blob([(0.15, 0.98), (-0.1, 1.0), (-0.75, 0.45), (-0.2, 0.4), (0.15, 0.6)], wing)
    pen.poly([(0.52, 1.3), (0.82, 1.17), (0.52, 1.1)], beak)
    pen.ellipse(0.38, 1.24, 0.045, 0.045, INK, steps=8)


def duck(pen, plumage, wing, beak):
    pen.poly([(-0.7, 0.35), (-1.1, 0.62), (-0.95, 0.3)], wing)  # tail
    pen.blob(
        [
            (-0.9, 0.4),
            (-0.5, 0.42),
            (0.1, 0.42),
            (0.35, 0.55),
            (0.42, 0.95),
            (0.62, 1.12),
            (0.8, 1.0),
            (0.75, 0.75),
            (0.8, 0.4),
            (0.55, 0.1),
            (0, 0),
            (-0.6, 0.08),
        ],
        plumage,
    )
    pen.blob([(0.15, 0.4), (-0.5, 0.42), (-0.75, 0.3), (-0.2, 0.14), (0.2, 0.22)], wing)
    pen.poly([(0.76, 1.0), (1.08, 0.9), (0.78, 0.83)], beak)
    pen.ellipse(0.62, 0.98, 0.045, 0.045, INK, steps=8)
    pen.ellipse(0.42, 0.68, 0.14, 0.06, lighter(plumage, 0.8), turn=-0.5, steps=10)  # ring round the neck


# Cats


@dataclass(frozen=True)
class CatCoat:
    """What the parts of one cat have in common; stripes is None where the coat is plain."""

    fur: np.ndarray
    stripes: np.ndarray | None
    eyes: np.ndarray


def cat(rng: np.random.Generator) -> Drawing:
    """A cat with pointed ears and a raised tail, standing, as a kitten, or sitting and looking at us."""
    look = choose(rng, {"cat": 0.42, "kitten": 0.2, "sitting": 0.38})
    fur = pick(rng, [(225, 140, 60), (140, 135, 130), (50, 48, 50), (235, 230, 222), (180, 150, 110), (110, 95, 85)])
    stripes = darker(fur, 0.6) if rng.random() < 0.6 else None
    coat = CatCoat(fur, stripes, eyes=pick(rng, [(120, 190, 80), (230, 190, 50), (90, 170, 210)]))
    pen = Pen()
    if look == "sitting":
        sitting_cat(pen, rng, coat)
        width, height = None, (0.38, 0.75)
    elif look == "kitten":
        standing_cat(pen, rng, coat, Build(0.45, 0.2, leg=0.28, thickness=0.12), head_height=0.22, head_scale=1.05)
        width, height = (0.26, 0.46), None
    else:
        standing_cat(pen, rng, coat, Build(0.7, 0.23, leg=0.38, thickness=0.12), head_height=0.25, head_scale=0.95)
        width, height = (0.36, 0.68), None
    return Drawing(pen, look, width=width, height=height, turn=uniform(rng, -0.06, 0.06), texture=0.07)


def standing_cat(pen, rng, coat, build, *, head_height, head_scale):
    length, height, middle = build.half_length, build.half_height, build.middle
    paw = lighter(coat.fur, 0.3)
    far_legs(pen, rng, build, coat.fur, paw)
    raised = uniform(rng, -0.2, 0.5) * 0.3
    tail = [
        (-length * 0.9, middle + 0.08),
        (-length * 1.25, middle + 0.15),
        (-length * 1.45, middle + 0.45 + raised),
        (-length * 1.3, middle + 0.75 + raised),
    ]
    pen.limb(tail, [0.11, 0.1, 0.09, 0.07], coat.fur)
    pair_of_legs(pen, rng, build, (-0.78, 0.75), coat.fur, paw)
    trunk = pen.blob(
        [
            (-length, middle + 0.06),
            (-length * 0.5, middle + height * 0.95),
            (length * 0.3, middle + height * 0.75),
            (length * 0.98, middle + height * 0.8),
            (length, middle - height * 0.3),
            (length * 0.5, middle - height * 0.85),
            (-length * 0.4, middle - height * 0.75),
            (-length * 0.95, middle - height * 0.7),
        ],
        coat.fur,
    )
    if coat.stripes is not None:
        top, bottom = middle + height * 1.2, middle - height * 0.2
        for x in np.linspace(-0.75, 0.6, 6) * length:
            pen.poly([(x, top), (x + 0.07, top), (x + 0.04, bottom)], coat.stripes, clip=trunk)
    cat_head(pen, length * 1.05, middle + head_height, coat, head_scale)


def sitting_cat(pen, rng, coat):
    side = 1 if rng.random() < 0.5 else -1
    pen.limb([(side * 0.35, 0.12), (side * 0.7, 0.1), (side * 0.9, 0.25), (side * 0.85, 0.5)], [0.13, 0.12, 0.1, 0.06], coat.fur)  # tail
    outline = [(-0.2, 0.95), (0.2, 0.95), (0.36, 0.5), (0.46, 0.2), (0.35, 0.02), (-0.35, 0.02), (-0.46, 0.2), (-0.36, 0.5)]
    trunk = pen.blob(outline, coat.fur)
    if coat.stripes is not None:
        for y in (0.25, 0.45, 0.65):
            for flank in (-1, 1):
                pen.poly([(flank * 0.5, y + 0.05), (flank * 0.5, y - 0.03), (flank * 0.2, y)], coat.stripes, clip=trunk)
    pen.ellipse(0, 0.6, 0.15, 0.26, lighter(coat.fur, 0.55), steps=14)  # breast
    for x in (-1, 1):
        pen.limb([(x * 0.12, 0.55), (x * 0.12, 0.08)], [0.16, 0.14], darker(coat.fur, 0.93))
        pen.ellipse(x * 0.13, 0.06, 0.11, 0.07, lighter(coat.fur, 0.4), steps=10)
    cat_head(pen, 0, 1.1, coat, 1.15)


def cat_head(pen, x, y, coat, scale):
    for side in (-1, 1):
        pen.poly(around(x, y, [(side * 0.27, 0.02), (side * 0.05, 0.2), (side * 0.25, 0.43)], scale), coat.fur)
        pen.poly(around(x, y, [(side * 0.22, 0.12), (side * 0.1, 0.2), (side * 0.21, 0.34)], scale), (235, 165, 160))
    skull = pen.ellipse(x, y, 0.3 * scale, 0.25 * scale, coat.fur)
    if coat.stripes is not None:
        for across in (-0.1, 0, 0.1):
            pen.rect(x + (across - 0.02) * scale, y + 0.12 * scale, x + (across + 0.02) * scale, y + 0.3 * scale, coat.stripes, clip=skull)
    pen.ellipse(x, y - 0.12 * scale, 0.15 * scale, 0.1 * scale, lighter(coat.fur, 0.5), steps=12)
    for side in (-1, 1):
        pen.ellipse(x + side * 0.12 * scale, y + 0.03 * scale, 0.06 * scale, 0.055 * scale, coat.eyes, steps=10)
        pen.ellipse(x + side * 0.12 * scale, y + 0.03 * scale, 0.022 * scale, 0.05 * scale, INK, steps=8)
    pen.poly(around(x, y, [(-0.04, -0.06), (0.04, -0.06), (0, -0.11)], scale), (225, 120, 120))


# Cattle


def cow(rng: np.random.Generator) -> Drawing:
    """Cattle: a patched cow with an udder, a dark bull, or a hornless calf."""
    look = choose(rng, {"cow": 0.6, "bull": 0.25, "calf": 0.15})
    bull_hides = [(90, 55, 38), (55, 48, 46), (130, 80, 50)]
    hides = [(240, 238, 232), (240, 238, 232), (125, 75, 45), (60, 50, 48), (170, 120, 80)]
    hide = pick(rng, bull_hides if look == "bull" else hides)
    leg = uniform(rng, 0.5, 0.62)
    build = Build(0.75, 0.36, leg=leg * 1.1, thickness=0.17) if look == "calf" else Build(1.0, 0.47, leg=leg, thickness=0.19)
    length, height, middle, shade = build.half_length, build.half_height, build.middle, darker(hide, 0.92)
    pen = Pen()
    far_legs(pen, rng, build, shade)
    cow_tail(pen, -length * 1.02, middle, hide)
    if look == "cow":
        pen.ellipse(-length * 0.4, build.leg - 0.02, 0.2, 0.14, (235, 170, 165), steps=14)  # udder
    trunk = pen.blob(
        [
            (-length, middle + 0.25),
            (-length * 0.6, middle + height * 0.95),
            (0, middle + height * 0.82),
            (length * 0.6, middle + height),
            (length, middle + height * 0.7),
            (length, middle - height * 0.4),
            (length * 0.55, middle - height * 0.95),
            (-length * 0.3, middle - height),
            (-length * 0.95, middle - height * 0.7),
        ],
        hide,
    )
    if np.mean(hide) > 200 or rng.random() < 0.35:
        cow_patches(pen, rng, build, hide, trunk)
    pair_of_legs(pen, rng, build, (-0.82, 0.8), shade, HOOF)
    raised = uniform(rng, 0.05, 0.4) * (1 if rng.random() < 0.75 else -1.2)  # one in four grazes
    x, y = length * 1.42, middle + raised
    pen.poly(
        [
            (length * 0.6, middle + height * 0.9),
            (length * 0.7, middle - height * 0.85),
            (length, middle - height * 0.75),  # with a dewlap
            (x - 0.05, y - 0.16),
            (x - 0.12, y + 0.22),
        ],
        hide,
    )
    cow_head(pen, rng, x, y, hide, horns=look != "calf")
    return Drawing(pen, look, width=(0.42, 0.8), height=None, turn=uniform(rng, -0.05, 0.05), texture=0.07)


def cow_tail(pen, x, y, hide):
    pen.limb([(x, y + 0.25), (x - 0.16, y - 0.05), (x - 0.12, y - 0.5)], 0.05, darker(hide, 0.8))
    pen.ellipse(x - 0.12, y - 0.56, 0.07, 0.12, darker(hide, 0.4), steps=10)


def cow_patches(pen, rng, build, hide, trunk):
    patch = pick(rng, [(35, 32, 32), (35, 32, 32), (130, 80, 45)]) if np.mean(hide) > 200 else (238, 236, 230)
    angles = np.linspace(0, 2 * np.pi, 7, endpoint=False)
    low, high = build.middle - build.half_height, build.middle + build.half_height
    for _ in range(rng.integers(3, 6)):
        x, y = uniform(rng, -build.half_length, build.half_length), uniform(rng, low, high)
        radii = rng.uniform(0.12, 0.34, 7)
        across, up = x + radii * np.cos(angles), y + radii * np.sin(angles) * 0.9
        # Points stay in the trunk's box: what is clipped away must not widen the pen's bounds.
        box = [across.clip(-build.half_length, build.half_length), up.clip(low, high)]
        pen.blob(np.stack(box, axis=1), patch, clip=trunk)


def cow_head(pen, rng, x, y, hide, *, horns):
    if horns:
        for horn in ([(-0.1, 0.2), (-0.26, 0.38), (-0.2, 0.6)], [(0.04, 0.2), (0.2, 0.38), (0.14, 0.6)]):
            pen.limb(around(x, y, horn), [0.14, 0.1, 0.04], (235, 225, 200))
    pen.ellipse(x - 0.3, y + 0.14, 0.22, 0.1, darker(hide, 0.7), turn=-0.25, steps=12)  # ear, hanging sideways
    pen.ellipse(x - 0.3, y + 0.14, 0.13, 0.05, (225, 165, 155), turn=-0.25, steps=12)
    face = hide if rng.random() < 0.6 else darker(hide, 0.6)
    pen.blob(around(x, y, [(-0.2, 0.24), (0.08, 0.26), (0.26, 0.05), (0.4, -0.2), (0.3, -0.4), (0.06, -0.32), (-0.18, -0.05)]), face)
    muzzle = pen.blob(around(x, y, [(0.16, -0.1), (0.34, -0.04), (0.48, -0.2), (0.46, -0.38), (0.3, -0.46), (0.1, -0.36)]), (232, 172, 162))
    pen.ellipse(x + 0.38, y - 0.2, 0.035, 0.045, (120, 70, 70), turn=-0.6, steps=8, clip=muzzle)  # nostril
    pen.ellipse(x + 0.08, y + 0.08, 0.045, 0.045, INK, steps=8)


# Dogs


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
    look = choose(rng, {"dog": 0.5, "puppy": 0.2, "sitting": 0.3})
    fur = pick(rng, [(160, 110, 60), (110, 70, 40), (60, 50, 45), (215, 185, 140), (230, 222, 210), (190, 140, 85)])
    coat = DogCoat(
        fur,
        ear=pick(rng, [darker(fur, 0.65), darker(fur, 0.5), fur], 6),
        muzzle=lighter(fur, 0.3) if rng.random() < 0.5 else fur,
        floppy=rng.random() < 0.65,
        collar=pick(rng, PAINT) if rng.random() < 0.5 else None,
    )
    pen = Pen()
    if look == "sitting":
        sitting_dog(pen, rng, coat)
        width, height = None, (0.4, 0.75)
    elif look == "puppy":
        standing_dog(pen, rng, coat, Build(0.5, 0.24, leg=0.32, thickness=0.14), head_height=0.38, head_scale=1.15)
        width, height = (0.28, 0.5), None
    else:
        standing_dog(pen, rng, coat, Build(0.72, 0.25, leg=uniform(rng, 0.45, 0.6), thickness=0.14), head_height=0.42, head_scale=1.0)
        width, height = (0.38, 0.72), None
    return Drawing(pen, look, width=width, height=height, turn=uniform(rng, -0.06, 0.06), texture=0.07)


def standing_dog(pen, rng, coat, build, *, head_height, head_scale):
    length, height, middle = build.half_length, build.half_height, build.middle
    paw = darker(coat.fur, 0.8)
    far_legs(pen, rng, build, coat.fur, paw)
    wag = uniform(rng, 0.2, 0.5)
    pen.limb(
        [(-length * 0.9, middle + 0.1), (-length * 1.2, middle + 0.2), (-length * 1.3, middle + 0.2 + wag)], [0.13, 0.1, 0.05], coat.fur
    )
    pair_of_legs(pen, rng, build, (-0.78, 0.75), coat.fur, paw)
    neck = [
        (length * 0.4, middle + height * 0.8),
        (length * 0.95, middle - height * 0.5),
        (length * 1.15 + 0.15, middle + 0.28),
        (length - 0.1, middle + 0.5),
    ]
    pen.poly(neck, coat.fur)
    trunk = pen.blob(
        [
            (-length, middle + 0.1),
            (-length * 0.5, middle + height * 0.85),
            (length * 0.4, middle + height * 0.9),
            (length * 0.98, middle + height * 0.5),
            (length * 0.95, middle - height * 0.5),
            (length * 0.5, middle - height),
            (-length * 0.4, middle - height * 0.65),
            (-length * 0.9, middle - height * 0.6),
        ],
        coat.fur,
    )
    if rng.random() < 0.4:
        patch = pick(rng, [(240, 235, 225), (50, 42, 38), darker(coat.fur, 0.6)])
        pen.ellipse(uniform(rng, -0.4, 0.2), middle + 0.05, 0.25, 0.2, patch, clip=trunk)
    if coat.collar is not None:
        pen.limb([(length * 0.85, middle + 0.36), (length * 1.12, middle + 0.14)], 0.08, coat.collar)
    dog_head(pen, rng, length * 1.18, middle + head_height, coat, head_scale)


def sitting_dog(pen, rng, coat):
    fur = coat.fur
    pen.limb([(-0.4, 0.12), (-0.75, 0.14), (-0.95, 0.4)], [0.14, 0.11, 0.05], fur)  # tail
    pen.ellipse(-0.22, 0.3, 0.4, 0.3, fur)  # haunch
    pen.limb([(-0.1, 0.08), (0.22, 0.08)], 0.14, darker(fur, 0.85))
    pen.blob([(0.28, 0.3), (0.3, 0.85), (0.2, 1.12), (-0.05, 1.15), (-0.35, 0.75), (-0.55, 0.3), (-0.2, 0.05), (0.2, 0.1)], fur)
    if rng.random() < 0.5:
        pen.ellipse(0.2, 0.65, 0.14, 0.28, lighter(fur, 0.5), steps=14)  # breast
    pen.limb([(0.12, 0.7), (0.18, 0.3), (0.2, 0.07)], [0.2, 0.14, 0.13], darker(fur, 0.9))
    pen.limb([(0.25, 0.7), (0.34, 0.3), (0.36, 0.06)], [0.2, 0.14, 0.13], fur)
    pen.rounded(0.28, 0, 0.52, 0.11, 0.05, fur)
    if coat.collar is not None:
        pen.limb([(-0.08, 1.06), (0.3, 1.0)], 0.1, coat.collar)
    dog_head(pen, rng, 0.16, 1.28, coat, 1.12)


def dog_head(pen, rng, x, y, coat, scale):
    if not coat.floppy:
        pen.poly(around(x, y, [(-0.22, 0.15), (-0.02, 0.2), (-0.16, 0.52)], scale), coat.ear)
    pen.ellipse(x, y, 0.27 * scale, 0.25 * scale, coat.fur)
    pen.blob(around(x, y, [(0.1, 0.08), (0.4, 0.02), (0.5, -0.08), (0.42, -0.2), (0.05, -0.2)], scale), coat.muzzle)
    pen.ellipse(x + 0.48 * scale, y - 0.01 * scale, 0.07 * scale, 0.06 * scale, (20, 20, 20), steps=10)  # nose
    pen.ellipse(x + 0.1 * scale, y + 0.08 * scale, 0.04 * scale, 0.04 * scale, INK, steps=8)
    if coat.floppy:
        pen.blob(around(x, y, [(-0.18, 0.2), (0, 0.15), (-0.02, -0.2), (-0.16, -0.32), (-0.28, -0.1)], scale), coat.ear)
    if rng.random() < 0.35:
        pen.blob(around(x, y, [(0.28, -0.17), (0.38, -0.17), (0.36, -0.34), (0.28, -0.32)], scale), (230, 110, 120))  # tongue


# Horses

HORSE_BUILDS = {"pony": Build(0.85, 0.38, leg=0.62, thickness=0.13), "foal": Build(0.62, 0.25, leg=0.95, thickness=0.13)}


def horse(rng: np.random.Generator) -> Drawing:
    """A horse with a long neck, a mane and a full tail; a pony is low and round, a foal short and long-legged."""
    look = choose(rng, {"horse": 0.65, "pony": 0.2, "foal": 0.15})
    coat = pick(rng, [(125, 70, 40), (85, 50, 32), (160, 100, 55), (45, 40, 40), (225, 220, 212), (150, 140, 135)])
    hair = pick(rng, [(40, 30, 25), (30, 28, 28), (235, 225, 200), darker(coat, 0.5)], 8)
    build = Build(0.85, 0.33, leg=uniform(rng, 0.85, 1.0), thickness=0.13) if look == "horse" else HORSE_BUILDS[look]
    length, height, middle = build.half_length, build.half_height, build.middle
    pen = Pen()
    far_legs(pen, rng, build, coat)
    pen.blob(
        [
            (-length * 0.92, middle + 0.24),
            (-length * 1.15, middle + 0.18),
            (-length * 1.38, middle - 0.3),
            (-length * 1.25, middle - 0.75),
            (-length * 1.12, middle - 0.3),
            (-length, middle - 0.02),
        ],
        hair,
    )  # tail
    pair_of_legs(pen, rng, build, (-0.8, 0.78), coat, HOOF)
    if rng.random() < 0.15:  # grazing: the head down at the grass, the mane on the neck's far edge
        x, y = length * 0.82 + 0.6, 0.42
        neck = [
            (length * 0.45, middle + height * 0.9),
            (length * 0.75, middle - height * 0.85),
            (x - 0.26, y + 0.02),
            (x + 0.04, y + 0.24),
            (length * 1.1, middle + height * 0.5),
        ]
        mane = [
            (length * 0.6, middle + height * 0.98),
            (length * 1.1, middle + height * 0.72),
            (x + 0.12, y + 0.32),
            (x, y + 0.22),
            (length * 1.0, middle + height * 0.3),
        ]
    else:
        x, y = length * 0.82 + uniform(rng, 0.42, 0.6), middle + uniform(rng, 0.55, 0.8)
        neck = [
            (length * 0.4, middle + height * 0.85),
            (length * 0.95, middle - height * 0.35),
            (x + length * 0.03 + 0.12, y - 0.1),
            (x - length * 0.02 - 0.22, y + 0.2),
        ]
        mane = [
            (length * 0.35, middle + height * 0.95),
            (length * 0.55, middle + height * 1.35),
            (x - 0.32, y + 0.22),
            (x - 0.12, y + 0.32),
            (x - 0.08, y + 0.1),
            (length * 0.75, middle + height * 0.9),
        ]
    pen.poly(neck, coat)
    pen.blob(
        [
            (-length, middle + 0.16),
            (-length * 0.6, middle + height * 0.95),
            (0, middle + height * 0.7),
            (length * 0.55, middle + height * 0.95),
            (length * 0.98, middle + height * 0.5),
            (length * 0.98, middle - height * 0.5),
            (length * 0.55, middle - height * 0.95),
            (-length * 0.2, middle - height * 0.8),
            (-length * 0.75, middle - height * 0.95),
            (-length * 1.02, middle - height * 0.3),
        ],
        coat,
    )
    pen.blob(mane, hair)
    horse_head(pen, rng, x, y, coat)
    if rng.random() < 0.2:
        saddle = pick(rng, [(120, 60, 30), (170, 40, 40), (40, 60, 130)])
        pen.blob([(-0.3, middle + height * 0.95), (0.25, middle + height * 0.95), (0.2, middle + 0.05), (-0.25, middle + 0.05)], saddle)
    return Drawing(pen, look, width=(0.42, 0.8), height=None, turn=uniform(rng, -0.05, 0.05), texture=0.05)


def horse_head(pen, rng, x, y, coat):
    pen.poly(around(x, y, [(-0.12, 0.22), (0.02, 0.22), (-0.08, 0.46)]), coat)  # ear
    pen.blob(
        around(x, y, [(-0.16, 0.24), (0.06, 0.22), (0.3, -0.08), (0.44, -0.26), (0.36, -0.4), (0.2, -0.36), (-0.06, -0.12), (-0.2, -0.02)]),
        coat,
    )
    pen.ellipse(x + 0.36, y - 0.3, 0.09, 0.09, darker(coat, 0.6), steps=10)  # nostrils
    pen.ellipse(x + 0.05, y + 0.08, 0.035, 0.035, INK, steps=8)
    if rng.random() < 0.3:
        pen.limb(around(x, y, [(0.08, 0.12), (0.28, -0.18)]), 0.06, OFF_WHITE)  # blaze


# Sheep


def sheep(rng: np.random.Generator) -> Drawing:
    """A sheep in a cloud of wool: grown, as a lamb, or a ram with curled horns."""
    look = choose(rng, {"sheep": 0.6, "lamb": 0.2, "ram": 0.2})
    wool = pick(rng, [(238, 232, 215), (238, 232, 215), (215, 208, 192), (170, 160, 150), (90, 80, 72)])
    face = pick(rng, [(45, 42, 42), (45, 42, 42), (225, 205, 185), darker(wool, 0.7)], 8)
    build = Build(0.6, 0.3, leg=0.45, thickness=0.12) if look == "lamb" else Build(0.8, 0.42, leg=0.38, thickness=0.12)
    pen = Pen()
    far_legs(pen, rng, build, face)
    pair_of_legs(pen, rng, build, (-0.72, 0.66), face, HOOF)
    fleece(pen, rng, build, wool)
    sheep_head(pen, build.half_length * 1.12, build.middle + uniform(rng, -0.05, 0.35), wool, face, horns=look == "ram")
    return Drawing(pen, look, width=(0.36, 0.7), height=None, turn=uniform(rng, -0.05, 0.05), texture=0.12)


def fleece(pen, rng, build, wool):
    length, height, middle, shade = build.half_length, build.half_height, build.middle, darker(wool, 0.9)
    pen.ellipse(0, middle, length * 0.98, height * 0.95, wool)
    for angle in np.linspace(0, 2 * np.pi, 15, endpoint=False):
        across, up = np.cos(angle), np.sin(angle)
        pen.ellipse(length * 0.88 * across, middle + height * 0.82 * up, 0.2, 0.19, wool if up > -0.2 else shade, steps=10)
    pen.ellipse(0, middle, length * 0.9, height * 0.85, wool)
    for _ in range(9):
        x, y = uniform(rng, -0.6, 0.6) * length, middle + uniform(rng, -0.6, 0.6) * height
        pen.ellipse(x, y, 0.09, 0.06, shade, turn=uniform(rng, -1, 1), steps=8)


def sheep_head(pen, x, y, wool, face, *, horns):
    pen.ellipse(x - 0.24, y + 0.1, 0.15, 0.06, darker(face, 0.8), turn=0.5, steps=10)  # ear
    pen.blob(around(x, y, [(-0.18, 0.22), (0.06, 0.2), (0.26, -0.1), (0.2, -0.25), (0.02, -0.22), (-0.2, -0.08)]), face)
    pen.ellipse(x - 0.08, y + 0.22, 0.17, 0.12, wool, steps=12)
    pen.ellipse(x + 0.04, y + 0.05, 0.035, 0.035, (240, 240, 240) if np.mean(face) < 120 else (20, 20, 20), steps=8)
    if horns:
        angle, radius = np.linspace(0.3 * np.pi, 1.95 * np.pi, 10), np.linspace(0.26, 0.17, 10)
        curl = zip(radius * np.cos(angle) - 0.2, radius * np.sin(angle) + 0.1, strict=True)
        pen.limb(around(x, y, curl), np.linspace(0.18, 0.05, 10), (190, 155, 100))


# People

TROUSERS = [(50, 60, 100), (40, 40, 45), (110, 90, 60), (120, 125, 130), (70, 90, 60)]
HAIR = [(40, 28, 22), (90, 55, 30), (200, 160, 80), (30, 30, 32), (150, 70, 40), (150, 150, 150)]
SHOES = [(40, 35, 35), (120, 70, 40), (230, 230, 230), (180, 40, 40)]


def person(rng: np.random.Generator) -> Drawing:
    """A standing man, woman (long hair, often a skirt) or child (short, with a large head)."""
    look = choose(rng, {"man": 0.4, "woman": 0.4, "child": 0.2})
    skin, shirt = pick(rng, SKIN, 6), pick(rng, [*PAINT, (240, 150, 170)])
    trousers, hair, shoe = pick(rng, TROUSERS), pick(rng, HAIR, 6), pick(rng, SHOES)
    hip, shoulder, head_scale = (0.62, 1.17, 1.3) if look == "child" else (0.85, 1.6, 1.0)
    skirted = look == "woman" and rng.random() < 0.6
    pen = Pen()
    person_arm(pen, rng, -1, shoulder, darker(shirt, 0.85), skin)
    if look == "woman":
        pen.blob(around(0, shoulder, [(-0.2, 0.42), (0.2, 0.42), (0.26, 0.1), (0.22, -0.15), (-0.22, -0.15), (-0.26, 0.1)]), hair)
    person_legs(pen, rng, hip, skin if skirted else trousers, shoe)
    if skirted:
        skirt = shirt if rng.random() < 0.5 else trousers
        pen.poly([(-0.2, hip + 0.15), (0.2, hip + 0.15), (0.36, hip * 0.45), (-0.36, hip * 0.45)], skirt)
    trunk = pen.blob(
        [
            (-0.27, shoulder),
            (-0.08, shoulder + 0.06),
            (0.08, shoulder + 0.06),
            (0.27, shoulder),
            (0.23, hip + 0.3),
            (0.22, hip - 0.04),
            (-0.22, hip - 0.04),
            (-0.23, hip + 0.3),
        ],
        shirt,
        steps=4,
    )
    if rng.random() < 0.3:
        for y in np.arange(hip, shoulder, 0.16):
            pen.rect(-0.4, y, 0.4, y + 0.07, lighter(shirt, 0.6), clip=trunk)
    person_arm(pen, rng, 1, shoulder, shirt, skin)
    pen.rect(-0.07, shoulder, 0.07, shoulder + 0.14, darker(skin, 0.9))
    person_head(pen, shoulder + 0.28 * head_scale, head_scale, skin, hair)
    width, height = None, (0.38, 0.65) if look == "child" else (0.5, 0.88)
    return Drawing(pen, look, width=width, height=height, turn=uniform(rng, -0.05, 0.05), texture=0.04)


def person_arm(pen, rng, side, shoulder, sleeve, skin):
    """One arm, held out at a random angle; one in four is raised to wave."""
    spread = uniform(rng, -0.3, 0.9)
    x, y = side * 0.24, shoulder - 0.08
    elbow_x, elbow_y = x + side * (0.1 + 0.2 * spread), y - 0.32 + 0.15 * max(spread, 0)
    hand = (elbow_x + side * 0.2, elbow_y + 0.3) if rng.random() < 0.25 else (elbow_x + side * 0.12, elbow_y - 0.28)
    pen.limb([(x, y), (elbow_x, elbow_y), hand], [0.15, 0.13, 0.1], sleeve)
    pen.ellipse(*hand, 0.07, 0.07, skin, steps=10)


def person_legs(pen, rng, hip, colour, shoe):
    stride = uniform(rng, -0.18, 0.18)
    for side in (-1, 1):
        x = side * (0.14 + stride)
        bones = [(side * 0.11, hip + 0.05), (side * (0.13 + stride * 0.4), hip * 0.5), (x, 0.08)]
        pen.limb(bones, [0.2, 0.17, 0.13], colour if side > 0 else darker(colour, 0.85))
        pen.blob([(x - 0.1, 0), (x + 0.16, 0), (x + 0.14, 0.08), (x - 0.08, 0.12)], shoe)


def person_head(pen, y, scale, skin, hair):
    pen.ellipse(0, y, 0.18 * scale, 0.21 * scale, skin)
    pen.blob(
        [
            (-0.2 * scale, y + 0.02),
            (-0.17 * scale, y + 0.2 * scale),
            (0, y + 0.26 * scale),
            (0.17 * scale, y + 0.2 * scale),
            (0.2 * scale, y + 0.02),
            (0.12 * scale, y + 0.11 * scale),
            (-0.1 * scale, y + 0.12 * scale),
        ],
        hair,
    )
    for side in (-1, 1):
        pen.ellipse(side * 0.07 * scale, y, 0.022, 0.025, (20, 20, 20), steps=6)
    pen.rect(-0.05 * scale, y - 0.11 * scale, 0.05 * scale, y - 0.09 * scale, (160, 60, 60))


ANIMALS = {"bird": bird, "cat": cat, "cow": cow, "dog": dog, "horse": horse, "sheep": sheep, "person": person}
