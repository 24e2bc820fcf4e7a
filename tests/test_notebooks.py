"""Every notebook runs from top to bottom, and is kept the way a reader wants to find it: with its pictures, small, without traces.

`python tests/test_notebooks.py notebooks/4_clip_sam.ipynb` runs one and keeps it so.
"""

import json
import re
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 600_000  # bytes, outputs included
SECONDS_A_CELL = 240  # on a machine that has other things to do
WIDGET = "application/vnd.jupyter.widget-view+json"
OF_A_MACHINE = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|opt|usr|var|mnt|content)/|[A-Z]:\\\\|ipykernel_\d+")

RECORDED = re.compile(r'"recorded" / "(\w+\.json)"')  # how a cell names a file of long experiments
ROW = {"name": str, "seed": int | None, "miou": float, "miou_two_or_more": float}  # what a notebook reads of it

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def executed(notebook, folder):
    """The notebook with the outputs of a run from top to bottom; raises at the first cell with an error."""
    for cell in code_cells(notebook):
        cell.outputs = []
    client = NotebookClient(
        notebook, timeout=SECONDS_A_CELL, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
        store_widget_state=False, record_timing=False,
    )  # fmt: skip
    return client.execute()


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
@pytest.mark.timeout(900)
@pytest.mark.parametrize("folder", ["notebooks", "."])
def test_it_runs_from_its_own_folder_and_from_the_roots(path, folder, capfd):
    if folder == "." and path != NOTEBOOKS[0]:
        pytest.skip("one notebook shows that the root's folder works as well")
    notebook = nbformat.read(path, as_version=4)
    if folder == ".":  # the cells that find the kit and use it once are enough
        last = next(place for place, cell in enumerate(notebook.cells) if "ClipEs(clip" in cell.source)
        del notebook.cells[last + 1 :]
    clock = time.perf_counter()
    executed(notebook, ROOT / folder)
    with capfd.disabled():
        print(f" {path.name} from {folder}: {time.perf_counter() - clock:.0f} s ", end="")
    assert all(cell.execution_count for cell in code_cells(notebook))


@every_notebook
def test_it_is_kept_with_its_outputs_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < LARGEST, f"{path.stat().st_size:,} bytes: draw smaller, or with fewer colours"
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"], "a warning is no lesson"
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, 1 + len(counts))), "run it from top to bottom before it is kept"


@every_notebook
def test_it_keeps_no_widget_and_no_trace_of_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    assert not [output for cell in code_cells(notebook) for output in cell.outputs if WIDGET in output.get("data", {})]
    for cell in notebook.cells:
        said = [cell.source]
        for output in cell.get("outputs", []):
            said.append(output.get("text", ""))
            said += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
        found = [OF_A_MACHINE.search(text) for text in said]
        assert not any(found), f"{next(filter(None, found)).group()!r} in {cell.source[:60]!r}"


@every_notebook
def test_it_is_written_by_the_conventions(path):
    notebook = nbformat.read(path, as_version=4)
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    code = [cell.source for cell in code_cells(notebook)]
    assert 30 <= len(notebook.cells) <= 50
    assert text[0].startswith("# ") and "colab.research.google.com" in text[0]
    assert sum(len(part.split()) for part in text) > sum(len(part.split()) for part in code), "more words than code"
    assert sum(bool(re.search(r'^MODEL = "tiny"', source, re.M)) for source in code) == 1, "one switch"
    assert any("google.colab" in source for source in code)
    assert sum("assert " in source for source in code) >= 5, "a section ends with a check"
    assert "<details>" in "".join(text) and "Glossary" in text[-1] and "References" in text[-1]


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
    notebook = executed(nbformat.read(path, as_version=4), path.parent)
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for given in sys.argv[1:]:
        keep(Path(given).resolve())
