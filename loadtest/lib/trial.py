"""Runs a scenario of loadtest/compare: starts its contestants, checks them, measures them in alternating blocks, and
returns everything as it goes into results.json. A contestant that fails is left out, and the failure is kept."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import checks, comparison, http2, syscalls, tls
from .comparison import Block
from .idle import Idle
from .processes import Failure, Service
from .proxies import KINDS, Place, Proxy
from .scenarios import LATENCY_REFERENCE, Contestant, Scenario
from .tools import Load
from .workloads import ALL as WORKLOADS

Json = dict[str, Any]

# How long idle connections are left alone before memory is looked at.
SETTLE_SECONDS = 3.0

# What one contestant's failure may be. The run goes on without it.
FAILURES = (Failure, OSError, subprocess.SubprocessError)

# What an open loop may ask of its load tool, of what that can send: beyond, it is the tool that is late.
TOOL_SHARE_MAX = 0.85


@dataclass(frozen=True)
class Manner:
    """How long, where and with what everything is measured."""

    blocks: int
    block_seconds: int
    warm_up_seconds: int
    gateway_cpu: int
    load_cpu: int
    descriptors: int
    directory: Path
    # Programs by the kind's name, and the upstream's.
    binaries: dict[str, str]
    upstream: str
    # What counts system calls, if anything does.
    syscall_counter: str | None

    def place(self, directory: Path, upstream_port: int, workers: int) -> Place:
        """Where a proxy with so many workers runs."""
        cpus = (self.gateway_cpu, self.load_cpu)[:workers]
        return Place(cpus, upstream_port, directory, self.descriptors)

    def load_cpus(self, scenario: Scenario) -> tuple[int, ...]:
        """Where the load tool runs."""
        return (self.gateway_cpu, self.load_cpu) if scenario.shares_cpus else (self.load_cpu,)

    def blocks_of(self, scenario: Scenario) -> int:
        """Blocks of each contestant that is not brief: an even number, which gives each place in the order equally often."""
        blocks = max(2, self.blocks // 2) if scenario.is_minor else self.blocks
        return blocks + blocks % 2

    def seconds_of(self, scenario: Scenario) -> int:
        """The length of a block."""
        return max(self.block_seconds, scenario.block_seconds_min)


class Running:
    """A contestant's proxy, its idle connections and what has been measured of it."""

    def __init__(self, contestant: Contestant, manner: Manner, directory: Path, upstream_port: int) -> None:
        self.contestant = contestant
        kind = KINDS[contestant.kind]
        place = manner.place(directory, upstream_port, contestant.setup.workers)
        self.proxy = Proxy(contestant.label, kind, manner.binaries[kind.name], place, contestant.setup)
        self.blocks: list[Block] = []
        self.at_rest = self.proxy.memory()
        self.idle: Idle | None = None
        self.idle_pss_bytes: float | None = None
        self.syscalls: Json | None = None
        self.failure: str | None = None
        self.is_done = False

    def stop(self) -> None:
        """Ends its processes, so that they do not disturb the others."""
        self.is_done = True
        try:
            if self.idle:
                self.idle.end()
        except FAILURES as failure:
            self.failure = self.failure or str(failure)
        self.idle = None
        self.proxy.service.stop()

    def as_json(self) -> Json:
        """For results.json. Blocks before a failure count for nothing."""
        blocks = [asdict(block) for block in self.blocks]
        return {
            "kind": self.contestant.kind,
            "workers": self.contestant.setup.workers,
            "payload_bytes": self.contestant.workload.payload_bytes,
            "counts_handshakes": self.contestant.workload.counts_handshakes,
            # Checked before it was put under load.
            "tls": asdict(tls.WANTED) if self.proxy.credentials else None,
            "memory_at_rest": asdict(self.at_rest),
            "idle_connections": self.contestant.idle,
            "pss_bytes_per_idle_connection": self.idle_pss_bytes,
            "syscalls": self.syscalls,
            "failure": self.failure,
            "blocks": [] if self.failure else blocks,
            "blocks_before_failure": blocks if self.failure else [],
        }


