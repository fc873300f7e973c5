"""Is a proxy's answer right? Asked before anything is measured: a wrong answer is fast, and worth nothing."""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass
from typing import BinaryIO

from . import http2, tls
from .processes import Failure
from .proxies import Proxy
from .workloads import Workload

TIMEOUT_SECONDS = 10

# What every proxy under test adds on the way to the upstream, and with which value (None: any).
EDITS = {
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-proto": "http",
    "x-forwarded-host": "127.0.0.1",
    "x-request-id": None,
    "via": None,
}


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    fields: dict[str, str]
    body: bytes


def check(proxy: Proxy, workload: Workload, upstream_port: int) -> None:
    """Fails unless the proxy answers this workload as the upstream does, and edits fields as all others do."""
    if proxy.credentials:
        _check_tls(proxy, proxy.credentials)
    _check_answer(proxy, workload, upstream_port)
    # nghttpd does not tell what it was asked; the same edits are looked at where the upstream is the bundled one.
    if _adds_fields(proxy) and not proxy.setup.routes and not workload.http2_upstream:
        _check_edits(proxy, workload)
    if workload.pipeline > 1:
        _check_pipeline(proxy, workload.pipeline)


def _check_tls(proxy: Proxy, credentials: tls.Credentials) -> None:
    """It must be who it says, and agree with clients on what all others agree on."""
    agreed = tls.agreed(proxy.port, credentials)
    if agreed != tls.WANTED:
        _fail(proxy, f"agrees on {agreed}, not on {tls.WANTED}")


def _adds_fields(proxy: Proxy) -> bool:
    """Whether it edits fields as all others do: not the floor, and not one whose configuration was changed."""
    return proxy.kind.edits and not proxy.setup.edits


def _check_answer(proxy: Proxy, workload: Workload, upstream_port: int) -> None:
    if workload.status != 200:
        _check_status(proxy, workload)
        return
    expected = _ask(upstream_port, workload, times=1, is_http2=workload.http2_upstream)[0]
    for got in _ask_proxy(proxy, workload, times=2):
        if got.status != 200 or got.body != expected.body:
            _fail(proxy, f"{workload.name}: {got.status} and {len(got.body)} bytes, not 200 and {len(expected.body)}")
        lost = {name for name in expected.fields if name.startswith("x-")} - set(got.fields)
        if lost:
            _fail(proxy, f"{workload.name}: lost {', '.join(sorted(lost))}")
        if _adds_fields(proxy) and "via" not in got.fields:
            _fail(proxy, "its responses have no Via")


def _check_status(proxy: Proxy, workload: Workload) -> None:
    """What the proxy answers itself looks as it likes, but for the status."""
    for got in _ask_proxy(proxy, workload, times=2):
        if got.status != workload.status:
            _fail(proxy, f"{workload.name}: {got.status}, not {workload.status}")


def _check_edits(proxy: Proxy, workload: Workload) -> None:
    """The upstream's `/head` answers with the request head as it arrived: with the workload's fields, and the edits."""
    head = Workload("head", "", path="/head", fields=workload.fields, keep_alive=workload.keep_alive)
    seen = _ask_proxy(proxy, head, times=1)[0]
    request_line, *lines = seen.body.decode().rstrip().split("\r\n")
    if request_line != "GET /head HTTP/1.1":
        _fail(proxy, f"the upstream was sent `{request_line}`")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    for name, value in workload.fields:
        if fields.get(name.lower()) != value:
            _fail(proxy, f"{name} is `{fields.get(name.lower(), '')}` at the upstream")
    scheme = {"x-forwarded-proto": "https"} if proxy.credentials else {}
    for name, expected in (EDITS | scheme).items():
        value = fields.get(name, "")
        # A port behind the host is as good.
        if not value or (expected and value.split(":")[0] != expected):
            _fail(proxy, f"{name} is `{value}` at the upstream")


def _check_pipeline(proxy: Proxy, depth: int) -> None:
    """Responses must come in the order of the requests, told apart by their lengths."""
    requests = "".join(f"GET /bytes/{size} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" for size in range(1, depth + 1))
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(requests.encode())
        with connection.makefile("rb") as stream:
            for size in range(1, depth + 1):
                if (got := _sized_response(stream)) != size:
                    _fail(proxy, f"pipelined response {size} has {got} bytes")


def _sized_response(stream: BinaryIO) -> int:
    """Reads one response from a connection's file, and returns the length of its body."""
    size = 0
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            size = int(value)
    return len(stream.read(size))


def _ask_proxy(proxy: Proxy, workload: Workload, times: int) -> list[Answer]:
    return _ask(proxy.port, workload, times, proxy.credentials, proxy.setup.http2)


def _ask(
    port: int,
    workload: Workload,
    times: int,
    credentials: tls.Credentials | None = None,
    is_http2: bool = False,
) -> list[Answer]:
    """Sends a workload's request so many times, on one connection unless each gets its own. With credentials it is sent over
    TLS, and the server's certificate is verified."""
    if is_http2:
        # Each on a connection of its own: that one serves them all is the load's to find out.
        request = (workload.method, workload.path, dict(workload.fields), workload.body)
        responses = [http2.ask(port, *request) for _ in range(times)]
        return [Answer(it.status, it.fields, it.body) for it in responses]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    if credentials:
        context = credentials.context()
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS, context=context)
    fields = dict(workload.fields) | ({} if workload.keep_alive else {"Connection": "close"})
    answers = []
    try:
        for _ in range(times):
            connection.request(workload.method, workload.path, workload.body or None, fields)
            used = connection.sock
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            answers.append(Answer(response.status, names, response.read()))
            if (connection.sock is used) != workload.keep_alive:
                raise Failure(f"port {port}: {workload.name}: wrong about keeping the connection")
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"port {port}: {workload.name}: {error!r}") from error
    finally:
        connection.close()
    return answers


def _fail(proxy: Proxy, problem: str) -> None:
    raise Failure(f"{proxy.label} answers wrongly: {problem}")
