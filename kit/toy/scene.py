"""Scenes of the drawn world: choose what to draw, paint the place, stand the objects in it, light it, photograph it.

A seed is a scene: everything that is laid out comes from one generator in shares of the picture, everything grainy from a second
one, so the same seed at another size is the same scene, sharper or coarser.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFilter

from kit.toy.animals import ANIMALS
from kit.toy.pen import Drawing, Ink, placed_points, rasterise, uniform
from kit.toy.places import OUTSIDE_PAPER, PAINTERS, PLACES, STUFF, Canvas, weighted
from kit.toy.things import THINGS
from kit.toy.vehicles import VEHICLES
from kit.words import VOC_CLASSES

DRAWINGS = {**VEHICLES, **ANIMALS, **THINGS}
CLASS_ID = {name: index for index, name in enumerate(VOC_CLASSES, start=1)}

STYLES = ("photo", "close-up", "wide", "drawing", "sketch", "painting", "cartoon", "origami", "grey", "dark", "bright", "blurry",
          "pixelated", "jpeg")
WORLDS = ("voc", "web")

# Seeds that never meet: a method is tuned on val and measured on held_out; web is what the tiny CLIP learns from.
SPLITS = {"train": range(0, 1_000_000), "val": range(1_000_000, 1_100_000), "held_out": range(1_100_000, 1_200_000),
          "web": range(10_000_000, 20_000_000)}

VOC_STYLES = {"photo": 0.7, "close-up": 0.15, "wide": 0.15}
COMMON_WEB_STYLES = {"photo": 0.44, "close-up": 0.1, "wide": 0.08}
WEB_STYLES = {style: COMMON_WEB_STYLES.get(style, (1 - sum(COMMON_WEB_STYLES.values())) / (len(STYLES) - len(COMMON_WEB_STYLES)))
              for style in STYLES}
WEB_BROAD = 0.75   # share of web scenes with a random place and random company
WEB_EMPTY = 0.12   # share of web scenes without any object
COUNTS = {1: 0.56, 2: 0.27, 3: 0.12, 4: 0.05}

# Where the voc world finds a class; what is missing to 1 is any place.
HOME: dict[str, dict[str, float]] = {
    "aeroplane": {"sky": 0.78, "road": 0.12},
    "bicycle": {"road": 0.75, "grass": 0.15},
    "bird": {"sky": 0.4, "grass": 0.2, "sea": 0.15, "lake": 0.15},
    "boat": {"sea": 0.75, "lake": 0.15},
    "bottle": {"indoor": 0.9},
    "bus": {"road": 0.9},
    "car": {"road": 0.88},
    "cat": {"indoor": 0.78, "grass": 0.12},
    "chair": {"indoor": 0.9},
    "cow": {"grass": 0.9},
    "diningtable": {"indoor": 0.93},
    "dog": {"indoor": 0.5, "grass": 0.35},
    "horse": {"grass": 0.85},
    "motorbike": {"road": 0.9},
    "person": {"road": 0.28, "grass": 0.24, "indoor": 0.28, "ground": 0.06, "railroad": 0.04},
    "pottedplant": {"indoor": 0.85},
    "sheep": {"grass": 0.9},
    "sofa": {"indoor": 0.94},
    "train": {"railroad": 0.9},
    "tvmonitor": {"indoor": 0.93},
}
# Who is met where.
MATES: dict[str, tuple[str, ...]] = {
    "indoor": ("person", "cat", "dog", "sofa", "chair", "diningtable", "bottle", "pottedplant", "tvmonitor"),
    "grass": ("cow", "horse", "sheep", "dog", "person", "bird"),
    "road": ("car", "bus", "person", "bicycle", "motorbike"),
    "sky": ("aeroplane", "bird"),
    "sea": ("boat", "bird"),
    "lake": ("boat", "bird"),
    "railroad": ("train", "person"),
    "ground": ("person", "dog", "horse"),
    "forest": ("person", "bird", "dog", "horse"),
    "plain": VOC_CLASSES,
}

MOST_OBJECTS = 4
SMALLEST_SIDE = 16
VISIBLE = 0.01        # least share of the picture an object must show, on the small layout map (there are 0.6 % left in every picture)
LAYOUT_SIDE = 96      # pixels of the layout map's shorter side
PLACEMENTS = 8        # tries before the objects are lined up
STUFF_SHARE = 0.005   # least share of the picture for a stuff to be called present


@dataclass(frozen=True)
class Scene:
    """A drawn picture and everything that is true of it.

    image uint8 (H, W, 3); truth uint8 (H, W), VOC ids, 0 where no object stands; stuff uint8 (H, W), index into places.STUFF, 0 exactly
    where an object stands; objects: (class, look) of each object, back to front; present_stuff: names, the largest first.
    """

    image: np.ndarray
    truth: np.ndarray
    stuff: np.ndarray
    objects: tuple[tuple[str, str], ...]
    place: str
    present_stuff: tuple[str, ...]
    style: str
    seed: int

    def __post_init__(self) -> None:
        size = self.truth.shape
        if self.image.shape != (*size, 3) or self.stuff.shape != size:
            raise ValueError(f"a scene needs image (H, W, 3), truth and stuff (H, W), got {self.image.shape}, {size}, {self.stuff.shape}")
        if any(array.dtype != np.uint8 for array in (self.image, self.truth, self.stuff)):
            raise ValueError(f"a scene's arrays are uint8, got {self.image.dtype}, {self.truth.dtype}, {self.stuff.dtype}")


@dataclass(frozen=True)
class Plan:
    """What a scene shall show, before anything is drawn."""

    place: str
    style: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """A drawing with its spot: x share of the picture's width, y (its lower edge) share of the height, scale in heights per local unit."""

    name: str
    drawing: Drawing
    x: float
    y: float
    scale: float
    flip: bool


