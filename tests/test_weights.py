"""Files come whole from a hub on this machine, or not at all and with a sentence; after a kill they go on where they stopped."""

import contextlib
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants, hf_hub_download
from torch import nn

from kit import weights
from kit.checkpoint import is_torchscript
from kit.encode import Clip, ClipError, build_small_clip
from kit.weights import WeightsError, hub_file

ROOT = Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BYTES = bytes(range(256)) * 2000  # half a megabyte
SMALL = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@dataclass
class Hub:
    """A web server that speaks as much of the hub's language as a download needs, and misbehaves as told."""

    files: dict[str, bytes] = field(default_factory=dict)  # "someone/model/weights.bin"
    log: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, file, Range
    status: int = 200  # of every answer, with
    error: str = ""  # the hub's X-Error-Code
    headers: bool = True  # whether version and checksum are told
    cut: list[int] = field(default_factory=list)  # after how many bytes the next connections are closed
    stall_at: int | None = None  # the byte of the file at which nothing more comes
    delay: float = 0.0  # seconds between pieces
    spoilt: bool = False  # other bytes than the checksum's
    ranges: bool = True
    storage: str = ""  # another server that has the bytes
    seen_tokens: list[str | None] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def gets(self) -> list[str | None]:
        """The Range of every request for bytes."""
        return [asked for method, _, asked in self.log if method == "GET"]


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        """The log is the hub's own."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.hub
        if "/resolve/" not in self.path:  # the library asks for news of its own
            self.answer(404, {})
            return
        repository, _, filename = self.path.lstrip("/").partition("/resolve/")
        name = f"{repository}/{filename.partition('/')[2]}"
        asked = self.headers.get("Range")
        hub.log.append((self.command, name, asked))
        hub.seen_tokens.append(self.headers.get("Authorization"))
        if hub.status != 200 or name not in hub.files:
            known = any(file.startswith(f"{repository}/") for file in hub.files)
            status, error = (hub.status, hub.error) if hub.status != 200 else (404, "EntryNotFound" if known else "RepoNotFound")
            self.answer(status, {"X-Error-Code": error} if error else {})
            return
        content = hub.files[name]
        about = {"ETag": '"here"', "X-Repo-Commit": COMMIT, "X-Linked-Size": len(content)} if hub.headers else {}
        if hub.headers:
            about["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        if hub.storage:
            self.answer(302, {**about, "Location": hub.storage + self.path})
            return
        if hub.spoilt:
            content = content[::-1]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and hub.ranges else 0
        if start:
            about["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, about, content[start:], start)

    def answer(self, status, headers, body=b"", start=0):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.hub.cut.pop(0) if self.hub.cut else len(body)
        for begin in range(0, min(cut, len(body)), 1 << 16):
            piece = body[begin : min(begin + (1 << 16), cut)]
            if self.hub.stall_at is not None and start + begin + len(piece) > self.hub.stall_at:
                self.wfile.write(piece[: max(0, self.hub.stall_at - start - begin)])
                self.hub.over.wait(10)
                break
            try:
                self.wfile.write(piece)
            except OSError:  # the other side was killed
                break
            time.sleep(self.hub.delay)
        self.close_connection = True


@contextlib.contextmanager
def serving(hub: Hub):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("AnswersOfOne", (Answers,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def ask(monkeypatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 5)
    monkeypatch.setattr(weights, "PAUSE", 0.01)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def hub(cache, monkeypatch):
    with serving(Hub({"someone/model/weights.bin": BYTES})) as hub:
        ask(monkeypatch, hub.url)
        yield hub


def taken_for_whole(cache: Path) -> list[Path]:
    return [path for path in cache.glob("models--*/snapshots/**/*") if path.is_file()]


def parts(cache: Path) -> list[Path]:
    return list(cache.glob("models--*/blobs/*.incomplete"))


def test_a_file_is_fetched_once_and_the_hubs_library_finds_it(hub, cache, monkeypatch):
    path = hub_file("someone/model", "weights.bin")
    assert path.read_bytes() == BYTES and path.name == "weights.bin" and not parts(cache)
    assert [method for method, *_ in hub.log] == ["HEAD", "GET"]
    assert hub_file("someone/model", "weights.bin") == path and len(hub.log) == 2
    assert Path(hf_hub_download("someone/model", "weights.bin", local_files_only=True, cache_dir=cache)) == path
    assert Path(hf_hub_download("someone/model", "weights.bin", cache_dir=cache)) == path and hub.gets() == [None]
    ask(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_file("someone/model", "weights.bin") == path


def test_a_file_that_the_hubs_library_fetched_is_found(hub, cache):
    path = Path(hf_hub_download("someone/model", "weights.bin", cache_dir=cache))
    requests = len(hub.log)
    assert hub_file("someone/model", "weights.bin") == path and len(hub.log) == requests


def test_of_several_names_the_first_that_exists_is_taken(hub):
    hub.files["someone/model/other.bin"] = b"other"
    path = hub_file("someone/model", "none.safetensors", "weights.bin", "other.bin")
    assert path.name == "weights.bin" and [name for _, name, _ in hub.log] == [
        "someone/model/none.safetensors",
        "someone/model/weights.bin",
        "someone/model/weights.bin",
    ]
    requests = len(hub.log)
    assert hub_file("someone/model", "none.safetensors", "weights.bin") == path and len(hub.log) == requests


def test_an_empty_file_and_one_in_a_folder(hub):
    hub.files |= {"someone/model/empty": b"", "someone/model/deep/down/weights.bin": b"x"}
    assert hub_file("someone/model", "empty").read_bytes() == b""
    assert hub_file("someone/model", "deep/down/weights.bin").read_bytes() == b"x"


def test_bytes_may_lie_on_another_server_which_never_sees_the_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(Hub(dict(hub.files), cut=[100_000])) as storage:
        hub.storage = storage.url
        assert hub_file("someone/model", "weights.bin").read_bytes() == BYTES
        assert storage.gets() == [None, "bytes=100000-"]
        assert set(hub.seen_tokens) == {"Bearer hf_secret"} and set(storage.seen_tokens) == {None}


def test_a_bar_shows_the_download(hub, capfd):
    hub_file("someone/model", "weights.bin")
    assert "weights.bin: 100%" in capfd.readouterr().err
    hub.files["someone/model/other.bin"] = b"other"
    hub_file("someone/model", "other.bin", progress=False)
    assert not capfd.readouterr().err


def test_two_at_a_time_fetch_once(hub):
    hub.delay = 0.02
    paths = []
    both = [threading.Thread(target=lambda: paths.append(hub_file("someone/model", "weights.bin", progress=False))) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert paths[0] == paths[1] and paths[0].read_bytes() == BYTES and hub.gets() == [None]


def test_a_connection_that_breaks_off_is_taken_up_again(hub):
    hub.cut = [200_000, 0, 0, 100_000]
    assert hub_file("someone/model", "weights.bin").read_bytes() == BYTES
    assert hub.gets() == [None, "bytes=200000-", "bytes=200000-", "bytes=200000-", "bytes=300000-"]


def test_a_server_that_always_breaks_off_ends_in_a_sentence_and_the_next_call_goes_on(hub, cache):
    hub.cut = [200_000] + [0] * 20
    with pytest.raises(WeightsError, match=r"stopped at 0\.2 MB of 0\.5 MB \(the server closed the connection early\).*goes on from there"):
        hub_file("someone/model", "weights.bin")
    assert not taken_for_whole(cache) and parts(cache)[0].read_bytes() == BYTES[:200_000] and len(hub.gets()) == 1 + weights.TRIES
    hub.cut, hub.log = [], []
    assert hub_file("someone/model", "weights.bin").read_bytes() == BYTES and hub.gets() == ["bytes=200000-"] and not parts(cache)


def test_a_server_that_falls_silent_ends_in_a_sentence_and_the_next_call_goes_on(hub, cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.stall_at = 150_000
    with pytest.raises(WeightsError, match=r"stopped at 0\.1 MB of 0\.5 MB \(no answer in time\): check the connection and ask again"):
        hub_file("someone/model", "weights.bin")
    assert not taken_for_whole(cache)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 5)
    hub.stall_at, hub.log = None, []
    assert hub_file("someone/model", "weights.bin").read_bytes() == BYTES and hub.gets() == ["bytes=150000-"]


def test_a_slow_server_is_waited_for(hub, monkeypatch):
    """Eight pieces with pauses: each comes in time, all together do not."""
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    hub.delay = 0.16
    assert hub_file("someone/model", "weights.bin").read_bytes() == BYTES and hub.gets() == [None]


def test_a_server_that_cannot_go_on_starts_again(hub):
    hub.cut, hub.ranges = [200_000], False
    assert hub_file("someone/model", "weights.bin").read_bytes() == BYTES
    assert hub.gets() == [None, "bytes=200000-"]


@pytest.mark.parametrize("kept", [b"not its beginning", BYTES + b"and more", BYTES])
def test_what_lies_there_already_is_checked(hub, cache, kept):
    """An unfinished file of the right name may hold anything; only the checksum lets it pass."""
    folder = cache / "models--someone--model" / "blobs"
    folder.mkdir(parents=True)
    (folder / f"{hashlib.sha256(BYTES).hexdigest()}.incomplete").write_bytes(kept)
    if kept == b"not its beginning":
        with pytest.raises(WeightsError, match="is broken"):
            hub_file("someone/model", "weights.bin")
        assert not taken_for_whole(cache) and not parts(cache)
    assert hub_file("someone/model", "weights.bin").read_bytes() == BYTES


def test_spoilt_bytes_are_removed(hub, cache):
    hub.spoilt = True
    with pytest.raises(WeightsError, match=r"weights\.bin of someone/model is broken \(its SHA-256 .* was removed: try again"):
        hub_file("someone/model", "weights.bin")
    assert not taken_for_whole(cache) and not parts(cache)
    hub.spoilt = False
    assert hub_file("someone/model", "weights.bin").read_bytes() == BYTES


def test_a_killed_program_goes_on_where_it_stopped(tmp_path):
    content = os.urandom(1 << 16) * 64  # 4 MB in 64 pieces
    program = "import sys; from kit.weights import hub_file; print(hub_file('someone/model', 'weights.bin'))"
    with serving(Hub({"someone/model/weights.bin": content}, delay=0.05)) as hub:
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and name != "HF_HUB_OFFLINE"}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        run = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", program], **run) as killed:
            deadline = time.monotonic() + 30
            while not any(part.stat().st_size > 500_000 for part in parts(tmp_path / "hub")):
                assert time.monotonic() < deadline and killed.poll() is None, killed.stderr.read().decode()
                time.sleep(0.01)
            killed.send_signal(signal.SIGKILL)
        kept = parts(tmp_path / "hub")[0].stat().st_size
        assert killed.returncode == -signal.SIGKILL and 0 < kept < len(content) and not taken_for_whole(tmp_path / "hub")
        hub.delay = 0
        second = subprocess.run([sys.executable, "-c", program], **run, timeout=60)
    assert Path(second.stdout.decode().strip()).read_bytes() == content, second.stderr.decode()
    assert hub.gets() == [None, f"bytes={kept}-"] and not parts(tmp_path / "hub")


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (
            {"status": 403, "error": "GatedRepo"},
            "open to those who accepted its licence: accept it on http.*/someone/model and set HF_TOKEN",
        ),
        ({"status": 401, "error": "RepoNotFound"}, "has no model someone/model, or it is private: check the name, or set HF_TOKEN"),
        ({"status": 403}, "does not give someone/model to you: accept its licence"),
        ({"status": 429}, "was asked too often from here: wait some minutes, or set HF_TOKEN"),
        ({"status": 503}, r"has a fault of its own \(error 503\): try again later"),
        ({"status": 418}, r"does not answer like a Hugging Face hub \(error 418\): check HF_ENDPOINT"),
        ({"headers": False}, r"does not answer like a Hugging Face hub \(no size, version or checksum\)"),
        ({"files": {}}, "has no model someone/model"),
        ({"files": {"someone/model/other": b""}}, r"the model someone/model on http.* has no file weights\.bin: check the name"),
    ],
)
def test_a_refusal_is_one_sentence(hub, cache, behaviour, sentence):
    for name, value in behaviour.items():
        setattr(hub, name, value)
    with pytest.raises(WeightsError, match=sentence) as error:
        hub_file("someone/model", "weights.bin")
    assert "\n" not in str(error.value) and not taken_for_whole(cache) and not hub.gets()


def test_a_refusal_of_the_bytes_alone_is_one_sentence(hub, cache):
    with serving(Hub(status=403)) as storage:
        hub.storage = storage.url
        with pytest.raises(WeightsError, match="does not give someone/model to you"):
            hub_file("someone/model", "weights.bin")
    assert not taken_for_whole(cache)


@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        (
            "http://127.0.0.1:9",
            r"http://127\.0\.0\.1:9 cannot be reached \(the connection was refused\): check the connection, the proxy and",
        ),
        ("http://nowhere.invalid", "its address is unknown here: no network, or a wrong name"),
        ("127.0.0.1:9", "cannot be reached"),
    ],
)
def test_without_a_connection_the_sentence_comes_at_once(cache, monkeypatch, endpoint, sentence):
    ask(monkeypatch, endpoint)
    with pytest.raises(WeightsError, match=sentence):
        hub_file("someone/model", "weights.bin", "other.bin")
    assert not taken_for_whole(cache)


def test_a_hub_that_never_answers(cache, monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
        ask(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(WeightsError, match=r"cannot be reached \(no answer in time\)"):
            hub_file("someone/model", "weights.bin")


def test_offline_by_wish(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"weights\.bin of someone/model is not in the cache .* HF_HUB_OFFLINE forbids .*: unset"):
        hub_file("someone/model", "weights.bin")
    assert not hub.log


@pytest.mark.parametrize("repository", ["a/b/c", "", "some one/model", "../model"])
def test_what_is_no_repository(cache, repository):
    with pytest.raises(WeightsError, match="is not the name of a model on the hub: write ORGANISATION/NAME"):
        hub_file(repository, "weights.bin")


def test_a_full_disk_is_seen_before_the_download(hub, cache, monkeypatch):
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(WeightsError, match="the cache folder .* is full .*: make room, or set HF_HOME to a folder on another disk"):
        hub_file("someone/model", "weights.bin")
    assert not hub.gets() and not taken_for_whole(cache)


def test_a_disk_that_fills_up_during_the_download(hub, cache, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", full)
    with pytest.raises(WeightsError, match="is full"):
        hub_file("someone/model", "weights.bin")
    assert not taken_for_whole(cache)


def test_a_cache_that_cannot_be_written(hub, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="the cache folder .* cannot be used .*: make it yours to write, or set HF_HOME"):
        hub_file("someone/model", "weights.bin")


@pytest.fixture(scope="module")
def source() -> Clip:
    torch.manual_seed(3)
    return Clip(build_small_clip(SMALL), open_clip.get_tokenizer("ViT-B-16"), name="source")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small architecture with tags of its own, under the name of which open_clip knows nothing else."""
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, config in {"kit-hub-quickgelu": SMALL, "kit-hub": {**SMALL, "quick_gelu": False}}.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    tag = {"hf_hub": "someone/small/", "quick_gelu": True, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1)}
    named = {"hf_hub": "someone/small/odd_name.bin", "quick_gelu": True}
    elsewhere = {"url": "https://example.org/weights.pt", "quick_gelu": True}
    for name in ("kit-hub-quickgelu", "kit-hub"):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {"test": tag, "named": named, "elsewhere": elsewhere})


