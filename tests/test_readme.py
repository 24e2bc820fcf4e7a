"""What the README shows must work as it stands there."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3, "one line for each threshold"
    assert len(set(lines)) == 3, "the threshold changes nothing"


def test_continuous_integration_finds_its_commands():
    for marker in ("app", "tests"):
        assert re.search(rf"<!-- run: {marker} -->\n```bash\npython3 -m venv .venv && [^\n]+\n```", README), f"no block for {marker}"


def test_files_and_pictures_exist():
    root = Path(__file__).parent.parent
    for path in re.findall(r"\]\((kit/[^)]+)\)", README) + re.findall(r"`((?:kit|tests|notebooks)/[\w/.]*)`", README) + ["app.py"]:
        assert (root / path).exists(), path
