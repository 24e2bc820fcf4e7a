"""A folder of masks and the manifest beside them: how they were made, what became of each, and whether a run may go on in it."""

import hashlib
import itertools
import json
import os
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from kit import __version__, mask
from kit.data import DataSet
from kit.files import from_json, write_whole
from kit.method import Method, Pipeline
from kit.settings import SettingsError

MASKS, MAPS, OVERLAYS = "SegmentationClass", "maps", "overlays"
ENDINGS = {MASKS: ".png", MAPS: ".npz", OVERLAYS: ".png"}
MANIFEST = "manifest.json"
JOURNALS = "manifest.rank*.jsonl"
LIST = "list of pictures"  # in a description the hash of it
PART = re.compile(r"\.[0-9a-f]{16}\.part")  # what a killed run leaves of a file
RANDOM = "nothing in this method is random"
LEARNED_RANDOM = "what was learned was learned with this seed; nothing is random when the masks are made"


class ManifestError(ValueError):
    """A folder that these masks cannot be made in, told in one sentence."""


def is_file_name(name: str) -> bool:
    return bool(name) and name[0] != "." and not set(name) & set('/\\\0:*?"<>|\n')


def file_of(out: Path, kind: str, name: str) -> Path:
    return out / kind / f"{name}{ENDINGS[kind]}"


def read_manifest(out: str | os.PathLike) -> dict | None:
    """What a folder says of the masks in it, or None.   Raises ManifestError for a file that is something else."""
    path = Path(out) / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = from_json(path.read_bytes())
        if not isinstance(manifest["images"], dict) or not isinstance(manifest["made_with"], dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path}: this is no manifest of the kit's masks, or a damaged one: choose another folder") from error
    return manifest


