"""A method of one's own for `--method tests/own_method.py`: Otsu's threshold on the softmax CAM, with one setting and one lesson."""

import torch
from pydantic import Field
from skimage.filters import threshold_otsu

import kit
from kit import cam, refine, words
from kit.losses import multi_label_contrastive_loss
from kit.prompt import prompts
from kit.settings import Learning, number
from kit.views import CachedViews, label_rows


class OtsuSettings(kit.Settings):
    strictness: number(0, 2) = Field(1.0, title="Strictness", description="times Otsu's threshold")
    learning: Learning = Learning(batch=8, rate=0.1, steps=20)


def text(scene, done):
    settings, learned = scene.settings, scene.learned
    own = prompts(settings.template, scene.names, settings.synonyms)
    vectors = scene.clip.text(own + prompts(settings.template, settings.background))  # (C + backgrounds, D)
    for row, name in enumerate(scene.names):
        if learned is not None and name in learned.classes:
            vectors[row] = learned.tensors["texts"][learned.classes.index(name)]
    return kit.Words(tuple(own), cam.class_probabilities(scene.tokens, vectors, done=scene.last)[0, : len(own)], vectors)


def class_maps(scene, done):
    maps = cam.softmax_grad_cam(scene.tokens, done["text"].text, range(len(scene.names)), done=scene.last)
    return refine.upsampled(cam.normalised_cam(maps), scene.image.shape[:2])[0]  # (C, H, W) in [0, 1]


def above_otsu(scene, done):
    lowest = [scene.settings.strictness * threshold_otsu(plane.cpu().numpy()) for plane in done["scores"][1:]]
    return torch.stack([(plane > low).float() for plane, low in zip(done["scores"][1:], lowest, strict=True)])


class Texts:
    def __init__(self, study, views):
        self.texts = torch.nn.Parameter(study.pipeline.clip.text(prompts(study.pipeline.settings.template, study.data.classes)))
        self.labels, self.views, self.count = label_rows(views.names, study.data.classes).to(self.texts.device), views, views.count
        self.parameters, self.tensors = lambda: [self.texts], lambda: {"texts": self.texts}

    def losses(self, indices, random):
        logits = 100 * self.views.embeddings(indices, random) @ self.texts.T  # (B, C)
        return {"contrastive": multi_label_contrastive_loss(logits, self.labels[indices])}


def lesson(study):
    yield from (views := CachedViews(study.pipeline.clip, study.data, prepare=study.pipeline.prepared)).fill()
    return Texts(study, views)


stages = (kit.Stage("text", "Prompts", text, shows="words"), kit.Stage("cam", "softmax Grad-CAM", class_maps, shows="maps"),
          kit.Stage("otsu", "+ Otsu", above_otsu, shows="maps", in_worker=True))  # fmt: skip
presets = {"toy": kit.Preset({"background": words.TOY_BACKGROUND, "side": 160})}
lessons = {"texts": kit.Lesson("Texts", "A text for each class.", "learning", lesson, ("contrastive",), ("encoding", "texts"))}
METHOD = kit.Method("otsu", "Otsu of the softmax CAM", OtsuSettings, stages, presets, lessons=lessons)
