"""What every reader of files shares: JSON that is bounded, and names for files that are something else."""

import json

import pytest

from kit.files import from_json, mistaken, mistaken_file, told_bytes
from kit.learned import LearnedError, load_learned
from kit.manifest import ManifestError, read_manifest


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 60 + "1" + "}" * 60, "[" * 51 + "]" * 51, "{", b"\xff\xfe{}", ""])
def test_json_that_is_none_or_nested_too_deeply(text):
    with pytest.raises(ValueError):
        from_json(text)
    assert from_json("[" * 50 + "]" * 50, levels=50) and json.loads("[" * 51 + "]" * 51)


def test_readers_of_json_refuse_it(tmp_path):
    deep = "[" * 100_000
    (tmp_path / "manifest.json").write_text(f'{{"made_with": {{}}, "images": {deep}')
    with pytest.raises(ManifestError, match="no manifest"):
        read_manifest(tmp_path)
    header = json.dumps({"__metadata__": {"about": deep}}).encode()
    (tmp_path / "learned.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(LearnedError, match="learned.safetensors"):
        load_learned(tmp_path / "learned.safetensors")


def test_what_a_file_is_instead(tmp_path):
    assert mistaken(b"") == "the file is empty; save or download it again"
    assert mistaken(b"\xef\xbb\xbf\n <HTML>") == "this is a web page, not the file itself; download it again, maybe after a login"
    assert mistaken(b"\x89PNG") == "" == mistaken(b"file,classes")
    (tmp_path / "a").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid")
    assert "git lfs pull" in mistaken_file(tmp_path / "a")
    assert told_bytes(0) == "0 kB"
