"""The rows of a report, from results.json, and how they are written: aligned for a terminal, or as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from . import figures
from .figures import METRICS, Comparison, Spread

Json = dict[str, Any]
Row = tuple[str, ...]

LATENCIES = ("p50", "p90", "p99", "p99.9", "max")
MIB = 1024 * 1024
NONE = "–"


def measured(scenario: Json) -> list[Row]:
    """What each contestant was measured at: medians over its blocks, but for the columns that say otherwise."""
    has_rate = scenario["rate"] is not None
    has_payload = any(it.get("payload_bytes") for it in scenario["contestants"].values())
    has_idle = any(it.get("idle_connections") for it in scenario["contestants"].values())
    has_handshakes = any(it.get("counts_handshakes") for it in scenario["contestants"].values())
    headings = ["", "CPU µs/request", "least", "spread"]
    headings += list(LATENCIES) if has_rate else []
    headings += ["MiB/CPU-s"] if has_payload else []
    headings += ["handshakes/CPU-s"] if has_handshakes else []
    headings += ["requests/s", "CPU"] + (["over workers", "worst"] if scenario["shares_cpus"] else ["others"])
    headings += ["switches", "syscalls"]
    headings += ["RSS MiB"] + (["bytes/idle"] if has_idle else [])
    rows = [tuple(headings)]
    for label, it in scenario["contestants"].items():
        if it["blocks"]:
            rows.append(_measured_row(label, it, scenario, has_rate, has_payload, has_handshakes, has_idle))
    return rows


def _measured_row(
    label: str, it: Json, scenario: Json, has_rate: bool, has_payload: bool, has_handshakes: bool, has_idle: bool
) -> Row:
    blocks = it["blocks"]
    cpu = figures.spread(figures.values(blocks, "cpu"))
    row = [label, f"{cpu.median:,.2f}", f"{cpu.least:,.2f}", _range(cpu, ",.2f")]
    row += [_latency(blocks, name) for name in LATENCIES] if has_rate else []
    row += [f"{it['payload_bytes'] / MIB / (cpu.median / 1e6):,.0f}"] if has_payload else []
    row += [f"{1e6 / cpu.median:,.0f}"] if has_handshakes else []
    row += [f"{statistics.median(map(figures.rate, blocks)):,.0f}", f"{_median(blocks, 'proxy_share'):.0%}"]
    row += _shared_out(it) if scenario["shares_cpus"] else [f"{_median(blocks, 'others_share'):.0%}"]
    row += [f"{_median(blocks, 'switches_per_request'):.3f}"]
    row += [f"{it['syscalls']['per_request']:.2f}" if it["syscalls"] else NONE]
    row += [f"{blocks[-1]['memory']['rss_kib'] / 1024:.1f}"]
    idle = it["pss_bytes_per_idle_connection"]
    return tuple(row + ([NONE if idle is None else f"{idle:,.0f}"] if has_idle else []))


def _shared_out(it: Json) -> list[str]:
    """How CPU time was shared out among a proxy's busiest threads, as many as it has workers; and the worst block."""
    blocks, workers = it["blocks"], it["workers"]
    ranks = zip(*(block["thread_shares"][:workers] + [0.0] * (workers - len(block["thread_shares"])) for block in blocks))
    medians = [f"{statistics.median(shares) * 100:.0f}" for shares in ranks]
    return [f"{' + '.join(medians)} %", f"{max(block['thread_shares'][0] for block in blocks):.0%}"]


def compared(scenario: Json) -> list[Row]:
    """Each pair's ratio, metric by metric."""
    rows: list[Row] = [("ratio", "of", "median", "spread", "from – to", "less" if _is_all_less(scenario) else "better")]
    for metric in scenario["metrics"]:
        for of, by in scenario["pairs"]:
            if found := figures.compare(scenario, of, by, metric):
                rows.append(_compared_row(found))
    return rows


def _is_all_less(scenario: Json) -> bool:
    return not any(METRICS[metric].more_is_better for metric in scenario["metrics"])


def _compared_row(it: Comparison) -> Row:
    ratio = it.ratio
    ends = f"{ratio.least:.3f} – {ratio.most:.3f}"
    return (f"{it.of} / {it.by}", METRICS[it.metric].name, f"{ratio.median:.3f}", _range(ratio, ".3f"), ends, it.verdict)


def tuned(scenario: Json) -> list[Row]:
    """One proxy's configurations: figures, and the first metric's ratio to the first of them."""
    metric, *others = scenario["metrics"]
    base, again = scenario["noise_pair"]
    heading = ("", "CPU µs/request", "× the first", "spread", *others, "requests/s", "MiB at rest", "MiB under load", "")
    rows: list[Row] = [heading]
    for label, it in scenario["contestants"].items():
        if not it["blocks"] or label == again:
            continue
        found = figures.compare(scenario, label, base, metric) if label != base else None
        noise = figures.noise(scenario, metric)
        cpu = f"{statistics.median(figures.values(it['blocks'], 'cpu')):,.2f}"
        ratio = (f"{found.ratio.median:.3f}", _range(found.ratio, ".3f")) if found else (NONE, NONE)
        latencies = [_latency(it["blocks"], name) for name in others]
        rate = f"{statistics.median(map(figures.rate, it['blocks'])):,.0f}"
        memory = [f"{kib / 1024:.1f}" for kib in (it["memory_at_rest"]["rss_kib"], it["blocks"][-1]["memory"]["rss_kib"])]
        verdict = _tuned_verdict(found) if found else f"noise ±{noise:.1%}" if noise else ""
        rows.append((label, cpu, *ratio, *latencies, rate, *memory, verdict))
    return rows


def _tuned_verdict(found: Comparison) -> str:
    if found.verdict == found.of:
        return "less"
    return "more" if found.verdict == found.by else found.verdict


def footprint(all_of: Json) -> list[Row]:
    """Start, size and memory."""
    rows: list[Row] = [("", "start to first answer, ms", "least", "program, MB", "RSS MiB", "PSS MiB")]
    for name, it in all_of.items():
        size = f"{it['binary_bytes'] / 1e6:.1f}"
        if "failure" in it:
            rows.append((name, NONE, NONE, size, NONE, NONE))
            continue
        start = figures.spread(it["start_ms"])
        memory = [f"{it[key] / 1024:.1f}" for key in ("rss_kib", "pss_kib")]
        rows.append((name, f"{start.median:.1f}", f"{start.least:.1f}", size, *memory))
    return rows


def failures(scenario: Json) -> list[str]:
    """Contestants that could not be measured, and why."""
    return [
        f"{label}: {it['failure'].splitlines()[0]}" for label, it in scenario["contestants"].items() if it.get("failure")
    ]


def text(rows: Sequence[Row]) -> str:
    """Columns as wide as they must be; the first is left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    )


def markdown(rows: Sequence[Row]) -> str:
    """A table whose first column is left-aligned."""
    rule = ("---", *("---:" for _ in rows[0][1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _median(blocks: Sequence[Json], key: str) -> float:
    return float(statistics.median(block[key] for block in blocks))


def _latency(blocks: Sequence[Json], name: str) -> str:
    found = figures.values(blocks, name)
    return f"{(max if name == 'max' else statistics.median)(found):,.0f}" if found else NONE


def _range(it: Spread, form: str) -> str:
    return f"{it.low:{form}} – {it.high:{form}}"
