"""CLIP is Also an Efficient Segmenter (Lin et al., CVPR 2023, arXiv 2212.09506): text-driven Grad-CAM, attention affinity, nothing learned.

image -> tokens -> softmax Grad-CAM of the present classes against background words -> class-aware attention affinity -> dense CRF
-> label map, uncertain pixels ignored
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from pydantic import Field
from torch import Tensor

from kit import cam, refine, words
from kit.method import Comparison, Done, Method, Pipeline, Preset, Scene, Stage, Words, with_settings
from kit.prompt import competing_words, prompts, shifted_words
from kit.settings import Blocks, Settings, Share, Texts, function, name_of, number, whole

CAMS = MappingProxyType({"softmax": cam.softmax_grad_cam, "plain": cam.grad_cam, "similarity": cam.similarity_cam})
CAM_TITLES = {"softmax": "softmax Grad-CAM", "plain": "plain Grad-CAM", "similarity": "similarity map"}
REFINER_TITLES = {"crf": "+ CRF", "pixel-adaptive": "+ pixel-adaptive refinement"}


REFINERS = MappingProxyType({"crf": refine.dense_crf, "pixel-adaptive": refine.pixel_adaptive_refinement, "none": None})


class ClipEsSettings(Settings):
    """The settings of CLIP-ES. Defaults are the paper's for PASCAL VOC, from the released code."""

    template: str = Field(words.CLIP_ES_TEMPLATE, title="Template", description="the sentence of a prompt; {} is where the class name goes")
    background: Texts = Field(words.VOC_BACKGROUND, title="Background words", description="what else may be there; none is allowed")
    synonyms: dict[str, str] = Field(
        dict(words.VOC_PROMPTS),
        title="Words",
        description="class name -> the words in its place; a name that is not here stands for itself",
    )
    cam: function(CAMS) = Field("softmax", title="Map", description="how a class map is made, see kit.cam")
    affinity: bool = Field(True, title="Spread by attention affinity")
    box_threshold: Share = Field(0.4, title="Box threshold", description="a class may spread from boxes around what is hotter; 0.7 on COCO")
    layers: Blocks = Field(8, title="Attention of blocks", description="whose attention makes the affinity")
    sinkhorn: whole(0, 20) = Field(3, title="Sinkhorn", description="how often rows and columns are made to sum to 1")
    power: whole(1, 8) = Field(2, title="Affinity power", description="of the matrix: how far heat may walk")
    exact_boxes: bool = Field(False, title="Exact boxes", description="the released code cuts boxes at the right and lower border")
    refiner: function(REFINERS) = Field("crf", title="Refiner", description="what trims the mask to the picture's edges")
    iterations: whole(1, 50) = Field(10, title="Iterations", description="of the refiner")
    gaussian_xy: number(0.1, 100) = Field(1.0, title="CRF: smoothing reach", description="in pixels")
    gaussian_weight: number(0, 100) = Field(3.0, title="CRF: smoothing weight")
    bilateral_xy: number(1, 500) = Field(67.0, title="CRF: reach in pixels")
    bilateral_rgb: number(0.5, 255) = Field(3.0, title="CRF: reach in colour", description="of 255")
    bilateral_weight: number(0, 100) = Field(4.0, title="CRF: weight")
    smoothing: Share = Field(0.0, title="CRF: score smoothing", description="added to the scores before the CRF")
    released_crf_image: bool = Field(
        False, title="CRF: released picture", description="the released code's picture for the CRF, wrapped around below zero"
    )
    confidence: Share = Field(0.95, title="Confidence", description="pixels whose best score is a smaller share than this become 255")


def text(scene: Scene, done: Done) -> Words:
    settings, names = scene.settings, scene.names
    own = prompts(settings.template, names, settings.synonyms)
    rivals, _ = competing_words(settings.background, names, settings.synonyms)
    vectors = scene.clip.text(own + prompts(settings.template, rivals))  # (C + backgrounds, D)
    return Words(tuple(own), cam.class_probabilities(scene.tokens, vectors, done=scene.last)[0, : len(names)], vectors)


def left_out(scene: Scene, done: Done) -> Iterator[str]:
    _, own = competing_words(scene.settings.background, scene.names, scene.settings.synonyms)
    yield from (f"background word {word!r} is left out: it is one of the classes" for word in own)


def raw_maps(scene: Scene, done: Done) -> Tensor:
    make = scene.settings.cam if callable(scene.settings.cam) else CAMS[scene.settings.cam]
    return with_settings(make, scene.settings)(scene.tokens, done["text"].text, range(len(scene.names)), done=scene.last)  # (1, C, h, w)


def silent(scene: Scene, done: Done) -> Iterator[str]:
    for name, map_ in zip(scene.names, done["raw"][0], strict=True):
        if not (map_ > 0).any():
            yield f"{name}: no patch speaks for it, its map is empty"


