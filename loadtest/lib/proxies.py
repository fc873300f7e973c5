"""The proxies under test: their configurations from the templates in loadtest/proxies, each with one worker."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .accounting import Memory, cpu_ns, memory
from .processes import Failure, Service, free_port, session_pids

TEMPLATES = Path(__file__).resolve().parent.parent / "proxies"

CLIENTS_MAX = 20_000

# The routes of `ringgate-100k`; workloads ask for the last one, and for the one behind it.
MANY_ROUTES = 100_000


@dataclass(frozen=True)
class Kind:
    """A program that can stand between the load and the upstream."""

    name: str
    template: str
    # Binary and configuration to command line.
    command: Callable[[str, str], list[str]]
    version_argument: str
    # The program's name, if it is not this kind's.
    program: str = ""
    # Routes beside the one that takes everything.
    routes: int = 0


KINDS = {
    kind.name: kind
    for kind in (
        Kind("ringgate", "ringgate.toml", lambda binary, config: [binary, "run", "-c", config], "--version"),
        Kind(
            "ringgate-100k",
            "ringgate.toml",
            lambda binary, config: [binary, "run", "-c", config],
            "--version",
            program="ringgate",
            routes=MANY_ROUTES,
        ),
        Kind("nginx", "nginx.conf", lambda binary, config: [binary, "-c", config], "-v"),
        Kind("haproxy", "haproxy.cfg", lambda binary, config: [binary, "-db", "-f", config], "-v"),
    )
}


@dataclass(frozen=True)
class Place:
    """Where proxies run."""

    cpu: int
    upstream_port: int
    # For configurations and logs.
    directory: Path
    # Files that a process may open.
    descriptors: int


class Proxy:
    """A proxy that accepts connections on `port`."""

    def __init__(self, label: str, kind: Kind, binary: str, place: Place) -> None:
        self.label = label
        self.kind = kind
        self.version = _version(binary, kind)
        self.port = free_port()
        directory = place.directory / label
        directory.mkdir()
        self.configuration = _fill(TEMPLATES / kind.template, _words(self.port, directory, place))
        config = directory / kind.template
        config.write_text(self.configuration + routes(kind.routes))
        command = kind.command(binary, str(config))
        self.service = Service(label, command, place.cpu, directory / "log")
        self.service.wait_for_port(self.port)

    def cpu_ns(self) -> int:
        """CPU time of all its threads, in ns."""
        return cpu_ns(session_pids(self.service.session))

    def memory(self) -> Memory:
        """What it holds."""
        return memory(session_pids(self.service.session))

    def require_alive(self) -> None:
        """Fails when it has ended."""
        if self.service.process.poll() is not None:
            raise Failure(f"{self.label} ended:\n{self.service.log_tail()}")


def routes(count: int) -> str:
    """So many routes more for ringgate, each for one path."""
    one = '\n[[route]]\nname = "{0:06}"\nmatch = {{ path = "/any/service-{0:06}" }}\ncluster = "upstream"\n'
    return "".join(one.format(number) for number in range(count))


def binary_of(kind: Kind) -> str:
    """Where an installed proxy is; servers are often kept outside a user's PATH."""
    program = kind.program or kind.name
    found = shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise Failure(f"{program} is not installed; scripts/install-tools --bench does that")
    return found


def labels(names: list[str]) -> list[str]:
    """Names made unique: a second `nginx` is `nginx-2`, so that a proxy can be compared to itself."""
    return [name if not (n := names[:index].count(name)) else f"{name}-{n + 1}" for index, name in enumerate(names)]


def _words(port: int, directory: Path, place: Place) -> dict[str, str]:
    return {
        "listen": f"127.0.0.1:{port}",
        "upstream": f"127.0.0.1:{place.upstream_port}",
        "cpu": str(place.cpu),
        "directory": str(directory),
        # Each client costs two sockets; some descriptors are for other things.
        "clients": str(min(CLIENTS_MAX, (place.descriptors - 200) // 2)),
        "sockets": str(min(2 * CLIENTS_MAX, place.descriptors - 200)),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "group": grp.getgrgid(os.getgid()).gr_name,
    }


def _fill(template: Path, words: dict[str, str]) -> str:
    """Puts values in the place of `@word@`; a word that has none is an error."""
    return re.sub(r"@(\w+)@", lambda match: words[match[1]], template.read_text())


def _version(binary: str, kind: Kind) -> str:
    """The first line of what a program says about its version."""
    result = subprocess.run(
        [binary, kind.version_argument], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
    )
    return next(iter((result.stdout + result.stderr).splitlines()), "unknown")
