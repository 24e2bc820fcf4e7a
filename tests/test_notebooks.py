"""Every notebook is played once, from top to bottom: its results, its exercises, its cells run again; and it has the form of a lesson.

`python tests/test_notebooks.py notebooks/4_clip_sam.ipynb` runs one and keeps it with its outputs.
"""

import base64
import itertools
import json
import random
import re
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 600_000  # bytes, outputs included
SECONDS_A_CELL = 240  # on a machine that has other things to do
PANEL = 300  # pixels, at least: to be read from the back row
SILLY = ("-12345.678", "'silly'", "lambda *given, **named: 0")  # no exercise has such an answer
WIDGET = "application/vnd.jupyter.widget-view+json"
OF_A_MACHINE = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|opt|usr|var|mnt|content)/|[A-Z]:\\\\|ipykernel_\d+")

EXERCISE = re.compile(r"^### Exercise (\d+): .+<details><summary>Solution</summary>\s*```python\n([^`]+)```[^`]*</details>\s*$", re.S)
RECORDED = re.compile(r'"recorded" / "(\w+\.json)"')  # how a cell names a file of long experiments
ROW = {"name": str, "seed": int | None, "miou": float, "miou_two_or_more": float}  # what a notebook reads of it

# A panel is measured where it is drawn: whoever saves a figure leaves the widths of its axes, colour bars apart.
MEASURE = """
from matplotlib.backend_bases import FigureCanvasBase as _Canvas
_widths = []
def _measured(canvas, filename, dpi=None, _draw=_Canvas.print_figure, **named):
    drawn, figure = _draw(canvas, filename, dpi=dpi, **named), canvas.figure
    across = figure.get_figwidth() * (dpi if isinstance(dpi, (int, float)) else figure.dpi)
    _widths.extend(across * axes.get_position().width for axes in figure.axes if not hasattr(axes, "_colorbar"))
    return drawn
_Canvas.print_figure = _measured
"""

pytestmark = pytest.mark.timeout(900)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def words(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def sections(notebook):
    """The title of each section with its code cells; first what stands before all titles, the set-up."""
    found = [("set-up", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found[-1][1].append(cell)
        else:
            found += [(title, []) for title in re.findall(r"^## (.+)", cell.source, re.M)]
    return found


def exercises(notebook):
    """The number of each exercise, with the solution in its fold, the cell to type in and the check."""
    return {
        (match[1], match[2], typed.source, check.source)
        for task, typed, check in zip(notebook.cells, notebook.cells[1:], notebook.cells[2:], strict=False)
        if task.cell_type == "markdown" and (match := EXERCISE.match(task.source))
    }


def pictures(cell):
    return [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]


def said(cell):
    """What a cell answers in words."""
    worded = [output for output in cell.outputs if not {"image/png", WIDGET} & output.get("data", {}).keys()]
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in worded)


def client_of(notebook, folder):
    resources = {"metadata": {"path": str(folder)}}
    options = {"timeout": SECONDS_A_CELL, "kernel_name": "python3", "store_widget_state": False, "record_timing": False}
    for cell in code_cells(notebook):
        cell.outputs = []
    return NotebookClient(notebook, resources=resources, **options)


@dataclass
class Played:
    """A notebook after a run from top to bottom, its kernel still open."""

    notebook: nbformat.NotebookNode
    client: NotebookClient
    seconds: dict[str, float]  # of each code cell, by its id

    def again(self, source):
        """What this code says in the kernel now; the cells of the notebook keep what they said first."""
        cell, kept = new_code_cell(source), self.notebook.cells[0]
        self.client.execute_cell(cell, 0)
        self.notebook.cells[0] = kept  # the client has put the new cell there
        return said(cell)


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def played(request):
    notebook = nbformat.read(request.param, as_version=4)
    client = client_of(notebook, request.param.parent)
    with client.setup_kernel():
        run = Played(notebook, client, {})
        run.again(MEASURE)
        for place, cell in enumerate(notebook.cells):
            clock = time.perf_counter()
            client.execute_cell(cell, place)  # raises if it fails
            if cell.cell_type == "code":
                run.seconds[cell.id] = time.perf_counter() - clock
        yield run


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_it_runs_without_a_warning(played, capfd):
    with capfd.disabled():
        print(f" {sum(played.seconds.values()):.0f} s ", end="")
    outputs = [output for cell in code_cells(played.notebook) for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


def test_its_pictures_can_be_read_from_the_back_row(played):
    assert float(played.again("print(min(_widths))")) >= PANEL - 0.5, "pixels of the narrowest panel"
    for picture in (picture for cell in code_cells(played.notebook) for picture in pictures(cell)):
        assert struct.unpack(">I", base64.b64decode(picture)[16:20])[0] >= PANEL


def test_its_exercises_can_be_solved(played):
    for number, solution, typed, check in sorted(exercises(played.notebook)):
        assert played.again(check).startswith("not answered yet"), number
        for silly in SILLY:
            assert played.again(f"answer_{number} = {silly}\n{check}").startswith("not yet: "), (number, silly)
        played.again(solution)
        assert played.again(check).startswith("right"), number
        played.again(typed)
        assert played.again(check).startswith("not answered yet"), number


def test_its_fast_cells_can_be_run_again_in_any_order(played):
    after = [cell for _, cells in sections(played.notebook)[1:] for cell in cells if not cell.source.startswith("# Exercise")]
    fast = [cell for cell in after if played.seconds[cell.id] < 1]
    assert len(fast) >= 5
    random.Random(0).shuffle(fast)
    for cell in fast:
        assert played.again(cell.source) == said(cell), cell.source


@every_notebook
def test_its_set_up_runs_from_the_roots_folder(path):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = sections(notebook)[0][1]
    client_of(notebook, ROOT).execute()


@every_notebook
def test_its_set_up_says_what_is_missing_where_the_kit_is_not(path, tmp_path):
    first = code_cells(nbformat.read(path, as_version=4))[0].source
    command = [sys.executable, "-I", "-c", "import sys; sys.modules['kit'] = None; exec(sys.argv[1])", first]
    missing = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert missing.returncode and "pip install -e ." in missing.stderr.splitlines()[-1]


@every_notebook
def test_it_is_short(path):
    notebook = nbformat.read(path, as_version=4)
    assert 30 <= len(notebook.cells) <= 60
    assert sum(len(text.split()) for text in words(notebook)) <= 3000
    for source in (cell.source for cell in code_cells(notebook)):
        assert len(source.splitlines()) <= 15, source
        assert max(map(len, source.splitlines())) <= 100, source
    for kind, cells in itertools.groupby(notebook.cells, key=lambda cell: cell.cell_type):
        in_a_row = [cell.source for cell in cells]
        assert kind != "code" or len(in_a_row) <= 2, f"no word between {in_a_row}"


@every_notebook
def test_it_has_the_parts_of_a_lesson(path):
    notebook = nbformat.read(path, as_version=4)
    text, whole = words(notebook), "\n".join(words(notebook))
    assert text[0].startswith("# ") and "minutes" in text[0], "the opening says how long each part takes"
    assert sum("Predict" in part and "<details>" in part.split("Predict", 1)[1] for part in text) >= 4
    for title in ("What goes wrong", "takeaways", "Questionnaire", "Where to go next"):
        assert re.search(rf"^## .*{title}", whole, re.M | re.I), title
    assert notebook.cells[-1].source == text[-1] and "Glossary" in text[-1] and "References" in text[-1]
    numbers = sorted(int(number) for number, *_ in exercises(notebook))
    assert numbers == list(range(1, 1 + whole.count("### Exercise "))) != []
    for number, _, typed, check in exercises(notebook):
        assert typed.startswith(f"# Exercise {number}: type here") and f"answer_{number} = None" in typed
        assert check.startswith(f"# Check {number}\n")


@every_notebook
def test_a_section_with_results_can_fail(path):
    for title, cells in sections(nbformat.read(path, as_version=4)):
        if any(pictures(cell) or said(cell) for cell in cells):
            assert any("assert " in cell.source for cell in cells), title


@every_notebook
def test_it_has_one_switch_and_one_address(path):
    code = "\n".join(cell.source for cell in code_cells(nbformat.read(path, as_version=4)))
    assert len(re.findall(r'^MODEL = "tiny"', code, re.M)) == 1
    assert re.findall(r"^REPOSITORY = .+", code, re.M)[0].startswith('REPOSITORY = os.environ.get("KIT_REPOSITORY"')
    assert len(re.findall(r"\bREPOSITORY\b =", code)) == 1
    assert "OWNER/REPOSITORY" not in path.read_text()


@every_notebook
def test_it_is_kept_with_its_outputs_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < LARGEST, f"{path.stat().st_size:,} bytes: draw smaller, or with fewer colours"
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) >= 5 and all(output.metadata["image/png"]["alt"] for output in shown), "a picture has words, too"
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, 1 + len(counts))), "run it from top to bottom before it is kept"


