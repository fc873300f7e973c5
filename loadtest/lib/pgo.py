"""Builds ringgate guided by a profile: once with counters in it, which a fixed script of exchanges feeds, and once more laid
out and inlined by what they counted. Needs llvm-profdata of rustc's LLVM, and of the load tools wrk and h2load."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from . import comparison, gate, http2, tools, trial, workloads
from .build import REPOSITORY, TARGET, build
from .gate import Programs
from .processes import Failure
from .proxies import KINDS, Place, Proxy, Setup
from .workloads import Workload

DIRECTORY = TARGET / "pgo"
PROGRAM = DIRECTORY / "ringgate-pgo"

# What it is trained by, and how often each of the script's connections asks.
ROUNDS = {"small": 3000, "post-4k": 1000, "headers-50": 600, "body-256k": 100}

# What only load tools speak, for so many seconds each.
LOADS = ("tls-small", "tls-full", "tls-resume", "h2-small-1x100", "h2-small-16x16", "h2-h2")
LOAD_SECONDS = 2
LOAD_CONNECTIONS_MAX = 16


def profdata() -> str:
    """Where llvm-profdata is: rustup's component, or a package of the same LLVM as rustc's."""
    sysroot = _output("rustc", "--print", "sysroot").strip()
    for found in sorted(Path(sysroot).glob("lib/rustlib/*/bin/llvm-profdata")):
        return str(found)
    llvm = re.search(r"LLVM version: (\d+)", _output("rustc", "-vV"))
    name = f"llvm-profdata-{llvm[1]}" if llvm else "llvm-profdata"
    if packaged := shutil.which(name):
        return packaged
    raise Failure(f"{name} is not installed: `rustup component add llvm-tools`, or a distribution's package of that LLVM")


def require() -> None:
    """Fails early when something that training needs is missing."""
    profdata()
    http2.require()
    for name in LOADS:
        tools.require(workloads.ALL[name].tool, workloads.ALL[name], None)


def built() -> Path | None:
    """The program, if it was built since the last change of a source."""
    sources = [REPOSITORY / "Cargo.lock", *(REPOSITORY / "src").rglob("*.rs")]
    last_change = max(source.stat().st_mtime for source in sources)
    return PROGRAM if PROGRAM.exists() and PROGRAM.stat().st_mtime >= last_change else None


def build_guided(upstream: str, cpu: int, directory: Path) -> Path:
    """Trains and builds; returns the program, which stays below cargo's target directory."""
    merge = profdata()
    raw, profile = directory / "raw", directory / "ringgate.profdata"
    counting = build("ringgate", target=DIRECTORY / "counting", rustflags=f"-Cprofile-generate={raw}")
    # Starting it to look for its version would leave a profile too.
    shutil.rmtree(raw, ignore_errors=True)
    train(Programs(counting, upstream, cpu, directory))
    _output(merge, "merge", "-o", str(profile), str(raw))
    guided = build("ringgate", target=DIRECTORY / "guided", rustflags=f"-Cprofile-use={profile}")
    shutil.copy(guided, PROGRAM)
    return PROGRAM


def train(programs: Programs) -> None:
    """Has the script of exchanges run, and then the load tools."""
    for name, rounds in ROUNDS.items():
        with gate.gateway(programs, []) as (port, _):
            gate.exchange(port, workloads.ALL[name], rounds)
    for name in LOADS:
        _load(programs, workloads.ALL[name])


def _load(programs: Programs, workload: Workload) -> None:
    directory = programs.directory / workload.name
    directory.mkdir()
    if workload.http2_upstream:
        upstream, upstream_port = http2.start_upstream(programs.cpu, directory)
    else:
        upstream, upstream_port = trial.start_upstream(programs.upstream, programs.cpu, directory)
    setup = Setup(tls=workload.tls, http2=workload.http2, http2_upstream=workload.http2_upstream)
    place = Place((programs.cpu,), upstream_port, directory, gate.DESCRIPTORS)
    proxy = None
    try:
        proxy = Proxy("ringgate", KINDS["ringgate"], programs.gateway, place, setup)
        connections = min(workload.connections, LOAD_CONNECTIONS_MAX)
        load = tools.Load(
            proxy.port, workload, connections, LOAD_SECONDS, (programs.cpu,), credentials=proxy.credentials
        )
        comparison.run_clean(proxy, workload.tool, load)
    finally:
        if proxy:
            proxy.service.stop()
        upstream.stop()


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"{command[0]}: {error}") from None

