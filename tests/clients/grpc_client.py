"""A caller of gRPC by grpcio, through the gateway: grpc_client.py CHECK TARGET [ROOT]."""

import os
import queue
import sys
from typing import Any, Callable

import grpc

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
TIMEOUT_SECONDS = 30
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_http_proxy", 0),
    # What fails is to be seen.
    ("grpc.enable_retries", 0),
]


def connect(target: str, root: str | None = None) -> grpc.Channel:
    if root:
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(open(root, "rb").read()), OPTIONS)
    return grpc.insecure_channel(target, OPTIONS)


def failure(call: Callable[[], Any]) -> grpc.RpcError:
    try:
        answer = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"it succeeds: {answer!r}")


def is_status(error: grpc.RpcError, status: grpc.StatusCode) -> None:
    assert error.code() == status, f"{error.code()}, {error.details()}, not {status}"


def unary(channel: grpc.Channel) -> None:
    ask = channel.unary_unary("/test.Echo/Unary")
    for size in [0, 1, 1000, 20_000]:
        body = os.urandom(size)
        assert ask(body, timeout=TIMEOUT_SECONDS) == body
    answers = [ask.future(b"%d" % at, timeout=TIMEOUT_SECONDS) for at in range(200)]
    assert [answer.result() for answer in answers] == [b"%d" % at for at in range(200)]


def metadata(channel: grpc.Channel) -> None:
    ask = channel.unary_unary("/test.Echo/Unary")
    answer, call = ask.with_call(b"abc", timeout=TIMEOUT_SECONDS, metadata=(("x-ask", "me"), ("x-raw-bin", b"\x00\x01")))
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (initial["x-initial"], initial["x-bytes-bin"]) == ("me", b"\x00\xff"), initial
    assert (trailing["x-trailing"], trailing["x-length-bin"]) == ("done", b"\x00\x00\x00\x03"), trailing
    assert call.code() == grpc.StatusCode.OK


def errors(channel: grpc.Channel) -> None:
    error = failure(lambda: channel.unary_unary("/test.Echo/Fails")(b"", timeout=TIMEOUT_SECONDS))
    is_status(error, grpc.StatusCode.FAILED_PRECONDITION)
    assert error.details() == "not like this: 50 % \u00e9", error.details()
    assert dict(error.trailing_metadata())["x-why"] == "because"
    # What the server itself does not know.
    for path in ["/test.Echo/Unknown", "/test.Other/Unary"]:
        is_status(failure(lambda: channel.unary_unary(path)(b"", timeout=TIMEOUT_SECONDS)), grpc.StatusCode.UNIMPLEMENTED)
    # After some messages.
    got = []

    def read() -> None:
        for message in channel.unary_stream("/test.Echo/Breaks")(b"", timeout=TIMEOUT_SECONDS):
            got.append(message)

    is_status(failure(read), grpc.StatusCode.DATA_LOSS)
    assert got == [b"one", b"two"], got


def streams(channel: grpc.Channel) -> None:
    upload = channel.stream_unary("/test.Echo/Upload")
    assert upload(iter([b"x" * 1000] * 2000), timeout=TIMEOUT_SECONDS) == b"2000000"
    assert upload(iter([]), timeout=TIMEOUT_SECONDS) == b"0"
    download = channel.unary_stream("/test.Echo/Download")
    got = list(download(b"300 20000", timeout=TIMEOUT_SECONDS))
    assert got == [bytes([at % 251]) * 20_000 for at in range(300)]
    assert list(download(b"0 0", timeout=TIMEOUT_SECONDS)) == []
    # Each message is answered before the next is sent.
    talk = channel.stream_stream("/test.Echo/Talk")
    turns: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    answers = talk((b"%d" % turn for turn in iter(turns.get, None)), timeout=TIMEOUT_SECONDS)
    for turn in range(100):
        turns.put(turn)
        assert next(answers) == b"re: %d" % turn
    turns.put(None)
    assert list(answers) == []
    # And many at once.
    calls = [talk(iter([b"%d" % number] * 20), timeout=TIMEOUT_SECONDS) for number in range(50)]
    for number, call in enumerate(calls):
        assert list(call) == [b"re: %d" % number] * 20