def run(scenario: Scenario, manner: Manner) -> Json:
    """Measures one scenario, with an upstream of its own."""
    directory = manner.directory / scenario.name
    directory.mkdir()
    failures: dict[str, str] = {}
    if scenario.contestants[0].setup.http2_upstream:
        upstream, upstream_port = http2.start_upstream(manner.load_cpu, directory)
    else:
        upstream, upstream_port = start_upstream(manner.upstream, manner.load_cpu, directory)
    running: list[Running] = []
    try:
        running += _start(scenario, manner, directory, upstream_port, failures)
        _each(running, lambda it: _hold_idle(it, manner))
        rate = _rate(scenario, manner, running) if scenario.capacity_percent else None
        seconds = manner.seconds_of(scenario)
        _each(running, lambda it: _measure(it, scenario, manner, manner.warm_up_seconds, rate, keep=False))
        for turn in range(manner.blocks_of(scenario)):
            order = running if turn % 2 == 0 else running[::-1]
            _each(order, lambda it: _measure(it, scenario, manner, seconds, rate, keep=True))
            for it in running:
                if it.contestant.is_brief or it.failure:
                    it.stop()
        if manner.syscall_counter:
            how = manner.syscall_counter
            _each(running, lambda it: _count_syscalls(it, scenario, manner, how, rate))
    finally:
        for it in reversed(running):
            it.stop()
        upstream.stop()
        # The routes' configurations are large, and logs may be.
        shutil.rmtree(directory, ignore_errors=True)
    return _as_json(scenario, manner, running, failures, rate)


def _start(
    scenario: Scenario, manner: Manner, directory: Path, upstream_port: int, failures: dict[str, str]
) -> Iterable[Running]:
    for contestant in scenario.contestants:
        try:
            it = Running(contestant, manner, directory, upstream_port)
            try:
                checks.check(it.proxy, contestant.workload, upstream_port)
            except FAILURES:
                it.proxy.service.stop()
                raise
            yield it
        except FAILURES as failure:
            failures[contestant.label] = str(failure)
            _say(f"{scenario.name}: {contestant.label}: {_brief(failure)}")


def _each(running: Iterable[Running], step: Callable[[Running], None]) -> None:
    """Takes a step with all that have not failed."""
    for it in running:
        if it.failure or it.is_done:
            continue
        try:
            step(it)
        except FAILURES as failure:
            it.failure = str(failure)
            _say(_brief(failure))


def _hold_idle(it: Running, manner: Manner) -> None:
    if not it.contestant.idle:
        return
    before = it.proxy.memory()
    it.idle = Idle(it.proxy.port, it.contestant.idle, (manner.load_cpu,))
    time.sleep(SETTLE_SECONDS)
    it.idle_pss_bytes = (it.proxy.memory().pss_kib - before.pss_kib) * 1024 / it.contestant.idle


def _load(it: Running, scenario: Scenario, manner: Manner, seconds: int, rate: Rate | None) -> Load:
    cpus = manner.load_cpus(scenario)
    per_second = rate.per_second if rate else None
    workload, credentials = it.contestant.workload, it.proxy.credentials
    return Load(it.proxy.port, workload, scenario.connections, seconds, cpus, per_second, credentials)


def _measure(it: Running, scenario: Scenario, manner: Manner, seconds: int, rate: Rate | None, keep: bool) -> None:
    load = _load(it, scenario, manner, seconds, rate)
    block = comparison.measure_block(it.proxy, scenario.tool, load, manner.gateway_cpu)
    if keep:
        it.blocks.append(block)


