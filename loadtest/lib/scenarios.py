"""What loadtest/compare measures: scenarios, each a set of contestants under the same kind of load.

A contestant is a proxy, set up in some way, under some load. Every scenario has the proxy under test twice, first and
last in the order: what these two differ by is the noise that no difference to another proxy can be told from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import workloads
from .proxies import KINDS, Edits, Setup, route_path
from .workloads import Workload

# Those that have a configuration for everything.
PEERS = ("ringgate", "nginx", "haproxy")

# Where all kinds are measured in as many blocks as ringgate. Elsewhere those that are not of PEERS have one block, where
# they are measured at all: they are far away, and would take most of the time.
FULL = "small-64"

ROUTES = 100_000
IDLE = 10_000

# Connections of the latency scenarios, and the shares of the reference's capacity that they load.
LATENCY_CONNECTIONS = 64
LATENCY_SHARES = (50, 80)
# Whose capacity that is.
LATENCY_REFERENCE = "nginx"


@dataclass(frozen=True)
class Contestant:
    """A proxy in a scenario."""

    label: str
    kind: str
    workload: Workload
    setup: Setup = Setup()
    # Idle connections held beside the load.
    idle: int = 0
    # The contestant that this one is to be compared to, beside the subject.
    base: str | None = None
    # Whether it is the first one once more.
    is_again: bool = False
    # Whether one block is enough.
    is_brief: bool = False


@dataclass(frozen=True)
class Scenario:
    """Contestants under the same load."""

    name: str
    about: str
    contestants: tuple[Contestant, ...]
    connections: int
    # What is compared: keys of lib/figures.METRICS, the first of which decides.
    metrics: tuple[str, ...] = ("cpu",)
    tool: str = "wrk"
    # The share of the reference's capacity, in percent, that an open loop sends.
    capacity_percent: int | None = None
    # Whether proxies may use the load's CPU too.
    shares_cpus: bool = False
    # Seconds of a block, at least: where what is under way at a block's end would weigh.
    block_seconds_min: int = 1
    # Whether no target hangs on it, so that half the blocks are enough.
    is_minor: bool = False
    note: str = ""

    @property
    def group(self) -> str:
        """`small-64` is one of `small`."""
        return GROUPS.get(self.name, self.name)

    def pairs(self) -> list[tuple[str, str]]:
        """Whose figures are divided by whose. The noise is not among them."""
        first = self.contestants[0]
        labels = {it.label for it in self.contestants}
        others = [it for it in self.contestants[1:] if not it.is_again]
        equal = [(first.label, it.label) for it in others if (it.base is None) == (first.base is None)]
        own = [(it.label, it.base) for it in self.contestants if it.base is not None and it.base in labels]
        return equal + own


GROUPS: dict[str, str] = {}


def names() -> list[str]:
    """Groups and scenarios, as they can be asked for."""
    scenarios = all_scenarios(PEERS)
    return list(dict.fromkeys([it.group for it in scenarios] + [it.name for it in scenarios]))


def chosen(words: Sequence[str], kinds: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names or groups; all when there is none."""
    return [it for it in all_scenarios(kinds) if not words or it.name in words or it.group in words]


def all_scenarios(kinds: Sequence[str]) -> list[Scenario]:
    """Every scenario, with these kinds of proxies as far as they can take part."""
    load = workloads.ALL
    peers = [kind for kind in kinds if kind in PEERS]
    scenarios = [_plain(FULL, load["small"], kinds, 64, group="small")]
    scenarios += [_plain(f"small-{c}", load["small"], peers, c, group="small", minor=True) for c in (16, 256, 1000)]
    scenarios += [_plain(name, load[name], kinds) for name in ("post-4k", "headers-50", "body-256k")]
    scenarios += [_plain(name, load[name], kinds, group="body-16m", block=4) for name in ("body-16m", "upload-16m")]
    scenarios += [_plain(name, load[name], kinds) for name in ("connect", "slow-upstream")]
    scenarios += [_plain("pipelined", load["pipelined"], kinds, minor=True)]
    scenarios += [_latency(percent, peers) for percent in LATENCY_SHARES]
    scenarios += [_routes("last", _route(ROUTES - 1), kinds), _routes("miss", _miss(), kinds)]
    secure = [kind for kind in kinds if KINDS[kind].tls]
    scenarios += [_plain(f"tls-{name}", load[f"tls-{name}"], secure, group="tls") for name in ("small", "full", "resume")]
    scenarios += [_plain("tls-body-16m", load["tls-body-16m"], secure, group="tls", block=4)]
    multiplexing = [kind for kind in kinds if KINDS[kind].http2]
    scenarios += [_plain(f"h2-small-{shape}", load[f"h2-small-{shape}"], multiplexing, group="h2") for shape in ("1x100", "16x16")]
    scenarios += [_plain("h2-h2", load["h2-h2"], [kind for kind in multiplexing if KINDS[kind].http2_upstream], group="h2")]
    scenarios += [_policies(peers)]
    scenarios += [_idle(kinds), _two_cores(peers), _skew(2, peers), _skew(17, peers)]
    return [it for it in scenarios if it.contestants]