def large(channel: grpc.Channel) -> None:
    body = os.urandom(4 * 1024 * 1024)
    assert channel.unary_unary("/test.Echo/Unary")(body, timeout=TIMEOUT_SECONDS) == body
    got = list(channel.unary_stream("/test.Echo/Download")(b"3 4194304", timeout=TIMEOUT_SECONDS))
    assert [len(message) for message in got] == [4 * 1024 * 1024] * 3
    assert channel.stream_unary("/test.Echo/Upload")(iter([body] * 3), timeout=TIMEOUT_SECONDS) == b"%d" % (3 * len(body))
    # Compressed.
    text = b"again and again, " * 100_000
    ask = channel.unary_unary("/test.Echo/Unary")
    assert ask(text, timeout=TIMEOUT_SECONDS, compression=grpc.Compression.Gzip) == text


def cancellation(channel: grpc.Channel) -> None:
    silent = channel.unary_unary("/test.Echo/Silent")
    ask = channel.unary_unary("/test.Echo/WasCancelled")
    call = silent.future(b"")
    # One that is cancelled before the server has begun with it never begins.
    assert channel.unary_unary("/test.Echo/HasBegun")(b"", timeout=TIMEOUT_SECONDS) == b"yes"
    call.cancel()
    assert ask(b"", timeout=TIMEOUT_SECONDS) == b"yes"
    # Amid streams, of which something has come.
    uploaded: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    uploaded.put(b"first")
    upload = channel.stream_unary("/test.Echo/TakesAndWaits").future(iter(uploaded.get, None))
    assert dict(upload.initial_metadata())["x-first"] == "first"
    upload.cancel()
    assert ask(b"", timeout=TIMEOUT_SECONDS) == b"yes"
    download = channel.unary_stream("/test.Echo/SaysAndWaits")(b"first")
    assert next(download) == b"first"
    download.cancel()
    assert ask(b"", timeout=TIMEOUT_SECONDS) == b"yes"
    said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    said.put(b"first")
    talk = channel.stream_stream("/test.Echo/TalksAndWaits")(iter(said.get, None))
    assert next(talk) == b"first"
    talk.cancel()
    assert ask(b"", timeout=TIMEOUT_SECONDS) == b"yes"
    for ended in [uploaded, said]:
        ended.put(None)
    # Its own deadline is one too, whoever tells of it.
    is_status(failure(lambda: silent(b"", timeout=0.2)), grpc.StatusCode.DEADLINE_EXCEEDED)
    assert ask(b"", timeout=TIMEOUT_SECONDS) == b"yes"


def unavailable(channel: grpc.Channel) -> None:
    error = failure(lambda: channel.unary_unary("/test.Echo/Unary")(b"", timeout=TIMEOUT_SECONDS))
    is_status(error, grpc.StatusCode.UNAVAILABLE)
    assert error.details(), "it says why"


def unimplemented(channel: grpc.Channel) -> None:
    error = failure(lambda: channel.unary_unary("/nowhere.Service/Method")(b"", timeout=TIMEOUT_SECONDS))
    is_status(error, grpc.StatusCode.UNIMPLEMENTED)
    # Beside it what is somewhere.
    assert channel.unary_unary("/test.Echo/Unary")(b"here", timeout=TIMEOUT_SECONDS) == b"here"


def late(channel: grpc.Channel) -> None:
    """The caller waits long; the route does not."""
    error = failure(lambda: channel.unary_unary("/test.Echo/Silent")(b"", timeout=TIMEOUT_SECONDS))
    is_status(error, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert channel.unary_unary("/test.Echo/WasCancelled")(b"", timeout=TIMEOUT_SECONDS) == b"yes"


CHECKS = [unary, metadata, errors, streams, large, cancellation, unavailable, unimplemented, late]


def main(name: str, *target: str) -> None:
    with connect(*target) as channel:
        for check in CHECKS:
            if check.__name__ in name.split(","):
                check(channel)


main(*sys.argv[1:])
