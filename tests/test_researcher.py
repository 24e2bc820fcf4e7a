"""What a researcher writes: each line of the README's Python example, with a CAM, a refiner and a method of one's own."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import kit
from kit import cam, fit, refine

SIDE = 96  # small pictures: these lines shall be quick


def rollout(tokens, text, classes, *, done=None):
    """A CAM of one's own: where the patches agree with the text, after they have looked at each other."""
    maps = cam.similarity_cam(tokens, text, classes)  # (1, C, h, w)
    attention = tokens.attention.float().mean(1)[0, 1:, 1:]
    return (maps.flatten(2) @ attention).view_as(maps)


def my_refiner(image, scores):
    """A refiner of one's own: scores (1 + C, H, W), sharpened until one class is left."""
    return (8 * scores).softmax(0)


@pytest.fixture(scope="module")
def clip():
    return kit.load("tiny")


@pytest.fixture(scope="module")
def val():
    return kit.toy("val", 4, size=SIDE)


@pytest.fixture(scope="module")
def mine(clip):
    return kit.ClipEs(clip, cam=rollout, refiner=my_refiner)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, val):
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(val.entries[0].image()).save(folder / "a.jpg")
    return folder


def test_a_picture_is_a_path_an_image_an_array_or_a_sample(clip, photos):
    method = kit.ClipEs(clip, box_threshold=0.4)
    path, names = photos / "a.jpg", ("dog", "sofa")
    image = Image.open(path).convert("RGB")
    labels = [method.segment(one, names=names).labels for one in (str(path), path, image, np.array(image))]
    labels.append(method.segment(kit.Sample(np.array(image), names)).labels)
    labels.append(method.segment(path, names=tuple(name.title() for name in names)).labels)
    assert all(torch.equal(one, labels[0]) for one in labels)
    assert method.settings.box_threshold == 0.4


def test_own_functions_are_used_and_named(mine, photos):
    result = mine.segment(photos / "a.jpg", names=("dog",))
    assert mine.name == "clip-es (cam=rollout, refiner=my_refiner)" and mine.titles["cam"] == "rollout"
    assert mine.titles["refined"] == "+ my_refiner" and set(result.settings["code"]) == {"cam", "refiner"}
    with_background = result.scores_of("affinity")
    assert torch.equal(result.planes, my_refiner(None, with_background))


def test_a_sweep_is_a_frame_a_plot_and_a_file(mine, clip, val, tmp_path):
    swept = kit.sweep(mine, val, box_threshold=[0.1, 0.2, 0.4])
    frame = swept.to_frame()
    assert list(frame["box_threshold"]) == [0.1, 0.2, 0.4]
    swept.plot()
    swept.save(tmp_path / "curve.png")
    assert Image.open(tmp_path / "curve.png").format == "PNG"
    measured = kit.evaluate(mine.changed(box_threshold=0.4), val, control=False).to_frame()
    assert frame["miou"].iloc[2] == pytest.approx(measured["miou"].iloc[-1])  # the researcher's functions, not the kit's
    nested = kit.sweep(kit.FmaWsss(clip), val, coarse__box_threshold=[0.1, 0.3]).to_frame()
    assert len(nested) == 2


def test_methods_are_measured_beside_each_other_with_one_encoding(mine, clip, val):
    before = clip.calls
    kit.evaluate([kit.ClipEs(clip)], val)
    of_one = clip.calls - before
    evaluation = kit.evaluate([kit.ClipEs(clip), kit.FmaWsss(clip), mine], val)
    assert clip.calls - before == 2 * of_one
    frame = evaluation.to_frame()
    assert {"clip-es", "fma-wsss", mine.name} <= set(frame["method"])
    assert len(set(evaluation.to_frame(by="image")["image"])) == len(val)
    assert "class" in evaluation.to_frame(by="class")


def test_generate_runs_to_its_end_and_its_steps_can_be_had(mine, photos, tmp_path, capsys):
    data = kit.folder(photos, names={"a.jpg": ["dog"]})
    kit.generate(mine, data, out=tmp_path / "masks", progress=False)
    assert (tmp_path / "masks" / "SegmentationClass" / "a.png").is_file()
    assert len(list(kit.generate_steps(mine, data, tmp_path / "others"))) == 1
    assert "progress" in inspect.signature(kit.generate).parameters


def test_fit_runs_to_its_end_and_its_steps_can_be_had(clip):
    train = kit.toy("train", 8, size=SIDE)
    better = kit.fit(kit.FmaWsss(clip), train, steps=4, losses={"foreground": 8.0}, progress=False)
    assert better.learned is not None and better.settings.fine.losses["foreground"] == 8.0
    assert better.segment(next(train.samples())).stages
    steps = kit.fit_steps(kit.FmaWsss(clip), train, steps=2, lessons="classification")
    assert [step.step for step in steps if step.losses] == [1, 2] and steps.so_far().learned.classes == train.classes


def test_a_method_is_a_value(clip, val):
    def similarity(scene, done):
        text = scene.clip.text([scene.settings.template.format(name) for name in scene.names])
        maps = cam.normalised_cam(cam.similarity_cam(scene.tokens, text, range(len(scene.names))))
        return refine.upsampled(maps, scene.image.shape[:2])[0]

    def above_otsu(scene, done):
        from skimage.filters import threshold_otsu

        return torch.stack([(map_ > threshold_otsu(map_.numpy())).float() for map_ in done["map"]])

    stages = (kit.Stage("map", "similarity", similarity, shows="maps"), kit.Stage("otsu", "+ Otsu", above_otsu, shows="maps"))
    otsu = kit.Method("otsu", "Otsu of the similarity map", kit.Settings, stages)
    result = otsu(clip).segment(next(val.samples()))
    assert list(result.stages) == ["map", "otsu"] and set(result.settings["code"]) == {"stage map", "stage otsu"}
    assert set(kit.evaluate(otsu(clip), val).to_frame()["method"]) == {"otsu"}


def test_import_kit_is_light_and_lists_its_names():
    program = (
        "import sys, kit; assert 'sweep' in dir(kit) and set(kit.__all__) <= set(dir(kit)); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pydantic', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


@pytest.mark.parametrize("name", kit.__all__)
def test_every_public_name_is_there(name):
    assert getattr(kit, name) is not None


def test_a_module_of_a_functions_name_is_both():
    assert kit.fit is fit and fit.FitError is not None
    assert inspect.signature(kit.fit) == inspect.signature(fit.fit) and kit.fit.__doc__ == fit.fit.__doc__
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        kit.fitt  # noqa: B018


def test_the_help_of_settings_says_meaning_and_range():
    said = kit.ClipEsSettings.__doc__
    assert "box_threshold" in said and "a number from 0 to 1" in said and "in pixels" in said
