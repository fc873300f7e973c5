"""httpx through the gateway: httpx_client.py URL."""

import asyncio
import hashlib
import os
import sys
from collections.abc import Callable, Iterator

import httpx

GATEWAY = sys.argv[1]
TIMEOUT_SECONDS = 60


def client() -> httpx.Client:
    return httpx.Client(base_url=GATEWAY, timeout=TIMEOUT_SECONDS, trust_env=False)


def plain() -> None:
    with client() as http:
        response = http.get("/users/7", params={"a": "ü"})
        assert response.status_code == 200 and response.http_version == "HTTP/1.1", response
        assert response.json()["path"] == "/v2/users/7?a=%C3%BC", response.text
        assert http.head("/healthz").headers["content-length"] == "3"
        assert http.get("/healthz").text == "ok\n"
        assert http.get("/nowhere").status_code == 404
        assert http.get("/healthz").text == "ok\n"


def redirects() -> None:
    with client() as http:
        assert http.get("/old/7").headers["location"] == "/users/7"
        response = http.get("/old/7", follow_redirects=True)
        assert response.json()["path"] == "/v2/users/7" and len(response.history) == 1


def cookies() -> None:
    with client() as http:
        upstreams = {http.get("/cart").json()["upstream"] for _ in range(5)}
        assert "cart_at" in http.cookies and len(upstreams) == 1, upstreams


def uploads() -> None:
    body = os.urandom(3_000_000)

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 10_007):
            yield body[at : at + 10_007]

    with client() as http:
        assert http.post("/orders", data={"tea": "1"}).json()["body_bytes"] == 5
        assert http.post("/orders", files={"file": body}).json()["body_bytes"] > len(body)
        assert http.post("/echo", content=body).content == body
        # A generator has no length, so it goes in chunks.
        assert http.post("/echo", content=pieces()).content == body
        assert http.post("/echo", content=b"").content == b""
        assert http.post("/echo/small", content=b"x" * 16).content == b"x" * 16
        assert http.post("/echo/small", content=b"x" * 17).status_code == 413
        # Too long only with its second chunk: by then the echo may have begun, and is cut.
        try:
            assert http.post("/echo/small", content=iter([b"x" * 9, b"x" * 9])).status_code == 413
        except httpx.RemoteProtocolError:
            pass


def downloads() -> None:
    line = "".join(str(at % 10) for at in range(63)).encode() + b"\n"
    count = 20_000_000
    expected = hashlib.sha256(line * (count // 64)).digest()
    got = hashlib.sha256()
    with client() as http, http.stream("GET", "/bytes", params={"n": count}) as response:
        for piece in response.iter_raw():
            got.update(piece)
    assert got.digest() == expected


def streams() -> None:
    with client() as http:
        with http.stream("GET", "/events", params={"n": 1000, "every": 10_000}) as response:
            lines = response.iter_lines()
            # Here before the next is made, in ten seconds.
            assert [next(lines), next(lines)] == ["id: 1", "data: event 1 of 1000"]
        # The stream was left, its connection closed; the client goes on.
        with http.stream("GET", "/events", params={"n": 5, "every": 1}) as response:
            assert sum(line.startswith("data: ") for line in response.iter_lines()) == 5


def failures() -> None:
    with client() as http:
        try:
            http.get("/broken")
        except httpx.RemoteProtocolError:
            pass
        else:
            raise AssertionError("a response cut short looked whole")
        problem = http.get("/hurry")
        assert problem.status_code == 504 and problem.json()["status"] == 504
        assert problem.headers["content-type"] == "application/problem+json"
        assert http.get("/healthz").text == "ok\n"


def many() -> None:
    async def ask_all() -> list[str]:
        limits = httpx.Limits(max_connections=30)
        async with httpx.AsyncClient(base_url=GATEWAY, timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False) as http:
            responses = await asyncio.gather(*(http.get(f"/files/{at}") for at in range(300)))
        return [response.json()["path"] for response in responses]

    assert asyncio.run(ask_all()) == [f"/files/{at}" for at in range(300)]


CHECKS: list[Callable[[], None]] = [plain, redirects, cookies, uploads, downloads, streams, failures, many]
for check in CHECKS:
    check()
