"""Throughput and latency of `nemo-cmim serve` with 1 to 64 clients, compared with calls of `embed` in a loop.

    python -m benchmarks.serving [--record]

Closed loop on loopback: each client sends its next request, one molecule to `/embedding`, when its answer has come. Every answer is
compared with `embed`. Then many requests are sent, while the memory of the service is read. Takes minutes to half an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import nemo_cmim
from benchmarks.molecules import sample_smiles
from benchmarks.report import record

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "service.png"
KIND = "informative"


class Load:
    """Clients that send molecules in turn and compare each answer."""

    def __init__(self, port: int, smiles: Sequence[str], expected_ND: np.ndarray) -> None:
        self.port, self.smiles, self.expected_ND = port, smiles, expected_ND
        self.next, self.wrong = 0, 0
        self.seconds: list[float] = []

    async def client(self, stop: float, most: int) -> None:
        """One client, until a time or until all clients together have sent `most` requests."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while time.perf_counter() < stop and self.next < most:
            number, self.next = self.next, self.next + 1
            row = number % len(self.smiles)
            body = json.dumps({"sequences": [self.smiles[row]], "kind": KIND}).encode()
            head = f"POST /embedding HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            start = time.perf_counter()
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            content = await reader.readexactly(length)
            self.seconds.append(time.perf_counter() - start)
            found = json.loads(content).get("embeddings", [[]])
            is_right = len(found[0]) == self.expected_ND.shape[1] and np.allclose(
                found, self.expected_ND[row], rtol=1e-3, atol=1e-4
            )
            self.wrong += not is_right
        writer.close()

    def run(self, clients: int, seconds: float, most: int = 10**9) -> tuple[float, float, float]:
        """Requests per second, and the median and the 99th percentile of the latency in milliseconds."""
        self.next, self.seconds = 0, []

        async def run() -> None:
            stop = time.perf_counter() + seconds
            await asyncio.gather(*(self.client(stop, most) for _ in range(clients)))

        start = time.perf_counter()
        asyncio.run(run())
        rate = len(self.seconds) / (time.perf_counter() - start)
        return rate, 1e3 * statistics.median(self.seconds), 1e3 * float(np.percentile(self.seconds, 99))


def loop_rate(model: nemo_cmim.CMIMModel, smiles: Sequence[str], seconds: float) -> float:
    """Calls of `embed` with one molecule per second."""
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        model.embed([smiles[calls % len(smiles)]], KIND)
        calls += 1
    return calls / (time.perf_counter() - start)


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def draw(rows: Sequence[tuple[int, float, float, float]], alone: float) -> None:
    """Draws throughput and latency over the number of clients."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    clients = [row[0] for row in rows]
    left.plot(clients, [row[1] for row in rows], "o-", label="service")
    left.axhline(alone, color="0.5", linestyle="--", label="embed in a loop")
    left.set(xscale="log", xlabel="clients", ylabel="requests per second", xticks=clients, xticklabels=clients, ylim=(0, None))
    right.plot(clients, [row[2] for row in rows], "o-", label="median")
    right.plot(clients, [row[3] for row in rows], "s--", label="99th percentile")
    right.set(xscale="log", xlabel="clients", ylabel="latency [ms]", xticks=clients, xticklabels=clients, ylim=(0, None))
    for axes in (left, right):
        axes.minorticks_off()
        axes.legend()
    figure.savefig(PICTURE, dpi=120)


def main() -> None:
    """Measures and prints; `--record` saves the result and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="seconds of each measurement (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=50_000, help="requests while memory is read (default: %(default)s)")
    parser.add_argument(
        "--record", action="store_true", help="write the result to benchmarks/RESULTS.md, and the picture to docs/images"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    name = nemo_cmim.list_models()[0]
    model = nemo_cmim.load(name, "cpu")
    smiles = sample_smiles(512)
    load = Load(0, smiles, model.embed(smiles, KIND))
    command = [sys.executable, "-m", "nemo_cmim.cli", "serve", "--device", "cpu", "--threads", "1", "--port", "0"]
    service = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        assert service.stdout is not None
        load.port = int(service.stdout.readline().decode().strip().removesuffix("/docs").rpartition(":")[2])
        while memory_mb(service.pid) and not is_ready(load.port):
            time.sleep(0.1)
        load.run(8, 2)
        before, rows = loop_rate(model, smiles, args.seconds), []
        for clients in CLIENTS:
            rows.append((clients, *load.run(clients, args.seconds)))
            print(rows[-1], flush=True)
        alone = (before + loop_rate(model, smiles, args.seconds)) / 2
        memory = [memory_mb(service.pid)]
        for _ in range(5):
            load.run(64, 600, args.requests // 5)
            memory.append(memory_mb(service.pid))
            print(memory, flush=True)
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()
    lines = [
        f"`{name}`, `{KIND}`, one molecule of MOSES in each request, one thread of torch, clients on the same computer. "
        f"Calls of `embed` in a loop: {alone:.0f} per second. Wrong answers: {load.wrong}.",
        "",
        "| clients | requests/s | relative to `embed` in a loop | median, ms | 99th percentile, ms |",
        "|---|---|---|---|---|",
        *(f"| {n} | {rate:.0f} | {rate / alone:.2f}x | {median:.0f} | {p99:.0f} |" for n, rate, median, p99 in rows),
        "",
        f"Memory of the service before and after each fifth of {args.requests:,} requests of 64 clients: "
        f"{', '.join(f'{each:.0f}' for each in memory)} MB.",
    ]
    print("\n".join(lines))
    if args.record:
        draw(rows, alone)
        record("HTTP service", "python -m benchmarks.serving --record", lines)


def is_ready(port: int) -> bool:
    """Whether the service answers that it is ready."""
    import httpx

    try:
        return httpx.get(f"http://127.0.0.1:{port}/v1/health/ready", timeout=30).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
