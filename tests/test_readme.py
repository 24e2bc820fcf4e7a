"""What the README shows must work as it stands there."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    score = int(re.search(r"IoU of this scene (\d+)%", printed)[1])
    assert "'dog'" in printed and "'sofa'" in printed and 60 <= score <= 100


def test_continuous_integration_finds_its_commands():
    for marker in ("app", "tests"):
        assert re.search(rf"<!-- run: {marker} -->\n```bash\npython3 -m venv .venv && [^\n]+\n```", README), f"no block for {marker}"


def test_files_and_pictures_exist():
    root = Path(__file__).parent.parent
    for path in re.findall(r"\]\((kit/[^)]+)\)", README) + re.findall(r"`((?:kit|tests|notebooks)/[\w/.]*)`", README) + ["app.py"]:
        assert (root / path).exists(), path
