"""From results.json to docs/benchmarks: a page of tables, and plots. Everything can be made again from the JSON."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from . import figures, svg, tables, targets
from .build import REPOSITORY
from .report import DISTURBED_SHARE
from .tables import LATENCIES

Json = dict[str, Any]

RESULTS = "results.json"

# What configurations have otherwise, by the key of a proxy's entry.
DIFFERENCES = {"tls": "with TLS", "http2": "with HTTP/2", "http2_upstream": "with HTTP/2 to the upstream"}

HOW_TO_READ = """\
- **CPU µs/request**: CPU time of all threads of all the proxy's processes, user and kernel, by requests: median and least
  of its blocks, and the *spread*, which leaves out the outermost tenths at both ends.
- **ratio**: one proxy by another in neighbouring blocks, then the median and spread of those. Envoy, Traefik, Caddy,
  pingora and the floor have as many blocks as the others in `small-64` and one elsewhere, which is said there.
- **noise**: ringgate is measured twice, first and last in each turn. What it differs from itself by (without the outermost
  tenths, and 1 % at least) is what cannot be told from nothing: within it no winner is named, nor where blocks disagree.
- **requests/s** are what a proxy can do only where **CPU**, its share of its own, is nearly full; else they are the load
  tool's or the upstream's limit. **others**: what others took of that CPU, which disturbs.
- **switches**, **syscalls**: voluntary context switches and system calls per request, the latter in a block of their own.
- The **floor** is a bare io_uring relay of bytes that reads no HTTP and shares no upstream connection
  ([`loadtest/floor`](../../loadtest/floor)): the kernel's part."""


SETTINGS = """\
Everything has one worker on the same CPU, HTTP/1.1 and kept-alive connections on both sides, no access log, streamed
bodies, and the same edits of fields. Where a default costs a proxy CPU it has a better value; `loadtest/tune nginx
haproxy` measures those choices. Words between at signs are filled in when a proxy is started.

- **nginx**: `keepalive 1024` upstream connections, more than are ever under way, with `keepalive_requests` and
  `keepalive_time` so large that none is closed on purpose; `reuseport deferred`, `multi_accept`, `backlog=4096`; `access_log off`;
  `proxy_request_buffering off` and `proxy_max_temp_file_size 0`, as bodies on disk would be slower and nobody else puts
  them there; `proxy_buffers` and `client_body_buffer_size` of 256 KiB instead of 4 and 16, with which large bodies cost it
  less than half. `sendfile` and `tcp_nopush` are for files, and there are none.
- **HAProxy**: `nbthread 1`; `http-reuse always` and `pool-max-conn 1024` with `tune.pool-*-fd-ratio` raised, so that
  upstream connections are kept and shared; `splice-request` and `splice-response`, with which large bodies stay in the
  kernel and cost a half to a quarter; `defer-accept`; no `log`. `tune.bufsize` is as delivered: larger buffers make small
  requests dearer, and bodies do not pass through them.
- **TLS** (`tls-*`): the same certificate on P-256, made for the run; clients offer TLS 1.3, AES-128-GCM and X25519 and nothing
  else, and each proxy is asked what it agrees on before it is measured; tickets as by default, by which sessions are resumed
  without any memory of a server's: HAProxy's (`tune.ssl.cachesize`) is off, which makes handshakes cheaper, and nginx's is by
  default. What the configurations have otherwise with TLS stands behind them.
- **HTTP/2** (`h2-*`): without TLS, with prior knowledge; to the upstream HTTP/1.1, or HTTP/2 where `h2-h2` says so, which nginx
  cannot.
- **Envoy**: `--concurrency 1`, no statistics per response (`dynamic_stats: false`), no access log, circuit breakers open.
- **Traefik, Caddy**: `GOMAXPROCS` is the number of their CPUs; no access log, 1,024 idle upstream connections.
- **pingora**: one service thread, a pool of 1,024 connections.
- **ringgate**: as delivered, but for the access log, `Forwarded` (the others do not send it) and a pool of 1,024."""


