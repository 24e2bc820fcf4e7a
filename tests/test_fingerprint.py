"""The fingerprint of code that is not the kit's: another behaviour, another fingerprint; the same code, the same one in every process."""

import functools
import importlib.util
import subprocess
import sys

import pytest
import torch

from kit import cam
from kit.fingerprint import is_of_the_kit, source_fingerprint
from kit.methods import METHODS

SOURCE = """
STRENGTH = 2
TABLE = {"a": 1}

def helper(x):
    return x + 1

def outer(x, power=2, *, low=0.5):
    return helper(x) ** power * STRENGTH + low + TABLE["a"] + len({"cat", "dog", "cow"})
"""
CHANGES = {
    "body": ("** power", "* power"),
    "constant": ("len({", "2 * len({"),
    "default": ("power=2", "power=3"),
    "keyword": ("low=0.5", "low=0.6"),
    "neighbour": ("x + 1", "x + 2"),
    "global": ("STRENGTH = 2", "STRENGTH = 3"),
    "table": ('{"a": 1}', '{"a": 2}'),
    "name": ('{"cat"', '{"cow2"'),
}


def outer_of(path, source):
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("theirs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.outer


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_the_result_changes_the_fingerprint(tmp_path, change):
    first = source_fingerprint(outer_of(tmp_path / "a.py", SOURCE))
    assert len(first) == 16 and first == source_fingerprint(outer_of(tmp_path / "b.py", SOURCE))
    assert first == source_fingerprint(outer_of(tmp_path / "c.py", SOURCE.replace("STRENGTH", "\n# a comment\nSTRENGTH", 1)))
    assert first != source_fingerprint(outer_of(tmp_path / "d.py", SOURCE.replace(*change)))


def test_it_is_the_same_in_every_process(tmp_path):
    expected = source_fingerprint(outer_of(tmp_path / "theirs.py", SOURCE))
    program = "import theirs, kit.fingerprint; print(kit.fingerprint.source_fingerprint(theirs.outer))"
    for seed in ("1", "2"):
        environment = {"PYTHONPATH": f"{tmp_path}:.", "PYTHONHASHSEED": seed}
        told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=True)
        assert told.stdout.strip() == expected


class Scaled:
    def __init__(self, weights):
        self.weights = weights

    def __call__(self, x):
        return x * self.weights


def test_what_is_enclosed_or_bound_counts():
    def enclosing(weights):
        return lambda x: x * weights

    def scale(x, by):
        return x * by

    for make in (enclosing, Scaled, lambda weights: functools.partial(scale, by=weights)):
        one, same, other = (source_fingerprint(make(torch.tensor(values))) for values in ([1.0, 2], [1.0, 2], [1.0, 3]))
        assert one == same != other
    assert source_fingerprint(enclosing(cam.grad_cam)) != source_fingerprint(enclosing(cam.similarity_cam))


def test_a_function_that_calls_itself_has_one():
    def steps(count):
        return 0 if count == 0 else 1 + steps(count - 1)

    assert source_fingerprint(steps)


def test_the_kits_own_code_is_told_from_others():
    assert is_of_the_kit(cam.grad_cam) and is_of_the_kit(functools.partial(cam.grad_cam)) and not is_of_the_kit(Scaled(1))
    assert all(is_of_the_kit(stage.run) for method in METHODS.values() for stage in method.stages)
