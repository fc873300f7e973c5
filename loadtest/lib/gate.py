"""Counts what one exchange costs ringgate, by figures that do not depend on how busy or fast the machine is:
user-space instructions and heap allocations by callgrind, and system calls and ring submissions by the kernel's
tracepoints.

A fixed script of exchanges is run with N and with 2 N rounds; the difference is free of start and stop. Gateway,
upstream and client share one CPU as batch tasks, which do not preempt each other: each runs until it has nothing left
to do, so that every round's requests meet the gateway together, and batches are the same in every run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import callgrind, proxies, syscalls, workloads
from .build import REPOSITORY
from .processes import Failure, Service, answers, free_port, session_pids
from .proxies import KINDS, Place, Setup
from .workloads import Workload

Json = dict[str, Any]

BASELINE = REPOSITORY / "loadtest" / "baseline.json"

CONNECTIONS = 16
ROUNDS = 250
# The same for system calls, which cost less to count and of which a few are a matter of when a thread wakes up.
COUNT_ROUNDS = 2000
EXCHANGES = ("small", "post-4k", "headers-50")

# How far a figure may be above its baseline, relatively; and beyond that absolutely, where a baseline may be 0: a few
# allocations in thousands of exchanges are those of threads that look at the clock.
TOLERANCE = 0.03
SLACK = {"allocations_per_request": 0.01}

CALLGRIND_FIGURES = ("instructions_per_request", "allocations_per_request")

# Starting alone allocates more than this. With less the allocator has names that lib/callgrind.py does not know.
ALLOCATIONS_MIN = 500

# How often an exchange is measured before it is found worse. What disturbs only adds, by breaking up batches: the least
# figure is the right one.
ATTEMPTS = 4

TIMEOUT_SECONDS = 60
DESCRIPTORS = 1024


@dataclass(frozen=True)
class Programs:
    """What is run, and on which CPU."""

    gateway: str
    upstream: str
    cpu: int
    directory: Path


def recorded() -> Json:
    """What the baseline says of the plainest exchange; empty when there is none."""
    if not BASELINE.exists():
        return {}
    baseline: Json = json.loads(BASELINE.read_text())["exchanges"].get(EXCHANGES[0], {})
    return baseline


def be_batch(cpu: int) -> None:
    """Makes this process, and those that it starts, batch tasks on one CPU."""
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def measure(programs: Programs, baseline: Json) -> Json:
    """Every figure that can be had here, per request, by the exchange's name. What is worse than the baseline is measured
    again, as long as that may help."""
    if not shutil.which("valgrind"):
        raise Failure("valgrind is not installed; loadtest/setup does that")
    return {name: _least(programs, name, baseline) for name in EXCHANGES}


def _least(programs: Programs, name: str, baseline: Json) -> Json:
    tolerance = baseline.get("tolerance", TOLERANCE)
    figures = _measure(programs, workloads.ALL[name])
    for _ in range(1, ATTEMPTS):
        worse = [it.figure for it in differences({name: figures}, baseline) if it.is_worse(tolerance)]
        if not worse:
            break
        again = _measure(programs, workloads.ALL[name], only_counts=set(worse).isdisjoint(CALLGRIND_FIGURES))
        figures |= {figure: min(figures[figure], value) for figure, value in again.items()}
    return figures


def _measure(programs: Programs, workload: Workload, only_counts: bool = False) -> Json:
    figures: Json = {}
    if not only_counts:
        fewer, more = (_under_callgrind(programs, workload, count) for count in (ROUNDS, 2 * ROUNDS))
        requests = ROUNDS * CONNECTIONS
        values = more.instructions - fewer.instructions, more.allocations - fewer.allocations
        figures |= dict(zip(CALLGRIND_FIGURES, (round(values[0] / requests, 1), round(values[1] / requests, 3))))
    if syscalls.counter() == "perf":
        counts = [_counts(programs, workload, count) for count in (COUNT_ROUNDS, 2 * COUNT_ROUNDS)]
        for name in counts[0]:
            difference = counts[1][name] - counts[0][name]
            figures[f"{name}_per_request"] = round(difference / (COUNT_ROUNDS * CONNECTIONS), 3)
    return figures


def _under_callgrind(programs: Programs, workload: Workload, rounds: int) -> callgrind.Totals:
    output = programs.directory / "callgrind.out"
    output.unlink(missing_ok=True)
    # Its usual lock starves one of two threads on a shared CPU.
    wrapper = ["valgrind", "--quiet", "--fair-sched=yes", "--tool=callgrind", f"--callgrind-out-file={output}"]
    with gateway(programs, wrapper) as (port, _):
        exchange(port, workload, rounds)
    found = callgrind.totals(output.read_text() if output.exists() else "")
    if not found:
        raise Failure("callgrind has written no totals")
    if found.allocations < ALLOCATIONS_MIN:
        raise Failure("callgrind sees no allocations: has the program no symbols, or another allocator?")
    return found


def _counts(programs: Programs, workload: Workload, rounds: int) -> dict[str, int]:
    with gateway(programs, []) as (port, service):
        pids = session_pids(service.session)
        return syscalls.events(pids, (programs.cpu,), lambda: exchange(port, workload, rounds))


@contextmanager
def gateway(programs: Programs, wrapper: list[str]) -> Iterator[tuple[int, Service]]:
    """The gateway before a fresh upstream, until the block ends."""
    cpus = (programs.cpu,)
    log = programs.directory / "upstream.log"
    upstream = Service("upstream", [programs.upstream], cpus, log)
    gateway = None
    try:
        upstream.wait_for(lambda: log.read_text().startswith("listening ") and log.read_text().endswith("\n"))
        place = Place(cpus, int(log.read_text().split(":")[-1]), programs.directory, DESCRIPTORS)
        port = free_port()
        command, _ = proxies.configure(KINDS["ringgate"], programs.gateway, Setup(), place, port, programs.directory)
        gateway = Service("ringgate", [*wrapper, *command], cpus, programs.directory / "gateway.log")
        gateway.wait_for(lambda: answers(port))
        yield port, gateway
    finally:
        if gateway:
            gateway.stop()
        upstream.stop()


def exchange(port: int, workload: Workload, rounds: int) -> None:
    """Sends a request on every connection and then reads every response, and that again."""
    connections = [socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) for _ in range(CONNECTIONS)]
    request = _request(workload)
    try:
        for connection in connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds):
            for connection in connections:
                connection.sendall(request)
            for connection in connections:
                _read_response(connection)
    except OSError as error:
        raise Failure(f"{workload.name}: {error}") from error
    finally:
        for connection in connections:
            connection.close()


def _request(workload: Workload) -> bytes:
    lines = [f"{workload.method} {workload.path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in workload.fields]
    lines += [f"Content-Length: {workload.body_bytes}"] if workload.body_bytes else []
    return "\r\n".join([*lines, "", ""]).encode() + workload.body


def _read_response(connection: socket.socket) -> None:
    text = b""
    while True:
        head, end, body = text.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if end and length and len(body) >= int(length[1]):
            break
        piece = connection.recv(65536)
        if not piece:
            raise Failure("the gateway closed a connection")
        text += piece
    if not text.startswith(b"HTTP/1.1 200"):
        raise Failure(f"the gateway answered {text[:64]!r}")


@dataclass(frozen=True)
class Difference:
    """One figure beside its baseline."""

    exchange: str
    figure: str
    value: float
    baseline: float | None

    @property
    def change(self) -> float | None:
        """Relative to the baseline."""
        return self.value / self.baseline - 1 if self.baseline else None

    def is_worse(self, tolerance: float) -> bool:
        """Whether it is beyond what the baseline allows. Without one nothing is."""
        if self.baseline is None:
            return False
        return self.value > self.baseline * (1 + tolerance) + SLACK.get(self.figure, 0.0)

    def is_better(self, tolerance: float) -> bool:
        """Whether the baseline allows more than is needed."""
        if self.baseline is None:
            return False
        return self.value < self.baseline * (1 - tolerance) - SLACK.get(self.figure, 0.0)


def differences(measured: Json, baseline: Json) -> list[Difference]:
    """Every figure that was measured."""
    return [
        Difference(exchange, figure, value, baseline.get("exchanges", {}).get(exchange, {}).get(figure))
        for exchange, figures in measured.items()
        for figure, value in figures.items()
    ]


def load() -> Json:
    """The baseline, empty when there is none."""
    baseline: Json = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    return baseline


def bless(measured: Json) -> None:
    """Makes these figures the baseline. A tolerance that was set by hand stays."""
    baseline = {
        "about": "What loadtest/gate allows; loadtest/gate --bless rewrites it.",
        "script": f"{CONNECTIONS} connections, {ROUNDS} and {2 * ROUNDS} rounds",
        "compiler": _compiler(),
        "tolerance": load().get("tolerance", TOLERANCE),
        "exchanges": measured,
    }
    BASELINE.write_text(json.dumps(baseline, indent=2) + "\n")


def _compiler() -> str:
    try:
        result = subprocess.run(["rustc", "--version"], capture_output=True, text=True, cwd=REPOSITORY, timeout=20)
    except OSError:
        return "unknown"
    return result.stdout.strip()