def write(results: Json, out: Path) -> list[Path]:
    """Writes the JSON, the page and the plots."""
    out.mkdir(parents=True, exist_ok=True)
    files = {RESULTS: json.dumps(results, indent=1, ensure_ascii=False) + "\n"}
    files |= _plots(results)
    files["README.md"] = _page(results, list(files))
    paths = []
    for name, text in files.items():
        paths.append(out / name)
        # An interruption must not leave half a file.
        temporary = out / f".{name}.new"
        temporary.write_text(text)
        temporary.replace(paths[-1])
    return paths


def _page(results: Json, files: list[str]) -> str:
    parts = ["# Benchmarks", _intro(results), "## Machine and programs", _machine(results)]
    parts += [tables.markdown(_programs(results)), "## How to read this", HOW_TO_READ]
    parts += ["## Targets", targets.summary(results), tables.markdown(targets.rows(results))]
    parts += ["![CPU per request](cpu.svg)"] if "cpu.svg" in files else []
    parts += ["![Latencies](latency.svg)"] if "latency.svg" in files else []
    for scenario in results["scenarios"]:
        parts += _scenario(scenario)
    if results.get("footprint"):
        about = "Program, start and memory at rest, with 2 workers; the start is from the fork to the first answer."
        parts += ["## `footprint`", about, tables.markdown(tables.footprint(results["footprint"]))]
    parts += ["## Configurations", SETTINGS, *_configurations(results)]
    return "\n\n".join(parts) + "\n"


def _intro(results: Json) -> str:
    quick = (
        "\n\n**This is a quick run: it shows that everything works, and its figures are worth little.**"
        if results["quick"]
        else ""
    )
    if missing := [f"`{name}`" for name in results["missing"]]:
        reasons = "".join(f"\n- `{name}`: {why.splitlines()[0]}" for name, why in results["failed"].items())
        quick += f"\n\n**Not everything was measured; missing: {', '.join(missing)}.**{reasons}"
    if (disturbed := _others_share(results)) > DISTURBED_SHARE:
        quick += f"\n\n**The machine was not quiet: others took up to {disturbed:.0%} of the proxies' CPU.**"
    return (
        "What ringgate costs beside other proxies, measured on one machine in one run, in short blocks that alternate. "
        "Written by\n[`loadtest/compare`](../../loadtest/README.md); repeat it with\n\n"
        "```sh\nloadtest/setup      # once\nloadtest/compare    # three quarters of an hour\n```\n\n"
        f"The raw figures are in [`{RESULTS}`]({RESULTS}); `loadtest/compare --render "
        f"docs/benchmarks/{RESULTS}`\nmakes this page of them.{quick}"
    )


def _others_share(results: Json) -> float:
    """The most that others had of the proxies' CPU, where that was theirs alone: the median over a contestant's blocks."""
    alone = [scenario for scenario in results["scenarios"] if not scenario["shares_cpus"]]
    blocks = [it["blocks"] for scenario in alone for it in scenario["contestants"].values() if it["blocks"]]
    return max((statistics.median(block["others_share"] for block in its) for its in blocks), default=0.0)


def _machine(results: Json) -> str:
    tools = ", ".join(f"{name} {version}" for name, version in results["tools"].items())
    counter = results["syscall_counter"]
    counted = f"System calls were counted by {counter}." if counter else "Nothing here could count system calls."
    return (
        f"{results['time'][:10]}; {results['cpu']}, {results['cpus']} CPUs; Linux {results['kernel']}. "
        f"The proxy alone on CPU {results['gateway_cpu']} with one worker, upstream and load on CPU "
        f"{results['load_cpu']}, all on loopback; "
        f"blocks alternate. Load by {tools}. {counted}"
    )


def _programs(results: Json) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("proxy", "version", "configuration")]
    for name, it in results["proxies"].items():
        links = ", ".join(f"[`{Path(file).name}`](../../{file})" for file in it["files"])
        rows.append((name, it["version"], links))
    rows += [(name, reason, tables.NONE) for name, reason in results["left_out"].items()]
    return rows


