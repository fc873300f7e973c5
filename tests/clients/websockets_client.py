"""websockets through the gateway: websockets_client.py URL."""

import asyncio
import os
import sys

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

URL = sys.argv[1].replace("http", "ws", 1)
TIMEOUT_SECONDS = 60


def socket() -> connect:
    return connect(f"{URL}/ws", proxy=None, open_timeout=TIMEOUT_SECONDS)


async def echoes(socket: ClientConnection, message: str | bytes) -> None:
    await socket.send(message)
    got = await socket.recv()
    assert got == message, f"{len(got)} of {len(message)}"


async def messages() -> None:
    async with socket() as one:
        for text in ["hello", "grüezi", ""]:
            await echoes(one, text)
        for length in [0, 1, 125, 126, 16_384, 65_536, 1_000_000]:
            await echoes(one, os.urandom(length))
        # In fragments.
        await one.send(["one ", "two ", "three"])
        assert await one.recv() == "one two three"
        await (await one.ping())
        await one.close(code=1000, reason="done")
        assert one.close_code == 1000


async def many() -> None:
    async def talk(number: int) -> None:
        async with socket() as one:
            for at in range(20):
                await echoes(one, f"{number}: {at}")

    await asyncio.gather(*(talk(number) for number in range(50)))


async def both_at_once() -> None:
    """Megabytes up while they come down: neither direction waits for the other."""
    count, piece = 200, os.urandom(50_000)
    async with socket() as one:

        async def send() -> None:
            for _ in range(count):
                await one.send(piece)

        sending = asyncio.create_task(send())
        for _ in range(count):
            assert await one.recv() == piece
        await sending


async def refused() -> None:
    try:
        async with connect(f"{URL}/nowhere", proxy=None):
            raise AssertionError("/nowhere is no WebSocket")
    except InvalidStatus as refusal:
        assert refusal.response.status_code == 404


async def main() -> None:
    for check in [messages, many, both_at_once, refused]:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await check()


asyncio.run(main())