def safetensors_of(clip: Clip, tmp_path: Path) -> bytes:
    from safetensors.torch import save_file

    save_file(clip.model.state_dict(), tmp_path / "source.safetensors")
    return (tmp_path / "source.safetensors").read_bytes()


def pickle_of(clip: Clip, tmp_path: Path) -> bytes:
    torch.save({name: tensor.half() for name, tensor in clip.model.state_dict().items()}, tmp_path / "source.bin")
    return (tmp_path / "source.bin").read_bytes()


def test_a_model_comes_from_the_hub_and_sees_and_reads_as_it_did_there(hub, small, source, tmp_path):
    hub.files["someone/small/open_clip_model.safetensors"] = safetensors_of(source, tmp_path)
    clip = Clip.load("kit-hub-quickgelu", "test", device="cpu")
    image = torch.rand(2, 3, 24, 40)
    assert clip.name == "kit-hub-quickgelu:test" and clip.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert torch.equal(clip.encode(image).last_input, source.encode(image).last_input)
    assert torch.equal(clip.encode(image).attention, source.encode(image).attention)
    assert torch.equal(clip.text(["a boat", "a cat"]), source.text(["a boat", "a cat"]))
    requests = len(hub.log)
    assert Clip.load("kit-hub-quickgelu:test", device="cpu").fingerprint == clip.fingerprint and len(hub.log) == requests


