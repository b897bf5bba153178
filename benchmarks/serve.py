"""`nlora serve` beside `transformers serve` on the same model: latency, throughput, CPU seconds.

    python benchmarks/serve.py --model smollm2-135m --requests 64 --concurrency 1,8 --tokens 32

A model directory with one small stage is made and exported as a plain model, so both servers have
the same weights. Each is a process of its own; the same prompts are sent to POST /v1/completions,
greedily, by so many clients at once. A row per server and number of clients: seconds, requests and
new tokens per second, the median and 95th percentile of what a client waited, CPU seconds and
memory of the server, how long it took to start, and the share of texts that are those of the first
server. `nlora` also answers POST /predict. `transformers serve` needs the package openai: pip
install 'transformers[serving]'.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import psutil

import nlora

TEXT = "the order was late and the invoice shows a price that nobody in our team has seen"
WORDS = re.split(" ", TEXT)
PATIENCE = 600
"""Seconds that a server may take to start, and an answer to come."""


def prompts(count: int) -> list[str]:
    """Prompts of 10 to 50 words, all different."""
    return [
        f"Ticket {i}: " + " ".join(WORDS[(i + j) % len(WORDS)] for j in range(10 + 7 * i % 41))
        for i in range(count)
    ]


def make(model: str, folder: Path) -> tuple[Path, Path]:
    """A model directory and the plain model that it is exported as, both in fp32."""
    directory, plain = folder / "mine", folder / "plain"
    if not directory.exists():
        rows = [("i was charged twice", "billing"), ("it does not start", "technical")] * 4
        task = nlora.Task("tickets", train=rows, test=rows[:2], labels="auto")
        settings = {"precision": "fp32", "rank": 4}
        nlora.run([task], model=model, method="inc-lora", out=directory, settings=settings)
    if not plain.exists():
        nlora.load(directory).export(plain, dtype="float32")
    return directory, plain


def servers(directory: Path, plain: Path, names: list[str]) -> Iterator[tuple[str, list[str], str]]:
    """Of each server its name, its command (without the port), and what it calls the model."""
    transformers = [str(Path(sys.executable).with_name("transformers")), "serve", str(plain)]
    more = ["--dtype", "float32", "--device", "cpu"]
    known = {
        "nlora": ([sys.executable, "-m", "nlora", "serve", str(directory)], "mine"),
        "transformers": ([*transformers, *more], str(plain)),
        "transformers-cb": ([*transformers, *more, "--continuous-batching"], str(plain)),
    }
    for name in names:
        yield name, *known[name]


@contextmanager
def running(command: list[str], log: Path) -> Iterator[tuple[psutil.Process, str, float]]:
    """A server that answers, its address, and how long it took to start; ended afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=out, stderr=subprocess.STDOUT
        )
    at, started = f"http://127.0.0.1:{port}", time.monotonic()
    try:
        while True:
            try:
                if httpx2.get(f"{at}/health").status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            if process.poll() is not None or time.monotonic() - started > PATIENCE:
                raise SystemExit(f"{command[:3]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield psutil.Process(process.pid), at, time.monotonic() - started
    finally:
        process.terminate()
        process.wait(PATIENCE)


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and its children, so far."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in family)


async def asked(
    at: str, path: str, bodies: list[dict[str, Any]], clients: int
) -> tuple[list[float], list[dict[str, Any]]]:
    """Seconds that each request took, and what came back, with so many of them at once."""
    places = asyncio.Semaphore(clients)
    async with httpx2.AsyncClient(base_url=at, timeout=PATIENCE) as client:

        async def one(body: dict[str, Any]) -> tuple[float, dict[str, Any]]:
            async with places:
                started = time.perf_counter()
                found = await client.post(path, json=body)
                found.raise_for_status()
                return time.perf_counter() - started, found.json()

        pairs = await asyncio.gather(*map(one, bodies))
    return [seconds for seconds, _ in pairs], [found for _, found in pairs]


def measure(
    process: psutil.Process, at: str, path: str, bodies: list[dict[str, Any]], clients: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A row, and what came back."""
    before, started = cpu_seconds(process), time.perf_counter()
    waited, found = asyncio.run(asked(at, path, bodies, clients))
    seconds = time.perf_counter() - started
    row = {
        "path": path,
        "clients": clients,
        "requests": len(bodies),
        "seconds": round(seconds, 3),
        "requests_per_second": round(len(bodies) / seconds, 3),
        "median_seconds": round(median(waited), 4),
        "p95_seconds": round(quantiles(waited, n=20)[-1], 4) if len(waited) > 1 else None,
        "cpu_seconds": round(cpu_seconds(process) - before, 2),
    }
    return row, found


def main() -> None:
    """Measure, and print a JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--concurrency", default="1,8")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--servers", default="nlora,transformers,transformers-cb")
    parser.add_argument("--work", type=Path, help="a folder for models and logs, to keep them")
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        directory, plain = make(given.model, work)
        texts, first = prompts(given.requests), None
        for name, command, called in servers(directory, plain, given.servers.split(",")):
            with running(command, work / f"{name}.log") as (process, at, start):
                bodies: list[dict[str, Any]] = [
                    {"model": called, "prompt": text, "max_tokens": given.tokens, "temperature": 0}
                    for text in texts
                ]
                asyncio.run(asked(at, "/v1/completions", bodies[:1], 1))  # the first one is slow
                for clients in map(int, given.concurrency.split(",")):
                    row, found = measure(process, at, "/v1/completions", bodies, clients)
                    said = [one["choices"][0]["text"] for one in found]
                    first = first or said
                    new = sum(one["usage"]["completion_tokens"] for one in found)
                    row["start_seconds"] = round(start, 1)
                    row["memory_mb"] = process.memory_info().rss // 1_000_000
                    row["new_tokens"] = new
                    row["new_tokens_per_second"] = round(new / row["seconds"], 1)
                    row["as_the_first"] = sum(map(str.__eq__, said, first)) / len(said)
                    _print(given, name, row)
                    if name == "nlora":
                        labels = [{"text": text, "task": "tickets"} for text in texts]
                        _print(given, name, measure(process, at, "/predict", labels, clients)[0])


def _print(given: argparse.Namespace, server: str, row: dict[str, Any]) -> None:
    what = {"server": server, "model": given.model, "threads": os.environ.get("OMP_NUM_THREADS")}
    print(json.dumps({**what, **row}), flush=True)


if __name__ == "__main__":
    main()
