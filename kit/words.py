"""The words of the kit: class names, the words CLIP-ES puts in their place, backgrounds, templates and synonyms; how names are spelled."""

import difflib
import re
from collections.abc import Sequence

# PASCAL VOC, in the order of its palette: the label of a class is its index + 1, background is 0.
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

# MS COCO's 80 categories, in the order of their ids: label = index + 1. The names are those of COCO's annotation files.
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

# What CLIP-ES says instead of a class name (released code). Several words in one prompt are its sentence-level synonym fusion.
_VOC_FUSED = {
    "bird": "bird avian",
    "chair": "chair seat",
    "person": "person with clothes,people,human",
    "tvmonitor": "tvmonitor screen",
}
VOC_PROMPTS = {name: _VOC_FUSED.get(name, name) for name in VOC_CLASSES}

# "sknowboard" is a slip in CLIP-ES's released list and part of its published numbers, so it stays.
_COCO_CHANGED = {
    "person": "person with clothes,people,human",
    "motorcycle": "motorbike",
    "airplane": "aeroplane",
    "bird": "bird avian",
    "backpack": "backpack,bag",
    "umbrella": "umbrella,parasol",
    "handbag": "handbag,purse",
    "tie": "necktie",
    "snowboard": "sknowboard",
    "baseball glove": "glove",
    "spoon": "dessertspoon",
    "chair": "chair seat",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "dining table": "diningtable",
    "tv": "tvmonitor screen",
    "remote": "remote control",
    "hair drier": "hairdrier,blowdrier",
}
COCO_PROMPTS = {name: _COCO_CHANGED.get(name, name) for name in COCO_CLASSES}

# What a picture may show besides the classes (CLIP-ES, released code).
VOC_BACKGROUND = (
    "ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway", "railroad",
    "keyboard", "helmet", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley", "bridge", "sign",
)  # fmt: skip

# Two of VOC's background words are too close to COCO classes: keyboard, and (stop) sign.
COCO_BACKGROUND = tuple(word for word in VOC_BACKGROUND if word not in ("keyboard", "sign"))

# The background words that the tiny CLIP has seen.
TOY_BACKGROUND = tuple(word for word in VOC_BACKGROUND if word not in ("keyboard", "helmet", "valley"))

CLIP_ES_TEMPLATE = "a clean origami {}."  # CLIP-ES: the template of the lowest sharpness

# The 80 ImageNet templates published with CLIP (Radford et al. 2021), in their order.
IMAGENET_TEMPLATES = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)

# Plain dictionary words for VOC's classes, the class name first.
SYNONYMS = {
    "aeroplane": ("aeroplane", "airplane", "plane", "aircraft"),
    "bicycle": ("bicycle", "bike", "cycle", "pushbike"),
    "bird": ("bird", "avian", "fowl", "birdie"),
    "boat": ("boat", "vessel", "ship", "watercraft"),
    "bottle": ("bottle", "flask", "flagon", "carafe"),
    "bus": ("bus", "coach", "autobus", "omnibus"),
    "car": ("car", "automobile", "auto", "motorcar"),
    "cat": ("cat", "kitty", "feline", "pussycat"),
    "chair": ("chair", "seat", "armchair", "stool"),
    "cow": ("cow", "cattle", "bovine", "ox"),
    "diningtable": ("diningtable", "dining table", "table", "desk"),
    "dog": ("dog", "hound", "canine", "doggy"),
    "horse": ("horse", "steed", "equine", "pony"),
    "motorbike": ("motorbike", "motorcycle", "moped", "scooter"),
    "person": ("person", "human", "people", "individual"),
    "pottedplant": ("pottedplant", "potted plant", "houseplant", "plant"),
    "sheep": ("sheep", "lamb", "ewe", "ram"),
    "sofa": ("sofa", "couch", "settee", "loveseat"),
    "train": ("train", "railway train", "locomotive", "rail car"),
    "tvmonitor": ("tvmonitor", "tv monitor", "television", "screen", "tv"),
}


def label_numbers(names: tuple[str, ...]) -> dict[str, int]:
    """Each class's number in a mask of a single picture: VOC's for VOC's classes, 21 and up for the others in their order.

    >>> label_numbers(("dog", "unicorn"))
    {'dog': 12, 'unicorn': 21}
    """
    others = [name for name in names if name not in VOC_CLASSES]
    return {name: 1 + (VOC_CLASSES.index(name) if name in VOC_CLASSES else len(VOC_CLASSES) + others.index(name)) for name in names}


def class_name(text: str, classes: Sequence[str] = ()) -> str:
    """A class as its data set spells it, whatever the case and whether with spaces, hyphens or underscores.

    classes: the data set's; without, VOC's, then COCO's. A text that is none of them stays, but for spaces around it.

    >>> class_name("TV-monitor"), class_name("Fire hydrant"), class_name(" Unicorn ")
    ('tvmonitor', 'fire hydrant', 'Unicorn')
    """
    text, known = text.strip(), tuple(classes) or (*VOC_CLASSES, *COCO_CLASSES)
    alike = [name for name in known if _folded(name) == _folded(text)]
    if text in known or not alike or (classes and len(alike) > 1):
        return text
    return alike[0]


BACKGROUND_NAMES = ("background", "_background_", "__background__", "bg", "__bg__")  # what tools call the label 0
VOID_NAMES = (
    "void", "_void_", "__void__", "ignore", "_ignore_", "__ignore__", "unlabeled", "unlabelled", "__unlabeled__", "don't care", "dontcare",
)  # fmt: skip
NOTHING = ("nan", "none", "null", "n/a", "<na>")  # how programs write an empty cell


def check_class(name: str) -> str:
    """A class name as it is.

    Raises ValueError for a text that is no single name: several with something between them, part of a list, an empty cell, background.
    """
    text, shown = name.strip().lower(), repr(name if len(name) <= 60 else f"{name[:57]}...")
    if not text or text in NOTHING:
        raise ValueError(f"{shown} is no class name but what an empty cell looks like: leave it out")
    if text in BACKGROUND_NAMES:
        raise ValueError(f"{shown} is no class: background is what no class takes, label 0 in every mask; leave it out")
    if text in VOID_NAMES:
        raise ValueError(f"{shown} is no class: pixels that are not judged have the label 255 in a mask; leave it out")
    marks = re.findall(r'[][{}|;,"<>\\\x00-\x1f\x7f]', text) or re.findall(r"^['`]|['`]$", text)
    if marks:
        raise ValueError(f"{shown} is no class name, for it has {marks[0]!r} in it: write each class by itself, as plain words")
    return name


def _folded(text: str) -> str:
    return re.sub(r"[\s_-]+", "", text.casefold())


def near_miss(name: str) -> str:
    """What to ask of a class that is no data set's and written almost like one of them; "" for any other.

    >>> near_miss("boad"), near_miss("unicorn")
    ("'boad' is no class of VOC or COCO: did you mean boat?", '')
    """
    known = (*VOC_CLASSES, *COCO_CLASSES)
    if name in known or any(name in words for words in SYNONYMS.values()):
        return ""
    alike = difflib.get_close_matches(_folded(name), [_folded(other) for other in known if other[0] == name[:1].lower()], 1, cutoff=0.75)
    meant = next((other for other in known if _folded(other) in alike), "")
    return f"{name!r} is no class of VOC or COCO: did you mean {meant}?" if meant else ""
