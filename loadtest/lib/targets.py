"""What ringgate is to reach, and whether results.json says that it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from . import figures
from .tables import NONE, Row

Json = dict[str, Any]

SUBJECT = "ringgate"


@dataclass(frozen=True)
class Found:
    """A figure; for a ratio also its relative noise, and where all but the outermost tenths of its blocks lie."""

    value: float
    noise: float = 0.0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Target:
    """One line of the table of targets."""

    what: str
    limit: float
    # Nothing, if it was not measured.
    measured: Callable[[Json], Found | None]
    unit: str = ""
    # At least, rather than at most.
    is_floor: bool = False

    def row(self, results: Json) -> Row:
        """What, target, measured, its spread, verdict."""
        sign = "≥" if self.is_floor else "≤"
        found = self.measured(results)
        wanted = f"{sign} {self.limit:g}{self.unit}"
        if found is None:
            return (self.what, wanted, NONE, NONE, "not measured")
        figure = f"{found.value:.3g}" if found.value < 1000 else f"{found.value:,.0f}"
        spread = NONE if found.low is None else f"{found.low:.3g} – {found.high:.3g}"
        return (self.what, wanted, f"{figure}{self.unit}", spread, self._verdict(found.value, found.noise))

    def _verdict(self, value: float, noise: float) -> str:
        excess = self.limit / value if self.is_floor else value / self.limit
        if excess <= 1:
            return "met" if excess * (1 + noise) <= 1 else f"met, by less than the noise (±{noise:.1%})"
        return f"missed by less than the noise (±{noise:.1%})" if excess <= 1 + noise else "missed"


def summary(results: Json) -> str:
    """One sentence over the table."""
    verdicts = [row[-1] for row in rows(results)[1:]]
    met = sum(verdict.startswith("met") for verdict in verdicts)
    missed = sum(verdict.startswith("missed") for verdict in verdicts)
    unknown = len(verdicts) - met - missed
    return (
        f"{met} of {len(verdicts)} are met, {missed} missed"
        + (f", {unknown} not measured" if unknown else "")
        + ". Ratios are medians of the ratios block by block, `×` by which other one."
    )


def rows(results: Json) -> list[Row]:
    """The whole table."""
    return [("", "target", "measured", "spread", ""), *(target.row(results) for target in _targets(results))]


def _targets(results: Json) -> Iterable[Target]:
    for peer, limit in (("nginx", 0.75), ("haproxy", 0.65), ("pingora", 0.27), ("envoy", 0.14), ("floor", 1.15)):
        yield _ratio(f"`small` c=64, CPU per request, × {peer}", limit, "small-64", peer)
    yield Target("user-space instructions per request, of `loadtest/gate`", 6000, _instructions)
    yield Target("`io_uring_enter` per request, c=64", 0.3, _enters)
    for name in ("headers-50", "post-4k", "connect", "slow-upstream"):
        for peer in ("nginx", "haproxy"):
            yield _ratio(f"`{name}`, CPU per request, × {peer}", 0.85, name, peer)
    for name, limits in (("body-256k", (2.0, 1.2)), ("body-16m", (1.4, 1.15)), ("upload-16m", (1.4, 1.15))):
        for peer, limit in zip(("nginx", "haproxy"), limits):
            yield _ratio(f"`{name}`, bytes per CPU-second, × {peer}", limit, name, peer, is_inverse=True)
        yield Target(f"`{name}`, memory beyond that at rest", 16, _growth(name), " MiB")
    for peer in ("nginx", "haproxy"):
        yield _ratio(f"`tls-small`, CPU per request, × {peer}", 0.7, "tls-small", peer)
    for name, unit, limit in (("full", "handshakes", 1.5), ("resume", "handshakes", 1.5), ("body-16m", "bytes", 1.0)):
        for peer in ("nginx", "haproxy"):
            what = f"`tls-{name}`, {unit} per CPU-second, × {peer}"
            yield _ratio(what, limit, f"tls-{name}", peer, is_inverse=True)
    for shape in ("1x100", "16x16"):
        for peer, limit in (("nginx", 0.6), ("haproxy", 0.9), ("envoy", 0.2)):
            yield _ratio(f"`h2-small-{shape}`, CPU per request, × {peer}", limit, f"h2-small-{shape}", peer)
    yield _ratio("`h2-h2`, CPU per request, × envoy", 0.25, "h2-h2", "envoy")
    yield _ratio("`policies-all`, CPU per request, × nginx without any", 1.0, "policies-all", "nginx")
    for name in ("last", "miss"):
        yield _ratio(f"`routes-100k-{name}`, × one route", 1.05, f"routes-100k-{name}", f"{SUBJECT}, 1 route")
    yield _ratio("`idle-10k`, CPU per busy request, × none idle", 1.05, "idle-10k", f"{SUBJECT}, none idle")
    yield Target("`idle-10k`, memory per idle connection", 1024, _per_idle, " B")
    for percent in (50, 80):
        for metric in ("p99", "p99.9"):
            for peer in ("nginx", "haproxy"):
                what = f"{metric} at {percent} % of nginx's capacity{_capped(results, percent)}, × {peer}"
                yield _ratio(what, 1.0, f"latency-{percent}", peer, metric)
    yield Target("start to first answer", 50, _footprint(lambda it: figures.spread(it["start_ms"]).median), " ms")
    yield Target("program", 15, _footprint(lambda it: it["binary_bytes"] / 1e6), " MB")
    yield Target("resident memory at rest, 2 workers", 12, _footprint(lambda it: it["rss_kib"] * 1024 / 1e6), " MB")


def _capped(results: Json, percent: int) -> str:
    """Which rate it was, when the tool could not send as much as was wanted."""
    capacity = (_scenario(results, f"latency-{percent}") or {}).get("capacity")
    share = round(capacity["per_second"] / capacity["capacity"] * 100) if capacity else percent
    return f" (measured at {share} %)" if share < percent else ""


def _ratio(
    what: str, limit: float, scenario: str, by: str, metric: str = "cpu", is_inverse: bool = False
) -> Target:
    def measured(results: Json) -> Found | None:
        found = _scenario(results, scenario)
        compared = figures.compare(found, SUBJECT, by, metric) if found else None
        if not compared:
            return None
        it, noise = compared.ratio, compared.noise or 0.0
        if is_inverse:
            return Found(1 / it.median, noise, 1 / it.high, 1 / it.low)
        return Found(it.median, noise, it.low, it.high)

    return Target(what, limit, measured, " ×", is_floor=is_inverse)


def _scenario(results: Json, name: str) -> Json | None:
    return next((it for it in results["scenarios"] if it["name"] == name), None)


def _subject(results: Json, scenario: str) -> Json | None:
    found = _scenario(results, scenario)
    subject: Json | None = found["contestants"].get(SUBJECT) if found else None
    return subject if subject and subject["blocks"] else None


def _enters(results: Json) -> Found | None:
    subject = _subject(results, "small-64")
    return Found(subject["syscalls"]["io_uring_enter_per_request"]) if subject and subject["syscalls"] else None


def _growth(scenario: str) -> Callable[[Json], Found | None]:
    def measured(results: Json) -> Found | None:
        subject = _subject(results, scenario)
        if not subject:
            return None
        most = max(block["memory"]["rss_kib"] for block in subject["blocks"])
        return Found((most - subject["memory_at_rest"]["rss_kib"]) / 1024)

    return measured


def _per_idle(results: Json) -> Found | None:
    subject = _subject(results, "idle-10k")
    value = subject["pss_bytes_per_idle_connection"] if subject else None
    return None if value is None else Found(value)


def _footprint(figure: Callable[[Json], float]) -> Callable[[Json], Found | None]:
    def measured(results: Json) -> Found | None:
        it = results.get("footprint", {}).get(SUBJECT)
        return Found(figure(it)) if it and "failure" not in it else None

    return measured


def _instructions(results: Json) -> Found | None:
    value = results.get("gate", {}).get("instructions_per_request")
    return None if value is None else Found(value)
