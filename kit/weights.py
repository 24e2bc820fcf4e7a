"""Files from the Hugging Face hub: fetched once, whole or not at all, with one sentence where that fails.

The hub's library keeps the cache, the settings (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE and the timeouts), the protocol and the
connection. The download itself stands here because the library starts from nothing after a killed program, asks an absent network for most
of a minute and takes what arrives without comparing its checksum. Knows nothing of CLIP.
"""

import errno
import hashlib
import os
import re
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants, get_hf_file_metadata, get_session, get_token, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import build_hf_headers, tqdm

TRIES = 4  # connections in a row that bring nothing new; each waits HF_HUB_DOWNLOAD_TIMEOUT seconds (10) for its next byte
PAUSE = 1.0  # seconds before a connection is tried again
MEGABYTE = 1_000_000
CHECK_CONNECTION = "check the connection, the proxy and HF_ENDPOINT, or fetch the file elsewhere and give its path"


class WeightsError(ValueError):
    """A file that could not be had."""


class _Interrupted(Exception):
    """A connection that ended before the file did; the next one may bring the rest."""


def hub_file(repository: str, *filenames: str, progress: bool = True) -> Path:
    """The path of a model repository's file, from the local cache or else from the hub; of several names, the first that exists.

    A file that is in the cache is taken as it is, without a look at the network. Otherwise a bar on stderr shows the download (unless
    `progress` is off), which goes on from where an earlier one stopped and enters the cache only when size and SHA-256 are the hub's.
    Raises WeightsError with one sentence.
    """
    try:
        return _in_cache(repository, filenames) or _from_hub(repository, filenames, progress)
    except HFValidationError as error:
        raise WeightsError(f"{repository!r} is not the name of a model on the hub: write ORGANISATION/NAME") from error
    except OSError as error:  # the disk's: those of the connection are sentences already
        raise WeightsError(_about_the_disk(error, constants.HF_HUB_CACHE)) from error


def _in_cache(repository: str, filenames: tuple[str, ...]) -> Path | None:
    found = [try_to_load_from_cache(repository, filename) for filename in filenames]
    return next((Path(path) for path in found if isinstance(path, str)), None)  # neither None nor the mark "known not to exist"


def _from_hub(repository: str, filenames: tuple[str, ...], progress: bool) -> Path:
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(
            f"{filenames[0]} of {repository} is not in the cache {constants.HF_HUB_CACHE} and HF_HUB_OFFLINE forbids to fetch it: "
            "unset HF_HUB_OFFLINE, or give the path of a file"
        )
    for filename in filenames:
        try:
            about = get_hf_file_metadata(hf_hub_url(repository, filename), timeout=constants.HF_HUB_ETAG_TIMEOUT, token=get_token())
        except EntryNotFoundError:
            continue
        except Exception as error:  # httpx and its successor each raise their own, whichever this hub library speaks with
            raise WeightsError(_about_the_hub(error, repository)) from error
        if about.size is None or not all(name and re.fullmatch(r"[\w-]+", name) for name in (about.etag, about.commit_hash)):
            raise WeightsError(_not_a_hub("no size, version or checksum"))
        cache, model = Path(constants.HF_HUB_CACHE), f"models--{repository.replace('/', '--')}"
        folder = cache / model
        target = folder / "snapshots" / about.commit_hash / filename  # the cache's own layout, as where links are impossible
        lock = cache / ".locks" / model / f"{about.etag}.lock"  # the hub library's own
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # a second program waits here and then finds the file
            if not target.is_file():
                _fetch(repository, filename, about, target, folder / "blobs" / f"{about.etag}.incomplete", progress)
        reference = folder / "refs" / "main"
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(about.commit_hash)  # last: from now on the cache knows the file
        return target
    raise WeightsError(f"the model {repository} on {constants.ENDPOINT} has no file {' or '.join(filenames)}: check the name")


def _fetch(repository: str, filename: str, about, target: Path, part: Path, progress: bool) -> None:
    """The file at `target`, whole. `part` is named after the content, so that two versions of a file never mix."""
    for folder in (target.parent, part.parent):
        folder.mkdir(parents=True, exist_ok=True)
    missing = about.size - (part.stat().st_size if part.is_file() else 0)
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise OSError(errno.ENOSPC, f"{filename} needs {_megabytes(missing)} and {_megabytes(free)} are free")
    _download(repository, filename, about, part, progress)
    if len(about.etag) == 64 and _sha256(part) != about.etag:  # shorter ones are git's and those of mirrors
        part.unlink()
        raise WeightsError(
            f"the download of {filename} of {repository} is broken (its SHA-256 is not the one that the hub names) and was removed: "
            "try again, and if it happens again look for a proxy or a mirror (HF_ENDPOINT) that changes files"
        )
    os.replace(part, target)