def draw(seed: int, *, size: int | tuple[int, int] = 160, world: str = "voc", classes: Sequence[str] | None = None,
         place: str | None = None, style: str | None = None) -> Scene:
    """The scene of a seed; classes, place and style are asked for or left to the world's own habits.

    size: pixels of a square or (rows, columns); world "voc" (biased like VOC) or "web" (any object in any place); classes: 1 to 4
    names that are then all to be seen, each on at least 0.6 % of the picture.
    Raises ValueError for a name or a size that cannot be drawn.
    """
    height, width = checked_size(size)
    check_request(seed, world, classes, place, style)
    layout, grain = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(2))
    plan = choose(layout, world, classes, place, style)
    look = LOOKS[plan.style]
    canvas = Canvas(layout, grain, height, width, roughness=look.roughness)
    PAINTERS[plan.place](canvas)
    standing = stand(layout, plan, canvas)
    truth = paint_objects(canvas, standing, plan, look)
    light(canvas)
    image = photograph(canvas, look)
    canvas.stuff[truth > 0] = 0
    objects = tuple((each.name, each.drawing.look) for each in standing)
    return Scene(image, truth, canvas.stuff, objects, plan.place, present_stuff(canvas.stuff), plan.style, int(seed))


def split_seed(split: str, index: int) -> int:
    """The seed of a split's index-th scene.   Raises ValueError for an unknown split, IndexError past its end."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if not 0 <= index < len(SPLITS[split]):
        raise IndexError(f"split {split!r} has scenes 0 to {len(SPLITS[split]) - 1}, got {index}: choose a smaller index")
    return SPLITS[split][index]


def checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    rows_columns = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(rows_columns) != 2 or not all(isinstance(side, int | np.integer) and side >= SMALLEST_SIDE for side in rows_columns):
        raise ValueError(f"size is a number of pixels or (rows, columns), each at least {SMALLEST_SIDE}, got {size!r}")
    return int(rows_columns[0]), int(rows_columns[1])


def check_request(seed: int, world: str, classes: Sequence[str] | None, place: str | None, style: str | None) -> None:
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"a seed is a whole number from 0 up, got {seed!r}")
    if isinstance(classes, str):
        raise ValueError(f"classes is a sequence of names, got the single text {classes!r}: write ({classes!r},)")
    if classes is not None and not 1 <= len(classes) <= MOST_OBJECTS:
        raise ValueError(f"a scene shows 1 to {MOST_OBJECTS} asked classes, got {len(classes)}: ask for fewer, or leave classes out")
    for name in classes or ():
        check_name("class", name, VOC_CLASSES)
    check_name("world", world, WORLDS)
    for kind, name, known in (("place", place, PLACES), ("style", style, STYLES)):
        if name is not None:
            check_name(kind, name, known)


def check_name(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")


# Choose.

def choose(rng: np.random.Generator, world: str, classes: Sequence[str] | None, place: str | None, style: str | None) -> Plan:
    """The plan of a scene: what was asked, and the world's habits for the rest."""
    style = style or weighted(rng, WEB_STYLES if world == "web" else VOC_STYLES)
    empty = world == "web" and rng.random() < WEB_EMPTY
    broad = world == "web" and rng.random() < WEB_BROAD
    first = classes[0] if classes else choose_first(rng, place, broad)
    place = place or choose_place(rng, first, style, broad or (empty and not classes))
    if classes:
        return Plan(place, style, tuple(classes))
    if empty:
        return Plan(place, style, ())
    company = [choose_mate(rng, first, place, broad) for _ in range(choose_count(rng, style) - 1)]
    return Plan(place, style, (first, *company))


