"""httpx by HTTP/2 through the gateway, before an echo: httpx_http2.py PLAIN SECURE ROOT."""

import asyncio
import os
import ssl
import sys

import httpx

PLAIN, SECURE, ROOT = sys.argv[1:]
TIMEOUT_SECONDS = 30


def clients() -> list[tuple[str, dict]]:
    trust = ssl.create_default_context(cafile=ROOT)
    # Without TLS only by prior knowledge.
    return [(PLAIN, {"http1": False, "http2": True}), (SECURE, {"http2": True, "verify": trust})]


async def check(url: str, options: dict) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False, **options) as http:
        response = await http.get("/a?b=c", headers={"cookie": "a=1; b=2"})
        assert (response.status_code, response.http_version) == (200, "HTTP/2"), response
        assert response.text.startswith("GET /a?b=c HTTP/1.1"), response.text
        assert "a=1; b=2" in response.text, response.text
        body = os.urandom(2_000_000)
        assert (await http.post("/", content=body)).content == body

        async def pieces():
            for at in range(0, len(body), 70_000):
                yield body[at : at + 70_000]

        assert (await http.post("/", content=pieces())).content == body
        # More at once than a connection takes.
        answers = await asyncio.gather(*(http.post("/", content=f"{at}") for at in range(300)))
        assert [answer.text for answer in answers] == [f"{at}" for at in range(300)]
        async with http.stream("POST", "/", content=body) as response:
            # Left before its end.
            async for _ in response.aiter_raw():
                break
        assert (await http.head("/")).status_code == 200


async def main() -> None:
    for url, options in clients():
        await check(url, options)


asyncio.run(main())
