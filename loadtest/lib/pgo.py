"""Builds ringgate guided by a profile: once with counters in it, which a fixed script of exchanges feeds, and once more laid
out and inlined by what they counted. Needs llvm-profdata of rustc's LLVM."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from . import gate, workloads
from .build import REPOSITORY, TARGET, build
from .gate import Programs
from .processes import Failure

DIRECTORY = TARGET / "pgo"
PROGRAM = DIRECTORY / "ringgate-pgo"

# What it is trained by, and how often each of the script's connections asks.
ROUNDS = {"small": 3000, "post-4k": 1000, "headers-50": 600, "body-256k": 100}


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
    """Has the script of exchanges run."""
    for name, rounds in ROUNDS.items():
        with gate.gateway(programs, []) as (port, _):
            gate.exchange(port, workloads.ALL[name], rounds)


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"{command[0]}: {error}") from None

