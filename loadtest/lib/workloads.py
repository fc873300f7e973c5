"""What is sent through a proxy. Each workload is told once here; the tools and the checks translate it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

# Connections under way where each begins with a TLS handshake.
HANDSHAKING = 8


@dataclass(frozen=True)
class Workload:
    """One kind of request, repeated."""

    name: str
    about: str
    path: str = "/"
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    body_bytes: int = 0
    # Requests in one send.
    pipeline: int = 1
    # Whether a connection serves more than one request.
    keep_alive: bool = True
    # What every response must say.
    status: int = 200
    # Bytes that each request moves, where that is what matters.
    payload_bytes: int = 0
    connections: int = 64
    # Whether clients speak TLS with the proxy, and then with which sessions each connection begins: new ones or resumed ones.
    tls: bool = False
    sessions: str = "new"
    # Whether clients speak HTTP/2 with the proxy, and how many requests each has under way on its connection; and whether the
    # proxy speaks it with the upstream.
    http2: bool = False
    streams: int = 1
    http2_upstream: bool = False
    # What makes the load, unless told otherwise.
    tool: str = "wrk"
    # The script in loadtest/wrk, and its arguments.
    wrk_script: str = "report.lua"
    wrk_arguments: tuple[str, ...] = ()

    @property
    def counts_handshakes(self) -> bool:
        """Whether each request costs a TLS handshake."""
        return self.tls and not self.keep_alive

    @property
    def body(self) -> bytes:
        """The request's body."""
        return b"x" * self.body_bytes


def _many_fields(count: int) -> tuple[tuple[str, str], ...]:
    """The fields that wrk/headers.lua sends."""
    return tuple((f"X-Field-{index}", f"value-{index}-of-a-plausible-length") for index in range(count))


def _upload(name: str, about: str, body_bytes: int, connections: int = 64) -> Workload:
    return Workload(
        name,
        about,
        path="/upload",
        method="POST",
        fields=(("Content-Type", "application/octet-stream"),),
        body_bytes=body_bytes,
        payload_bytes=body_bytes if body_bytes >= MIB else 0,
        connections=connections,
        wrk_script="post.lua",
        wrk_arguments=(str(body_bytes),),
    )


def _handshake(name: str, about: str, sessions: str) -> Workload:
    """With so few clients, which keep a proxy busy all the same, that their first handshakes do not weigh: those are full."""
    return Workload(
        name, about, keep_alive=False, tls=True, sessions=sessions, connections=HANDSHAKING, tool="handshakes"
    )


# What tokens of the policies' scenario are signed with, as an example that everyone knows.
TOKEN_SECRET = "an example of a secret, 32 bytes or more"

# Whose pages ask there.
ORIGIN = "https://shop.example"


def _token() -> str:
    """A token as issuers make them, good until 2100."""

    def encoded(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    claims = b'{"iss":"https://login.example","sub":"anna","aud":"shop","exp":4102444800,"scope":"read write"}'
    signed = ".".join(encoded(part) for part in (b'{"alg":"HS256","typ":"JWT"}', claims))
    tag = hmac.new(TOKEN_SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{encoded(tag)}"


def _credentialed(name: str, about: str) -> Workload:
    fields = (("Authorization", f"Bearer {_token()}"), ("Origin", ORIGIN))
    arguments = tuple(f"{field}={value}" for field, value in fields)
    return Workload(name, about, fields=fields, wrk_script="fields.lua", wrk_arguments=arguments)


def _multiplexed(name: str, about: str, connections: int, streams: int, upstream: bool = False) -> Workload:
    about = f"{about}, {streams} at once on each connection"
    return Workload(
        name, about, http2=True, streams=streams, http2_upstream=upstream, connections=connections, tool="h2load"
    )


ALL = {
    workload.name: workload
    for workload in (
        Workload("small", "GET, 100 bytes back"),
        _upload("post-4k", "POST of 4 KiB", 4 * KIB),
        Workload(
            "headers-50",
            "GET with 50 fields more, 50 more back",
            path="/headers/50",
            fields=_many_fields(50),
            wrk_script="headers.lua",
            wrk_arguments=("50",),
        ),
        Workload("body-256k", "GET, 256 KiB back", path=f"/bytes/{256 * KIB}", payload_bytes=256 * KIB),
        # Few connections, as what is under way at a block's end costs CPU and counts for nothing.
        Workload("body-16m", "GET, 16 MiB back", path=f"/bytes/{16 * MIB}", payload_bytes=16 * MIB, connections=8),
        _upload("upload-16m", "POST of 16 MiB", 16 * MIB, connections=8),
        Workload("connect", "GET on a new connection each", keep_alive=False, wrk_script="connect.lua"),
        Workload("slow-upstream", "GET, answered after 10 ms", path="/delay/10", connections=1000),
        Workload(
            "pipelined",
            "GETs, 16 in one send",
            pipeline=16,
            wrk_script="pipeline.lua",
            wrk_arguments=("16",),
        ),
        Workload("tls-small", "GET over TLS, 100 bytes back", tls=True),
        _handshake("tls-full", "GET on a new connection each, with a full TLS handshake", "new"),
        _handshake("tls-resume", "GET on a new connection each, which resumes a TLS session", "resumed"),
        Workload(
            "tls-body-16m",
            "GET over TLS, 16 MiB back",
            path=f"/bytes/{16 * MIB}",
            payload_bytes=16 * MIB,
            connections=8,
            tls=True,
        ),
        _credentialed("policies", "GET with a bearer token, of a page of another origin, 100 bytes back"),
        _multiplexed("h2-small-1x100", "GETs by HTTP/2, 100 bytes back", 1, 100),
        _multiplexed("h2-small-16x16", "GETs by HTTP/2, 100 bytes back", 16, 16),
        _multiplexed("h2-h2", "GETs by HTTP/2, passed on by HTTP/2, 100 bytes back", 1, 100, upstream=True),
    )
}
