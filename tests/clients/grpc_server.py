"""A server of gRPC by grpcio, for the gateway to stand before: grpc_server.py [CERT KEY]. It prints its port. Messages are bytes."""

import sys
import threading
from concurrent import futures
from typing import Any, Iterator

import grpc

SERVICE = "test.Echo"
MESSAGE_BYTES_MAX = 16 * 1024 * 1024

# Calls that were told that their caller has gone.
cancelled = threading.Semaphore(0)
begun = threading.Semaphore(0)


def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", metadata.get("x-ask", "none")), ("x-bytes-bin", b"\x00\xff")))
    context.set_trailing_metadata((("x-trailing", "done"), ("x-length-bin", len(request).to_bytes(4, "big"))))
    return request


def fails(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this: 50 % \u00e9")


def upload(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    return b"%d" % sum(len(request) for request in requests)


def download(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    count, size = map(int, request.split())
    for at in range(count):
        yield bytes([at % 251]) * size


def breaks(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield b"one"
    yield b"two"
    context.abort(grpc.StatusCode.DATA_LOSS, "no more")


def talk(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        yield b"re: " + request


def on_leave(context: grpc.ServicerContext) -> threading.Event:
    """Set when the caller has gone, which is told then. To be asked for before anything is sent: a call that is cancelled after
    that is not gone on with."""
    gone = threading.Event()

    def leave() -> None:
        cancelled.release()
        gone.set()

    if not context.add_callback(leave):
        leave()
    return gone


def silent(request: bytes, context: grpc.ServicerContext) -> bytes:
    gone = on_leave(context)
    begun.release()
    gone.wait(timeout=60)
    return b""


def takes_and_waits(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    gone = on_leave(context)
    context.send_initial_metadata((("x-first", next(requests).decode()),))
    gone.wait(timeout=60)
    return b""


def says_and_waits(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    gone = on_leave(context)
    yield request
    gone.wait(timeout=60)


def talks_and_waits(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    gone = on_leave(context)
    yield next(requests)
    gone.wait(timeout=60)


def has_begun(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Waits until a silent call is there."""
    return b"yes" if begun.acquire(timeout=15) else b"no"


def was_cancelled(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Waits until another call has lost its caller."""
    return b"yes" if cancelled.acquire(timeout=15) else b"no"


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fails": grpc.unary_unary_rpc_method_handler(fails),
    "Upload": grpc.stream_unary_rpc_method_handler(upload),
    "Download": grpc.unary_stream_rpc_method_handler(download),
    "Breaks": grpc.unary_stream_rpc_method_handler(breaks),
    "Talk": grpc.stream_stream_rpc_method_handler(talk),
    "Silent": grpc.unary_unary_rpc_method_handler(silent),
    "TakesAndWaits": grpc.stream_unary_rpc_method_handler(takes_and_waits),
    "SaysAndWaits": grpc.unary_stream_rpc_method_handler(says_and_waits),
    "TalksAndWaits": grpc.stream_stream_rpc_method_handler(talks_and_waits),
    "HasBegun": grpc.unary_unary_rpc_method_handler(has_begun),
    "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
}


def main(*files: str) -> None:
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, HANDLERS),))
    if files:
        cert, key = (open(file, "rb").read() for file in files)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    # Until the test has gone.
    sys.stdin.read()
    server.stop(grace=None)


main(*sys.argv[1:])