def _count_syscalls(it: Running, scenario: Scenario, manner: Manner, how: str, rate: Rate | None) -> None:
    """Counts in a block of its own. That this fails costs a contestant that figure, and nothing else."""
    requests = 0

    def load() -> None:
        nonlocal requests
        requests = comparison.run_clean(it.proxy, scenario.tool, _load(it, scenario, manner, 1, rate)).requests

    try:
        counted = syscalls.count(how, it.proxy.pids, (manner.load_cpu,), load)
    except FAILURES as failure:
        _say(f"{scenario.name}: {it.contestant.label}: system calls were not counted: {_brief(failure)}")
        return
    if counted.all == 0:
        _say(f"{scenario.name}: {it.contestant.label}: {how} has counted no system call")
        return
    it.syscalls = {
        "how": how,
        "per_request": counted.all / requests,
        "io_uring_enter_per_request": counted.io_uring_enter / requests,
    }


@dataclass(frozen=True)
class Rate:
    """Of an open loop."""

    per_second: int
    # What the reference does in a closed loop, and what the tool can.
    capacity: int
    possible: int
    reference: str


def _rate(scenario: Scenario, manner: Manner, running: list[Running]) -> Rate:
    """A share of what the reference does in a closed loop, as far as the tool can send."""
    assert scenario.capacity_percent
    if not running:
        raise Failure(f"{scenario.name}: nothing runs")
    reference = next((it for it in running if it.contestant.kind == LATENCY_REFERENCE), running[0])
    seconds = max(2, manner.block_seconds)

    def closed(tool: str) -> float:
        load = Load(reference.proxy.port, WORKLOADS["small"], scenario.connections, seconds, (manner.load_cpu,))
        return statistics.median(
            comparison.run_clean(reference.proxy, tool, load).requests_per_second for _ in range(2)
        )

    capacity, possible = closed("wrk"), closed(scenario.tool) * TOOL_SHARE_MAX
    wanted = capacity * scenario.capacity_percent / 100
    if wanted > possible:
        _say(f"{scenario.name}: {wanted:,.0f}/s are more than {scenario.tool} can send on its CPU; {possible:,.0f}/s")
    return Rate(int(min(wanted, possible)), int(capacity), int(possible), reference.contestant.kind)


def _as_json(
    scenario: Scenario, manner: Manner, running: list[Running], failures: dict[str, str], rate: Rate | None
) -> Json:
    first, again = scenario.contestants[0], scenario.contestants[-1]
    contestants = {label: {"kind": "", "failure": text, "blocks": []} for label, text in failures.items()}
    contestants |= {it.contestant.label: it.as_json() for it in running}
    return {
        "name": scenario.name,
        "group": scenario.group,
        "about": scenario.about,
        "note": scenario.note,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tool": scenario.tool,
        "connections": scenario.connections,
        "rate": rate.per_second if rate else None,
        "capacity": asdict(rate) if rate else None,
        "blocks": manner.blocks_of(scenario),
        "block_seconds": manner.seconds_of(scenario),
        "shares_cpus": scenario.shares_cpus,
        "metrics": list(scenario.metrics),
        "pairs": [list(pair) for pair in scenario.pairs()],
        "noise_pair": [first.label, again.label],
        # In the order that they are listed in.
        "contestants": {it.label: contestants[it.label] for it in scenario.contestants if it.label in contestants},
    }


def start_upstream(binary: str, cpu: int, directory: Path) -> tuple[Service, int]:
    """Starts the bundled upstream; returns it and the port that it took."""
    log = directory / "upstream.log"
    service = Service("upstream", [binary, "--cpu", str(cpu)], (cpu,), log)
    service.wait_for(lambda: log.read_text().startswith("listening ") and log.read_text().endswith("\n"))
    return service, int(log.read_text().splitlines()[0].rpartition(":")[2])


def _brief(failure: Failure) -> str:
    """Without most of what the program had logged."""
    return "\n".join(str(failure).splitlines()[:3])


def _say(text: str) -> None:
    print(f"loadtest/compare: {text}", file=sys.stderr, flush=True)
