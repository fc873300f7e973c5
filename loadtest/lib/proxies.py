"""The proxies under test: their configurations from the templates in loadtest/proxies, and how each is started."""

from __future__ import annotations

import difflib
import grp
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import accounting, http2, tls
from .accounting import Memory
from .build import TARGET
from .processes import Failure, Service, answers, free_port, session_pids

TEMPLATES = Path(__file__).resolve().parent.parent / "proxies"

CLIENTS_MAX = 20_000

Words = dict[str, str]

# Texts, each of which must stand in a configuration once, and what replaces them.
Edits = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Kind:
    """A program that can stand between the load and the upstream."""

    name: str
    # The first one is what the program is started with.
    templates: tuple[str, ...]
    # Binary, configuration and words to command line.
    command: Callable[[str, str, Words], list[str]]
    version: tuple[str, ...] = ("--version",)
    # What `@routes@` stands for, from the number of routes: 0 is one that takes everything.
    routes: Callable[[int], str] | None = None
    # Whether it speaks HTTP, and so adds fields. The floor does not.
    edits: bool = True
    # What its configuration has otherwise when it speaks TLS with clients, if there is such a configuration.
    tls: Edits = ()
    # The same with HTTP/2 instead, without TLS; and with HTTP/2 to the upstream.
    http2: Edits = ()
    http2_upstream: Edits = ()


@dataclass(frozen=True)
class Setup:
    """How a proxy is configured."""

    workers: int = 1
    # Exact routes, or 0 for one that takes everything.
    routes: int = 0
    # Whether it speaks TLS with clients.
    tls: bool = False
    # Whether it speaks HTTP/2 with clients, and with the upstream.
    http2: bool = False
    http2_upstream: bool = False
    # What its main configuration has otherwise.
    edits: Edits = ()


def route_path(index: int) -> str:
    """The path of a route; the upstream answers below /any."""
    return f"/any/route/{index:06}"


def _ringgate_routes(count: int) -> str:
    if count == 0:
        return '[[route]]\nname = "all"\nmatch = { path = "/*" }\ncluster = "upstream"'
    return "\n\n".join(
        f'[[route]]\nname = "r{index}"\nmatch = {{ path = "{route_path(index)}" }}\ncluster = "upstream"'
        for index in range(count)
    )


def _nginx_routes(count: int) -> str:
    if count == 0:
        return "        location / { proxy_pass http://upstream; }"
    exact = [f"        location = {route_path(index)} {{ proxy_pass http://upstream; }}" for index in range(count)]
    return "\n".join([*exact, "        location / { return 404; }"])


def _haproxy_routes(count: int) -> str:
    if count == 0:
        return ""
    # A file of exact paths is looked up as a tree.
    return (
        "    acl known path -f @directory@/routes.list\n"
        '    http-request return status 404 hdr Via "1.1 haproxy" unless known'
    )


_RINGGATE_TLS = (
    (
        "defer_accept = true\n",
        'defer_accept = true\ntls = { certificates = [{ cert = "@certificate@", key = "@key@" }] }\n',
    ),
)

# Tickets are as by default, and make sessions that a server would have to remember superfluous.
_NGINX_TLS = (
    (
        " reuseport deferred;\n",
        " reuseport deferred ssl;\n"
        "        ssl_certificate @certificate@;\n"
        "        ssl_certificate_key @key@;\n"
        "        ssl_protocols TLSv1.3;\n",
    ),
)

# It would remember sessions for which clients have tickets, for a twentieth of a handshake.
_HAPROXY_TLS = (
    ("    nbthread @workers@\n", "    nbthread @workers@\n    tune.ssl.cachesize 0\n"),
    (" defer-accept\n", " defer-accept ssl crt @pair@ ssl-min-ver TLSv1.3\n"),
    ("X-Forwarded-Proto http\n", "X-Forwarded-Proto https\n"),
)

_RINGGATE_HTTP2 = (("defer_accept = true\n", "defer_accept = true\nh2c = true\n"),)
_RINGGATE_HTTP2_UPSTREAM = (("pool = {", 'protocol = "h2"\npool = {'),)

_NGINX_HTTP2 = ((" reuseport deferred;\n", " reuseport deferred http2;\n"),)

_HAPROXY_HTTP2 = ((" defer-accept\n", " defer-accept proto h2\n"),)
_HAPROXY_HTTP2_UPSTREAM = (("server upstream @upstream@ ", "server upstream @upstream@ proto h2 "),)