def _scenario(scenario: Json) -> list[str]:
    load = f"{scenario['tool']}, {scenario['connections']} connections"
    load += _open_loop(scenario) if scenario["rate"] else ""
    blocks = f"{scenario['blocks']} blocks of {scenario['block_seconds']} s"
    agreed = f" {_agreed(scenario)}." if _agreed(scenario) else ""
    about = f"{scenario['about']}. {load}, {blocks}.{agreed} {scenario['note']}".rstrip()
    parts = [f"## `{scenario['name']}`", about, tables.markdown(tables.measured(scenario))]
    parts.append(tables.markdown(tables.compared(scenario)))
    failures = [f"- not measured: {line}" for line in tables.failures(scenario)]
    return parts + (["\n".join(failures)] if failures else [])


def _agreed(scenario: Json) -> str:
    """What client and proxy have agreed on by TLS, where they speak it: the same for all, or the proxy would be left out."""
    found = [it["tls"] for it in scenario["contestants"].values() if it.get("tls")]
    return f"{found[0]['version']}, {found[0]['cipher']}, {found[0]['group']}" if found else ""


def _open_loop(scenario: Json) -> str:
    """The rate, and what it is of what the reference can do."""
    it = scenario["capacity"]
    share = it["per_second"] / it["capacity"]
    text = f", {scenario['rate']:,} requests/s, which is {share:.0%} of the {it['capacity']:,} that {it['reference']} did"
    is_capped = it["per_second"] >= it["possible"]
    return text + (f" (more than {scenario['tool']} can send beside the upstream on one CPU)" if is_capped else "")


def _configurations(results: Json) -> list[str]:
    """What each proxy was configured with, to be unfolded."""
    parts = []
    for name, it in results["proxies"].items():
        for file, text in it["configuration"].items():
            body = f"```\n{text.rstrip()}\n```"
            parts.append(f"<details><summary>{name}: {Path(file).name}</summary>\n\n{body}\n\n</details>")
        for key, what in DIFFERENCES.items():
            if difference := it.get(key):
                body = f"```diff\n{difference}\n```"
                parts.append(f"<details><summary>{name}: {what}</summary>\n\n{body}\n\n</details>")
    return parts


def _plots(results: Json) -> dict[str, str]:
    """Bars of CPU per request, and lines of latencies where the rate was fixed."""
    closed = [it for it in results["scenarios"] if it["rate"] is None and _has_blocks(it)]
    opened = [it for it in results["scenarios"] if it["rate"] is not None and _has_blocks(it)]
    colours = {kind: index for index, kind in enumerate(results["proxies"])}
    files = {}
    if closed:
        panels = [(it["name"], _bars(it, colours)) for it in closed]
        files["cpu.svg"] = svg.bars("CPU µs per request; whiskers leave out the outermost tenths", panels)
    if opened:
        named = [(f"{it['name']}: {it['rate']:,} requests/s", _lines(it, colours)) for it in opened]
        files["latency.svg"] = svg.lines("Latency in µs, from when a request was due", LATENCIES, named)
    return files


def _has_blocks(scenario: Json) -> bool:
    return any(it["blocks"] for it in scenario["contestants"].values())


def _bars(scenario: Json, colours: dict[str, int]) -> list[svg.Bar]:
    bars = []
    for label, it in scenario["contestants"].items():
        if it["blocks"]:
            cpu = figures.spread(figures.values(it["blocks"], "cpu"))
            bars.append(svg.Bar(label, cpu.median, cpu.low, cpu.high, colours.get(it["kind"], 0)))
    return bars


def _lines(scenario: Json, colours: dict[str, int]) -> list[svg.Line]:
    again = scenario["noise_pair"][1]
    lines = []
    for label, it in scenario["contestants"].items():
        found = [figures.values(it["blocks"], name) for name in LATENCIES]
        if all(found) and label != again:
            lines.append(svg.Line(label, tuple(map(statistics.median, found)), colours.get(it["kind"], 0)))
    return lines


def files_of(templates: tuple[str, ...], kind: str) -> list[str]:
    """The files in the repository that say how a proxy is set up."""
    found = [f"loadtest/proxies/{name}" for name in templates]
    return found or [name for name in (f"loadtest/{kind}/src/main.rs",) if (REPOSITORY / name).exists()]
