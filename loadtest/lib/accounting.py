"""What processes cost, as the kernel counts it: CPU time of every thread in ns, memory, and what else ran on a CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Resident memory of a group of processes, in KiB. Pages that they share count once in `pss_kib`."""

    rss_kib: int
    pss_kib: int


def cpu_ns(pids: list[int]) -> int:
    """CPU time that all threads of these processes have had, in ns."""
    return sum(threads_ns(pids).values())


def threads_ns(pids: list[int]) -> dict[str, int]:
    """CPU time of each thread of these processes, in ns.

    `/proc/PID/task/TID/schedstat`: the first number is time on a CPU, user and kernel, including the network
    work that the kernel does in the thread's name (loopback's receive path among it).
    """
    texts = {str(thread): _read(thread / "schedstat") for pid in pids for thread in _threads(pid)}
    return {thread: int(text.split()[0]) for thread, text in texts.items() if text}


def voluntary_switches(pids: list[int]) -> int:
    """How often threads of these processes have gone to sleep of their own accord."""
    total = 0
    for thread in (thread for pid in pids for thread in _threads(pid)):
        for line in _read(thread / "status").splitlines():
            name, _, value = line.partition(":")
            total += int(value) if name == "voluntary_ctxt_switches" else 0
    return total


def memory(pids: list[int]) -> Memory:
    """Resident memory of these processes together."""
    rss = pss = 0
    for pid in pids:
        for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
            name, _, value = line.partition(":")
            if name == "Rss":
                rss += int(value.split()[0])
            elif name == "Pss":
                pss += int(value.split()[0])
    return Memory(rss, pss)


def cpu_busy_ns(cpu: int) -> int:
    """Time that a CPU has been busy, in ns, to the clock tick. Includes what a hypervisor took."""
    for line in _read(Path("/proc/stat")).splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) * 1_000_000_000 // TICKS_PER_SECOND
    return 0


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
