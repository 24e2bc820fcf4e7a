"""Files that appear whole or not at all."""

import os
import secrets
from contextlib import suppress
from pathlib import Path


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