_ENVOY_HTTP2 = (("codec_type: HTTP1\n", "codec_type: HTTP2\n"),)
_ENVOY_HTTP2_UPSTREAM = (
    (
        "      connect_timeout: 2s\n",
        "      connect_timeout: 2s\n"
        "      typed_extension_protocol_options:\n"
        "        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n"
        '          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n'
        "          explicit_http_config: { http2_protocol_options: {} }\n",
    ),
)

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "ringgate",
            ("ringgate.toml",),
            lambda binary, config, _: [binary, "run", "-c", config],
            routes=_ringgate_routes,
            tls=_RINGGATE_TLS,
            http2=_RINGGATE_HTTP2,
            http2_upstream=_RINGGATE_HTTP2_UPSTREAM,
        ),
        Kind(
            "ringgate-pgo",
            ("ringgate.toml",),
            lambda binary, config, _: [binary, "run", "-c", config],
            routes=_ringgate_routes,
            tls=_RINGGATE_TLS,
            http2=_RINGGATE_HTTP2,
            http2_upstream=_RINGGATE_HTTP2_UPSTREAM,
        ),
        Kind(
            "nginx",
            ("nginx.conf",),
            lambda binary, config, _: [binary, "-c", config],
            ("-v",),
            _nginx_routes,
            tls=_NGINX_TLS,
            http2=_NGINX_HTTP2,
        ),
        Kind(
            "haproxy",
            ("haproxy.cfg",),
            lambda binary, config, _: [binary, "-db", "-f", config],
            ("-v",),
            _haproxy_routes,
            tls=_HAPROXY_TLS,
            http2=_HAPROXY_HTTP2,
            http2_upstream=_HAPROXY_HTTP2_UPSTREAM,
        ),
        Kind(
            "pingora",
            (),
            lambda binary, _, words: [binary, words["listen"], words["upstream"], words["workers"]],
        ),
        Kind(
            "envoy",
            ("envoy.yaml",),
            lambda binary, config, words: [
                *(binary, "-c", config, "--concurrency", words["workers"]),
                *("--disable-hot-restart", "--log-level", "warn"),
            ],
            http2=_ENVOY_HTTP2,
            http2_upstream=_ENVOY_HTTP2_UPSTREAM,
        ),
        Kind(
            "traefik",
            ("traefik.yaml", "traefik-routes.yaml"),
            lambda binary, config, _: [binary, f"--configfile={config}"],
            ("version",),
        ),
        Kind(
            "caddy",
            ("Caddyfile",),
            lambda binary, config, _: [binary, "run", "--adapter", "caddyfile", "--config", config],
            ("version",),
        ),
        Kind(
            "floor",
            (),
            lambda binary, _, words: [binary, "--listen", words["listen"], "--upstream", words["upstream"]],
            edits=False,
        ),
    )
}


@dataclass(frozen=True)
class Place:
    """Where proxies run."""

    cpus: tuple[int, ...]
    upstream_port: int
    # For configurations and logs.
    directory: Path
    # Files that a process may open.
    descriptors: int


class Proxy:
    """A proxy that accepts connections on `port`."""

    def __init__(self, label: str, kind: Kind, binary: str, place: Place, setup: Setup = Setup()) -> None:
        self.label = label
        self.kind = kind
        self.setup = setup
        self.version = version(binary, kind)
        self.port = free_port()
        self.credentials = tls.credentials(place.directory) if setup.tls else None
        directory = place.directory / re.sub(r"\W+", "-", label)
        directory.mkdir()
        command, self.configuration = configure(kind, binary, setup, place, self.port, directory)
        self.service = Service(label, command, place.cpus, directory / "log")
        path = route_path(0) if setup.routes else "/"
        context = self.credentials.context() if self.credentials else None
        self.service.wait_for(
            lambda: http2.answers(self.port, path) if setup.http2 else answers(self.port, path, context)
        )

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return session_pids(self.service.session)

    def cpu_ns(self) -> int:
        """CPU time of all its threads, in ns."""
        return accounting.cpu_ns(self.pids)

    def memory(self) -> Memory:
        """What it holds."""
        return accounting.memory(self.pids)

    def require_alive(self) -> None:
        """Fails when it has ended."""
        if self.service.process.poll() is not None:
            raise Failure(f"{self.label} ended:\n{self.service.log_tail()}")


