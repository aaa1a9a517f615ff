"""`nemo-cmim serve` as a process: slow and large bodies, clients that leave, signals, the log, several processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from nemo_cmim.inference import CMIMModel
from tests.serve.running import PATIENCE_S, Service, raw_answer, raw_request

SMILES = ["CCO", "c1ccccc1O"]


@pytest.fixture(scope="module")
def service(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with Service(folder, model_file, "--max-bytes", "100000", "--body-timeout", "2", "--queue", "4", "--deadline", "60") as service:
        yield service.wait()


def test_answers_are_those_of_the_model(service: Service, model: CMIMModel) -> None:
    for kind in ("mean", "informative"):
        found = service.post("/embedding", {"sequences": SMILES, "kind": kind})
        np.testing.assert_allclose(found.json()["embeddings"], model.embed(SMILES, kind), rtol=1e-4, atol=1e-5)


def test_a_body_that_is_too_large_is_answered_not_cut_off(service: Service) -> None:
    body = b'{"sequences": ["' + b"C" * 100_000_000 + b'"]}'
    whole = httpx.post(f"{service.url}/embedding", content=body, headers={"Content-Type": "application/json"}, timeout=PATIENCE_S)
    chunks = (body[i : i + 1_000_000] for i in range(0, len(body), 1_000_000))
    chunked = httpx.post(
        f"{service.url}/embedding", content=chunks, headers={"Content-Type": "application/json"}, timeout=PATIENCE_S
    )
    assert chunked.request.headers["transfer-encoding"] == "chunked"
    for answer in (whole, chunked):
        assert answer.status_code == 413 and "at most 100000 bytes" in answer.text
    assert memory_mb(service.process.pid, "VmHWM") < memory_mb(service.process.pid, "VmRSS") + 60


def memory_mb(pid: int, field: str) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def test_a_client_that_asks_first_does_not_send_a_large_body(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(raw_request("/embedding", {"Content-Length": "200000", "Expect": "100-continue"}))
        assert raw_answer(connection)[0] == 413


def test_a_slow_body_holds_no_place_and_ends(service: Service) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(service.connect()) for _ in range(20)]  # more than the queue has places
        for connection in slow:
            connection.sendall(raw_request("/embedding", {"Content-Length": "1000"}) + b'{"sequences"')
        assert service.post("/embedding", {"sequences": SMILES}).status_code == 200
        for connection in slow:
            status, found = raw_answer(connection)
            assert status == 408 and "2 s" in found["detail"]


def test_a_large_slow_body_ends(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(raw_request("/embedding", {"Content-Length": "1000000000"}) + b'{"sequences"')
        assert raw_answer(connection)[0] == 413


def test_a_full_queue_is_503_and_clients_that_leave_free_their_places(service: Service) -> None:
    search = {"smi": "CCO", "algorithm": "none", "particles": 100, "iterations": 1000}  # ends because its client leaves
    with ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(httpx.post, f"{service.url}/generate", json=search, timeout=3) for _ in range(12)]
        answers = [each.result().status_code for each in waiting if each.exception() is None]
    assert set(answers) == {503} and len(answers) >= 3  # three are computed, four wait
    found = service.post("/embedding", {"sequences": SMILES})
    assert found.status_code == 200
    busy = [each for each in waiting if each.exception() is None]
    assert all(each.result().headers["retry-after"] == "1" for each in busy)


def test_one_connection_serves_many_requests(service: Service) -> None:
    with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client:
        for i in range(20):
            wrong = client.post("/embedding", json={"sequences": ["C1CC"]})
            right = client.post("/embedding", json={"sequences": ["C" * (i + 1)]})
            assert (wrong.status_code, right.status_code) == (422, 200)


def test_the_log_has_no_smiles(service: Service) -> None:
    secret = "CC(=O)Oc1ccccc1C(=O)OCCBr"
    service.post("/embedding", {"sequences": [secret, "C1" + secret]})
    service.post("/generate", {"smi": "C1" + secret})
    service.post(f"/{secret}", {})
    service.post(f"/embedding?smiles={secret}", {"sequences": [secret], "kind": secret})
    log = service.log.read_text()
    assert " POST /embedding 422 " in log and " POST unknown 404 " in log
    assert "OCCBr" not in log and "Traceback" not in log


def test_an_expired_request_is_504(model_file: Path, tmp_path: Path) -> None:
    with Service(tmp_path, model_file, "--deadline", "2") as service:
        service.wait()
        search = {"smi": "CCO", "algorithm": "none", "particles": 10, "iterations": 1000, "num_molecules": 1}
        found = service.post("/generate", search)
        assert found.status_code == 504 and "2 s" in found.text
        limit = time.monotonic() + PATIENCE_S
        while service.post("/embedding", {"sequences": SMILES}).status_code != 200:  # 504 if this computer is very busy
            assert time.monotonic() < limit


def test_sigterm_drains(model_file: Path, tmp_path: Path) -> None:
    with Service(tmp_path, model_file, "--drain", str(PATIENCE_S)) as service, ThreadPoolExecutor(1) as pool:
        service.wait()
        search = {"smi": "CCO", "algorithm": "none", "particles": 50, "iterations": 20, "min_similarity": 0}
        answer = pool.submit(service.post, "/generate", search)
        while httpx.get(f"{service.url}/v1/metrics", timeout=PATIENCE_S).text.find("nemo_cmim_batch_requests_count 1.0") < 0:
            assert not answer.done()
            time.sleep(0.01)
        assert service.end() == 0  # it ends after the answer
        assert answer.result().status_code == 200
        assert "Traceback" not in service.log.read_text()


def test_requests_that_are_open_after_the_drain_get_an_answer(model_file: Path, tmp_path: Path) -> None:
    with Service(tmp_path, model_file, "--drain", "1", "--body-timeout", str(PATIENCE_S)) as service, ThreadPoolExecutor(1) as pool:
        service.wait()
        search = {"smi": "CCO", "algorithm": "none", "particles": 100, "iterations": 1000}
        answer = pool.submit(service.post, "/generate", search)
        with service.connect() as slow:
            slow.sendall(raw_request("/embedding", {"Content-Length": "1000"}) + b'{"sequences"')
            while httpx.get(f"{service.url}/v1/metrics", timeout=PATIENCE_S).text.find("nemo_cmim_batch_requests_count 1.0") < 0:
                time.sleep(0.01)
            assert service.end() == 0
            assert raw_answer(slow) == (503, {"detail": "The service is stopping."})
        stopped = answer.result()
        assert (
            stopped.status_code == 503
            and stopped.headers["retry-after"]
            and stopped.json() == {"detail": "The service is stopping."}
        )
        assert "Traceback" not in service.log.read_text()


def test_ctrl_c_ends_with_130(model_file: Path, tmp_path: Path) -> None:
    with Service(tmp_path, model_file) as service:
        assert service.wait().end(signal.SIGINT) == 130
        assert "interrupted." in service.log.read_text() and "Traceback" not in service.log.read_text()


def test_a_killed_service_starts_again_on_its_port(model_file: Path, tmp_path: Path) -> None:
    with Service(tmp_path, model_file) as service:
        service.wait().end(signal.SIGKILL)
    with Service(tmp_path, model_file, port=service.port) as again:
        assert again.wait().post("/embedding", {"sequences": SMILES}).status_code == 200


@pytest.mark.slow
def test_two_processes(model_file: Path, model: CMIMModel, tmp_path: Path) -> None:
    with Service(tmp_path, model_file, "--workers", "2", "--drain", str(PATIENCE_S)) as service:
        service.wait()
        children = children_of(service.process.pid)
        assert len(children) == 2
        expected = model.embed(SMILES, "mean")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: service.post("/embedding", {"sequences": SMILES}).json()["embeddings"], range(40)))
        for rows in found:
            np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
        text = httpx.get(f"{service.url}/v1/metrics").text
        assert 'nemo_cmim_requests_total{path="/embedding",status="200"} 40.0' in text  # of both processes

        os.kill(children[0], signal.SIGKILL)
        limit = time.monotonic() + PATIENCE_S
        while len(now := children_of(service.process.pid)) < 2 or children[0] in now:
            assert time.monotonic() < limit
            time.sleep(0.02)
        assert httpx.get(f"{service.url}/v1/health/ready", timeout=PATIENCE_S).status_code == 503  # the new one is not warm yet
        service.wait()
        assert service.post("/embedding", {"sequences": SMILES}).status_code == 200
        assert service.end() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in now)


def children_of(pid: int) -> list[int]:
    """Processes of the service that a parent has started, without the tracker of multiprocessing."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


@pytest.mark.slow
def test_processes_end_with_their_parent(model_file: Path, tmp_path: Path) -> None:
    with Service(tmp_path, model_file, "--workers", "2") as service:
        children = children_of(service.wait().process.pid)
        service.end(signal.SIGKILL)
        limit = time.monotonic() + PATIENCE_S
        while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children):
            assert time.monotonic() < limit
            time.sleep(0.02)
    assert len(children) == 2


def command(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "nemo_cmim.cli", "serve", *options]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE_S, env={**os.environ, **variables})


def test_a_model_that_does_not_exist_ends_the_service() -> None:
    done = command("--model", "missing.nemo", "--port", "0")
    assert done.returncode == 2 and "There is no model 'missing.nemo'" in done.stderr and "Traceback" not in done.stderr


def test_a_port_in_use_is_an_error(service: Service) -> None:
    done = command("--port", str(service.port))
    assert done.returncode == 2 and f"127.0.0.1:{service.port}" in done.stderr and "Traceback" not in done.stderr
