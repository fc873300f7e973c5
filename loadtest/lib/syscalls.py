"""Counts the system calls of a running proxy while it is under load: by the kernel's tracepoints through perf, which
costs next to nothing, or through strace, which slows the proxy down but counts the same."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .processes import child_setup

# Tracepoints by the names of what they count.
EVENTS = {
    "syscalls": "raw_syscalls:sys_enter",
    "io_uring_enter": "syscalls:sys_enter_io_uring_enter",
    "sqes": "io_uring:io_uring_submit_req",
}

START_SECONDS = 0.3
STOP_SECONDS_MAX = 20


@dataclass(frozen=True)
class Count:
    """System calls of all threads."""

    # perf or strace.
    how: str
    all: int
    io_uring_enter: int


def counter() -> str | None:
    """What can count here."""
    if shutil.which("perf") and _perf_has_tracepoints():
        return "perf"
    return "strace" if shutil.which("strace") else None


def count(how: str, pids: list[int], cpus: tuple[int, ...], load: Callable[[], None]) -> Count:
    """Counts what these processes call while `load` runs."""
    text = _watch(how, pids, cpus, load)
    if how == "strace":
        return _strace_count(text)
    found = _perf_counts(text)
    return Count("perf", found["syscalls"], found["io_uring_enter"])


def events(pids: list[int], cpus: tuple[int, ...], load: Callable[[], None]) -> dict[str, int]:
    """Everything in EVENTS, by perf."""
    return _perf_counts(_watch("perf", pids, cpus, load))


def _watch(how: str, pids: list[int], cpus: tuple[int, ...], load: Callable[[], None]) -> str:
    """What a tool writes of the processes that it watches while `load` runs."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "counts"
        process = subprocess.Popen(
            _command(how, pids, output),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=child_setup(cpus),
        )
        try:
            # It does not say when it has attached.
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            load()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_SECONDS_MAX)
        return output.read_text() if output.exists() else ""


def _command(how: str, pids: list[int], output: Path) -> list[str]:
    if how == "perf":
        listed = ",".join(map(str, pids))
        return ["perf", "stat", "-x", ";", "-o", str(output), "-e", ",".join(EVENTS.values()), "-p", listed]
    return ["strace", "-c", "-f", "-o", str(output), *(word for pid in pids for word in ("-p", str(pid)))]


def _perf_has_tracepoints() -> bool:
    command = ["perf", "stat", "-x", ";", "-e", ",".join(EVENTS.values()), "true"]
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and re.match(r"\d", result.stderr.strip()) is not None


def _perf_counts(text: str) -> dict[str, int]:
    """Lines of `value;unit;event;…`."""
    found = {name: 0 for name in EVENTS}
    for line in text.splitlines():
        value, *fields = line.split(";")
        for name, event in EVENTS.items():
            if event in fields and value.isdigit():
                found[name] = int(value)
    return found


def _strace_count(text: str) -> Count:
    """A table of `% time, seconds, usecs/call, calls, [errors,] syscall`."""
    rows = [line.split() for line in text.splitlines()]
    calls = {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit()}
    calls.pop("total", None)
    return Count("strace", sum(calls.values()), calls.get("io_uring_enter", 0))