def choose_first(rng: np.random.Generator, place: str | None, broad: bool) -> str:
    known = VOC_CLASSES if place is None or broad else MATES[place]
    return weighted(rng, {name: 1.3 if name == "person" else 1.0 for name in known})


def choose_place(rng: np.random.Generator, first: str, style: str, broad: bool) -> str:
    """The first class's home or, for broad scenes and now and then for all, anywhere; folded paper lies on paper."""
    mark = rng.random()
    anywhere = OUTSIDE_PAPER[rng.integers(len(OUTSIDE_PAPER))]
    on_paper = rng.random() < 0.5
    if style == "origami" or (style in ("drawing", "sketch") and on_paper):
        return "plain"
    if broad:
        return anywhere
    for home, share in HOME[first].items():
        mark -= share
        if mark < 0:
            return home
    return anywhere


def choose_count(rng: np.random.Generator, style: str) -> int:
    count = weighted(rng, COUNTS)
    second = rng.random()
    if style == "origami":
        return min(count, 1 + int(second < 0.2))
    if style == "close-up":
        return min(count, 1 + int(second < 0.25))
    return count


def choose_mate(rng: np.random.Generator, first: str, place: str, broad: bool) -> str:
    if broad:
        return VOC_CLASSES[rng.integers(len(VOC_CLASSES))]
    if rng.random() < 0.85:
        return MATES[place][rng.integers(len(MATES[place]))]
    return first


# Place.

def stand(rng: np.random.Generator, plan: Plan, canvas: Canvas) -> list[Standing]:
    """Every object with its spot, back to front, all of them visible: tried a few times, then lined up."""
    drawings = [(name, DRAWINGS[name](rng)) for name in plan.classes]
    if not drawings:
        return []
    aspect = canvas.width / canvas.height
    for _ in range(PLACEMENTS):
        standing = scattered(rng, drawings, plan, canvas, aspect)
        if all(share >= VISIBLE for share in visible_shares(standing, aspect)):
            return standing
    return lined_up(rng, drawings, plan, canvas, aspect)


def scattered(rng: np.random.Generator, drawings: list[tuple[str, Drawing]], plan: Plan, canvas: Canvas, aspect: float) -> list[Standing]:
    """Objects at about even distances, in any order and at the sizes their drawings ask for, a little smaller the more there are."""
    count = len(drawings)
    zoom = {"close-up": 1.3, "wide": 0.62}.get(plan.style, 1.0) * (1.0, 0.88, 0.74, 0.64)[count - 1]
    spots = rng.permutation(np.linspace(0.22, 0.78, count)) + rng.uniform(-0.06, 0.06, count) if count > 1 else rng.uniform(0.3, 0.7, 1)
    standing = []
    for (name, drawing), spot in zip(drawings, spots, strict=True):
        width, height = extent(drawing)
        size = uniform(rng, *(drawing.width or drawing.height)) * zoom
        scale = size * aspect / width if drawing.width else size / height
        scale = min(scale, 1.02 * aspect / width, 0.97 / height)
        half = 0.8 * scale * width / 2 / aspect
        x = min(max(spot, half), 1 - half) if half < 0.5 else 0.5
        y = foot(rng, name, drawing, plan.place, canvas, scale * height)
        standing.append(Standing(name, drawing, float(x), y, scale, bool(rng.random() < 0.5)))
    return sorted(standing, key=lambda each: each.y)


