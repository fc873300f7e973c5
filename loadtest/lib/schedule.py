"""How long a comparison will take, from its plan: to be told before it begins, and kept below what one waits for."""

from __future__ import annotations

from collections.abc import Iterable

from . import footprint
from .scenarios import Contestant, Scenario
from .trial import SETTLE_SECONDS, Manner

# As seen on a small virtual machine: a load tool's start and end with the looks at /proc around it; a proxy's start,
# checks and end; the same with 100,000 routes; holding 10,000 connections.
RUN_SECONDS = 0.35
PROXY_SECONDS = 1.2
ROUTES_SECONDS = 6.0
HOLD_SECONDS = 3.0
# A block in which system calls are counted, beyond its run: the counter attaches and ends.
COUNTER_SECONDS = 1.6
# Closed loops before an open one, to find its rate.
RATE_RUNS = 4
# One start of a proxy to see what it costs, beyond its rest.
FOOTPRINT_SECONDS = 0.6


def minutes(seconds: float) -> str:
    """For a reader."""
    return f"{max(1, round(seconds / 60))} min" if seconds >= 60 else f"{max(1, round(seconds))} s"


def of_scenarios(scenarios: Iterable[Scenario], manner: Manner) -> float:
    """Seconds that these take."""
    return sum(of_scenario(scenario, manner) for scenario in scenarios)


def of_scenario(scenario: Scenario, manner: Manner) -> float:
    """Seconds that all contestants of one scenario take."""
    rate = RATE_RUNS * (max(2, manner.block_seconds) + RUN_SECONDS) if scenario.capacity_percent else 0.0
    return rate + sum(_of_contestant(it, scenario, manner) for it in scenario.contestants)


def _of_contestant(it: Contestant, scenario: Scenario, manner: Manner) -> float:
    seconds = ROUTES_SECONDS if it.setup.routes > 1 else PROXY_SECONDS
    seconds += HOLD_SECONDS + SETTLE_SECONDS if it.idle else 0.0
    seconds += manner.warm_up_seconds + RUN_SECONDS
    blocks = 1 if it.is_brief else manner.blocks_of(scenario)
    seconds += blocks * (manner.seconds_of(scenario) + RUN_SECONDS)
    counts = manner.syscall_counter is not None and not it.is_brief
    return seconds + (COUNTER_SECONDS + RUN_SECONDS if counts else 0.0)


def of_footprint(proxies: int, starts: int) -> float:
    """Seconds that the starts of so many proxies take."""
    return proxies * starts * (footprint.REST_SECONDS + FOOTPRINT_SECONDS)
