"""What loadtest/tune measures: one proxy in several configurations, which differ by one option, under the load that this
option is for. The first of each is the one in loadtest/proxies, and what it differs from itself by is the noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import workloads
from .proxies import Edits, Setup
from .scenarios import Contestant, Scenario


@dataclass(frozen=True)
class Option:
    """One option of one proxy."""

    name: str
    kind: str
    workload: str
    # What the configuration in loadtest/proxies has.
    base: str
    # Other values, and the edits of the configuration that set them.
    variants: tuple[tuple[str, Edits], ...]
    connections: int = 0
    metrics: tuple[str, ...] = ("cpu", "p99")
    note: str = ""

    def scenario(self) -> Scenario:
        """Its configurations as contestants."""
        load = workloads.ALL[self.workload]
        first = Contestant(self.base, self.kind, load, Setup(tls=load.tls))
        others = [
            Contestant(label, self.kind, load, Setup(tls=load.tls, edits=edits), base=self.base)
            for label, edits in self.variants
        ]
        again = replace(first, label=f"{self.base} again", is_again=True)
        return Scenario(
            f"{self.kind}-{self.name}".replace(" ", "-"),
            f"{self.kind}, `{self.name}`, {self.workload}: {load.about}",
            (first, *others, again),
            self.connections or load.connections,
            metrics=self.metrics,
            tool=load.tool,
            note=self.note,
        )


def _runtime(key: str, *values: int | str) -> tuple[tuple[str, Edits], ...]:
    return tuple((f"{key} = {value}", (("[runtime]\n", f"[runtime]\n{key} = {value}\n"),)) for value in values)


def _after(line: str, *added: str) -> tuple[tuple[str, Edits], ...]:
    """A variant for each line that is added behind this one."""
    return tuple((_label(text), ((line, f"{line}\n{text}"),)) for text in added)


def _instead(line: str, *others: str) -> tuple[tuple[str, Edits], ...]:
    """A variant for each line that takes this one's place."""
    return tuple((_label(text), ((line, text),)) for text in others)


def _label(text: str) -> str:
    return ", ".join(line.strip(" ;") for line in text.splitlines())


_LOG = 'format = "off"'
_FORWARDED = "forwarded = false"
_LISTEN = 'address = "@listen@"'
_NULL = '\npath = "/dev/null"'

_RINGGATE = (
    Option("driver", "ringgate", "small", "io_uring", _runtime("driver", '"epoll"')),
    Option(
        "ring_entries",
        "ringgate",
        "small",
        "ring_entries = 4096, the default",
        _runtime("ring_entries", 256, 1024, 32768),
        connections=1000,
    ),
    Option(
        "max_connections",
        "ringgate",
        "small",
        "max_connections = 20000, the default",
        _runtime("max_connections", 1000, 100_000),
    ),
    Option(
        "buffers",
        "ringgate",
        "body-256k",
        "buffers = 65536, the default",
        _runtime("buffers", 1024, 262_144),
    ),
    Option(
        "backlog",
        "ringgate",
        "connect",
        "backlog = 4096, the default",
        _after(_LISTEN, "backlog = 8", "backlog = 128"),
        connections=256,
        metrics=("cpu", "p99", "max"),
    ),
    Option(
        "pool.max_idle",
        "ringgate",
        "slow-upstream",
        "max_idle = 1024",
        _instead("max_idle = 1024", "max_idle = 0", "max_idle = 64", "max_idle = 256"),
    ),
    Option(
        "access_log.format",
        "ringgate",
        "small",
        "format = off",
        (
            ("format = combined", ((_LOG, f'format = "combined"{_NULL}'),)),
            ("format = json, the default", ((_LOG, f'format = "json"{_NULL}'),)),
        ),
        note="Logs go to /dev/null, so that the disk does not count; the thread that writes them has the worker's CPU.",
    ),
    Option(
        "forwarding",
        "ringgate",
        "small",
        "all but forwarded",
        (
            ("all, the default", ((_FORWARDED, "forwarded = true"),)),
            *_after(_FORWARDED, "x_forwarded = false", "request_id = false", 'via = ""'),
            ("none", ((_FORWARDED, f'{_FORWARDED}\nx_forwarded = false\nrequest_id = false\nvia = ""'),)),
        ),
    ),
)

_BUFFERS = "        proxy_buffers 4 256k;\n        proxy_busy_buffers_size 512k;\n"

_NGINX_BUFFERS = (("16 16k", "128k"), ("2 64k", "64k"), ("4 128k", "256k"))


def _buffers(its: str, busy: str) -> str:
    return f"        proxy_buffers {its};\n        proxy_busy_buffers_size {busy};\n"


_UNBUFFERED = (
    "buffering off, 256k",
    ((_BUFFERS, f"        proxy_buffering off;\n{_BUFFERS}"), ("proxy_buffer_size 8k", "proxy_buffer_size 256k")),
)

