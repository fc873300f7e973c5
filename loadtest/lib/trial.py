"""Runs a scenario of loadtest/compare: starts its contestants, checks them, measures them in alternating blocks, and
returns everything as it goes into results.json. A contestant that fails is left out, and the failure is kept."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import checks, comparison, syscalls
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
    upstream_port: int
    descriptors: int
    directory: Path
    # Programs by the kind's name.
    binaries: dict[str, str]
    # What counts system calls, if anything does.
    syscall_counter: str | None

    def place(self, directory: Path, workers: int) -> Place:
        """Where a proxy with so many workers runs."""
        cpus = (self.gateway_cpu, self.load_cpu)[:workers]
        return Place(cpus, self.upstream_port, directory, self.descriptors)

    def load_cpus(self, scenario: Scenario) -> tuple[int, ...]:
        """Where the load tool runs."""
        return (self.gateway_cpu, self.load_cpu) if scenario.shares_cpus else (self.load_cpu,)


class Running:
    """A contestant's proxy, its idle connections and what has been measured of it."""

    def __init__(self, contestant: Contestant, manner: Manner, directory: Path) -> None:
        self.contestant = contestant
        kind = KINDS[contestant.kind]
        place = manner.place(directory, contestant.setup.workers)
        self.proxy = Proxy(contestant.label, kind, manner.binaries[kind.name], place, contestant.setup)
        self.blocks: list[Block] = []
        self.at_rest = self.proxy.memory()
        self.idle: Idle | None = None
        self.idle_pss_bytes: float | None = None
        self.syscalls: Json | None = None
        self.failure: str | None = None

    def stop(self) -> None:
        """Ends its processes."""
        try:
            if self.idle:
                self.idle.end()
        except Failure as failure:
            self.failure = self.failure or str(failure)
        self.proxy.service.stop()

    def as_json(self) -> Json:
        """For results.json."""
        return {
            "kind": self.contestant.kind,
            "workers": self.contestant.setup.workers,
            "payload_bytes": self.contestant.workload.payload_bytes,
            "memory_at_rest": asdict(self.at_rest),
            "idle_connections": self.contestant.idle,
            "pss_bytes_per_idle_connection": self.idle_pss_bytes,
            "syscalls": self.syscalls,
            "failure": self.failure,
            "blocks": [asdict(block) for block in self.blocks],
        }


def run(scenario: Scenario, manner: Manner) -> Json:
    """Measures one scenario."""
    directory = manner.directory / scenario.name
    directory.mkdir()
    failures: dict[str, str] = {}
    running = list(_start(scenario, manner, directory, failures))
    try:
        _each(running, lambda it: _hold_idle(it, manner))
        rate = _rate(scenario, manner, running) if scenario.capacity_percent else None
        block_seconds = max(manner.block_seconds, scenario.block_seconds_min)
        _each(running, lambda it: _measure(it, scenario, manner, manner.warm_up_seconds, rate, keep=False))
        for turn in range(manner.blocks):
            order = running if turn % 2 == 0 else running[::-1]
            _each(order, lambda it: _measure(it, scenario, manner, block_seconds, rate, keep=True))
        if manner.syscall_counter:
            how = manner.syscall_counter
            _each(running, lambda it: _count_syscalls(it, scenario, manner, how, rate))
    finally:
        for it in reversed(running):
            it.stop()
    return _as_json(scenario, running, failures, block_seconds, rate)


def _start(scenario: Scenario, manner: Manner, directory: Path, failures: dict[str, str]) -> Iterable[Running]:
    for contestant in scenario.contestants:
        try:
            it = Running(contestant, manner, directory)
            try:
                checks.check(it.proxy, contestant.workload, manner.upstream_port)
            except Failure:
                it.proxy.service.stop()
                raise
            yield it
        except Failure as failure:
            failures[contestant.label] = str(failure)
            _say(f"{scenario.name}: {_brief(failure)}")


def _each(running: Iterable[Running], step: Callable[[Running], None]) -> None:
    """Takes a step with all that have not failed."""
    for it in running:
        if it.failure:
            continue
        try:
            step(it)
        except Failure as failure:
            it.failure = str(failure)
            _say(_brief(failure))