@pytest.mark.parametrize(("tag", "filename"), [("test", "open_clip_pytorch_model.bin"), ("named", "odd_name.bin")])
def test_a_repository_without_safetensors_in_half_precision(hub, small, source, tmp_path, tag, filename):
    hub.files[f"someone/small/{filename}"] = pickle_of(source, tmp_path)
    clip = Clip.load("kit-hub-quickgelu", tag, device="cpu")
    assert all(tensor.dtype == torch.float32 for tensor in clip.model.parameters())
    torch.testing.assert_close(clip.text(["a boat"]), source.text(["a boat"]), rtol=0, atol=5e-3)


def test_a_repository_with_its_own_configuration(hub, source, tmp_path):
    about = {"model_cfg": SMALL, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}}
    hub.files["someone/else/open_clip_config.json"] = json.dumps(about).encode()
    hub.files["someone/else/open_clip_model.safetensors"] = safetensors_of(source, tmp_path)
    clip = Clip.load("hf-hub:someone/else", device="cpu")
    image = torch.rand(1, 3, 24, 40)
    assert torch.equal(clip.encode(image).last_input, source.encode(image).last_input) and clip.name == "hf-hub:someone/else"
    assert clip.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(ClipError, match=r"hf-hub:someone/model could not be had: .* has no file open_clip_config\.json"):
        Clip.load("hf-hub:someone/model", device="cpu")