class Journal:
    """A line for each picture, written at once, so that a run that is killed has told all it knew."""

    def __init__(self, path: Path):
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed by close

    def note(self, name: str, record: Mapping) -> None:
        self._file.write(json.dumps({"id": name, **record}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def description(pipeline: Pipeline, data: DataSet, batch: int) -> dict:
    """All that a mask depends on besides the pictures themselves; what differs here must not share a folder."""
    ids = hashlib.sha256("\n".join(entry.id for entry in data.entries).encode()).hexdigest()
    clip, learned = pipeline.clip, pipeline.learned
    return {
        "method": pipeline.method.name,
        **({"code": pipeline.code} if pipeline.code else {}),
        "settings": pipeline.settings.to_dict(),
        "model": clip.name,
        "weights": clip.fingerprint,
        "precision": clip.precision,
        **({} if learned is None else {"learned": learned.fingerprint}),
        "data": data.name,
        "split": data.split,
        "labels from": data.labels_from,
        "classes": list(data.classes),
        "pictures": len(data),
        LIST: ids,
        "batch": batch,
    }


def differences(old: Mapping, new: Mapping, method: Method) -> list[str]:
    """What was different then, in words: "power=1, now 2"; settings and foreign code one by one."""

    def flat(made_with: Mapping) -> dict:
        settings = made_with.get("settings") or {}
        if made_with.get("method", method.name) == method.name:
            with suppress(SettingsError):  # those with a function of one's own are as they are
                settings = method.settings_of(settings).to_dict()  # an earlier version's had other names
        code = {f"the code of {name}": value for name, value in (made_with.get("code") or {}).items()}
        rest = {name: value for name, value in made_with.items() if name not in ("settings", "code")}
        return {**rest, **code, **_dotted(settings, method.Settings.described())}

    then, now = (json.loads(json.dumps(flat(made_with))) for made_with in (old, new))  # as in the file: lists, no tuples
    names = [name for name in {**now, **then} if then.get(name) != now.get(name)]
    told = {name: f"{name}={_short(then.get(name))}, now {_short(now.get(name))}" for name in names}
    if then.get("method") != now.get("method"):  # then its settings are others anyway
        told = {name: words for name, words in told.items() if name == "method"}
    if LIST in told:
        told[LIST] = "another list of pictures"
        if "pictures" in told:  # how many there are says it already
            del told[LIST]
    if "list" in told:  # of what is learned from: the hash of pictures and labels
        told["list"] = "other labels or pictures"
    return list(told.values())


def _dotted(settings: Mapping, known: Mapping, prefix: str = "") -> dict:
    """Settings by dotted name: groups are opened, values that are dicts are not."""
    found = {}
    for name, value in settings.items():
        is_group = isinstance(value, Mapping) and f"{prefix}{name}" not in known
        found |= _dotted(value, known, f"{prefix}{name}.") if is_group else {f"{prefix}{name}": value}
    return found


def _short(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:50]}..."


def open_folder(out: Path, made_with: dict, data: DataSet, method: Method, restart: bool) -> None:
    """The folder, made if it is not there, with nothing in it that these masks could be taken for."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ManifestError(f"{out}: this folder cannot be made ({error.strerror or error}); choose another one") from error
    manifest = read_manifest(out)
    if manifest is None:
        if any((out / MASKS).glob("*.png")):  # --out may be VOC's own folder, whose truth lies just there
            raise ManifestError(f"{out / MASKS} holds masks of which no {MANIFEST} says that the kit made them: choose another --out")
        return
    if restart:
        names = {name for name in manifest["images"] if is_file_name(name)} | {entry.id for entry in data.entries}
        for kind, name in itertools.product(ENDINGS, names):
            file_of(out, kind, name).unlink(missing_ok=True)
    elif other := differences(manifest["made_with"], made_with, method):
        raise ManifestError(f"{out} was made with {'; '.join(other[:3])}: choose another --out or --restart")
    for part in [path for kind in ENDINGS for path in (out / kind).glob(".*.part") if PART.fullmatch(path.name)]:
        part.unlink()
    if restart:  # the manifest last: as long as it is there, what lies beside it is known to be ours
        for path in [*out.glob(JOURNALS), out / MANIFEST]:
            path.unlink()


def begin_manifest(
    out: Path, made_with: dict, data: DataSet, pipeline: Pipeline, labels: Mapping[str, Sequence[str]], run: Mapping
) -> None:
    """Says what is to be made before the first mask is there, and reads the journals of a run that was killed.

    labels: id -> the classes a picture is asked for; run: how it is run, to be written down.
    Raises ManifestError if masks that are there were made for others.
    """
    merge_journals(out)
    learned = pipeline.learned
    there = read_manifest(out)
    _check_labels(out, there, labels)
    manifest = there or {
        "made_with": made_with,
        "labels": {"background": 0, **{name: number for number, name in enumerate(data.classes, start=1)}, "uncertain": mask.IGNORE},
        "seeds": [] if learned is None else [learned.about["settings"].get("seed", 0)],
        "random": RANDOM if learned is None else LEARNED_RANDOM,
        **({} if learned is None else {"learned": dict(learned.about)}),
        "left_out_of_the_list": [{"id": name, "why": why} for name, why in data.refused],
        "left_aside": list(data.notes),
        "runs": [],
        "images": {entry.id: {"state": "missing"} for entry in data.entries},
    }
    for id, record in manifest["images"].items():
        record.update({"classes": list(labels[id])} if id in labels else {})
    packages = {"kit": __version__, "python": platform.python_version()}
    packages |= {name: version(name) for name in ("torch", "open_clip_torch", "numpy", "pillow")}
    started = {"started": datetime.now(timezone.utc).isoformat(timespec="seconds"), "device": str(pipeline.clip.device)}
    _write_manifest(out, {**manifest, "runs": [*manifest["runs"], {**started, **run, "versions": packages}]})


def _check_labels(out: Path, there: Mapping | None, labels: Mapping[str, Sequence[str]]) -> None:
    """Raises ManifestError for pictures whose mask may be there already and whose labels are others now, or were not written down."""
    known = {id: record.get("classes") for id, record in (there or {"images": {}})["images"].items() if record["state"] != "refused"}
    other = [id for id, names in labels.items() if id in known and known[id] != list(names)]
    if other:
        then, now = (", ".join(names) or "nothing" if names is not None else "unknown" for names in (known[other[0]], labels[other[0]]))
        more = f" and {len(other) - 1:,} more pictures" if len(other) > 1 else ""
        raise ManifestError(f"{out} was made with other labels ({other[0]}: {then}, now {now}{more}): choose another --out or --restart")


def check_journals(out: Path, world: int) -> None:
    unseen = [rank for rank in range(world) if not (out / f"manifest.rank{rank}.jsonl").exists()]
    if unseen:
        ranks = ", ".join(map(str, unseen))
        raise ManifestError(f"{out} has no journal of rank {ranks}: machines that work together have to share the folder's file system")


def merge_journals(out: Path) -> None:
    """What the journals say goes into the manifest, and the journals go."""
    journals = sorted(out.glob(JOURNALS))
    manifest = read_manifest(out)
    if manifest is None or not journals:
        return
    images = manifest["images"]
    for line in itertools.chain.from_iterable(path.read_text(encoding="utf-8").splitlines() for path in journals):
        with suppress(json.JSONDecodeError):  # the last line of a run that was killed
            record = json.loads(line)
            name = record.pop("id")
            if record["state"] != "kept" or images[name]["state"] != "written":
                images[name] = record | {key: value for key, value in images[name].items() if key == "classes"}
    _write_manifest(out, manifest)
    for path in journals:
        path.unlink()


def _write_manifest(out: Path, manifest: dict) -> None:
    """JSON with a line for each picture."""
    images = manifest["images"]
    counts = Counter(record["state"] for record in images.values())
    head = {**manifest, "finished": not counts["missing"], "counts": dict(counts)}
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(record)}" for name, record in images.items())
    body = json.dumps({name: value for name, value in head.items() if name != "images"}, indent=2).removesuffix("\n}")
    write_file(out / MANIFEST, f'{body},\n  "images": {{\n{lines}\n  }}\n}}\n'.encode())


def write_file(path: Path, data: bytes) -> None:
    """A file that appears whole or not at all.   Raises ManifestError if it cannot be written."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise ManifestError(f"{path}: the file cannot be written ({error.strerror or error}); check the folder") from error
