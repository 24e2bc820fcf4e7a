"""The captions tell the truth about a scene and know most of CLIP's templates."""

import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest

from kit.toy import captions
from kit.toy.things import THINGS
from kit.words import CLIP_ES_TEMPLATE, IMAGENET_TEMPLATES, VOC_BACKGROUND, VOC_CLASSES, VOC_PROMPTS

STYLES = (
    "photo", "close-up", "wide", "drawing", "sketch", "painting", "cartoon", "origami",
    "grey", "dark", "bright", "blurry", "pixelated", "jpeg",
)  # fmt: skip
STUFF = [
    "sky", "cloud", "sea", "lake", "grass", "road", "railroad", "tree", "building", "house", "mountain", "rock", "ground",
    "wall", "floor", "beach", "sign", "bridge", "fence", "lamp", "paper", "picture", "window", "carpet", "flowers",
]  # fmt: skip
PLACES = ("sky", "sea", "lake", "grass", "road", "railroad", "indoor", "ground", "forest", "plain")
GLUE = ("a", "an", "the", "and", "on", "in", "near", "under", "with", "of", "background", "front")


@dataclass(frozen=True)
class PlantedScene:
    """The fields of a Scene that captions read."""

    objects: tuple[tuple[str, str], ...]
    present_stuff: tuple[str, ...]
    place: str = "road"
    style: str = "photo"


BOAT_ON_GRASS = PlantedScene(objects=(("boat", "ship"),), present_stuff=("grass", "sky"), place="grass")
FAMILY = PlantedScene(objects=(("person", "woman"), ("person", "child"), ("dog", "puppy")), present_stuff=("wall", "floor"), place="indoor")


def random_scene(rng: np.random.Generator) -> PlantedScene:
    names = rng.choice(VOC_CLASSES, size=rng.integers(0, 4))
    objects = tuple((str(name), str(rng.choice(list(captions.LOOK_WORDS[name])))) for name in names)
    stuff = tuple(str(name) for name in rng.choice(STUFF, size=rng.integers(1, 5), replace=False))
    return PlantedScene(objects, stuff, place=str(rng.choice(PLACES)), style=str(rng.choice(STYLES)))


