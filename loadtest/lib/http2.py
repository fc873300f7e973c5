"""Requests by HTTP/2 without TLS, with prior knowledge (RFC 9113 §3.3), by curl: Python has no client for it. Also the upstream
that speaks it, which is nghttpd. Knows nothing of proxies."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .processes import Failure, Service, free_port

TIMEOUT_SECONDS = 10

# What the upstream answers with, as the bundled one does.
BODY = b"x" * 100


@dataclass(frozen=True)
class Response:
    """What came for a request."""

    status: int
    fields: dict[str, str]
    body: bytes


def ask(port: int, method: str, path: str, fields: Mapping[str, str], body: bytes) -> Response:
    """Sends a request, on a connection of its own."""
    with tempfile.TemporaryDirectory() as directory:
        request, head, answer = (Path(directory) / name for name in ("request", "head", "answer"))
        request.write_bytes(body)
        command = [_curl(), "--silent", "--show-error", "--http2-prior-knowledge", "--max-time", str(TIMEOUT_SECONDS)]
        command += ["--request", method, "--dump-header", str(head), "--output", str(answer)]
        command += ["--data-binary", f"@{request}"] if body else []
        for name, value in fields.items():
            command += ["--header", f"{name}: {value}"]
        command.append(f"http://127.0.0.1:{port}{path}")
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode != 0:
            raise Failure(f"port {port}: HTTP/2: {result.stderr.strip()}")
        return _response(head.read_text(), answer.read_bytes() if answer.exists() else b"")


def _response(head: str, body: bytes) -> Response:
    """From a head as curl writes it."""
    first, *lines = head.strip().splitlines()
    status = re.fullmatch(r"HTTP/2 (\d{3}) ?", first)
    if not status:
        raise Failure(f"`{first}` is no response by HTTP/2")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Response(int(status[1]), fields, body)


def answers(port: int, path: str = "/") -> bool:
    """Whether a GET is answered with 200."""
    try:
        return ask(port, "GET", path, {}, b"").status == 200
    except Failure:
        return False


def require() -> str:
    """Where the upstream's program is. Fails when it is missing."""
    program = shutil.which("nghttpd") or shutil.which("nghttpd", path="/usr/local/sbin:/usr/sbin:/sbin")
    if not program:
        raise Failure("nghttpd is not installed; loadtest/setup does that")
    return program


def start_upstream(cpu: int, directory: Path) -> tuple[Service, int]:
    """Starts an upstream by HTTP/2 that answers `/`; returns it and its port."""
    program = require()
    documents = directory / "documents"
    documents.mkdir()
    (documents / "index.html").write_bytes(BODY)
    port = free_port()
    command = [program, "--no-tls", "--address", "127.0.0.1", "--htdocs", str(documents), str(port)]
    service = Service("nghttpd", command, (cpu,), directory / "upstream.log")
    service.wait_for(lambda: answers(port))
    return service, port


def _curl() -> str:
    if found := shutil.which("curl"):
        return found
    raise Failure("curl is not installed; scripts/install-tools does that")
