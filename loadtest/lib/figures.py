"""From blocks, as they stand in results.json, to what they mean: ratios turn by turn, the noise, and whether there is
a winner. Knows nothing of proxies or of how anything was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

# No two programs are told apart by less, however quiet the machine.
NOISE_MIN = 0.01

# What lies between these quantiles is the spread.
SPREAD = (0.1, 0.9)


@dataclass(frozen=True)
class Metric:
    """One figure of a block."""

    name: str
    unit: str
    of: Callable[[Json], float | None]
    more_is_better: bool = False


def _latency(name: str) -> Metric:
    return Metric(name, "µs", lambda block: block["outcome"]["latency_us"].get(name))


METRICS = {
    "cpu": Metric("CPU per request", "µs", lambda block: block["cpu_us_per_request"]),
    "rate": Metric("requests/s", "", lambda block: rate(block), more_is_better=True),
    "busiest": Metric("busiest thread", "", lambda block: block["thread_shares"][0]),
    **{name: _latency(name) for name in ("p50", "p90", "p99", "p99.9", "max")},
}


def rate(block: Json) -> float:
    """Requests/s."""
    return float(block["outcome"]["requests"] / block["outcome"]["seconds"])


@dataclass(frozen=True)
class Spread:
    """Some values: their median, least and most, and the range of all but the outermost tenths."""

    median: float
    least: float
    most: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Takes values together."""
    ordered = sorted(values)
    low, high = (_quantile(ordered, share) for share in SPREAD)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1], low, high)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Interpolated between neighbours."""
    place = share * (len(ordered) - 1)
    index = min(int(place), len(ordered) - 2) if len(ordered) > 1 else 0
    if len(ordered) == 1:
        return ordered[0]
    return ordered[index] + (place - index) * (ordered[index + 1] - ordered[index])


def values(blocks: Sequence[Json], metric: str) -> list[float]:
    """One figure of each block; empty when the blocks do not have it."""
    found = [METRICS[metric].of(block) for block in blocks]
    return [value for value in found if value is not None]


@dataclass(frozen=True)
class Comparison:
    """One contestant by another."""

    of: str
    by: str
    metric: str
    ratio: Spread
    # How far a program was from itself.
    noise: float | None
    # Pairs of blocks that the ratio is of.
    blocks: int

    @property
    def verdict(self) -> str:
        """Who wins, if that can be said."""
        if self.noise is None:
            return "no noise floor was measured"
        edge = 1 + self.noise
        if 1 / edge <= self.ratio.median <= edge:
            return f"within the noise (±{self.noise:.1%})"
        if self.ratio.low < 1 < self.ratio.high:
            return f"undecided: blocks disagree (noise ±{self.noise:.1%})"
        is_less = self.ratio.median < 1
        winner = self.of if is_less != METRICS[self.metric].more_is_better else self.by
        return winner if self.blocks > 1 else f"{winner} (in one block)"


def compare(scenario: Json, of: str, by: str, metric: str) -> Comparison | None:
    """One contestant by another, in neighbouring blocks; nothing when one of them has not run."""
    ratios = _ratios(scenario, of, by, metric)
    return Comparison(of, by, metric, spread(ratios), noise(scenario, metric), len(ratios)) if ratios else None


def noise(scenario: Json, metric: str) -> float | None:
    """How far the subject's ratios to itself stray from 1, the outermost tenths left out."""
    first, again = scenario["noise_pair"]
    ratios = _ratios(scenario, first, again, metric)
    if not ratios:
        return None
    own = spread(ratios)
    return max(NOISE_MIN, own.high - 1, 1 - own.low)


def _ratios(scenario: Json, of: str, by: str, metric: str) -> list[float]:
    blocks = [scenario["contestants"].get(label, {}).get("blocks", []) for label in (of, by)]
    ours, theirs = (values(its, metric) for its in blocks)
    return [a / b for a, b in zip(ours, theirs) if b]
