"""The house rules that a machine can check: who may import whom, and what stands nowhere in the kit."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KIT = ROOT / "kit"

# From the ground up; a module may import from lower floors and from its own. Modules that do not exist yet keep their place.
FLOORS = (
    ("shapes", "words", "files", "images", "score", "show", "weights", "shard", "fit", "learned", "llm"),
    ("data", "toy", "encode", "propose", "losses"),
    ("last_block", "prompt", "cluster", "cam", "refine", "vote", "mask"),
    ("methods", "segment"),
    ("evaluate", "sweep", "generate", "manifest", "jobs", "experiments", "widgets", "ui", "cli", "__main__"),
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
        for other in sorted(IMPORTS[name] & set(FILES)):
            visit(other)
        done.add(path.pop())

    for name in FILES:
        visit(name)


def test_nothing_below_the_methods_knows_a_papers_method():
    below = [name for name in FILES if name.count(".") and name not in ENTRANCES and FLOOR[room(name)] < FLOOR["methods"]]
    assert not [name for name in below if any(module.startswith("kit.methods") for module in IMPORTS[name])]


def test_only_encode_knows_open_clip():
    assert users_of("open_clip") - ENTRANCES == {"kit.encode"}


def test_only_show_knows_matplotlib():
    assert users_of("matplotlib") <= {"kit.show"}


def test_only_refine_knows_pydensecrf():
    assert users_of("pydensecrf") <= {"kit.refine"}


def test_only_propose_knows_sam_and_scikit_image():
    assert users_of("transformers") | users_of("skimage") <= {"kit.propose"}


def test_only_propose_knows_sam_and_superpixels():
    assert users_of("transformers") | users_of("skimage") == {"kit.propose"}


def test_only_the_app_knows_gradio():
    assert {room(name) for name in users_of("gradio")} <= {"ui"}


def test_words_are_data_without_torch():
    assert not IMPORTS["kit.words"]


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