def configure(
    kind: Kind, binary: str, setup: Setup, place: Place, port: int, directory: Path
) -> tuple[list[str], str]:
    """Writes a proxy's files; returns its command line and its main configuration."""
    words = _words(port, directory, place, setup)
    routes = kind.routes(setup.routes) if kind.routes else ""
    if setup.routes:
        if not kind.routes:
            raise Failure(f"{kind.name} has no configuration with {setup.routes} routes")
        listed = "".join(f"{route_path(index)}\n" for index in range(setup.routes))
        (directory / "routes.list").write_text(listed)
    templates = [(TEMPLATES / name).read_text() for name in kind.templates]
    edits = (*_edits(kind, setup), *setup.edits)
    templates[:1] = [_edited(template, edits) for template in templates[:1]]
    texts = [_fill(template.replace("@routes@", routes), words) for template in templates]
    for name, text in zip(kind.templates, texts):
        (directory / name).write_text(text)
    config = str(directory / kind.templates[0]) if kind.templates else ""
    return kind.command(binary, config, words), texts[0] if texts else ""


def _edits(kind: Kind, setup: Setup) -> Edits:
    """What a setup changes in a configuration, but for the edits of its own."""
    wanted = ((setup.tls, kind.tls, "TLS"), (setup.http2, kind.http2, "HTTP/2"))
    wanted += ((setup.http2_upstream, kind.http2_upstream, "HTTP/2 to the upstream"),)
    for is_wanted, edits, what in wanted:
        if is_wanted and not edits:
            raise Failure(f"{kind.name} has no configuration for {what}")
    return tuple(edit for is_wanted, edits, _ in wanted if is_wanted for edit in edits)


def difference(kind: Kind, edits: Edits) -> str:
    """What its configuration has otherwise with these edits, for a reader."""
    if not edits:
        return ""
    template = (TEMPLATES / kind.templates[0]).read_text()
    lines = difflib.unified_diff(template.splitlines(), _edited(template, edits).splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def _edited(template: str, edits: Edits) -> str:
    for old, new in edits:
        if template.count(old) != 1:
            raise Failure(f"`{old.strip()}` does not stand in the configuration once")
        template = template.replace(old, new)
    return template


def binary_of(kind: Kind) -> str:
    """Where an installed proxy is; servers are often kept outside a user's PATH."""
    if found := installed(kind):
        return found
    raise Failure(f"{kind.name} is not installed; loadtest/setup does that")


def installed(kind: Kind) -> str | None:
    """The same, or nothing. What loadtest/setup has put below target comes first."""
    for pattern in (
        f"proxies/lib/python3*/site-packages/{kind.name}/_bin/{kind.name}",
        f"proxies/bin/{kind.name}",
        f"{kind.name}/release/loadtest-{kind.name}",
    ):
        if found := next(iter(sorted(TARGET.glob(pattern))), None):
            return str(found)
    return shutil.which(kind.name) or shutil.which(kind.name, path="/usr/local/sbin:/usr/sbin:/sbin")


def labels(names: list[str]) -> list[str]:
    """Names made unique: a second `nginx` is `nginx-2`, so that a proxy can be compared to itself."""
    return [name if not (n := names[:index].count(name)) else f"{name}-{n + 1}" for index, name in enumerate(names)]


def _words(port: int, directory: Path, place: Place, setup: Setup) -> Words:
    cpus = sorted(place.cpus)[: setup.workers]
    files = tls.credentials(place.directory).words() if setup.tls else {}
    return files | {
        "listen": f"127.0.0.1:{port}",
        "listen_port": str(port),
        "upstream": f"127.0.0.1:{place.upstream_port}",
        "upstream_port": str(place.upstream_port),
        "workers": str(setup.workers),
        "cpu_list": " ".join(map(str, cpus)),
        # One mask for each worker, as nginx wants it: the lowest CPU is the last digit.
        "cpu_masks": " ".join(f"{1 << cpu:b}" for cpu in cpus),
        "directory": str(directory),
        "descriptors": str(place.descriptors),
        # Each client costs two sockets; some descriptors are for other things.
        "clients": str(min(CLIENTS_MAX, place.descriptors - 1200)),
        "sockets": str(min(2 * CLIENTS_MAX, place.descriptors - 200)),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "group": grp.getgrgid(os.getgid()).gr_name,
    }


def _fill(template: str, words: Words) -> str:
    """Puts values in the place of `@word@`; a word that has none is an error."""
    return re.sub(r"@(\w+)@", lambda match: words[match[1]], template)


def version(binary: str, kind: Kind) -> str:
    """What a program says about its version: the line with a number in it."""
    result = subprocess.run(
        [binary, *kind.version], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
    )
    lines: Sequence[str] = (result.stdout + result.stderr).splitlines()
    # Envoy names its own path before it, others add build hashes behind it.
    numbers = (re.search(r"\d+\.\d+\.\d+\S{0,12}(?=[/\s]|$)", line) for line in lines)
    found = next((match[0] for match in numbers if match), None)
    return found or next(iter(lines), "unknown")