def _named(name: str, group: str | None, scenario: Scenario) -> Scenario:
    if group:
        GROUPS[name] = group
    return replace(scenario, name=name)


def _plain(
    name: str,
    load: Workload,
    kinds: Sequence[str],
    connections: int = 0,
    group: str | None = None,
    block: int = 1,
    minor: bool = False,
) -> Scenario:
    def is_brief(kind: str) -> bool:
        return name != FULL and kind not in PEERS and kind != kinds[0]

    setup = Setup(tls=load.tls, http2=load.http2, http2_upstream=load.http2_upstream)
    contestants = _twice([Contestant(kind, kind, load, setup, is_brief=is_brief(kind)) for kind in kinds])
    connections = connections or load.connections
    return _named(
        name,
        group,
        Scenario(
            name,
            load.about,
            contestants,
            connections,
            tool=load.tool,
            block_seconds_min=block,
            is_minor=minor,
            note=_about_handshakes(load),
        ),
    )


def _about_handshakes(load: Workload) -> str:
    if not load.counts_handshakes:
        return ""
    if load.sessions == "resumed":
        return "Each of the clients resumes the session of its last connection, by a ticket, with a new key exchange."
    return "No client has been there before. The client believes signatures: it has to keep the proxy busy from one CPU."


def _latency(percent: int, kinds: Sequence[str]) -> Scenario:
    return _named(
        f"latency-{percent}",
        "latency",
        Scenario(
            "",
            f"GET, 100 bytes back, sent at {percent} % of {LATENCY_REFERENCE}'s capacity whether or not responses come",
            _twice([Contestant(kind, kind, workloads.ALL["small"]) for kind in kinds]),
            LATENCY_CONNECTIONS,
            metrics=("p99", "p99.9", "p50", "cpu"),
            tool="oha",
            capacity_percent=percent,
            block_seconds_min=3,
            note="Latencies count from when a request was due, so a stall counts for all that it delays.",
        ),
    )


def _route(index: int) -> Workload:
    return Workload("route", "", path=route_path(index))


def _miss() -> Workload:
    return Workload("miss", "", path="/any/none/000000", status=404)


def _routes(which: str, load: Workload, kinds: Sequence[str]) -> Scenario:
    """Each among 100,000 routes and with one: the same request, which is answered alike."""
    contestants = []
    for kind in (kind for kind in kinds if kind in PEERS):
        one = replace(load, path=route_path(0)) if load.status == 200 else load
        contestants.append(Contestant(kind, kind, load, Setup(routes=ROUTES), base=f"{kind}, 1 route"))
        contestants.append(Contestant(f"{kind}, 1 route", kind, one, Setup(routes=1)))
    about = {"last": "GET of the last of 100,000 exact routes", "miss": "GET of none of 100,000 exact routes: 404"}
    return _named(f"routes-100k-{which}", "routes-100k", Scenario("", about[which], _twice(contestants), 64))


# What each policy is in ringgate's configuration, for all routes.
POLICIES = {
    "cors": f'cors = {{ origins = ["{workloads.ORIGIN}"], credentials = true }}',
    "jwt": 'jwt = { algorithms = ["HS256"], issuer = "https://login.example", audience = ["shop"], scopes = ["read"], '
    f'keys = [{{ secret = "{workloads.TOKEN_SECRET}" }}] }}',
    "allow": """allow = "request.method == 'GET' && 'shop' == claims.aud\"""",
    "rate limit": "rate_limit = { limit = 1000000 }",
}

