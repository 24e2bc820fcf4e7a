"""What a folder of masks says of itself; going on, restarting and refusing are tested with `generate`."""

import pytest

from kit.manifest import Journal, ManifestError, differences, file_of, is_file_name, merge_journals, read_manifest, write_file


def test_differences_are_told_in_words(own):
    def told(old, new):
        return differences(old, new, own)

    old = {"model": "tiny", "settings": {"strictness": 1, "background": ["sky", "sea"]}}
    assert told(old, {"model": "tiny", "settings": {"strictness": 1.0, "background": ("sky", "sea")}}) == []
    assert told(old, {"model": "other", "settings": {"strictness": 2, "background": ["sky", "sea"]}}) == [
        "model=tiny, now other", "strictness=1.0, now 2.0"
    ]  # fmt: skip
    assert told(old, {**old, "settings": {**old["settings"], "learning": {"steps": 9}}}) == ["learning.steps=20, now 9"]
    assert told({**old, "code": {"stage otsu": "above a1"}}, {**old, "code": {"stage otsu": "above b2"}}) == [
        "the code of stage otsu=above a1, now above b2"
    ]  # fmt: skip
    assert told({**old, "method": "another"}, {**old, "method": "otsu", "settings": {}}) == ["method=another, now otsu"]
    assert told({**old, "settings": {"gone": 3}}, {**old, "settings": {"gone": 4}}) == ["gone=3, now 4"]  # as they are
    old = {"pictures": 3, "list of pictures": "0a1b"}
    assert told(old, {"pictures": 3, "list of pictures": "2c3d"}) == ["another list of pictures"]
    assert told(old, {"pictures": 4, "list of pictures": "2c3d"}) == ["pictures=3, now 4"]
    (long,) = told({"words": "a" * 100}, {"words": "b"})
    assert long.endswith("..., now b") and len(long) < 80


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a\\b", "a\0", "a:b", "a\n"])
def test_what_is_no_name_of_a_file(name):
    assert not is_file_name(name)
    assert is_file_name("2007_000032")


def test_the_journals_become_the_manifest_and_go(tmp_path):
    write_file(tmp_path / "manifest.json", b'{"made_with": {}, "images": {"a": {"state": "missing"}, "b": {"state": "written"}}}')
    journal = Journal(tmp_path / "manifest.rank0.jsonl")
    journal.note("a", {"state": "written", "why": ""})
    journal.note("b", {"state": "kept"})  # what was written once stays told as written
    journal.close()
    with open(tmp_path / "manifest.rank0.jsonl", "a") as file:
        file.write('{"id": "a", "sta')  # the line at which a run was killed
    merge_journals(tmp_path)
    manifest = read_manifest(tmp_path)
    assert {name: record["state"] for name, record in manifest["images"].items()} == {"a": "written", "b": "written"}
    assert manifest["finished"] and manifest["counts"] == {"written": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def test_a_folder_without_a_manifest_has_none_and_a_damaged_one_is_refused(tmp_path):
    assert read_manifest(tmp_path) is None
    for content in (b"", b"[]", b'{"images": []}'):
        write_file(tmp_path / "manifest.json", content)
        with pytest.raises(ManifestError, match="no manifest of the kit"):
            read_manifest(tmp_path)


def test_where_files_lie_and_a_place_that_cannot_be_written(tmp_path):
    assert file_of(tmp_path, "maps", "x") == tmp_path / "maps" / "x.npz"
    with pytest.raises(ManifestError, match="cannot be written"):
        write_file(tmp_path / "nowhere" / "x", b"")
