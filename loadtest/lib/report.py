"""Figures as an operator reads them, and as a program does."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .comparison import Block, Plan, Ratio, Summary
from .proxies import Proxy
from .tools import LATENCIES

# Beyond this share of the gateway's CPU, what others took there has disturbed the measurement.
DISTURBED_SHARE = 0.05

# Below this share of its CPU a proxy was not the bottleneck, and requests/s are not what it can do.
SATURATED_SHARE = 0.9

HEADINGS = ("", "requests/s", *LATENCIES, "CPU µs/request", "least", "CPU", "RSS MiB")


def text(plan: Plan, summaries: dict[str, Summary], ratios: Sequence[Ratio]) -> str:
    """The whole report."""
    lines = [_heading(plan), "", *_table([HEADINGS, *(_row(name, it) for name, it in summaries.items())])]
    if ratios:
        lines += ["", "CPU per request, block by block:"]
        lines += [f"  {_ratio(ratio)}" for ratio in ratios]
    notes = [note for name, it in summaries.items() for note in _notes(name, it, plan)]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def as_json(plan: Plan, proxies: Sequence[Proxy], blocks: dict[str, list[Block]], ratios: Sequence[Ratio]) -> Any:
    """Everything that was measured, and what it was measured on."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(),
        "cpu": cpu_model(),
        "plan": asdict(plan),
        "proxies": {
            proxy.label: {
                "version": proxy.version,
                "configuration": proxy.configuration,
                "blocks": [asdict(block) for block in blocks[proxy.label]],
            }
            for proxy in proxies
        },
        "cpu_per_request_ratios": [asdict(ratio) for ratio in ratios],
    }


def _heading(plan: Plan) -> str:
    rate = f" at {plan.rate}/s" if plan.rate else ""
    return (
        f"{plan.workload.name} ({plan.workload.about}): {plan.tool}, {plan.connections} connections{rate}, "
        f"{plan.blocks} × {plan.block_seconds} s; gateway on CPU {plan.gateway_cpu}, "
        f"upstream and load on CPU {plan.load_cpu}; latencies in µs"
    )


def _row(name: str, it: Summary) -> tuple[str, ...]:
    return (
        name,
        f"{it.requests_per_second:,.0f}",
        *(f"{it.latency_us[key]:,.0f}" if it.latency_us else "–" for key in LATENCIES),
        f"{it.cpu_us_per_request:,.2f}",
        f"{it.cpu_us_per_request_min:,.2f}",
        f"{it.proxy_share:.0%}",
        f"{it.memory.rss_kib / 1024:.1f}",
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they must be; the first is left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]


def _ratio(ratio: Ratio) -> str:
    values = sorted(ratio.per_block)
    each = " ".join(f"{value:.3f}" for value in ratio.per_block)
    return f"{ratio.of} / {ratio.by}: {ratio.median:.3f} (from {values[0]:.3f} to {values[-1]:.3f}: {each})"


def _notes(name: str, it: Summary, plan: Plan) -> list[str]:
    notes = []
    if it.others_share > DISTURBED_SHARE:
        notes.append(f"{name}: others took {it.others_share:.0%} of CPU {plan.gateway_cpu}; the machine was not quiet.")
    if it.proxy_share < SATURATED_SHARE and plan.rate is None:
        notes.append(f"{name}: its CPU was not full; requests/s are the load's or the upstream's limit, not its own.")
    return notes


def cpu_model() -> str:
    """What kind of CPU this is."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
