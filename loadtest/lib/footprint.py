"""What a proxy costs before it does anything: its program's size, its start, and its memory at rest."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

from . import accounting
from .processes import START_SECONDS_MAX, Failure, Service, answers, free_port, session_pids
from .proxies import KINDS, Setup, configure
from .trial import FAILURES, Manner, start_upstream

Json = dict[str, Any]

STARTS = 7
WORKERS = 2
REST_SECONDS = 1.0
POLL_SECONDS = 0.0005


def measure(kinds: list[str], manner: Manner, starts: int = STARTS) -> Json:
    """Each proxy's footprint, with two workers."""
    directory = manner.directory / "footprint"
    directory.mkdir()
    upstream, port = start_upstream(manner.upstream, manner.load_cpu, directory)
    try:
        return {name: _measure(name, manner, directory, port, starts) for name in kinds}
    finally:
        upstream.stop()


def _measure(name: str, manner: Manner, directory: Path, upstream_port: int, starts: int) -> Json:
    binary = manner.binaries[name]
    result: Json = {"binary_bytes": os.path.getsize(binary), "workers": WORKERS}
    try:
        trials = [_start(name, manner, directory / f"{name}-{index}", upstream_port) for index in range(starts)]
    except FAILURES as failure:
        return result | {"failure": str(failure)}
    return result | {
        "start_ms": [start for start, _ in trials],
        "rss_kib": statistics.median(memory.rss_kib for _, memory in trials),
        "pss_kib": statistics.median(memory.pss_kib for _, memory in trials),
    }


def _start(name: str, manner: Manner, directory: Path, upstream_port: int) -> tuple[float, accounting.Memory]:
    """Milliseconds from the fork to the first answered request, and the memory a second later."""
    directory.mkdir()
    port, kind = free_port(), KINDS[name]
    place = manner.place(directory, upstream_port, WORKERS)
    # The floor has one thread, whatever it is told.
    command, _ = configure(kind, manner.binaries[name], Setup(workers=WORKERS), place, port, directory)
    started = time.monotonic()
    service = Service(name, command, place.cpus, directory / "log")
    try:
        while not answers(port):
            if service.process.poll() is not None or time.monotonic() - started > START_SECONDS_MAX:
                raise Failure(f"{name} does not start:\n{service.log_tail()}")
            time.sleep(POLL_SECONDS)
        taken_ms = (time.monotonic() - started) * 1000
        time.sleep(REST_SECONDS)
        return taken_ms, accounting.memory(session_pids(service.session))
    finally:
        service.stop()