@every_notebook
def test_it_keeps_no_widget_and_no_trace_of_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    assert not [output for cell in code_cells(notebook) for output in cell.outputs if WIDGET in output.get("data", {})]
    for cell in notebook.cells:
        shown = [cell.source]
        for output in cell.get("outputs", []):
            shown.append(output.get("text", ""))
            shown += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
        found = [OF_A_MACHINE.search(text) for text in shown]
        assert not any(found), f"{next(filter(None, found)).group()!r} in {cell.source[:60]!r}"


def test_a_trace_would_be_found():
    for trace in ("/home/someone/kit", "saved to /tmp/x.png", "/tmp/ipykernel_123/4.py:8: UserWarning"):
        assert OF_A_MACHINE.search(trace)
    for harmless in ("https://github.com/home/x", "a share 3/4 of", "kit/home/x", "ViT-B-16-quickgelu:/folder/file.pt"):
        assert not OF_A_MACHINE.search(harmless)


@every_notebook
def test_recorded_results_are_there_and_whole(path):
    cells = code_cells(nbformat.read(path, as_version=4))
    for name in {name for cell in cells for name in RECORDED.findall(cell.source)}:
        record = json.loads((path.parent / "recorded" / name).read_text())
        assert record["about"] and not OF_A_MACHINE.search(json.dumps(record)), name
        assert record["rows"] and all(isinstance(row[key], kind) for row in record["rows"] for key, kind in ROW.items()), name
        assert all(0 <= row[column] <= 1 for row in record["rows"] for column in ("miou", "miou_two_or_more")), name
        runs = [(row["name"], row["seed"]) for row in record["rows"]]
        assert len(set(runs)) == len(runs), f"{name}: a run stands twice"


def keep(path):
    """Run a notebook in its folder and write it with its outputs, without what belongs to this run and machine only."""
    notebook = client_of(nbformat.read(path, as_version=4), path.parent).execute()
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for given in sys.argv[1:]:
        keep(Path(given).resolve())
