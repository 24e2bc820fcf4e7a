"""What several test files share."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def random_prompts(tmp_path_factory):
    """A file of FMA-WSSS's prompts for the tiny model as they are before the first step of learning."""
    from kit.encode import Clip
    from kit.methods.fma_wsss import METHOD, TASKS, FmaWsss, LearnedPrompts, prompt_context
    from kit.words import VOC_CLASSES

    clip = Clip.load("tiny")
    settings = FmaWsss(clip).settings
    contexts = {task: prompt_context(clip, settings, VOC_CLASSES, task).vectors for task in TASKS}
    about = {"method": METHOD, "model": clip.name, "clip": clip.fingerprint, "classes": list(VOC_CLASSES), "settings": settings.to_dict()}
    path = tmp_path_factory.mktemp("learned") / "random.safetensors"
    FmaWsss(clip, learned=LearnedPrompts.of(clip, settings, contexts, about)).save(path)
    return path


@pytest.fixture(scope="session")
def server(random_prompts):
    """The app with the tiny model, running in this process: .url, .clip, .page (its Explore), .pages (all, by title)."""
    import torch

    from kit.encode import Clip
    from kit.ui import frame

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    clip = Clip.load("tiny")
    demo, pages = frame.build(clip, random_prompts)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **frame.LAUNCH)
    yield SimpleNamespace(url=url, clip=clip, page=pages["Explore"], pages=pages)
    demo.close()
    torch.set_num_threads(threads)


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