def test_what_cannot_work_is_refused_before_anything_is_fetched(hub, small):
    with pytest.raises(ClipError, match="the weights test were trained with QuickGELU: write kit-hub-quickgelu:test"):
        Clip.load("kit-hub", "test", device="cpu")
    with pytest.raises(ClipError, match="ViT-B-16-SigLIP:webli has no class token, as all of SigLIP: the kit needs a ViT"):
        Clip.load("ViT-B-16-SigLIP:webli", device="cpu")
    with pytest.raises(
        ClipError, match=r"elsewhere is not on the Hugging Face hub: fetch https://example\.org/weights\.pt and give the file"
    ):
        Clip.load("kit-hub-quickgelu:elsewhere", device="cpu")
    assert not hub.log


def test_a_model_that_cannot_be_had_says_its_name_and_why(hub, small):
    with pytest.raises(ClipError, match="kit-hub-quickgelu:test could not be had: .* has no model someone/small") as error:
        Clip.load("kit-hub-quickgelu:test", device="cpu")
    assert "\n" not in str(error.value)


def test_a_file_of_the_hub_that_is_no_checkpoint(hub, small):
    hub.files["someone/small/open_clip_model.safetensors"] = b"whole, but not a model"
    with pytest.raises(ClipError, match="is not a checkpoint of kit-hub-quickgelu: .*; delete it to fetch it anew"):
        Clip.load("kit-hub-quickgelu:test", device="cpu")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_told_from_tensors(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "archive.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "tensors.pt")
    (tmp_path / "text.pt").write_text("nothing of the kind")
    assert [is_torchscript(tmp_path / f"{name}.pt") for name in ("archive", "tensors", "text")] == [True, False, False]
