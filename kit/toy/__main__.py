"""python -m kit.toy [--write-hash PATH]: print the drawn world's fingerprint, or write the file that its test compares with."""

import argparse
import json
from pathlib import Path

from kit.toy.scene import library_versions, scene_hashes, world_hash

parser = argparse.ArgumentParser(prog="python -m kit.toy", description="The drawn world's fingerprint.")
parser.add_argument("--write-hash", type=Path, metavar="PATH", help="write library versions, fingerprint and the scenes' hashes as JSON")
path = parser.parse_args().write_hash
if path is None:
    print(world_hash())
else:
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"versions": library_versions(), "hash": world_hash(), "scenes": scene_hashes()}
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"wrote {path}")
