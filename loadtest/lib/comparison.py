"""Measures proxies in short blocks, alternating, so that what the machine does meanwhile hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from . import tools
from .accounting import Memory, cpu_busy_ns, threads_ns, voluntary_switches
from .processes import Failure
from .proxies import Proxy
from .tools import LATENCIES, Load, Outcome
from .workloads import Workload

WARM_UP_SECONDS = 1

# Threads whose share is kept: workers, and what else has much to do.
THREADS_KEPT = 4


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long."""

    tool: str
    workload: Workload
    connections: int
    rate: int | None
    block_seconds: int
    # Blocks of each proxy.
    blocks: int
    gateway_cpu: int
    load_cpu: int

    def load(self, proxy: Proxy, seconds: int) -> Load:
        """This plan's load for one proxy."""
        cpus = (self.load_cpu,)
        return Load(proxy.port, self.workload, self.connections, seconds, cpus, self.rate, proxy.credentials)


@dataclass(frozen=True)
class Block:
    """One proxy under load for a while."""

    outcome: Outcome
    cpu_us_per_request: float
    # Shares of the gateway's CPU: what the proxy had of it, and what others took (or a hypervisor).
    proxy_share: float
    others_share: float
    memory: Memory
    switches_per_request: float
    # What the busiest threads had of the proxy's CPU time, the busiest first.
    thread_shares: list[float]


@dataclass(frozen=True)
class Ratio:
    """One proxy's CPU per request by another's, in neighbouring blocks."""

    of: str
    by: str
    per_block: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.per_block)


def measure(proxies: Sequence[Proxy], plan: Plan) -> dict[str, list[Block]]:
    """Blocks by the proxy's label. The order turns round each time: A B, B A, A B, …"""
    for proxy in proxies:
        run_clean(proxy, plan.tool, plan.load(proxy, WARM_UP_SECONDS))
    blocks: dict[str, list[Block]] = {proxy.label: [] for proxy in proxies}
    for turn in range(plan.blocks):
        for proxy in proxies if turn % 2 == 0 else list(reversed(proxies)):
            load = plan.load(proxy, plan.block_seconds)
            blocks[proxy.label].append(measure_block(proxy, plan.tool, load, plan.gateway_cpu))
    return blocks


def ratios(blocks: dict[str, list[Block]]) -> list[Ratio]:
    """The first proxy's CPU per request by each other's, turn by turn."""
    (first, first_blocks), *others = blocks.items()
    return [
        Ratio(first, name, [a.cpu_us_per_request / b.cpu_us_per_request for a, b in zip(first_blocks, its_blocks)])
        for name, its_blocks in others
    ]


def measure_block(proxy: Proxy, tool: str, load: Load, gateway_cpu: int) -> Block:
    """Puts one proxy under load once, and counts what it spends meanwhile."""
    pids = proxy.pids
    threads_before, switches = threads_ns(pids), voluntary_switches(pids)
    busy_before, started = cpu_busy_ns(gateway_cpu), time.monotonic_ns()
    outcome = run_clean(proxy, tool, load)
    threads = {thread: ns - threads_before.get(thread, 0) for thread, ns in threads_ns(proxy.pids).items()}
    cpu = sum(threads.values())
    busy = cpu_busy_ns(gateway_cpu) - busy_before
    wall = time.monotonic_ns() - started
    return Block(
        outcome=outcome,
        cpu_us_per_request=cpu / 1000 / outcome.requests,
        proxy_share=cpu / wall,
        others_share=max(0.0, (busy - cpu) / wall),
        memory=proxy.memory(),
        switches_per_request=(voluntary_switches(pids) - switches) / outcome.requests,
        thread_shares=[ns / cpu if cpu else 0.0 for ns in sorted(threads.values(), reverse=True)[:THREADS_KEPT]],
    )


def run_clean(proxy: Proxy, tool: str, load: Load) -> Outcome:
    """Runs a tool. A run with errors is no result."""
    outcome = tools.run(tool, load)
    proxy.require_alive()
    if outcome.errors:
        listed = ", ".join(f"{count} × {name}" for name, count in outcome.errors.items())
        raise Failure(f"{proxy.label}: errors under load: {listed}\n{proxy.service.log_tail()}")
    if outcome.requests == 0:
        raise Failure(f"{proxy.label}: no request was answered")
    return outcome


@dataclass(frozen=True)
class Summary:
    """One proxy's blocks taken together: medians, but for the maximum latency and the least CPU."""

    requests: int
    requests_per_second: float
    latency_us: dict[str, float]
    cpu_us_per_request: float
    cpu_us_per_request_min: float
    proxy_share: float
    others_share: float
    memory: Memory


def summary(blocks: Sequence[Block]) -> Summary:
    """Takes blocks together."""
    cpu = [block.cpu_us_per_request for block in blocks]
    return Summary(
        requests=sum(block.outcome.requests for block in blocks),
        requests_per_second=statistics.median(block.outcome.requests_per_second for block in blocks),
        latency_us=_latencies([block.outcome.latency_us for block in blocks]),
        cpu_us_per_request=statistics.median(cpu),
        cpu_us_per_request_min=min(cpu),
        proxy_share=statistics.median(block.proxy_share for block in blocks),
        others_share=statistics.median(block.others_share for block in blocks),
        memory=blocks[-1].memory,
    )


def _latencies(blocks: Sequence[dict[str, float]]) -> dict[str, float]:
    if not all(blocks):
        return {}
    medians = {name: statistics.median(block[name] for block in blocks) for name in LATENCIES}
    return medians | {"max": max(block["max"] for block in blocks)}