def lined_up(rng: np.random.Generator, drawings: list[tuple[str, Drawing]], plan: Plan, canvas: Canvas, aspect: float) -> list[Standing]:
    """Objects side by side, small enough not to hide each other: the way out when chance found none."""
    standing = []
    for index, (name, drawing) in enumerate(drawings):
        width, height = extent(drawing)
        scale = min(0.95 * aspect / len(drawings) / width, 0.75 / height)
        y = foot(rng, name, drawing, plan.place, canvas, scale * height)
        standing.append(Standing(name, drawing, (index + 0.5) / len(drawings), y, scale, bool(rng.random() < 0.5)))
    return sorted(standing, key=lambda each: each.y)


def extent(drawing: Drawing) -> tuple[float, float]:
    low, high = drawing.pen.bounds()
    return float(high[0] - low[0]), float(high[1] - low[1])


def flies(name: str, look: str, place: str) -> bool:
    return place == "sky" or (name == "aeroplane" and place != "road") or look == "flying"


def foot(rng: np.random.Generator, name: str, drawing: Drawing, place: str, canvas: Canvas, height: float) -> float:
    """The row share of an object's lower edge: in the air, on the rails, on furniture or on the ground."""
    high, low = canvas.ground
    if flies(name, drawing.look, place):
        y = max(uniform(rng, 0.3, 0.9), 0.9 * height)
    elif name == "train" and canvas.rail is not None:
        y = canvas.rail
    elif name in ("pottedplant", "bottle", "tvmonitor") and place == "indoor":
        y = uniform(rng, max(0.5, high - 0.1), low)
    else:
        y = uniform(rng, high, low)
    return min(max(y, 0.98 * height), 0.995)


def visible_shares(standing: list[Standing], aspect: float) -> list[float]:
    """Each object's share of the picture that no later object hides, measured on a small map of fixed size."""
    height = LAYOUT_SIDE if aspect >= 1 else round(LAYOUT_SIDE / aspect)
    width = round(height * aspect)
    image = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(image)
    for index, each in enumerate(standing, start=1):
        parts = each.drawing.pen.parts
        shapes = placed_points(each.drawing.pen, x=each.x * width, y=each.y * height, scale=each.scale * height, flip=each.flip,
                               turn=each.drawing.turn)
        for part, shape in zip(parts, shapes, strict=True):
            if part.clip is None:
                pen.polygon(shape.ravel().tolist(), fill=index)
    counts = image.histogram()
    return [counts[index] / (width * height) for index in range(1, len(standing) + 1)]


# Paint.

def paint_objects(canvas: Canvas, standing: list[Standing], plan: Plan, look: Look) -> np.ndarray:
    """Paint the objects back to front and return their truth.   -> uint8 (H, W), VOC ids"""
    truth = np.zeros((canvas.height, canvas.width), np.uint8)
    unit = canvas.side / 110
    outlined = canvas.rng.random() < 0.3   # three photos of ten have slightly darker edges
    outline = look.outline if look.outline or look.facets or not outlined else 0.5
    ink = Ink(outline=outline * unit, facets=look.facets, recolour=look.recolour)
    for each in standing:
        stamp = rasterise(each.drawing.pen, canvas.height, canvas.width, x=each.x * canvas.width, y=each.y * canvas.height,
                          scale=each.scale * canvas.height, flip=each.flip, turn=each.drawing.turn, ink=ink)
        top, low, left, right = (uniform(canvas.rng, *span) for span in ((1.06, 1.2), (0.74, 0.9), (0.92, 1.08), (0.92, 1.08)))
        height, width = (1, 1) if stamp is None else stamp.alpha.shape
        grain = canvas.texture(height, width)
        if stamp is None:
            continue
        shade = np.linspace(top, low, height, dtype=np.float32)[:, None] * np.linspace(left, right, width, dtype=np.float32)
        shade = 1 + look.shading * (shade - 1)
        shade *= 1 + look.roughness * each.drawing.texture * grain
        if casts_shadow(each, plan):
            paint_shadow(canvas, each.y, stamp.column + width / 2, width)
        canvas.put(stamp, stamp.colour * shade[..., None])
        truth[stamp.window][stamp.alpha > 0.5] = CLASS_ID[each.name]
    return truth


def casts_shadow(each: Standing, plan: Plan) -> bool:
    on_the_ground = plan.place != "plain" and not flies(each.name, each.drawing.look, plan.place)
    return on_the_ground and each.name != "aeroplane" and plan.style != "origami"


