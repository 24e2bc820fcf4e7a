"""Methods by name, and those of one's own: a Python file that defines a Method. It is code, and it is run."""

import difflib
import importlib
import sys
import traceback
from pathlib import Path

from kit.method import Method
from kit.methods import METHODS


class MethodError(ValueError):
    """A method that does not exist, or a file without one, told in one sentence."""


def method_named(name: str) -> Method:
    """A method of the kit by its name, or the one in a Python file.   Raises MethodError."""
    if name in METHODS:
        return METHODS[name]
    if name.endswith(".py"):
        return load_method(name)
    near = difflib.get_close_matches(name, METHODS, 1)
    guess = f": did you mean {near[0]}?" if near else ""
    raise MethodError(f"expected a method out of {', '.join(METHODS)}, or a Python file with one of your own, got {name!r}{guess}")


def load_method(path: str | Path) -> Method:
    """The method that a file defines: what it calls METHOD, else the only one in it.   Raises MethodError.

    The file is imported by its own name, so that other processes find its functions too.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise MethodError(f"{path}: there is no such file; expected a Python file that defines a kit.Method")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(file.stem)
    except Exception as error:  # whatever the file does
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == file]
        where = f" (line {lines[-1]})" if lines else ""
        raise MethodError(f"{path}: this file cannot be run{where}: {type(error).__name__}: {error}") from error
    if getattr(module, "__file__", None) is None or Path(module.__file__).resolve() != file:
        raise MethodError(f"{path}: another module is called {file.stem} already; give the file another name")
    own = {id(value): value for value in vars(module).values() if isinstance(value, Method) and value not in METHODS.values()}
    method = getattr(module, "METHOD", None) or (next(iter(own.values())) if len(own) == 1 else None)
    if not isinstance(method, Method):
        found = ", ".join(method.name for method in own.values()) or "none"
        raise MethodError(f"{path}: expected one method in this file, or one that it calls METHOD, got {found}")
    if method.name in METHODS and METHODS[method.name] is not method:
        raise MethodError(f"{path}: its method is called {method.name} like one of the kit; give it another name")
    return method
