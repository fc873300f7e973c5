"""Starts, pins and stops the processes of a load test, and never leaves one behind.

Every service gets a session of its own, so that all its processes can be found and stopped together, and is told by
the kernel when this program dies without having stopped it.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

START_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 5.0
POLL_SECONDS = 0.01
LOG_LINES_SHOWN = 20

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Failure(Exception):
    """A load test cannot go on, or its result is not one; the text says why."""


class Service:
    """A running server process with its children, pinned to some CPUs."""

    def __init__(self, name: str, command: list[str], cpus: Collection[int], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=child_setup(cpus),
            )
        _RUNNING.append(self)

    @property
    def session(self) -> int:
        """The session's id, which is the first process's."""
        return self.process.pid

    def wait_for(self, is_ready: Callable[[], bool]) -> None:
        """Waits until `is_ready`; fails when the process ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not is_ready():
            if self.process.poll() is not None:
                raise Failure(f"{self.name} ended with {self.process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} is not ready after {START_SECONDS_MAX:.0f} s:\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def log_tail(self) -> str:
        """The last lines that the process wrote."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES_SHOWN:])

    def stop(self) -> None:
        """Asks the whole session to end, and then makes it."""
        if self not in _RUNNING:
            return
        _RUNNING.remove(self)
        _signal_session(self.session, signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            pass
        _signal_session(self.session, signal.SIGKILL)
        self.process.wait()


_RUNNING: list[Service] = []


def stop_all() -> None:
    """Stops every service, the last one started first."""
    for service in list(reversed(_RUNNING)):
        service.stop()


def stop_at_exit() -> None:
    """Makes sure that services end with this program, however it ends."""
    atexit.register(stop_all)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))


def run_pinned(
    command: list[str], cpus: Collection[int], seconds_max: float, environment: dict[str, str] | None = None
) -> str:
    """Runs a program to its end on some CPUs and returns what it wrote to stdout. Its environment is this program's unless
    there is another."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=child_setup(cpus),
    )
    try:
        output, problems = process.communicate(timeout=seconds_max)
    except subprocess.TimeoutExpired:
        raise Failure(f"{command[0]} does not end within {seconds_max:.0f} s") from None
    finally:
        if process.poll() is None:
            _signal_session(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        raise Failure(f"{command[0]} ended with {process.returncode}:\n{problems}{output}")
    return output


def child_setup(cpus: Collection[int]) -> Callable[[], None]:
    """What a child does before it becomes its program: pins itself, and dies with its parent."""

    def setup() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        os.sched_setaffinity(0, cpus)

    return setup


def session_pids(session: int) -> list[int]:
    """The processes of a session."""
    pids = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and _session_of(int(entry.name)) == session:
            pids.append(int(entry.name))
    return pids


def _session_of(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; the session is the fourth field behind it. See proc(5).
    return int(text.rpartition(")")[2].split()[3])


def _signal_session(session: int, number: int) -> None:
    for pid in session_pids(session):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def answers(port: int, path: str = "/", context: ssl.SSLContext | None = None) -> bool:
    """Whether something on the loopback `port` answers a plain GET with 200, or with 401 where it asks who that is, over TLS where there is a context for it. That
    it accepts is not enough: some try their ports before they listen for good, and some listen before they have read their
    routes."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS_MAX) as connection:
            with context.wrap_socket(connection, server_hostname="127.0.0.1") if context else connection as stream:
                stream.sendall(request)
                return stream.recv(64).startswith((b"HTTP/1.1 200", b"HTTP/1.1 401"))
    except OSError:
        return False


def free_port() -> int:
    """A loopback port that was free a moment ago, for programs that cannot say which one they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        _, port = probe.getsockname()
        return int(port)


def raise_descriptor_limit() -> int:
    """Lets this process and its children open as many files as they may; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def check_cpus(cpus: Iterable[int]) -> None:
    """Fails unless this process may use these CPUs."""
    allowed = os.sched_getaffinity(0)
    missing = sorted(set(cpus) - allowed)
    if missing:
        raise Failure(f"CPU {missing[0]} is none that this process may use ({listed(sorted(allowed))})")


def listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