def coarse_maps(scene: Scene, done: Done) -> Tensor:
    return cam.normalised_cam(done["raw"])


def enlarged(scene: Scene, done: Done) -> Tensor:
    return refine.upsampled(done["coarse"], scene.image.shape[:2])[0]


def boxes(scene: Scene, done: Done) -> Tensor:
    return refine.box_mask(done["coarse"], threshold=scene.settings.box_threshold, exact=scene.settings.exact_boxes)


def boxless(scene: Scene, done: Done) -> Iterator[str]:
    for name, box in zip(scene.names, done["boxes"][0], strict=True):
        if not box.any():
            yield f"{name}: no box above the threshold, so every patch counts"


def matrix(scene: Scene, done: Done) -> Tensor:
    attention = scene.tokens.attention_of(scene.clip.chosen_blocks(scene.settings.layers)).float()
    return refine.attention_affinity(attention, sinkhorn=scene.settings.sinkhorn, power=scene.settings.power)


def spread(scene: Scene, done: Done) -> Tensor:
    maps = refine.spread(done["coarse"], done["matrix"], done["boxes"])
    return refine.upsampled(cam.stretched(maps), scene.image.shape[:2])[0]


def refined(scene: Scene, done: Done) -> Iterator[Tensor]:
    settings = scene.settings
    refiner = with_settings(settings.refiner if callable(settings.refiner) else REFINERS[settings.refiner], settings)
    if settings.refiner == "crf":
        refiner = functools.partial(refiner, released_image=settings.released_crf_image)
    return refiner(scene.image, done["scores"])


def is_for_worker(scene: Scene) -> bool:
    """Pixel-adaptive refinement is faster where the maps are, if that is a GPU."""
    return scene.clip is None or scene.settings.refiner != "pixel-adaptive" or scene.clip.device.type == "cpu"


def has_affinity(scene: Scene) -> bool:
    return scene.settings.affinity


def has_refiner(scene: Scene) -> bool:
    return scene.settings.refiner != "none"


def cam_title(settings: ClipEsSettings) -> str:
    return CAM_TITLES.get(settings.cam) or name_of(settings.cam)


def refiner_title(settings: ClipEsSettings) -> str:
    return REFINER_TITLES.get(settings.refiner) or f"+ {name_of(settings.refiner)}"


def compared(pipeline: Pipeline, classes: Sequence[str]) -> Mapping[str, Comparison]:
    bare = {"affinity": False, "refiner": "none"}
    shifted = shifted_words(classes, pipeline.settings.synonyms)
    title = f"control: words shifted by one class ({cam_title(pipeline.settings)})"
    return {
        "plain": Comparison("plain Grad-CAM (baseline)", pipeline.changed(cam="plain", **bare)),
        "control": Comparison(title, pipeline.changed(synonyms=shifted, **bare), control=True),
    }


ClipEs = Method(
    "clip-es", "CLIP-ES", ClipEsSettings,
    stages=(
        Stage("text", "Prompts", text, shows="words", notes=left_out),
        Stage("raw", "Raw maps", raw_maps, notes=silent),
        Stage("coarse", "Coarse maps", coarse_maps),
        Stage("cam", cam_title, enlarged, shows="maps",
              about="Where the picture speaks for the class: the gradient of its probability among all words, summed over the channels of "
                    "each patch. What also speaks for another word is subtracted."),
        Stage("boxes", "Boxes", boxes, when=has_affinity, notes=boxless),
        Stage("matrix", "Attention affinity", matrix, when=has_affinity),
        Stage("affinity", "+ affinity", spread, shows="maps", when=has_affinity,
              about="Heat walks to the patches that attention ties together, within boxes around the hottest places. It fills objects, and "
                    "leaks where object and ground attend to each other."),
        Stage("refined", refiner_title, refined, shows="maps", in_worker=is_for_worker, when=has_refiner,
              about="Neighbouring pixels of one colour should have one label. It trims the mask to the edges of the picture."),
    ),
    presets={
        "coco": Preset({"background": words.COCO_BACKGROUND, "synonyms": dict(words.COCO_PROMPTS), "box_threshold": 0.7}),
        # for the tiny CLIP: the words it knows, the blocks that attend locally, the size and box threshold that were best on 100 scenes
        "toy": Preset(
            {"background": words.TOY_BACKGROUND, "synonyms": {}, "layers": (0, 1, 2), "box_threshold": 0.2, "side": 160},
            chosen_on=(("toy", "train"),),
        ),
    },
    compared=compared,
    source="Lin et al., CLIP is Also an Efficient Segmenter, CVPR 2023",
    notebook="1_clip_es.ipynb",
    knobs=("box_threshold", "background_power", "refiner"),
)  # fmt: skip
