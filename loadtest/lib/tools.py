"""Load tools, run for a while against one port: wrk (closed loop, cheap), oha (closed loop, or a fixed rate whose latencies
are free of coordinated omission), h2load for HTTP/2 and our own for TLS handshakes. All answer with the same figures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import build
from .processes import Failure, run_pinned
from .tls import CIPHER, GROUP, NAME, Credentials
from .workloads import Workload

WRK_SCRIPTS = Path(__file__).resolve().parent.parent / "wrk"

# What a tool may take beyond the time it was told to run.
GRACE_SECONDS = 20

# The share of connections, in percent, that must have resumed a session where that is measured.
RESUMED_PERCENT_MIN = 95

LATENCIES = ("p50", "p90", "p99", "p99.9", "max")


@dataclass(frozen=True)
class Load:
    """How much, and against which port."""

    port: int
    workload: Workload
    connections: int
    seconds: int
    # The CPUs that the tool may run on.
    cpus: tuple[int, ...]
    # Requests/s; None sends as fast as responses come.
    rate: int | None = None
    # Whom clients trust, where they speak TLS.
    credentials: Credentials | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.credentials else 'http'}://127.0.0.1:{self.port}{self.workload.path}"


@dataclass(frozen=True)
class Outcome:
    """What a tool saw."""

    requests: int
    seconds: float
    # Keys as in LATENCIES, in µs. Empty when the tool cannot tell.
    latency_us: dict[str, float]
    # What went wrong, with its count; empty when nothing did.
    errors: dict[str, int] = field(default_factory=dict)
    # How many connections resumed a session, where the tool tells.
    resumed: int | None = None

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds


def run(tool: str, load: Load) -> Outcome:
    """Runs one tool, by name."""
    return ALL[tool](load)


def require(tool: str, workload: Workload, rate: int | None) -> None:
    """Fails early when a tool is missing or cannot do this."""
    _binary(tool)
    if tool == "oha" and workload.pipeline > 1:
        raise Failure("oha does not pipeline; use --tool wrk")
    if tool == "oha" and workload.tls:
        raise Failure("oha cannot be told what to offer by TLS; use --tool wrk")
    if tool != "oha" and rate is not None:
        raise Failure(f"{tool} has no fixed rate; use --tool oha")
    if workload.counts_handshakes != (tool == "handshakes") or workload.http2 != (tool == "h2load"):
        raise Failure(f"{tool} cannot make the load of {workload.name}; use --tool {workload.tool}")


def version(tool: str) -> str:
    """What a tool says about its version."""
    result = subprocess.run([_binary(tool), "--version"], capture_output=True, text=True, timeout=10)
    found = re.search(r"\d+(\.\d+)+", result.stdout + result.stderr)
    return found[0] if found else "unknown"


def has(tool: str) -> bool:
    """Whether a tool is installed."""
    return _found(tool) is not None


def _found(tool: str) -> str | None:
    """Where a tool is; cargo's directory is often not in PATH."""
    return shutil.which(tool) or shutil.which(tool, path=str(Path.home() / ".cargo" / "bin"))


def _binary(tool: str) -> str:
    if tool == "handshakes":
        return build.handshakes()
    found = _found(tool)
    if found is None:
        raise Failure(f"{tool} is not installed; scripts/install-tools does that")
    return found


def _wrk(load: Load) -> Outcome:
    workload = load.workload
    command = [_binary("wrk"), "--threads", "1", "--connections", str(load.connections)]
    command += ["--duration", f"{load.seconds}s", "--timeout", "10s"]
    command += ["--script", str(WRK_SCRIPTS / workload.wrk_script), load.url, "--", *workload.wrk_arguments]
    environment = load.credentials.environment() if load.credentials else None
    output = run_pinned(command, load.cpus, load.seconds + GRACE_SECONDS, environment)
    report = _parsed("wrk", output.splitlines()[-1])
    return Outcome(
        requests=report["requests"],
        seconds=report["duration_us"] / 1e6,
        # wrk times whole batches, and then corrects them as if they were requests.
        latency_us=report["latency_us"] if workload.pipeline == 1 else {},
        errors=_wrk_errors(report, workload),
    )


def _wrk_errors(report: dict[str, Any], workload: Workload) -> dict[str, int]:
    """wrk counts statuses from 400 as errors, which they are unless one is expected, and then of every response."""
    errors = {name: count for name, count in report["errors"].items() if count}
    if workload.status >= 400:
        unexpected = abs(report["requests"] - errors.pop("status", 0))
        errors |= {f"not {workload.status}": unexpected} if unexpected else {}
    return errors


