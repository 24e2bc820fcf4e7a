"""What the README shows must work as it stands there."""

import re
from pathlib import Path

import kit
from kit.data import toy_samples
from kit.images import save_image
from kit.own import load_method

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks():
    """The Python of the page by the word that tells it apart."""
    found = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    return {word: next(code for code in found if word in code) for word in ("confusion", "better =", "def rollout", "METHOD =")}


def run(code, **names):
    names = {"__name__": "readme", **names}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_the_python_example_runs(capsys):
    run(blocks()["confusion"])
    printed = capsys.readouterr().out
    score = int(re.search(r"IoU (\d+)%", printed)[1])
    assert "'dog'" in printed and "'sofa'" in printed and 60 <= score <= 100


def test_what_a_researcher_writes_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for path in ("dog.jpg", "photos/a.jpg"):
        save_image(tmp_path / path, next(toy_samples("val", 1, start=22)).image)
    own = run(blocks()["def rollout"])
    run(
        re.sub(r"\b20\)|\b48\)", "2)", blocks()["better ="]).replace("steps=60", "steps=2"),
        rollout=own["rollout"],
        my_refiner=own["my_refiner"],
    )
    assert (tmp_path / "masks" / "SegmentationClass" / "a.png").is_file()


def test_the_method_of_ones_own_is_loaded(tmp_path):
    path = tmp_path / "readme_otsu.py"
    path.write_text(blocks()["METHOD ="])
    method = load_method(path)
    result = method(kit.load("tiny")).segment(next(toy_samples("val", 1, start=22)))
    assert list(result.stages) == ["map", "otsu"] and set(result.settings["code"]) == {"stage map", "stage otsu"}
    assert len(blocks()["METHOD ="].splitlines()) <= 60


def test_continuous_integration_finds_its_commands():
    for marker in ("app", "tests"):
        assert re.search(rf"<!-- run: {marker} -->\n```bash\npython3 -m venv .venv && [^\n]+\n```", README), f"no block for {marker}"


def test_files_and_pictures_exist():
    root = Path(__file__).parent.parent
    for path in re.findall(r"\]\((kit/[^)]+)\)", README) + re.findall(r"`((?:kit|tests|notebooks)/[\w/.]*)`", README) + ["app.py"]:
        assert (root / path).exists(), path