def _download(repository: str, filename: str, about, part: Path, progress: bool) -> None:
    """All bytes of a file into `part`, after those that are there already; new connections follow as long as each brings something."""
    with (
        part.open("ab") as file,
        tqdm(
            total=about.size,
            initial=file.tell(),
            desc=filename,
            unit="B",
            unit_scale=True,
            mininterval=0.1 if sys.stderr.isatty() else 10,  # a log file wants few lines
            disable=not progress,
        ) as bar,
    ):
        fruitless = 0
        while (start := file.tell()) != about.size:
            try:
                for chunk in _bytes_from(repository, filename, about, file):
                    file.write(chunk)
                    bar.update(len(chunk))
                reason = "the server closed the connection early"
            except (WeightsError, OSError):  # a refusal, or the disk
                raise
            except Exception as error:  # httpx and its successor each raise their own
                reason = _why(error)
            bar.n = file.tell()  # a server that cannot go on has started again
            fruitless = 0 if file.tell() > start else fruitless + 1
            if file.tell() != about.size:
                if fruitless == TRIES:
                    raise WeightsError(
                        f"the download of {filename} of {repository} stopped at {_megabytes(file.tell())} of {_megabytes(about.size)} "
                        f"({reason}): check the connection and ask again, it goes on from there"
                    )
                time.sleep(PAUSE)
        file.flush()
        os.fsync(file.fileno())  # after a power cut, a name must not stand for bytes that were never written


def _bytes_from(repository: str, filename: str, about, file) -> Iterator[bytes]:
    """What one connection brings, beginning where `file` ends."""
    if file.tell() > about.size:
        _empty(file)
    headers = build_hf_headers(token=get_token()) | {"Accept-Encoding": "identity"}
    if file.tell():
        headers["Range"] = f"bytes={file.tell()}-"
    url = hf_hub_url(repository, filename, revision=about.commit_hash)
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        if response.status_code >= 500 or response.status_code in (408, 429):
            raise _Interrupted(f"the server answered with error {response.status_code}")
        if response.status_code not in (200, 206):
            raise WeightsError(_about_status(response.status_code, repository))
        begin, total = _range_of(response, file.tell())
        if total not in (about.size, None):
            raise WeightsError(_not_a_hub())
        if begin != file.tell():
            _empty(file)
            if begin:
                raise _Interrupted("the server sent another part of the file than was asked for")
        room = about.size - file.tell()
        for chunk in response.iter_raw():
            if len(chunk) > room:
                raise WeightsError(_not_a_hub())
            room -= len(chunk)
            yield chunk


def _range_of(response, asked: int) -> tuple[int, int | None]:
    """Where the bytes of an answer begin and how long the whole file is."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    begin, _, total = response.headers.get("Content-Range", f"bytes {asked}-").removeprefix("bytes ").partition("-")
    total = total.partition("/")[2]
    return int(begin), int(total) if total.isdigit() else None


def _empty(file) -> None:
    file.seek(0)
    file.truncate()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(MEGABYTE):
            digest.update(chunk)
    return digest.hexdigest()


def _about_the_hub(error: Exception, repository: str) -> str:
    if isinstance(error, GatedRepoError):
        return (
            f"{repository} is open to those who accepted its licence: accept it on {constants.ENDPOINT}/{repository} and set HF_TOKEN "
            "to a token of yours (or run `hf auth login`)"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{constants.ENDPOINT} has no model {repository}, or it is private: check the name, or set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return _about_status(error.response.status_code, repository)
    return f"{constants.ENDPOINT} cannot be reached ({_why(error)}): {CHECK_CONNECTION}"


def _about_status(status: int, repository: str) -> str:
    if status == 401:
        return f"{constants.ENDPOINT} refused the token: set HF_TOKEN to a valid one, or unset it"
    if status == 403:
        return f"{constants.ENDPOINT} does not give {repository} to you: accept its licence on its page and set HF_TOKEN"
    if status == 429:
        return f"{constants.ENDPOINT} was asked too often from here: wait some minutes, or set HF_TOKEN"
    if status >= 500:
        return f"{constants.ENDPOINT} has a fault of its own (error {status}): try again later, or give the path of a file"
    return _not_a_hub(f"error {status}")


def _not_a_hub(got: str = "another length than announced") -> str:
    return (
        f"{constants.ENDPOINT} does not answer like a Hugging Face hub ({got}): check HF_ENDPOINT, and whether a proxy or a log-in page "
        "stands in between"
    )


def _why(error: BaseException) -> str:
    """What happened underneath: the HTTP libraries wrap the system's error, each in its own way."""
    chain, seen = error, []
    while chain is not None and chain not in seen:
        seen.append(chain)
        chain = chain.__cause__ or chain.__context__
    for link in seen:
        if isinstance(link, TimeoutError) or "Timeout" in type(link).__name__:
            return "no answer in time"
        if isinstance(link, ConnectionRefusedError):
            return "the connection was refused"
        if isinstance(link, socket.gaierror):
            return "its address is unknown here: no network, or a wrong name"
        if isinstance(link, ssl.SSLError):
            return "its certificate was not accepted"
        if isinstance(link, ConnectionResetError | BrokenPipeError) or "RemoteProtocol" in type(link).__name__:
            return "the server closed the connection early"
    return _first_line(error)


def _about_the_disk(error: OSError, folder: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the cache folder {folder} is full ({error.strerror}): make room, or set HF_HOME to a folder on another disk"
    return f"the cache folder {folder} cannot be used ({error.strerror or error}): make it yours to write, or set HF_HOME to another folder"


def _megabytes(count: int) -> str:
    return f"{count / MEGABYTE:,.1f} MB"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
