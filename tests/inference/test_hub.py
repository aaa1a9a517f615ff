"""Models on the Hugging Face Hub: a server on this machine answers in its place."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_cmim.errors import CheckpointError, ConfigError
from nemo_cmim.inference import CMIMModel, load
from nemo_cmim.inference.hub import hub_file
from nemo_cmim.inference.shipped import reference_of

COMMIT = "a" * 40


class Hub:
    """Files of repositories, by `owner/name/file`; errors by the same; and the paths that were requested."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                hub.requests.append(path)
                status, headers, body = hub.answer(path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        repository = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        files = {
            name.removeprefix(f"{repository}/"): body for name, body in self.files.items() if name.startswith(f"{repository}/")
        }
        if repository == "owner/gated":
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        if not files:
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        revision, file = path.split("/")[6 if path.startswith("/api") else 4], "/".join(path.split("/")[5:])
        if revision not in ("main", "refs%2Fpr%2F1"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        if path.startswith("/api"):
            listed = [{"type": "file", "path": name, "size": len(body), "oid": "0"} for name, body in files.items()]
            return 200, {"Content-Type": "application/json"}, json.dumps(listed).encode()
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
        return 200, {"ETag": f'"{hashlib.sha256(files[file]).hexdigest()}"', "X-Repo-Commit": COMMIT}, files[file]


@pytest.fixture
def hub(model_file: Path) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    made = Hub()
    made.files = {"owner/name/README.md": b"x", "owner/name/random.nemo": model_file.read_bytes()}
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def endpoint(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The server, for the huggingface_hub of this process."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return hub


@pytest.fixture
def sha256(model_file: Path) -> str:
    return hashlib.sha256(model_file.read_bytes()).hexdigest()


def test_a_model_is_downloaded_once_and_loaded(endpoint: Hub, sha256: str, model: CMIMModel) -> None:
    loaded = load(f"hf://owner/name#{sha256}")
    assert loaded.fingerprint() == model.fingerprint() and reference_of(loaded) == f"hf://owner/name#{sha256}"
    assert endpoint.requests
    endpoint.requests.clear()
    for reference in (f"hf://owner/name#{sha256.upper()}", f"hf://owner/name@main/random.nemo#{sha256}"):
        assert hub_file(reference).read_bytes() == endpoint.files["owner/name/random.nemo"]
    assert not endpoint.requests, "a file in the cache needs no request"


@pytest.mark.parametrize("name", ["owner/name@refs/pr/1", "owner/name@refs/pr/1/random.nemo"])
def test_a_pull_request_is_a_revision(name: str, endpoint: Hub, sha256: str) -> None:
    assert hub_file(f"hf://{name}#{sha256}").name == "random.nemo"
    assert all("/refs%2Fpr%2F1" in path for path in endpoint.requests if "owner/name" in path)


def test_the_address_is_that_of_hf_endpoint(hub: Hub, sha256: str, tmp_path: Path) -> None:
    code = f"from nemo_cmim.inference.hub import hub_file; print(hub_file('hf://owner/name/random.nemo#{sha256}'))"
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path)) and "/owner/name/resolve/main/random.nemo" in hub.requests


def test_a_reference_without_checksum_is_an_error_that_gives_it(endpoint: Hub, sha256: str) -> None:
    for reference in ("hf://owner/name", "hf://owner/name#"):
        with pytest.raises(CheckpointError, match=rf"has no checksum.* Its file now is hf://owner/name#{sha256}: load this"):
            load(reference)


def test_a_file_that_was_replaced_is_refused(endpoint: Hub, sha256: str) -> None:
    hub_file(f"hf://owner/name#{sha256}")
    endpoint.files["owner/name/random.nemo"] = b"other"
    assert hub_file(f"hf://owner/name#{sha256}")  # from the cache
    other = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(CheckpointError, match=r"the file has the SHA-256 \w{64}\. It was replaced, or the reference is wrong"):
        hub_file(f"hf://owner/name#{other}")


def test_a_repository_with_several_model_files_or_none(endpoint: Hub, sha256: str) -> None:
    endpoint.files["owner/name/more/b.nemo"] = b"b"
    with pytest.raises(
        CheckpointError, match=r"has 2 model files \(more/b\.nemo, random\.nemo\)\. Name one: hf://owner/name/more/b\.nemo#"
    ):
        hub_file(f"hf://owner/name#{sha256}")
    assert hub_file(f"hf://owner/name/more/b.nemo#{hashlib.sha256(b'b').hexdigest()}").read_bytes() == b"b"
    endpoint.files = {"owner/name/README.md": b"x"}
    with pytest.raises(CheckpointError, match=r"owner/name has no \.nemo file"):
        hub_file(f"hf://owner/name#{'1' * 64}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("owner/missing", "there is no repository owner/missing, or it is private"),
        ("owner/gated", "access to owner/gated must be requested on its page"),
        ("owner/name@v9", "the repository owner/name has no revision v9"),
        ("owner/name/missing.nemo", r"the repository owner/name has no file missing\.nemo"),
    ],
)
def test_what_does_not_exist_is_named(endpoint: Hub, name: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^hf://{name}#1{{64}} cannot be downloaded: {reason}"):
        hub_file(f"hf://{name}#{'1' * 64}")


@pytest.mark.parametrize("reference", ["hf://owner", "hf://a/b/c.bin", "hf://a/../b/c#0", "hf://"])
def test_other_forms_are_refused(reference: str) -> None:
    with pytest.raises(CheckpointError, match=r"does not name a model on the Hub\. Its form is hf://owner/name#SHA256"):
        hub_file(reference)
    with pytest.raises(CheckpointError, match="'12' has 2"):
        hub_file("hf://owner/name#12")
    with pytest.raises(CheckpointError, match="contains 'x'"):
        hub_file(f"hf://owner/name#{'1' * 63}x")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"requires huggingface_hub, .*pip install 'nemo_cmim\[hub\]'"):
        load(f"hf://owner/name#{'0' * 64}")
