"""Weights out of any file: wrapped, of other tools, of OpenAI's, damaged or no weights at all; no program in a file is ever run."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kit import load
from kit.checkpoint import CheckpointError, check_fits, is_of_openai, is_torchscript, weights_in
from kit.encode import ClipError

ANCHOR = "visual.conv1.weight"
NAME = "ViT-S-16-alt"


def weights():
    return {ANCHOR: torch.arange(6.0).reshape(2, 3), "visual.proj": torch.ones(2), "logit_scale": torch.tensor(4.6)}


def read(path, content, wanted=None):
    torch.save(content, path)
    return weights_in(path, weights() if wanted is None else wanted, ANCHOR)


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "clip_model.", "module._orig_mod.clip."])
@pytest.mark.parametrize("inside", [(), ("state_dict",), ("model",), ("checkpoint", "weights"), ("a", "b", "c")])
def test_whatever_wraps_them(tmp_path, prefix, inside):
    content = {f"{prefix}{name}": tensor for name, tensor in weights().items()} | ({"head.bias": torch.zeros(1)} if prefix else {})
    for name in reversed(inside):
        content = {"epoch": 3, name: content, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}
    assert same(read(tmp_path / "weights.pt", content), weights())


def test_sizes_of_openai_among_the_weights_are_no_weights(tmp_path):
    sizes = {name: torch.tensor(77) for name in ("input_resolution", "context_length", "vocab_size")}
    assert same(read(tmp_path / "weights.pt", weights() | sizes), weights())


def test_safetensors(tmp_path):
    save_file({f"model.{name}": tensor for name, tensor in weights().items()}, tmp_path / "weights.safetensors")
    assert same(weights_in(tmp_path / "weights.safetensors", weights(), ANCHOR), weights())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"model": weights(), "ema": weights()}, r"it holds several models .*save the one alone"),
        ({"student." + name: value for name, value in weights().items()} | {"teacher." + name: value for name, value in weights().items()},
         r"several models \(student., teacher.\)"),
        ({"vision_model.embeddings.x": torch.zeros(1), "text_model.y": torch.zeros(1)}, "names of transformers.*ARCHITECTURE:TAG"),
        ({"conv.weight": torch.zeros(1)}, "it holds conv.weight, no weights of this kind"),
        ({"epoch": 3}, "there are no weights in it"),
        ([1, 2], "there are no weights in it"),
        (weights() | {ANCHOR: torch.tensor([1.0, float("nan")])}, rf"numbers that are no numbers \(NaN\) in {ANCHOR}"),
        ({"m." + name: value / 0 for name, value in weights().items()}, f"numbers that are .* in m.{ANCHOR}"),
    ],
)  # fmt: skip
def test_what_is_not_the_weights_of_one_model(tmp_path, content, told):
    with pytest.raises(CheckpointError, match=told):
        read(tmp_path / "weights.pt", content)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "this is a web page, not the file itself"),
        (b"not any weights at all", "it is no file of (tensors|safetensors)"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, data, told):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=told):
        weights_in(tmp_path / name, weights(), ANCHOR)


def test_a_file_that_is_cut_off_and_a_folder(tmp_path):
    torch.save(weights(), tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-300])
    for name, told in (("a.pt", "cut off; download or save it again"), ("", "it cannot be read"), ("b", "No such")):
        with pytest.raises(CheckpointError, match=told):
            weights_in(tmp_path / name, weights(), ANCHOR)


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_what_stands_beside_the_weights_is_named_and_not_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"stands beside its weights, which is not run; .*torch.save\(checkpoint"):
        read(tmp_path / "a.pt", {"model": weights(), "extra": Harm(tmp_path / "written")})
    with pytest.raises(CheckpointError, match="not run"):
        read(tmp_path / "b.pt", {"model": weights(), "best": np.float64(0.5)}, {**weights()})
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"visual.proj": None}, "it lacks visual.proj"),
        ({"visual.more": torch.ones(1)}, "it has visual.more besides, which this model has not"),
        ({"visual.proj": torch.ones(3, 4)}, "visual.proj has 3 x 4 numbers, this model 2"),
        ({"logit_scale": torch.ones(2)}, "logit_scale has 2 numbers, this model one"),
    ],
)
def test_weights_that_do_not_fit(change, told):
    given = {name: value for name, value in (weights() | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=told):
        check_fits(given, weights())
    check_fits(weights(), weights())


class Small(torch.nn.Module):
    """Layers that share, that are views, and of several kinds of numbers."""

    def __init__(self):
        super().__init__()
        self.visual = torch.nn.Module()
        self.visual.conv1 = torch.nn.Conv2d(3, 4, 2, bias=False)
        self.halved, self.blocks = torch.nn.Linear(3, 2).half(), torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Identity()])
        self.tied = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4).T)
        self.register_buffer("ids", torch.arange(5))
        self.register_buffer("mask", torch.ones(2, 2).bool(), persistent=False)

    def forward(self, x):
        return self.visual.conv1(x)


def scripted(path, sizes=()):
    torch.manual_seed(0)
    model = Small()
    for name in sizes:
        model.register_buffer(name, torch.tensor(7))
    torch.jit.script(model).save(path)
    return path


def test_an_archive_of_torchscript_is_read_bit_by_bit_without_being_run(tmp_path, monkeypatch):
    path = scripted(tmp_path / "model.pt")
    expected = torch.jit.load(path).state_dict()
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the program was loaded"))
    found = weights_in(path, (), ANCHOR)
    assert same(found, dict(expected)) and {found[name].dtype for name in found} == {tensor.dtype for tensor in expected.values()}
    assert is_torchscript(path) and not is_of_openai(path)
    assert is_of_openai(scripted(tmp_path / "openai.pt", ("input_resolution", "context_length", "vocab_size")))
    torch.save(weights(), tmp_path / "plain.pt")
    assert not is_torchscript(tmp_path / "plain.pt") and not is_of_openai(tmp_path / "plain.pt")


class Evil:
    def __reduce__(self):
        return (eval, ("open('written', 'w')",))


def test_an_archive_with_another_pickle_in_it_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, forged = scripted(tmp_path / "model.pt"), io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(forged, "w") as target:
        for name in archive.namelist():
            target.writestr(name, pickle.dumps(Evil()) if name.endswith("data.pkl") else archive.read(name))
    path.write_bytes(forged.getvalue())
    with pytest.raises(CheckpointError, match="TorchScript archive of a kind that is not read: save its state_dict"):
        weights_in(path, (), ANCHOR)
    with zipfile.ZipFile(scripted(tmp_path / "other.pt")) as archive, zipfile.ZipFile(tmp_path / "short.pt", "w") as target:
        for name in archive.namelist():
            target.writestr(name, archive.read(name)[: 8 if "/data/" in name else None])
    with pytest.raises(CheckpointError, match="damaged"):
        weights_in(tmp_path / "short.pt", (), ANCHOR)
    assert not (tmp_path / "written").exists()


@pytest.fixture(scope="module")
def small_vit():
    """An open_clip model that is small to build, with random weights."""
    import open_clip

    torch.manual_seed(0)
    return open_clip.create_model(NAME, load_weights=False, pretrained_text=False).eval()


class Traced(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image, text):
        return self.model.encode_image(image) @ self.model.encode_text(text).T


def test_the_encoder_takes_what_people_have(small_vit, tmp_path):
    """A state dict, one of a training program, and a TorchScript archive of one's own with plain GELU: the same model."""
    state = small_vit.state_dict()
    torch.save(state | {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77)}, tmp_path / "plain.pt")
    torch.save({"model": {f"_orig_mod.clip_model.{name}": value for name, value in state.items()}, "epoch": 2}, tmp_path / "wrapped.pt")
    with torch.no_grad():
        images, texts = torch.zeros(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.long)
        torch.jit.trace(Traced(small_vit), (images, texts)).save(tmp_path / "traced.pt")
    for name in ("plain", "wrapped", "traced"):
        clip = load(f"{NAME}:{tmp_path / name}.pt", device="cpu")
        assert same(dict(clip.model.state_dict()), dict(state)), name


def test_the_encoder_refuses_in_one_sentence(small_vit, tmp_path):
    state = small_vit.state_dict()
    torch.save(state | {"visual.proj": state["visual.proj"] * float("nan")}, tmp_path / "nan.pt")
    torch.save({name: value for name, value in state.items() if name != "visual.proj"}, tmp_path / "lacks.pt")
    (tmp_path / "pointer.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    for name, told in (
        ("nan.pt", r"no numbers \(NaN\) in visual.proj; take a checkpoint from before"),
        ("lacks.pt", "it lacks visual.proj"),
        ("pointer.pt", "pointer of Git LFS"),
        ("", "folder"),
    ):
        with pytest.raises(ClipError, match=told):
            load(f"{NAME}:{tmp_path / name}", device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there(clip):
    with pytest.raises(ClipError, match="this machine has no cuda device that PyTorch can use: choose cpu"):
        clip.to("cuda")