def _hold_idle(it: Running, manner: Manner) -> None:
    if not it.contestant.idle:
        return
    before = it.proxy.memory()
    it.idle = Idle(it.proxy.port, it.contestant.idle, (manner.load_cpu,))
    time.sleep(SETTLE_SECONDS)
    it.idle_pss_bytes = (it.proxy.memory().pss_kib - before.pss_kib) * 1024 / it.contestant.idle


def _load(it: Running, scenario: Scenario, manner: Manner, seconds: int, rate: int | None) -> Load:
    cpus = manner.load_cpus(scenario)
    return Load(it.proxy.port, it.contestant.workload, scenario.connections, seconds, cpus, rate)


def _measure(it: Running, scenario: Scenario, manner: Manner, seconds: int, rate: int | None, keep: bool) -> None:
    load = _load(it, scenario, manner, seconds, rate)
    block = comparison.measure_block(it.proxy, scenario.tool, load, manner.gateway_cpu)
    if keep:
        it.blocks.append(block)


def _count_syscalls(it: Running, scenario: Scenario, manner: Manner, how: str, rate: int | None) -> None:
    requests = 0

    def load() -> None:
        nonlocal requests
        requests = comparison.run_clean(it.proxy, scenario.tool, _load(it, scenario, manner, 1, rate)).requests

    counted = syscalls.count(how, it.proxy.pids, (manner.load_cpu,), load)
    it.syscalls = {
        "how": how,
        "per_request": counted.all / requests,
        "io_uring_enter_per_request": counted.io_uring_enter / requests,
    }


def _rate(scenario: Scenario, manner: Manner, running: list[Running]) -> int:
    """Requests/s of an open loop: a share of what the reference does in a closed one, as far as the tool can send."""
    assert scenario.capacity_percent
    reference = next((it for it in running if it.contestant.kind == LATENCY_REFERENCE), running[0])
    seconds = max(2, manner.block_seconds)

    def closed(tool: str) -> float:
        load = Load(reference.proxy.port, WORKLOADS["small"], scenario.connections, seconds, (manner.load_cpu,))
        return statistics.median(
            comparison.run_clean(reference.proxy, tool, load).requests_per_second for _ in range(2)
        )

    wanted = closed("wrk") * scenario.capacity_percent / 100
    possible = closed(scenario.tool) * TOOL_SHARE_MAX
    if wanted > possible:
        _say(f"{scenario.name}: {wanted:,.0f}/s are more than {scenario.tool} can send on its CPU; {possible:,.0f}/s")
    return int(min(wanted, possible))


def _as_json(
    scenario: Scenario, running: list[Running], failures: dict[str, str], block_seconds: int, rate: int | None
) -> Json:
    first, again = scenario.contestants[0], scenario.contestants[-1]
    contestants = {label: {"kind": "", "failure": text, "blocks": []} for label, text in failures.items()}
    contestants |= {it.contestant.label: it.as_json() for it in running}
    return {
        "name": scenario.name,
        "group": scenario.group,
        "about": scenario.about,
        "note": scenario.note,
        "tool": scenario.tool,
        "connections": scenario.connections,
        "rate": rate,
        "block_seconds": block_seconds,
        "shares_cpus": scenario.shares_cpus,
        "metrics": list(scenario.metrics),
        "pairs": [list(pair) for pair in scenario.pairs()],
        "noise_pair": [first.label, again.label],
        # In the order that they are listed in.
        "contestants": {it.label: contestants[it.label] for it in scenario.contestants if it.label in contestants},
    }


def start_upstream(binary: str, cpu: int, directory: Path) -> int:
    """Starts the bundled upstream and returns the port that it took."""
    log = directory / "upstream.log"
    service = Service("upstream", [binary, "--cpu", str(cpu)], (cpu,), log)
    service.wait_for(lambda: log.read_text().startswith("listening ") and log.read_text().endswith("\n"))
    return int(log.read_text().splitlines()[0].rpartition(":")[2])


def _brief(failure: Failure) -> str:
    """Without most of what the program had logged."""
    return "\n".join(str(failure).splitlines()[:3])


def _say(text: str) -> None:
    print(f"loadtest/compare: {text}", file=sys.stderr, flush=True)