def paint_shadow(canvas: Canvas, y: float, middle: float, width: int) -> None:
    """Darken the ground a little where an object touches it."""
    depth = 0.05 * canvas.height
    row = y * canvas.height
    first, last = max(0, int(row - depth / 2)), min(canvas.height, int(row + depth) + 1)
    across = np.sqrt(np.clip(1 - ((np.arange(canvas.width) - middle) / (0.55 * width + 1)) ** 2, 0, 1))
    along = np.clip(1 - np.abs(np.arange(first, last) - row) / depth, 0, 1)
    canvas.colour[first:last] *= (1 - 0.32 * along[:, None] * across).astype(np.float32)[..., None]


def present_stuff(stuff: np.ndarray) -> tuple[str, ...]:
    """The names of all stuff that takes a noticeable share of the picture, the largest first."""
    areas = np.bincount(stuff.ravel(), minlength=len(STUFF))
    order = sorted(range(1, len(STUFF)), key=lambda index: -areas[index])
    return tuple(STUFF[index] for index in order if areas[index] >= STUFF_SHARE * stuff.size)


# Light.

def light(canvas: Canvas) -> None:
    """Light from one side, a tint, more or less contrast and brightness."""
    rng = canvas.rng
    sideways, upwards = uniform(rng, -0.18, 0.18), uniform(rng, -0.12, 0.12)
    if rng.random() < 0.6:
        canvas.shade(1 + sideways * (2 * canvas.column_shares() - 1) + upwards * (2 * canvas.row_shares() - 1))
    tint = 1 + rng.uniform(-0.06, 0.06, 3)
    contrast, brightness = uniform(rng, 0.85, 1.12), uniform(rng, -14, 14)
    canvas.colour *= (tint * contrast).astype(np.float32)
    canvas.colour += np.float32(128 * (1 - contrast) + brightness)


# Camera. A finish takes the layout generator and a picture and returns the picture: float32 (H, W, 3), about [0, 255].

Finish = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def photograph(canvas: Canvas, look: Look) -> np.ndarray:
    """The canvas as a camera or a hand would have left it.   -> uint8 (H, W, 3)"""
    rng, grain, colour = canvas.rng, canvas.grain, canvas.colour
    if look.finish is not None and not look.after_noise:
        colour = look.finish(rng, colour)
    if look.noise:
        grey_noise, colour_noise = uniform(rng, 1, 6), uniform(rng, 0, 2.5)
        colour = colour + grey_noise * grain.standard_normal((canvas.height, canvas.width, 1), dtype=np.float32)
        colour += colour_noise * grain.standard_normal((canvas.height, canvas.width, 3), dtype=np.float32)
    if look.finish is not None and look.after_noise:
        colour = look.finish(rng, colour)
    return to_bytes(colour)


def to_bytes(colour: np.ndarray) -> np.ndarray:
    return np.clip(colour, 0, 255).astype(np.uint8)


def luminance(colour: np.ndarray) -> np.ndarray:
    """float32 (H, W, 3) -> (H, W, 1)"""
    return (colour @ np.array([0.3, 0.59, 0.11], np.float32))[..., None]


def mean_side(colour: np.ndarray) -> float:
    return (colour.shape[0] + colour.shape[1]) / 2