def say(scene: PlantedScene, count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [captions.caption(rng, scene) for _ in range(count)]


def templates_of(style: str) -> tuple[str, ...]:
    return captions.TEMPLATES[style] + (captions.PLAIN_ART if style in captions.DRAWN_STYLES else captions.PLAIN_PHOTO)


def fillings(text: str, style: str) -> list[str]:
    """What the slot holds, for every template of the style that the caption fits."""
    patterns = [re.escape(template).replace(r"\{\}", "(.+)") for template in templates_of(style)]
    return [match[1] for pattern in patterns if (match := re.fullmatch(pattern, text))]


def true_words(scene: PlantedScene) -> list[str]:
    words = [word for stuff in scene.present_stuff for word in captions.STUFF_WORDS[stuff]]
    for name, look in scene.objects:
        words += [*captions.GENERAL_WORDS[name], *captions.LOOK_WORDS[name][look], captions.HYPERNYMS.get(name, name)]
    return words


def only_names(filling: str, words: list[str]) -> bool:
    """Whether nothing but articles and prepositions is left once the true words are taken out, the longest first."""
    for word in sorted(words, key=len, reverse=True):
        filling = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", " ", filling)
    return all(rest in GLUE for rest in re.findall(r"[\w-]+", filling))


def test_captions_name_only_what_is_in_the_scene_in_its_own_style():
    rng = np.random.default_rng(1)
    for _ in range(2000):
        scene = random_scene(rng)
        text = captions.caption(rng, scene)
        assert any(only_names(filling, true_words(scene)) for filling in fillings(text, scene.style)), (text, scene)


def test_the_truth_test_can_fail():
    assert not only_names("a boat and a cow", true_words(BOAT_ON_GRASS))
    assert not only_names("canoe on the grass", true_words(BOAT_ON_GRASS))
    assert not any(only_names(filling, true_words(BOAT_ON_GRASS)) for filling in fillings("a cartoon boat.", "photo"))
    assert any(only_names(filling, true_words(BOAT_ON_GRASS)) for filling in fillings("a cartoon boat.", "cartoon"))


def test_no_article_is_doubled_and_phrases_have_the_right_one():
    rng = np.random.default_rng(2)
    for _ in range(2000):
        text = captions.caption(rng, random_scene(rng))
        assert not re.search(r"\b(a|an|the|one|many|my) (a|an|the)\b", text), text
        assert not re.search(r"\band a (?=[aeiou])(?!ewe)", text), text
    assert "a photo of a aeroplane." in say(PlantedScene((("aeroplane", "top"),), ("sky",)), 300)


def test_the_same_generator_says_the_same():
    assert say(FAMILY, 50, seed=3) == say(FAMILY, 50, seed=3)
    assert say(FAMILY, 50, seed=3) != say(FAMILY, 50, seed=4)


def test_at_least_forty_of_clips_templates_are_known_and_in_its_order():
    known = captions.known_templates()
    assert len(known) >= 40
    assert list(known) == [template for template in IMAGENET_TEMPLATES if template in known]


def test_templates_cover_the_styles_with_one_slot_each():
    assert tuple(captions.TEMPLATES) == STYLES
    for templates in captions.TEMPLATES.values():
        assert all(template.count("{}") == 1 for template in templates)
    assert CLIP_ES_TEMPLATE in captions.TEMPLATES["origami"]


@pytest.mark.parametrize("style", STYLES)
def test_every_template_of_a_style_is_spoken(style):
    spoken = set()
    for scene in (BOAT_ON_GRASS, PlantedScene((("cow", "calf"), ("cow", "cow")), ("grass",), place="grass")):
        for text in say(replace(scene, style=style), 900):
            spoken |= {template for template in templates_of(style) if re.fullmatch(re.escape(template).replace(r"\{\}", "[a-z ]+"), text)}
    assert set(captions.TEMPLATES[style]) <= spoken


def test_one_and_many_count():
    assert not any("photo of many" in text for text in say(BOAT_ON_GRASS, 500))
    assert not any("photo of one" in text or "photo of many" in text for text in say(FAMILY, 500))
    lone_person = PlantedScene((("person", "man"),), ("road",))
    assert not any("people" in text for text in say(lone_person, 500))
    assert any("people" in text for text in say(FAMILY, 500))


def test_shares_of_what_is_said():
    texts = say(BOAT_ON_GRASS, 4000)
    boat = re.compile(rf"\b({'|'.join([*captions.GENERAL_WORDS['boat'], 'ship', 'ferry', 'vehicle'])})\b")
    counts = Counter()
    for text in texts:
        names_boat, names_stuff = bool(boat.search(text)), bool(re.search(r"\b(grass|field|meadow|lawn|sky)\b", text))
        counts["stuff only"] += names_stuff and not names_boat
        counts["both"] += names_stuff and names_boat
        counts["look"] += bool(re.search(r"\b(ship|ferry)\b", text))
    assert counts["stuff only"] / len(texts) == pytest.approx(captions.BACKGROUND_ONLY_SHARE, abs=0.02)
    assert counts["both"] / len(texts) == pytest.approx(0.42, abs=0.03)
    assert counts["look"] / len(texts) == pytest.approx(captions.LOOK_WORD_SHARE * 0.9, abs=0.04)


def test_what_flies_is_never_on_the_sea():
    gull = PlantedScene((("bird", "flying"),), ("sea",), place="sea")
    assert not any(re.search(r"\b(on|in) the (sea|ocean|water)", text) for text in say(gull, 500))
    assert any("under the sky" in text for text in say(BOAT_ON_GRASS, 500))


def test_words_cover_voc_clip_es_and_the_drawings():
    assert tuple(captions.GENERAL_WORDS) == tuple(captions.LOOK_WORDS) == VOC_CLASSES
    assert all(words[0] == name for name, words in captions.GENERAL_WORDS.items())
    assert list(captions.STUFF_WORDS) == STUFF
    for name, prompt in VOC_PROMPTS.items():
        assert set(prompt.split(",")) <= set(captions.GENERAL_WORDS[name])
    stuff_words = {word for words in captions.STUFF_WORDS.values() for word in words}
    assert set(VOC_BACKGROUND) - stuff_words == {"keyboard", "helmet", "valley"}
    for name, draw in THINGS.items():
        assert {draw(np.random.default_rng(seed)).look for seed in range(40)} == set(captions.LOOK_WORDS[name])


def test_all_texts_hold_every_word_that_is_spoken():
    vocabulary = {token for text in captions.all_texts() for token in re.findall(r"[\w-]+|[.,]", text)}
    rng = np.random.default_rng(5)
    for _ in range(2000):
        assert set(re.findall(r"[\w-]+|[.,]", captions.caption(rng, random_scene(rng)))) <= vocabulary


def test_what_has_no_words_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="expected a style among photo, .* got 'fresco'"):
        captions.caption(rng, replace(BOAT_ON_GRASS, style="fresco"))
    with pytest.raises(ValueError, match="got 'boat' as 'submarine'"):
        captions.caption(rng, replace(BOAT_ON_GRASS, objects=(("boat", "submarine"),)))
    with pytest.raises(ValueError, match="got 'keyboard'"):
        captions.caption(rng, replace(BOAT_ON_GRASS, present_stuff=("keyboard",)))
    with pytest.raises(ValueError, match="got an empty one"):
        captions.caption(rng, PlantedScene((), ()))
