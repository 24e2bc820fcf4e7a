"""What the drawn world says about a scene: one caption = one template of the scene's style, filled with words for what is there.

A caption names only classes and places that can be seen, never a colour or an action. It may leave things out, as captions on the web do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from numpy.random import Generator

from kit.words import IMAGENET_TEMPLATES

if TYPE_CHECKING:
    from kit.toy.scene import Scene

# Words that fit every look of a class; the first is VOC's name. CLIP-ES's own ("bird avian", "person with clothes", ...) are among them.
GENERAL_WORDS: dict[str, tuple[str, ...]] = {
    "aeroplane": ("aeroplane", "airplane", "plane", "aircraft"),
    "bicycle": ("bicycle", "bike", "cycle", "pushbike"),
    "bird": ("bird", "bird avian", "avian", "fowl", "birdie"),
    "boat": ("boat", "vessel", "watercraft"),
    "bottle": ("bottle", "flask"),
    "bus": ("bus", "coach", "autobus", "omnibus"),
    "car": ("car", "automobile", "auto", "motorcar"),
    "cat": ("cat", "kitty", "feline", "pussycat"),
    "chair": ("chair", "chair seat", "seat"),
    "cow": ("cow", "cattle", "bovine"),
    "diningtable": ("diningtable", "dining table", "table", "desk"),
    "dog": ("dog", "hound", "canine", "doggy"),
    "horse": ("horse", "steed", "equine"),
    "motorbike": ("motorbike", "motorcycle", "moped"),
    "person": ("person", "human", "people", "person with clothes", "individual"),
    "pottedplant": ("pottedplant", "potted plant", "houseplant", "plant"),
    "sheep": ("sheep", "livestock sheep", "woolly sheep"),
    "sofa": ("sofa", "couch", "settee"),
    "train": ("train", "passenger train", "railcar"),
    "tvmonitor": ("tvmonitor", "tv monitor", "tvmonitor screen", "television", "tv"),
}

# Words that fit one look only. An empty tuple: the look has no word of its own that claims neither a colour nor an action.
LOOK_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "aeroplane": {"airliner": ("airliner", "jet"), "propeller": ("propeller plane", "light aircraft"), "top": ("jet", "airliner")},
    "bicycle": {"bicycle": ()},
    "bird": {"flying": ("eagle", "gull"), "perched": ("sparrow", "parrot"), "duck": ("duck", "goose")},
    "boat": {"sailboat": ("sailboat", "yacht"), "ship": ("ship", "ferry"), "rowboat": ("rowboat", "canoe")},
    "bottle": {"wine": ("wine bottle", "beer bottle"), "water": ("water bottle", "plastic bottle")},
    "bus": {"double": ("double-decker bus", "double decker"), "single": ("minibus", "single-decker bus")},
    "car": {"sedan": ("sedan", "saloon car"), "van": ("van", "minivan"), "taxi": ("taxi", "cab")},
    "cat": {"cat": ("pet cat",), "kitten": ("kitten",), "sitting": ("pet cat",)},
    "chair": {"chair": ("kitchen chair",), "office": ("office chair", "swivel chair")},
    "cow": {"cow": ("dairy cow",), "bull": ("bull", "ox"), "calf": ("calf",)},
    "diningtable": {"table": ()},
    "dog": {"dog": ("pet dog",), "puppy": ("puppy",), "sitting": ("pet dog",)},
    "horse": {"horse": ("stallion", "mare"), "pony": ("pony",), "foal": ("foal", "colt")},
    "motorbike": {"motorbike": ("motor bike",), "scooter": ("scooter", "vespa")},
    "person": {"man": ("man", "guy"), "woman": ("woman", "lady"), "child": ("child", "kid")},
    "pottedplant": {"leafy": ("leafy plant",), "flower": ("flower pot", "flowering plant"), "cactus": ("cactus",)},
    "sheep": {"sheep": ("ewe",), "lamb": ("lamb",), "ram": ("ram",)},
    "sofa": {"sofa": ()},
    "train": {"steam": ("locomotive", "steam train"), "modern": ("express train", "high-speed train"), "tram": ("tram", "streetcar")},
    "tvmonitor": {"tv": ("television set",), "monitor": ("computer monitor", "screen")},
}

HYPERNYMS: dict[str, str] = {
    **dict.fromkeys(("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"), "vehicle"),
    **dict.fromkeys(("bird", "cat", "cow", "dog", "horse", "sheep"), "animal"),
    **dict.fromkeys(("chair", "diningtable", "sofa"), "furniture"),
}

STUFF_WORDS: dict[str, tuple[str, ...]] = {
    "sky": ("sky",),
    "cloud": ("cloud", "clouds"),
    "sea": ("sea", "ocean", "water"),
    "lake": ("lake", "river", "water"),
    "grass": ("grass", "field", "meadow", "lawn"),
    "road": ("road", "street"),
    "railroad": ("railroad", "railway", "rail track"),
    "tree": ("tree", "trees"),
    "building": ("building", "city"),
    "house": ("house", "cottage"),
    "mountain": ("mountain", "hill"),
    "rock": ("rock", "stone"),
    "ground": ("ground", "land", "soil"),
    "wall": ("wall",),
    "floor": ("floor", "room"),
    "beach": ("beach", "sand"),
    "sign": ("sign", "signpost"),
    "bridge": ("bridge",),
    "fence": ("fence",),
    "lamp": ("lamp", "lamppost"),
    "paper": ("paper", "plain background"),
    "picture": ("picture frame", "framed picture"),
    "window": ("window",),
    "carpet": ("carpet", "rug"),
    "flowers": ("flowers", "wildflowers"),
}

# How a thing relates to what it stands on. "water" is two kinds of stuff and takes what holds for both.
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "sky": ("in the",),
    "sea": ("on the", "in the"),
    "ocean": ("on the", "in the"),
    "water": ("on the", "in the", "on"),
    "lake": ("on the", "near the"),
    "river": ("on the", "near the"),
    "grass": ("on the", "on"),
    "field": ("on the", "in the", "in a"),
    "meadow": ("on the", "in the", "in a"),
    "lawn": ("on the", "on a"),
    "road": ("on the", "on a"),
    "street": ("on the", "on a"),
    "railroad": ("on the",),
    "railway": ("on the",),
    "rail track": ("on the", "on a"),
    "wall": ("near the", "in front of the", "in front of a"),
    "floor": ("on the",),
    "room": ("in the", "in a"),
    "ground": ("on the",),
    "land": ("on the",),
    "soil": ("on the",),
    "tree": ("near the", "near a"),
    "trees": ("near the", "near"),
    "paper": ("on", "on the"),
    "plain background": ("on a",),
}

# What carries the objects of a place; of any other stuff a caption only says that it is there too.
CARRIES: dict[str, tuple[str, ...]] = {
    "sky": ("sky",),
    "sea": ("sea",),
    "lake": ("lake",),
    "grass": ("grass",),
    "road": ("road",),
    "railroad": ("railroad",),
    "indoor": ("wall", "floor"),
    "ground": ("ground",),
    "forest": ("grass", "tree"),
    "plain": ("paper",),
}

# Every style's own templates, one {} each. Those CLIP published are kept word for word, "a photo of a aeroplane." included.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "photo": (
        "a photo of a {}.", "a photo of the {}.", "a good photo of a {}.", "a good photo of the {}.", "a photo of one {}.",
        "a photo of many {}.", "itap of a {}.", "itap of the {}.", "itap of my {}.", "a photo of my {}.",
        "a photo of a clean {}.", "a photo of the clean {}.", "a photo of a nice {}.", "a photo of the nice {}.",
        "a photo of a cool {}.", "a photo of the cool {}.", "a photo of a weird {}.", "a photo of the weird {}.",
        "a picture of a {}.", "an image of a {}.", "there is a {} in the scene.", "this is a {}.", "{}",
    ),
    "close-up": (
        "a close-up photo of a {}.", "a close-up photo of the {}.", "a cropped photo of a {}.", "a cropped photo of the {}.",
        "a photo of a large {}.", "a photo of the large {}.", "a detailed photo of a {}.",
    ),
    "wide": ("a photo of a small {}.", "a photo of the small {}.", "a wide shot of a {}.", "a scene with a {}.", "a {} in the distance."),
    "drawing": (
        "a drawing of a {}.", "a drawing of the {}.", "a rendition of a {}.", "a rendition of the {}.", "art of a {}.", "art of the {}.",
    ),
    "sketch": ("a sketch of a {}.", "a sketch of the {}.", "a doodle of a {}.", "a doodle of the {}.", "a pencil sketch of a {}."),
    "painting": (
        "a painting of a {}.", "a painting of the {}.", "a rendering of a {}.", "a rendering of the {}.", "art of a {}.", "art of the {}.",
    ),
    "cartoon": ("a cartoon {}.", "the cartoon {}.", "a cartoon of a {}.", "a rendition of a {}.", "a rendition of the {}."),
    "origami": ("a clean origami {}.", "a origami {}.", "the origami {}.", "an origami {}.", "a folded paper {}."),
    "grey": ("a black and white photo of a {}.", "a black and white photo of the {}.", "a greyscale photo of a {}."),
    "dark": (
        "a dark photo of a {}.", "a dark photo of the {}.", "a photo of a hard to see {}.", "a photo of the hard to see {}.",
        "a bad photo of a {}.", "a bad photo of the {}.",
    ),
    "bright": ("a bright photo of a {}.", "a bright photo of the {}.", "a {} in bright light."),
    "blurry": (
        "a blurry photo of a {}.", "a blurry photo of the {}.", "a low resolution photo of a {}.", "a low resolution photo of the {}.",
        "a bad photo of a {}.", "a bad photo of the {}.",
    ),
    "pixelated": (
        "a pixelated photo of a {}.", "a pixelated photo of the {}.",
        "a low resolution photo of a {}.", "a low resolution photo of the {}.",
    ),
    "jpeg": ("a jpeg corrupted photo of a {}.", "a jpeg corrupted photo of the {}.", "a bad photo of a {}.", "a bad photo of the {}."),
}  # fmt: skip

# What may be said in any style but its own words: a dark photo is a photo, a cartoon is not.
PLAIN_PHOTO = ("a photo of a {}.", "a photo of the {}.", "a picture of a {}.", "an image of a {}.", "there is a {} in the scene.", "{}")
PLAIN_ART = ("a picture of a {}.", "an image of a {}.", "there is a {} in the scene.", "this is a {}.", "{}")
DRAWN_STYLES = ("drawing", "sketch", "painting", "cartoon", "origami")

OBJECT_TEMPLATES = (  # would be odd or untrue of a sky or a wall
    "a photo of one {}.", "a photo of many {}.", "itap of my {}.", "a photo of my {}.", "a photo of a large {}.",
    "a photo of the large {}.", "a photo of a small {}.", "a photo of the small {}.", "a {} in the distance.",
    "a photo of a hard to see {}.", "a photo of the hard to see {}.",
)  # fmt: skip
CHATTER = re.compile(r"\b(my|clean|nice|cool|weird)\b(?! origami)")  # says nothing about the picture, so it is said seldom

OWN_TEMPLATE_SHARE = 0.6  # of captions in any style but "photo"
BACKGROUND_ONLY_SHARE = 0.06  # of scenes with objects
BARE_SHARE = 0.4  # one word in the template and nothing else: how people prompt
FUSED_SHARE = 0.06  # of bare captions: "person,human", CLIP-ES's sentence-level fusion
SUBSET_SHARE = 0.5  # of scenes with several classes: some are left out
SECOND_STUFF_SHARE = 0.45
LOOK_WORD_SHARE = 0.4
FIRST_WORD_SHARE = 0.35
HYPERNYM_SHARE = 0.03
SURROUNDINGS_SHARE = 0.75  # of captions that are not bare: .45 of all

PLURALS = ("people",)  # of the general words: only for several
WITHOUT_ARTICLE = (
    "people", "cattle", "furniture", "clouds", "trees", "water", "grass", "land", "soil", "sand", "paper", "flowers", "wildflowers",
)  # fmt: skip
LEADING_ARTICLE = re.compile(r"^(a|an|the) ")


def caption(rng: Generator, scene: Scene) -> str:
    """One sentence about a scene: a template of its style filled with words for what is visible.

    Raises ValueError for a style, class, look or stuff without words, and for a scene that shows nothing.
    """
    if scene.style not in TEMPLATES:
        raise ValueError(f"expected a style among {', '.join(TEMPLATES)}, got {scene.style!r}; add its templates to TEMPLATES")
    if not scene.objects and not scene.present_stuff:
        raise ValueError("expected a scene that shows an object or some stuff, got an empty one; draw another")
    _check_words(scene)
    bare = rng.random() < BARE_SHARE
    about_stuff = not scene.objects or (len(scene.present_stuff) > 0 and rng.random() < BACKGROUND_ONLY_SHARE)
    if about_stuff:
        text, named = _say_stuff(rng, scene.present_stuff, bare=bare), ()
    else:
        text, named = _say_objects(rng, scene, bare=bare)
    template = _template(rng, scene, named)
    return _fill(template, text)


def known_templates() -> tuple[str, ...]:
    """CLIP's ImageNet templates that the drawn world can honestly show, in CLIP's order."""
    own = {template for templates in TEMPLATES.values() for template in templates}
    return tuple(template for template in IMAGENET_TEMPLATES if template in own)


def all_texts() -> Iterator[str]:
    """Every template, word and turn of phrase that a caption may contain: the vocabulary of the tiny CLIP."""
    for templates in TEMPLATES.values():
        for template in templates:
            yield template.format("person")
    for words in GENERAL_WORDS.values():
        yield from words
        yield ",".join(words)
    for looks in LOOK_WORDS.values():
        for words in looks.values():
            yield from words
    yield from HYPERNYMS.values()
    for words in STUFF_WORDS.values():
        yield from words
    for word, prepositions in PLACE_PHRASES.items():
        for preposition in prepositions:
            yield f"{preposition} {word}"
    yield "a person and an animal under the sky with the tree in the background"


def _check_words(scene: Scene) -> None:
    for name, look in scene.objects:
        if look not in LOOK_WORDS.get(name, {}):
            raise ValueError(f"expected a class and a look with words, got {name!r} as {look!r}; add them to LOOK_WORDS")
    for stuff in scene.present_stuff:
        if stuff not in STUFF_WORDS:
            raise ValueError(f"expected stuff among {', '.join(STUFF_WORDS)}, got {stuff!r}; add its words to STUFF_WORDS")


def _say_stuff(rng: Generator, present: Sequence[str], *, bare: bool) -> str:
    if bare:
        return _usual_word(rng, STUFF_WORDS[_one_of(rng, present)])
    count = 1 + int(rng.random() < SECOND_STUFF_SHARE)
    words = [_usual_word(rng, STUFF_WORDS[present[index]]) for index in rng.permutation(len(present))[:count]]
    phrases = [f"the {word}" if rng.random() < 0.5 else _with_article(word) for word in dict.fromkeys(words)]
    return " and ".join(phrases)


def _say_objects(rng: Generator, scene: Scene, *, bare: bool) -> tuple[str, tuple[str, ...]]:
    """The text for the slot and the classes it names."""
    looks: dict[str, list[str]] = {}
    for name, look in scene.objects:
        looks.setdefault(name, []).append(look)
    names = [list(looks)[index] for index in rng.permutation(len(looks))]
    if bare:
        name = names[0]
        text = _fused_words(rng, name, looks[name]) if rng.random() < FUSED_SHARE else _word(rng, name, looks[name])
        return text, (name,)
    if len(names) > 1 and rng.random() < SUBSET_SHARE:
        names = names[: rng.integers(1, len(names) + 1)]
    text = " and ".join(_with_article(_word(rng, name, looks[name])) for name in names)
    if scene.present_stuff and rng.random() < SURROUNDINGS_SHARE:
        flies = any(name == "aeroplane" or "flying" in looks[name] for name in names)
        text = f"{text} {_surroundings(rng, scene, flies=flies)}"
    return text, tuple(names)


def _surroundings(rng: Generator, scene: Scene, *, flies: bool) -> str:
    stuff = _one_of(rng, scene.present_stuff)
    word = _usual_word(rng, STUFF_WORDS[stuff])
    # What flies is "in the sky" and never "on the sea"; a place that is not listed claims no relation.
    related = stuff in CARRIES.get(scene.place, ()) and (stuff == "sky" or not flies)
    if related and rng.random() < 0.75:
        return f"{_one_of(rng, PLACE_PHRASES[word])} {word}"
    if stuff == "sky" and rng.random() < 0.5:
        return f"under the {word}"
    if rng.random() < 0.6:
        return f"and the {word}" if rng.random() < 0.6 else f"and {_with_article(word)}"
    return f"with {_with_article(word)} in the background"


def _word(rng: Generator, name: str, looks: Sequence[str]) -> str:
    if name in HYPERNYMS and rng.random() < HYPERNYM_SHARE:
        return HYPERNYMS[name]
    own = LOOK_WORDS[name][_one_of(rng, looks)]
    if own and rng.random() < LOOK_WORD_SHARE:
        return _one_of(rng, own)
    return _usual_word(rng, _general_words(name, len(looks)))


def _fused_words(rng: Generator, name: str, looks: Sequence[str]) -> str:
    words = _general_words(name, len(looks))
    order = rng.permutation(len(words))[: rng.integers(2, 4)]
    return ",".join(words[index] for index in order)


def _general_words(name: str, count: int) -> tuple[str, ...]:
    return tuple(word for word in GENERAL_WORDS[name] if count > 1 or word not in PLURALS)


def _usual_word(rng: Generator, words: Sequence[str]) -> str:
    """The first word more often than the others."""
    return words[0] if rng.random() < FIRST_WORD_SHARE else _one_of(rng, words)


def _one_of(rng: Generator, options: Sequence[str]) -> str:
    return options[rng.integers(len(options))]


def _with_article(word: str) -> str:
    if word in WITHOUT_ARTICLE:
        return word
    return f"an {word}" if word[0] in "aeiou" and word != "ewe" else f"a {word}"


def _template(rng: Generator, scene: Scene, named: Sequence[str]) -> str:
    """A template of the scene's style that is true of what is named; no class named: the caption is about the surroundings."""
    own = scene.style == "photo" or rng.random() < OWN_TEMPLATE_SHARE
    plain = PLAIN_ART if scene.style in DRAWN_STYLES else PLAIN_PHOTO
    fitting = [template for template in (TEMPLATES[scene.style] if own else plain) if _fits(template, scene, named)]
    weights = [_weight(template) for template in fitting]
    return fitting[rng.choice(len(fitting), p=[weight / sum(weights) for weight in weights])]


def _fits(template: str, scene: Scene, named: Sequence[str]) -> bool:
    if not named:
        return template not in OBJECT_TEMPLATES
    if template == "a photo of one {}.":
        return len(scene.objects) == 1
    if template == "a photo of many {}.":
        return len(scene.objects) > 1 and len({name for name, _ in scene.objects}) == 1
    return True


def _weight(template: str) -> float:
    if template in ("a photo of a {}.", "a photo of the {}."):
        return 3.0
    return 0.15 if CHATTER.search(template) else 1.0


def _fill(template: str, text: str) -> str:
    """The text in the slot; its own article gives way to the template's."""
    before_slot = template.partition("{}")[0].split()
    if before_slot and before_slot[-1] not in ("of", "is", "with"):  # "a", "the", "one", "a clean origami"
        text = LEADING_ARTICLE.sub("", text)
    return template.format(text)