_LOG_OFF = '[access_log]\nformat = "off"\n'
_LOG_ON = '[access_log]\nformat = "json"\n'


def _with_policies(names: Sequence[str], logs: bool) -> Edits:
    policies = "".join(f'[[policy]]\nname = "{name}"\ndefault = true\n{POLICIES[name]}\n\n' for name in names)
    edits = [("[[cluster]]\n", f"{policies}[[cluster]]\n")] if policies else []
    return (*edits, (_LOG_OFF, _LOG_ON)) if logs else tuple(edits)


def _policies(kinds: Sequence[str]) -> Scenario:
    """ringgate with everything on that a gateway is for, beside others that do nothing but pass requests on; and with each alone."""
    load = workloads.ALL["policies"]
    asked = ("cors", "jwt", "rate limit")
    none = "ringgate, none"
    contestants = []
    for kind in kinds:
        edits = _with_policies(asked, logs=True) if kind == "ringgate" else ()
        contestants.append(Contestant(kind, kind, load, Setup(edits=edits)))
    if "ringgate" in kinds:
        contestants.append(Contestant(none, "ringgate", load))
        alone = [(name, _with_policies([name], logs=False)) for name in ("cors", "jwt", "rate limit")]
        # Without a token's claims there is nothing to ask it of.
        alone += [("jwt, allow", _with_policies(["jwt", "allow"], logs=False)), ("log", _with_policies([], logs=True))]
        for name, edits in alone:
            contestants.append(Contestant(f"ringgate, {name}", "ringgate", load, Setup(edits=edits), base=none))
    note = (
        "`ringgate` has a token verified, requests limited by address, CORS, figures and an access log as JSON; all others have none of "
        "these, and no log. The rows below it have one of them each."
    )
    return Scenario("policies-all", load.about, _twice(contestants), 64, note=note)


def _idle(kinds: Sequence[str]) -> Scenario:
    contestants = []
    for kind in (kind for kind in kinds if kind in PEERS):
        contestants.append(Contestant(kind, kind, workloads.ALL["small"], idle=IDLE, base=f"{kind}, none idle"))
        contestants.append(Contestant(f"{kind}, none idle", kind, workloads.ALL["small"]))
    about = f"GET, 100 bytes back, beside {IDLE:,} idle connections that have each had one response"
    return Scenario("idle-10k", about, _twice(contestants), 64)


def _two_cores(kinds: Sequence[str]) -> Scenario:
    contestants = []
    for kind in kinds:
        one = f"{kind}, 1 worker"
        contestants.append(Contestant(kind, kind, workloads.ALL["small"], Setup(workers=2), base=one))
        contestants.append(Contestant(one, kind, workloads.ALL["small"], Setup(workers=1)))
    note = (
        "Upstream and load use the same two CPUs as the proxies here, so requests/s are those of a machine that does "
        "everything; CPU per request tells what a second worker costs."
    )
    about = "GET, 100 bytes back, over 2 workers and over 1"
    return Scenario(
        "two-cores",
        about,
        _twice(contestants),
        64,
        metrics=("cpu", "rate"),
        shares_cpus=True,
        is_minor=True,
        note=note,
    )


def _skew(connections: int, kinds: Sequence[str]) -> Scenario:
    contestants = [Contestant(kind, kind, workloads.ALL["small"], Setup(workers=2)) for kind in kinds]
    note = (
        "As `two-cores`, with new connections in each block. `over workers` is how the proxy's CPU time was shared out "
        "among its threads, the busier one first: 50 + 50 is even, 100 + 0 all on one. `worst` is the busier one's share "
        "in the block where it was greatest."
    )
    return _named(
        f"skew-{connections}",
        "skew",
        Scenario(
            "",
            f"GET, 100 bytes back, on {connections} connections over 2 workers",
            _twice(contestants),
            connections,
            metrics=("cpu", "busiest", "rate"),
            shares_cpus=True,
            is_minor=True,
            note=note,
        ),
    )


def _twice(contestants: list[Contestant]) -> tuple[Contestant, ...]:
    """Puts the subject at the end again."""
    if not contestants:
        return ()
    again = replace(contestants[0], label=f"{contestants[0].kind} again", base=None, is_again=True)
    return (*contestants, again)
