"""Lists are easy to spoil by one comma: their sizes, their order and what the papers changed are pinned here."""

import numpy as np
import pytest
from typer.testing import CliRunner

from kit import words
from kit.__main__ import app
from kit.data import DataSet, folder_data
from kit.images import save_image
from kit.methods import ClipEs
from kit.ui.ask import asked_classes


def test_class_lists_have_the_data_sets_sizes_and_order():
    assert len(set(words.VOC_CLASSES)) == len(words.VOC_CLASSES) == 20
    assert len(set(words.COCO_CLASSES)) == len(words.COCO_CLASSES) == 80
    assert (words.VOC_CLASSES[0], words.VOC_CLASSES[14], words.VOC_CLASSES[19]) == ("aeroplane", "person", "tvmonitor")
    assert (words.COCO_CLASSES[0], words.COCO_CLASSES[57], words.COCO_CLASSES[79]) == ("person", "couch", "toothbrush")
    assert list(words.VOC_CLASSES) == sorted(words.VOC_CLASSES)


def test_prompts_are_clip_es_released_words():
    assert tuple(words.VOC_PROMPTS) == words.VOC_CLASSES
    assert tuple(words.COCO_PROMPTS) == words.COCO_CLASSES
    changed = {name: prompt for name, prompt in words.VOC_PROMPTS.items() if name != prompt}
    assert changed == {
        "bird": "bird avian",
        "chair": "chair seat",
        "person": "person with clothes,people,human",
        "tvmonitor": "tvmonitor screen",
    }
    assert words.COCO_PROMPTS["snowboard"] == "sknowboard"
    assert words.COCO_PROMPTS["hair drier"] == "hairdrier,blowdrier"
    assert " | ".join(list(words.COCO_PROMPTS.values())[:15]) == (
        "person with clothes,people,human | bicycle | car | motorbike | aeroplane | bus | train | truck | boat | "
        "traffic light | fire hydrant | stop sign | parking meter | bench | bird avian"
    )
    assert len(set(words.COCO_PROMPTS.values())) == 80


def test_backgrounds_never_name_a_class():
    assert len(set(words.VOC_BACKGROUND)) == len(words.VOC_BACKGROUND) == 25
    assert len(words.COCO_BACKGROUND) == 23
    assert set(words.VOC_BACKGROUND) - set(words.COCO_BACKGROUND) == {"keyboard", "sign"}
    assert not set(words.VOC_BACKGROUND) & set(words.VOC_CLASSES)
    assert not set(words.COCO_BACKGROUND) & set(words.COCO_CLASSES)


def test_every_template_has_exactly_one_slot():
    templates = (*words.IMAGENET_TEMPLATES, words.CLIP_ES_TEMPLATE)
    assert len(set(words.IMAGENET_TEMPLATES)) == len(words.IMAGENET_TEMPLATES) == 80
    for template in templates:
        assert template.count("{}") == 1 and template.count("{") == template.count("}") == 1, template
        assert "cat" in template.format("cat")
    assert words.IMAGENET_TEMPLATES[0] == "a bad photo of a {}." and words.IMAGENET_TEMPLATES[-1] == "a tattoo of the {}."


def test_imagenet_templates_are_those_of_open_clip():
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    assert tuple(fill("{}") for fill in OPENAI_IMAGENET_TEMPLATES) == words.IMAGENET_TEMPLATES


def test_synonyms_start_with_the_class_and_belong_to_one_class():
    assert tuple(words.SYNONYMS) == words.VOC_CLASSES
    for name, synonyms in words.SYNONYMS.items():
        assert synonyms[0] == name and len(synonyms) >= 4
    everything = [word for synonyms in words.SYNONYMS.values() for word in synonyms]
    assert len(set(everything)) == len(everything)
    assert not set(everything) & set(words.VOC_BACKGROUND)


def test_a_class_is_spelled_as_its_data_set_does():
    spelled = {"Boat": "boat", "DINING-TABLE": "diningtable", "dining table": "dining table", "potted_plant": "pottedplant"}
    assert all(words.class_name(text) == name for text, name in spelled.items())
    assert words.class_name("Fire_Hydrant") == "fire hydrant" and words.class_name(" Unicorn ") == "Unicorn"
    mine = ("Boat", "hot dog", "hotdog")
    assert [words.class_name(text, mine) for text in ("boat", "Hot Dog", "hotdog", "cat")] == ["Boat", "Hot Dog", "hotdog", "cat"]
    assert all(words.class_name(name) == name for name in (*words.VOC_CLASSES, *words.COCO_CLASSES))


def test_near_misses_are_asked_about_and_words_of_ones_own_are_not():
    asked = {"boad": "boat", "Hors": "horse", "pottedplants": "pottedplant", "girafe": "giraffe"}
    assert {name: words.near_miss(name).rsplit(" ", 1)[-1].rstrip("?") for name in asked} == asked
    assert not any(map(words.near_miss, ("unicorn", "ship", "", *words.VOC_CLASSES, *words.COCO_CLASSES)))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("['bird'", r"for it has '\['"),
        ("bird|horse", r"for it has '\|'"),
        ("bird;horse", "for it has ';'"),
        ("bird, horse", "for it has ','"),
        ('"bird"', "write each class by itself"),
        ("bird\n", None),
        ("bi\trd", "for it has"),
        ("nan", "what an empty cell looks like"),
        ("None", "what an empty cell looks like"),
        ("  ", "what an empty cell looks like"),
        ("background", "background is what no class takes"),
        ("_Background_", "background is what no class takes"),
        ("__ignore__", "have the label 255"),
        ("x" * 100 + ";", r"x\.\.\.' is no class name"),
        ("hot dog", None),
        ("d'Artagnan", None),
        ("T-shirt (red)", None),
        ("猫", None),
    ],
)
def test_a_class_name_is_one_name(name, told):
    if told is None:
        assert words.check_class(name) == name
        return
    with pytest.raises(ValueError, match=told):
        words.check_class(name)


@pytest.mark.parametrize("name", ["bird;horse", "bird|horse", "background", "nan"])
def test_every_door_asks(name, clip, tmp_path):
    """Python, a data set, a folder, the command line and the app."""
    picture = np.zeros((16, 16, 3), np.uint8)
    save_image(tmp_path / "a.png", picture)
    refused = [
        lambda: ClipEs(clip).segment(picture, names=(name,)),
        lambda: DataSet("mine", "all", (name, "cat"), "", ()),
        lambda: folder_data(tmp_path, names={"a.png": [name, "cat"]}).entries[0].names(),
        lambda: (tmp_path / "classes.txt").write_text(f"cat\n{name}\n") and folder_data(tmp_path, names={"a.png": ["cat"]}),
    ]
    for door in refused[: 2 if name == "nan" else None]:  # in a list it is an empty cell
        with pytest.raises(ValueError, match="is no class"):
            door()
    with pytest.raises(ValueError, match="is no class"):
        asked_classes([name])
    answer = CliRunner().invoke(app, ["segment", str(tmp_path / "a.png"), "--classes", name, "--out", str(tmp_path / "out")])
    # bird;horse are two classes there
    assert (answer.exit_code == 2 and "is no class" in answer.stderr) == (name != "bird;horse"), answer.output