_NGINX = (
    Option(
        "listen",
        "nginx",
        "connect",
        "reuseport deferred",
        (("reuseport", ((" deferred;", ";"),)), ("deferred", ((" reuseport deferred;", " deferred;"),))),
    ),
    Option("multi_accept", "nginx", "connect", "multi_accept on", _instead("multi_accept on;", "multi_accept off;")),
    Option(
        "request_buffering",
        "nginx",
        "post-4k",
        "request_buffering off",
        _instead("proxy_request_buffering off;", "proxy_request_buffering on;"),
    ),
    Option(
        "buffers",
        "nginx",
        "body-256k",
        "4 256k, busy 512k",
        (
            ("default", ((_BUFFERS, ""), ("        proxy_buffer_size 8k;\n", ""))),
            *((f"{it}, busy {busy}", ((_BUFFERS, _buffers(it, busy)),)) for it, busy in _NGINX_BUFFERS),
            _UNBUFFERED,
        ),
    ),
    Option(
        "body_buffer_size",
        "nginx",
        "upload-16m",
        "256k",
        tuple((f"{size}k", (("body_buffer_size 256k", f"body_buffer_size {size}k"),)) for size in (16, 64, 128, 1024)),
    ),
    Option(
        "small responses",
        "nginx",
        "small",
        "as configured",
        (
            ("buffering off, 8k", (("proxy_buffer_size 8k;", "proxy_buffer_size 8k; proxy_buffering off;"),)),
            _UNBUFFERED,
            ("ignore_client_abort", (("proxy_http_version 1.1;", "proxy_http_version 1.1;\n proxy_ignore_client_abort on;"),)),
        ),
    ),
)

_TLS = "        ssl_protocols TLSv1.3;"

_NGINX_TLS = (
    *(
        Option(
            f"ssl_session_cache {workload}",
            "nginx",
            workload,
            "ssl_session_cache none, the default",
            _after(_TLS, "        ssl_session_cache shared:tls:10m;"),
        )
        for workload in ("tls-full", "tls-resume")
    ),
    Option(
        "tls bodies",
        "nginx",
        "tls-body-16m",
        "ssl_buffer_size 16k, the default",
        (
            *_after(_TLS, "        ssl_buffer_size 64k;"),
            ("4 16k, busy 32k", ((_BUFFERS, _buffers("4 16k", "32k")),)),
            ("4 64k, busy 128k", ((_BUFFERS, _buffers("4 64k", "128k")),)),
        ),
    ),
)

_SPLICE = "    option splice-request\n    option splice-response\n"
_THREADS = "    nbthread @workers@\n"

_HAPROXY = (
    Option(
        "bind",
        "haproxy",
        "connect",
        "defer-accept",
        (
            ("no defer-accept", ((" defer-accept", ""),)),
            *_after("    option http-keep-alive", "    option tcp-smart-accept\n    option tcp-smart-connect"),
        ),
    ),
    Option(
        "polling",
        "haproxy",
        "small",
        "as configured",
        _after(
            "    nbthread @workers@",
            "    tune.maxpollevents 1000",
            "    tune.idle-pool.shared off",
            "    expose-experimental-directives\n    tune.fd.edge-triggered on",
        ),
    ),
    *(
        Option(
            f"bodies {workload}",
            "haproxy",
            workload,
            "splice, bufsize 16384 as by default",
            (
                ("no splice", ((_SPLICE, ""),)),
                ("no splice, bufsize 65536", ((_SPLICE, ""), (_THREADS, f"{_THREADS}    tune.bufsize 65536\n"))),
                *_after(_THREADS.rstrip(), "    tune.bufsize 65536"),
                ("splice-auto", ((_SPLICE, "    option splice-auto\n"),)),
            ),
        )
        for workload in ("small", "post-4k", "body-256k", "body-16m", "upload-16m")
    ),
)

_HAPROXY_TLS = (
    *(
        Option(
            f"tune.ssl.cachesize {workload}",
            "haproxy",
            workload,
            "tune.ssl.cachesize 0",
            (("tune.ssl.cachesize 20000, the default", (("    tune.ssl.cachesize 0\n", ""),)),),
        )
        for workload in ("tls-full", "tls-resume")
    ),
    *(
        Option(
            f"tls buffers {workload}",
            "haproxy",
            workload,
            "splice, bufsize 16384 as by default",
            (
                ("no splice", ((_SPLICE, ""),)),
                *_after(_THREADS.rstrip(), "    tune.bufsize 32768", "    tune.bufsize 65536"),
            ),
        )
        for workload in ("tls-small", "tls-body-16m")
    ),
)

OPTIONS = (*_RINGGATE, *_NGINX, *_NGINX_TLS, *_HAPROXY, *_HAPROXY_TLS)


def names() -> list[str]:
    """Proxies and options, as they can be asked for."""
    scenarios = [it.scenario().name for it in OPTIONS]
    return list(dict.fromkeys([it.kind for it in OPTIONS] + scenarios))


def chosen(words: list[str]) -> list[Scenario]:
    """The options of these names or proxies."""
    return [it.scenario() for it in OPTIONS if it.kind in words or it.scenario().name in words]
