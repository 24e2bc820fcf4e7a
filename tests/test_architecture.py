"""The house rules that a machine can check: who may import whom, and what stands nowhere in the kit."""

import ast
import re
import sys
from pathlib import Path

import pytest

from kit.methods import METHODS

ROOT = Path(__file__).parents[1]
KIT = ROOT / "kit"

# From the ground up; a module may import from lower floors and from its own. Modules that do not exist yet keep their place.
FLOORS = (
    ("shapes", "words", "files", "tables", "settings", "fingerprint", "score", "weights", "checkpoint", "shard", "jobs", "llm"),
    ("images", "show", "mask"),
    ("data", "toy", "encode", "propose", "losses"),
    ("last_block", "prompt", "cluster", "cam", "refine", "vote", "learned"),
    ("method",),
    ("batches", "fit", "views", "manifest", "evaluate", "sweep", "words_tried", "generate", "widgets"),
    ("methods",),
    ("own", "experiments", "ui", "cli", "__main__"),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
ENTRANCES = {"kit.toy.train", "kit.toy.__main__"}  # programs of their own: they stand on the stages, and nobody may import them


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in sorted(KIT.rglob("*.py"))}


def imported(name: str) -> set[str]:
    """The full names of all that a module imports, inside functions as well; `from kit import cam` counts as kit.cam."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            submodules = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in FILES else node.module for full in submodules.values()}
    return found - {name}


IMPORTS = {name: imported(name) for name in FILES}


def users_of(package: str) -> set[str]:
    return {name for name, modules in IMPORTS.items() if any(module.split(".")[0] == package for module in modules)}


def room(name: str) -> str:
    return name.split(".")[1]


def test_the_reader_of_imports_sees_what_it_should():
    assert {"kit.encode", "kit.last_block", "kit.shapes", "torch"} <= IMPORTS["kit.cam"]
    assert {"kit.cam", "kit.refine", "kit.words"} <= IMPORTS["kit.methods.clip_es"]
    assert named_in("def f(): return kit.ClipEsSettings") and named_in('x = "the FMA-WSSS page"') and named_in("import kit.methods.clip_es")
    assert not named_in('"""Source: CLIP-ES, released code."""\nclip = escape = clip_estimate = 1  # CLIP-ES')
    assert "open_clip" in IMPORTS["kit.encode"] or "open_clip.tokenizer" in IMPORTS["kit.encode"]


@pytest.mark.parametrize("name", [name for name in FILES if name.count(".") and name not in ENTRANCES])
def test_imports_point_down(name):
    assert room(name) in FLOOR, f"{name} has no floor: give it one in {Path(__file__).name} and in the plan"
    for other in IMPORTS[name]:
        if other.startswith("kit."):
            assert FLOOR[room(other)] <= FLOOR[room(name)], f"{name} imports {other}, which stands above it"
            assert other not in ENTRANCES, f"{name} imports the program {other}"


def test_there_is_no_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for other in sorted(IMPORTS[name] & set(FILES) - {"kit"}):
            visit(other)
        done.add(path.pop())

    for name in set(FILES) - {"kit"}:  # whose public names are imported when they are asked for
        visit(name)


def test_nothing_but_the_doors_knows_that_there_are_methods():
    """What is below reads a Method as a value; only those who offer a choice of methods import them."""
    above = {name for name in FILES if not name.count(".") or name in ENTRANCES or FLOOR[room(name)] >= FLOOR["methods"]}
    users = {name for name, modules in IMPORTS.items() if any(module.startswith("kit.methods") for module in modules)}
    assert users <= above
    papers = {name for name, modules in IMPORTS.items() if any(module.startswith("kit.methods.") for module in modules)}
    assert {room(name) for name in papers} <= {"methods", "experiments"}, "only the dict of methods may be imported"


def needles() -> list[re.Pattern]:
    """The names of the methods as they may be written: clip-es, CLIP_ES, ClipEs, ClipEsSettings."""
    names = {part for method in METHODS.values() for part in (method.name, *re.split(r"[()]", method.title)) if part.strip()}
    words = [re.findall(r"[a-z]+", name.lower()) for name in names]
    return [re.compile(rf"(?<![a-zA-Z])(?i:{r'[^a-z0-9]{0,3}'.join(parts)})(?![a-z])") for parts in words]


def named_in(source: str, *, comments: bool = False) -> list[str]:
    """The lines of code that name a method; what a function's idea comes from may be said in its docstring and comments."""
    tree, lines = ast.parse(source), source.splitlines()
    said = {node.lineno - 1 + offset for node in docstrings(tree) for offset in range(node.end_lineno - node.lineno + 1)}
    found = []
    for number, line in enumerate(lines):
        if number in said:
            line = line if comments and ">>>" not in line and "Source" not in line else ""
        elif not comments:
            line = re.sub(r"(^|\s)#.*", "", line)
        found += [line.strip()] * any(needle.search(line) for needle in NEEDLES)
    return found


def docstrings(tree: ast.AST) -> list[ast.Expr]:
    holders = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body]
    first = [node.body[0] for node in holders]
    return [node for node in first if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]


NEEDLES = needles()
FREE = ("kit", "kit.words")  # the public names; the papers' words


@pytest.mark.parametrize("name", [name for name in FILES if name not in FREE and room(name) not in ("methods", "experiments")])
def test_no_file_outside_the_methods_names_one(name):
    door = FLOOR[room(name)] > FLOOR["method"]
    found = named_in(FILES[name].read_text(), comments=door)
    assert not found, f"{name} names a method, read it from METHODS or the pipeline: {found[0]}"


def test_the_app_names_no_method():
    assert not named_in((ROOT / "app.py").read_text(), comments=True)


def test_only_encode_knows_open_clip():
    assert users_of("open_clip") - ENTRANCES == {"kit.encode"}


def test_only_show_knows_matplotlib():
    assert users_of("matplotlib") <= {"kit.show"}


def test_only_refine_knows_pydensecrf():
    assert users_of("pydensecrf") <= {"kit.refine"}


def test_only_propose_knows_sam_and_superpixels():
    assert users_of("transformers") | users_of("skimage") == {"kit.propose"}


def test_only_the_app_knows_gradio():
    assert {room(name) for name in users_of("gradio")} <= {"ui"}


def test_words_are_data_without_torch():
    assert IMPORTS["kit.words"] and {module.split(".")[0] for module in IMPORTS["kit.words"]} <= sys.stdlib_module_names


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_tied_to_one_device(name):
    calls = [
        node.func.attr for node in ast.walk(ast.parse(FILES[name].read_text())) if isinstance(node, ast.Call) and hasattr(node.func, "attr")
    ]
    assert "cuda" not in calls, f"{name} calls .cuda(): use .to(device)"


@pytest.mark.parametrize("name", FILES)
def test_no_error_is_swallowed(name):
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert not all(isinstance(statement, ast.Pass) for statement in node.body), f"{name}:{node.lineno} passes over an error"
            assert node.type is not None, f"{name}:{node.lineno} catches everything"


def test_there_is_no_room_for_odds_and_ends():
    assert not [name for name in FILES if name.split(".")[-1] in ("utils", "helpers", "common", "misc")]
