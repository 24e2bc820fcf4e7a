"""Files of what was learned know what they belong to."""

import pytest
import torch

from kit.learned import Learned, LearnedError, check_belongs, load_learned, save_learned

ABOUT = {"method": "some", "clip": "abc", "classes": ["cat", "dog"], "settings": {"rate": 0.1}}


def test_what_was_saved_comes_back(tmp_path):
    tensors = {"context": torch.randn(3, 4), "more": torch.arange(5).float()[::2]}  # the second is not contiguous
    save_learned(tmp_path / "a.safetensors", tensors, ABOUT)
    loaded, about = load_learned(tmp_path / "a.safetensors")
    assert about == ABOUT and loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]  # no pieces beside it


@pytest.mark.parametrize("content", [b"", b"no safetensors", None, "unlabelled", "folder"])
def test_other_files_are_refused_by_name(tmp_path, content):
    file = tmp_path / "b.safetensors"
    if content == "unlabelled":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(1)}, file)
    elif content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(LearnedError, match="b.safetensors: .*(python -m kit fit|the file is empty)"):
        load_learned(file)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(LearnedError, match="cannot be written"):
        save_learned(tmp_path / "nowhere" / "c.safetensors", {"x": torch.zeros(1)}, ABOUT)


def test_a_mismatch_names_both_sides():
    check_belongs("f", ABOUT, clip="abc", classes=["cat", "dog"])
    with pytest.raises(LearnedError, match="learned with clip abc, here it is xyz"):
        check_belongs("f", ABOUT, clip="xyz")
    with pytest.raises(LearnedError, match="classes"):
        check_belongs("f", ABOUT, classes=["dog", "cat"])
    with pytest.raises(LearnedError, match="split null"):
        check_belongs("f", ABOUT, split="train")
    named = {**ABOUT, "model": "tiny"}
    check_belongs("f", named, clip_name="other", clip="abc")
    with pytest.raises(LearnedError, match=r"learned with tiny \(abc…\), here it is ViT-B-32:random \(1d37…\); take"):
        check_belongs("f", named, clip_name="ViT-B-32:random", clip="1d37c8")


def test_what_was_learned_has_a_fingerprint_and_parts(tmp_path):
    learned = Learned({"context": torch.ones(2), "more": torch.zeros(3)}, ABOUT)
    learned.save(tmp_path / "a.safetensors")
    loaded = Learned.load(tmp_path / "a.safetensors", method="some")
    assert loaded.fingerprint == learned.fingerprint and loaded.classes == ("cat", "dog") and loaded.nbytes == 20
    assert list(loaded.only("more").tensors) == ["more"] and loaded.only("more").fingerprint != loaded.fingerprint
    assert Learned({**learned.tensors, "more": torch.ones(3)}, ABOUT).fingerprint != learned.fingerprint
    assert learned.fingerprint in learned.told()
    with pytest.raises(LearnedError, match="learned with method some, here it is other"):
        Learned.load(tmp_path / "a.safetensors", method="other")


def test_what_is_made_of_it_is_made_once():
    learned, made = Learned({"context": torch.ones(2)}, ABOUT), []
    assert [learned.once("texts", lambda: made.append(1) or "texts") for _ in range(2)] == ["texts"] * 2 and made == [1]
