"""Files of any kind: written whole or not at all, JSON without surprises, and what a file is that was taken for another."""

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Write a file beside its place and move it there: whoever looks finds the old one or the new one, also after a kill.

    Raises OSError if it cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):  # nothing to remove if it was never there
            part.unlink()
        raise


def from_json(text: str | bytes, *, levels: int | None = 50) -> Any:
    """What a JSON text holds.   Raises ValueError for every text that is none, and for more levels of brackets than anybody needs.

    levels: None for as many as Python's reader takes, without a look at each.
    """
    try:
        content = json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    inside = [content]
    for _ in range(levels or 0):
        brackets = [each.values() if isinstance(each, dict) else each for each in inside if isinstance(each, dict | list)]
        inside = [value for each in brackets for value in each]
    if levels and any(isinstance(value, dict | list) for value in inside):
        raise ValueError("it is nested too deeply")
    return content


def mistaken(head: bytes) -> str:
    """What a file is instead of a picture, a list or weights, with what to do; "" where its first bytes do not say."""
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "the file is empty; save or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "this is a pointer of Git LFS, not the file itself; fetch it with git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return "this is a web page, not the file itself; download it again, maybe after a login"
    return ""


def mistaken_file(path: str | os.PathLike) -> str:
    """The same of a file.   Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return mistaken(file.read(512))


def told_bytes(count: int) -> str:
    """
    >>> told_bytes(2_900_000_000), told_bytes(12_345_678), told_bytes(1_200)
    ('2.9 GB', '12 MB', '1 kB')
    """
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"