def _h2load(load: Load) -> Outcome:
    command = [_binary("h2load"), "--clients", str(load.connections), "--threads", "1"]
    command += ["--max-concurrent-streams", str(load.workload.streams), "--duration", str(load.seconds)]
    for name, value in load.workload.fields:
        command += ["--header", f"{name}: {value}"]
    output = run_pinned([*command, load.url], load.cpus, load.seconds + GRACE_SECONDS)
    return _h2load_outcome(output, load.seconds)


def _h2load_outcome(text: str, seconds: int) -> Outcome:
    """From what it says to people; it tells no quantiles. Requests under way at the end are counted nowhere."""
    requests = re.search(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$", text, re.MULTILINE)
    statuses = re.search(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx$", text, re.MULTILINE)
    if not requests or not statuses:
        raise Failure(f"h2load does not report as expected: {text[:200]}")
    counts = dict(zip(("failed", "errored", "timeout"), map(int, requests.groups()[1:])))
    counts |= dict(zip(("status 3xx", "status 4xx", "status 5xx"), map(int, statuses.groups()[1:])))
    # What failed comprises the other two.
    errors = {name: count for name, count in counts.items() if count}
    return Outcome(requests=int(requests[1]), seconds=seconds, latency_us={}, errors=errors)


def _handshakes(load: Load) -> Outcome:
    assert load.credentials
    command = [_binary("handshakes"), "--port", str(load.port), "--path", load.workload.path, "--name", NAME]
    command += ["--certificate", str(load.credentials.certificate), "--sessions", load.workload.sessions]
    command += ["--connections", str(load.connections), "--seconds", str(load.seconds)]
    report = _parsed("handshakes", run_pinned(command, load.cpus, load.seconds + GRACE_SECONDS))
    return Outcome(
        requests=report["requests"],
        seconds=report["duration_us"] / 1e6,
        latency_us=report["latency_us"],
        errors=report["errors"] | _wrong_handshakes(report, load.workload),
        resumed=report["resumed"],
    )


def _wrong_handshakes(report: dict[str, Any], workload: Workload) -> dict[str, int]:
    """Those of another kind than was to be measured. The first connection of each client has nothing to resume."""
    errors = {"hello retry": report["retried"]} if report["retried"] else {}
    if report["requests"] and (report["cipher"], report["group"]) != (CIPHER, GROUP):
        errors["another cipher or group"] = report["requests"]
    if workload.sessions != "resumed":
        return errors | ({"resumed": report["resumed"]} if report["resumed"] else {})
    is_enough = report["resumed"] * 100 >= report["requests"] * RESUMED_PERCENT_MIN
    return errors | ({} if is_enough else {"not resumed": report["full"]})


def _oha(load: Load) -> Outcome:
    with tempfile.TemporaryDirectory() as directory:
        command = [_binary("oha"), "--no-tui", "--output-format", "json", "-z", f"{load.seconds}s", "-w"]
        command += ["-t", "10s", "-c", str(load.connections), "-m", load.workload.method]
        for name, value in load.workload.fields:
            command += ["-H", f"{name}: {value}"]
        if load.workload.body_bytes:
            body = Path(directory) / "body"
            body.write_bytes(load.workload.body)
            command += ["-D", str(body)]
        if not load.workload.keep_alive:
            command.append("--disable-keepalive")
        if load.rate is not None:
            command += ["-q", str(load.rate), "--latency-correction"]
        output = run_pinned([*command, load.url], load.cpus, load.seconds + GRACE_SECONDS)
    return _oha_outcome(_parsed("oha", output), load.workload)


def _parsed(tool: str, text: str) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        raise Failure(f"{tool} does not report as expected: {text[:200]}") from None
    return report


def _oha_outcome(report: dict[str, Any], workload: Workload) -> Outcome:
    statuses: dict[str, int] = report["statusCodeDistribution"]
    errors = {f"status {status}": count for status, count in statuses.items() if status != str(workload.status)}
    errors.update(report["errorDistribution"])
    seconds = {name: report["latencyPercentiles"][name] for name in LATENCIES if name != "max"}
    seconds["max"] = report["summary"]["slowest"]
    return Outcome(
        requests=sum(statuses.values()),
        seconds=report["summary"]["total"],
        latency_us={name: (value or 0) * 1e6 for name, value in seconds.items()},
        errors=errors,
    )


# By name.
ALL = {"wrk": _wrk, "oha": _oha, "h2load": _h2load, "handshakes": _handshakes}
