"""Idle connections to a proxy, held by a process of its own: each asks once, gets its response, and stays.

Run as a program it is that process: `python3 -m lib.idle PORT COUNT` prints a line when all are held, and another with
the number that are still open when its input ends.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from pathlib import Path

from .processes import Failure, child_setup

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
RESPONSE_BYTES_MAX = 4096

# Connections from one source address, well below the ports that it has. Not 127.0.0.1: its ports are for the load and
# for the proxies' own connections.
PER_ADDRESS = 10_000
FIRST_ADDRESS = 2

# Of <linux/in.h>: bind only the address, so that a port may serve several connections with different ends.
IP_BIND_ADDRESS_NO_PORT = 24

HOLD_SECONDS_MAX = 60


class Idle:
    """Connections that are held until told to end."""

    def __init__(self, port: int, count: int, cpus: tuple[int, ...]) -> None:
        self.count = count
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lib.idle", str(port), str(count)],
            cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=child_setup(cpus),
        )
        if self._line() != f"held {count}":
            self.process.kill()
            raise Failure(f"port {port} does not hold {count} idle connections")

    def end(self) -> None:
        """Lets go of them; fails unless all have lasted."""
        assert self.process.stdin
        self.process.stdin.close()
        last = self._line()
        self.process.wait()
        if last != f"open {self.count}":
            raise Failure(f"of {self.count} idle connections not all have lasted: {last or 'none is known of'}")

    def _line(self) -> str:
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], HOLD_SECONDS_MAX)
        return self.process.stdout.readline().strip() if ready else ""


def _hold(port: int, count: int) -> None:
    connections = [_connect(port, index) for index in range(count)]
    print(f"held {len(connections)}", flush=True)
    sys.stdin.read()
    print(f"open {sum(map(_is_open, connections))}", flush=True)


def _connect(port: int, index: int) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(HOLD_SECONDS_MAX)
    connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((f"127.0.0.{FIRST_ADDRESS + index // PER_ADDRESS}", 0))
    connection.connect(("127.0.0.1", port))
    connection.sendall(REQUEST)
    # A response is short enough to come in one piece, and nothing more comes.
    if not connection.recv(RESPONSE_BYTES_MAX).startswith(b"HTTP/1.1 200"):
        raise Failure(f"connection {index} got no response")
    return connection


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


if __name__ == "__main__":
    from .processes import raise_descriptor_limit

    raise_descriptor_limit()
    _hold(int(sys.argv[1]), int(sys.argv[2]))
