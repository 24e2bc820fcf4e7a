"""What several test files share."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from pathlib import Path
from types import SimpleNamespace

import pytest

GOLDEN = Path(os.environ.get("KIT_GOLDEN_DIR", Path(__file__).parent / "golden"))
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch on one thread: sums in one order, and no waiting for other tests' processes."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def clip():
    """The tiny CLIP on the processor."""
    from kit.encode import Clip

    return Clip.load("tiny", device="cpu")


@pytest.fixture(scope="session")
def random_clip():
    """Another CLIP: a small ViT with random weights and no tokenizer."""
    import torch

    from kit.encode import Clip, build_small_clip

    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 64, "width": 8, "heads": 1, "layers": 1}
    return Clip(build_small_clip({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}), None)


@pytest.fixture(scope="session")
def own():
    """The method in own_method.py, which no line of the kit knows."""
    from kit.own import load_method

    return load_method(Path(__file__).parent / "own_method.py")


@pytest.fixture(scope="session")
def official_arrays():
    """Arrays that the papers' own code has made, by the name of their file; $KIT_GOLDEN_DIR may name a folder with other sets."""
    import numpy as np

    def arrays(name):
        path = GOLDEN / name
        if not path.is_file():
            pytest.skip(f"no {path.name} in {GOLDEN}")
        return np.load(path, allow_pickle=False)

    return arrays


@pytest.fixture(scope="session")
def random_prompts(clip, tmp_path_factory):
    """A file of prompts for the tiny model as they are before the first step of learning."""
    from kit.learned import Learned
    from kit.methods import FmaWsss
    from kit.methods.fma_wsss import prompt_context
    from kit.words import VOC_CLASSES

    settings = FmaWsss.preset("toy")
    tensors = {lesson: prompt_context(clip, settings, VOC_CLASSES, lesson).vectors for lesson in FmaWsss.lessons}
    about = {"method": FmaWsss.name, "model": clip.name, "clip": clip.fingerprint, "classes": list(VOC_CLASSES)}
    path = tmp_path_factory.mktemp("learned") / "random.safetensors"
    Learned(tensors, {**about, "settings": settings.to_dict()}).save(path)
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of drawn scenes as photos, and what each shows: .path, .names (file -> classes), .samples."""
    from kit.data import toy_samples
    from kit.images import save_image

    folder = tmp_path_factory.mktemp("photos")
    samples = [sample for sample in toy_samples("val", 8, size=96) if sample.names][:4]
    for sample in samples:
        save_image(folder / f"{sample.id}.png", sample.image)
    return SimpleNamespace(path=folder, names={f"{sample.id}.png": list(sample.names) for sample in samples}, samples=samples)


@pytest.fixture(scope="session")
def data_of():
    """A data set of samples that are there already."""
    from kit.data import DataSet, Entry
    from kit.words import VOC_CLASSES

    def entry(sample):
        truth = None if sample.truth is None else lambda: sample.truth
        return Entry(sample.id, lambda: sample.names, lambda: sample.image.shape[:2], lambda: sample.image, truth)

    def data(samples, *, classes=VOC_CLASSES, name="planted", split="train"):
        return DataSet(name, split, classes, "planted", tuple(map(entry, samples)))

    return data


@pytest.fixture(scope="session")
def server(random_prompts, own):
    """The app with the tiny model and a method of one's own, in this process: .url, .clip, .page (its Explore), .pages (all, by title)."""
    import torch

    from kit.encode import Clip
    from kit.methods import METHODS
    from kit.ui import frame

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    clip = Clip.load("tiny")
    demo, pages = frame.build(clip, {**METHODS, own.name: own}, random_prompts)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **frame.LAUNCH)
    yield SimpleNamespace(url=url, clip=clip, page=pages["Explore"], pages=pages)
    demo.close()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def chromium():
    """The system's browser without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"the browser test needs {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()