def grey(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    return np.repeat(luminance(colour), 3, axis=2)


def dark(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    return colour * np.float32(uniform(rng, 0.3, 0.5))


def bright(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Over-exposed: all colours crowd towards white, the light ones are lost."""
    return colour * np.float32(uniform(rng, 1.0, 1.15)) + np.float32(uniform(rng, 65, 95))


def pencil(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Pencil on light paper: dark where a pixel is darker than its surroundings, and a thin grey fill."""
    tone = np.clip(luminance(colour)[..., 0], 0, 255)
    blurred = Image.fromarray(tone.astype(np.uint8)).filter(ImageFilter.GaussianBlur(mean_side(colour) / 50))
    lines = np.minimum(1, (tone + 12) / (np.asarray(blurred, np.float32) + 12)) ** 2
    paper = uniform(rng, 235, 250) - uniform(rng, 0.1, 0.25) * (255 - tone)
    return np.repeat((paper * lines)[..., None], 3, axis=2)


def brush(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Few colours in dabs: coarse tones, each pixel takes the commonest of its surroundings."""
    tones = uniform(rng, 20, 32)
    coarse = to_bytes(np.round(colour / tones) * tones)
    width = 2 * max(1, round(mean_side(colour) / 60)) + 1
    return np.asarray(Image.fromarray(coarse).filter(ImageFilter.ModeFilter(width)), np.float32)


def flat(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Cartoon colours: few tones, strong colour."""
    tone = luminance(colour)
    strong = tone + uniform(rng, 1.4, 1.8) * (colour - tone)
    return np.round(strong / 36).astype(np.float32) * 36


def blurry(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    return resampled(colour, uniform(rng, 40, 60), Image.Resampling.BILINEAR)


def pixelated(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    return resampled(colour, uniform(rng, 26, 40), Image.Resampling.NEAREST)


def resampled(colour: np.ndarray, cells: float, up: Image.Resampling) -> np.ndarray:
    """The picture made small, about `cells` pixels a side, and large again."""
    height, width = colour.shape[:2]
    share = min(1.0, cells / mean_side(colour))
    columns_rows = max(4, round(width * share)), max(4, round(height * share))
    small = Image.fromarray(to_bytes(colour)).resize(columns_rows, Image.Resampling.BILINEAR)
    return np.asarray(small.resize((width, height), up), np.float32)


def jpeg(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Saved as JPEG at a quality of about 5, and read again."""
    file = io.BytesIO()
    Image.fromarray(to_bytes(colour)).save(file, "JPEG", quality=int(rng.integers(4, 8)))
    return np.asarray(Image.open(file), np.float32)


def saturated(colour: np.ndarray) -> np.ndarray:
    mean = colour.mean()
    return np.clip(mean + 1.5 * (colour - mean), 0, 255)


@dataclass(frozen=True)
class Look:
    """How a style is made: outline in hundredths of the picture (0: none), facets, colour change, and how rough and shaded surfaces are.

    noise: whether a camera's noise belongs to it; finish: the last change; after_noise: whether that comes after the noise.
    """

    outline: float = 0.0
    facets: float = 0.0
    recolour: Callable[[np.ndarray], np.ndarray] | None = None
    roughness: float = 1.0
    shading: float = 1.0
    noise: bool = True
    finish: Finish | None = None
    after_noise: bool = False


LOOKS = {
    "photo": Look(),
    "close-up": Look(),
    "wide": Look(),
    "drawing": Look(outline=1.0, roughness=0.4, noise=False),
    "sketch": Look(outline=1.0, roughness=0.15, shading=0.3, noise=False, finish=pencil),
    "painting": Look(noise=False, finish=brush),
    "cartoon": Look(outline=1.3, recolour=saturated, roughness=0.0, shading=0.0, noise=False, finish=flat),
    "origami": Look(facets=0.2, roughness=0.0, noise=False),
    "grey": Look(finish=grey, after_noise=True),
    "dark": Look(finish=dark),
    "bright": Look(finish=bright),
    "blurry": Look(finish=blurry, after_noise=True),
    "pixelated": Look(finish=pixelated, after_noise=True),
    "jpeg": Look(finish=jpeg, after_noise=True),
}


# The fingerprint of the drawn world: the tiny CLIP was trained on exactly this one.

def fixed_scenes() -> list[Scene]:
    """Twenty scenes that between them use both worlds, several sizes, all hand-made and camera styles and nearly every place."""
    sizes = (112, 96, (64, 96), (96, 48), 48)
    web = [draw(split_seed("web", index), size=sizes[index % 5], world="web", style=style) for index, style in enumerate(STYLES[3:])]
    voc = [draw(split_seed("val", index), size=sizes[index % 5], world="voc", place=place) for index, place in enumerate(PLACES[:8])]
    return [*web, *voc, draw(1, size=96, world="web", classes=("boat", "cow", "person", "bottle"), place="forest")]


def scene_hashes() -> list[str]:
    """A sha256 over the bytes of image, truth and stuff, for each of the fixed scenes."""
    return [hashlib.sha256(scene.image.tobytes() + scene.truth.tobytes() + scene.stuff.tobytes()).hexdigest() for scene in fixed_scenes()]


def world_hash() -> str:
    """The fingerprint of the drawn world: a sha256 over twenty fixed scenes; it changes when any drawing changes."""
    return hashlib.sha256("".join(scene_hashes()).encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """The versions of the libraries that make the pixels."""
    return {"numpy": np.__version__, "pillow": PIL.__version__}
