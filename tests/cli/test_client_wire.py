"""The HTTP client against a peer that answers byte by byte what the test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tare.client.duplex import Demultiplexer
from tare.client.engine import Engine, format_filters, parse_messages, quote
from tare.client.errors import ApiError, CannotConnect, ProtocolError
from tare.client.host import Host, parse_host
from tare.client.jsontext import format_json, parse_json

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.50\r\nContent-Length: 2\r\n\r\n"


class Peer:
    """Accepts connections; answers the n-th request with the n-th script, sent in pieces of `cut` bytes."""

    def __init__(self, path: Path) -> None:
        self.host = Host(f"unix://{path}", True, str(path))
        self.scripts: list[bytes] = []
        self.close_after: set[int] = set()
        self.requests: list[bytes] = []
        self.connections = 0
        self.cut = 1 << 20
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                plug, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(plug,), daemon=True).start()

    def _serve(self, plug: socket.socket) -> None:
        pending = b""
        with plug:
            while True:
                while b"\r\n\r\n" not in pending:
                    data = plug.recv(65536)
                    if not data:
                        return
                    pending += data
                head, _, pending = pending.partition(b"\r\n\r\n")
                if head.startswith(b"HEAD /_ping"):
                    plug.sendall(PING)
                    continue
                number = len(self.requests)
                self.requests.append(head)
                if number >= len(self.scripts):
                    return
                script = self.scripts[number]
                for at in range(0, len(script), self.cut):
                    plug.sendall(script[at : at + self.cut])
                if number in self.close_after:
                    return

    def stop(self) -> None:
        self._listener.close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path / "peer.sock")
    yield made
    made.stop()


@pytest.mark.parametrize("cut", [1, 3, 1 << 20], ids=["bytes", "threes", "whole"])
@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a":[1]}',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n5;x=y\r\n:[1]}\r\n0\r\nTrailer: x\r\n\r\n',
        b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"a":[1]}',
    ],
    ids=["counted", "chunked", "continued"],
)
def test_bodies_of_known_length_keep_the_connection(peer: Peer, answer: bytes, cut: int) -> None:
    """Counted and chunked bodies are read however they are cut, and the connection serves the next request."""
    peer.cut = cut
    peer.scripts = [answer, answer]
    engine = Engine(peer.host)
    assert engine.get("/x") == {"a": [1]}
    assert engine.get("/y") == {"a": [1]}
    assert peer.connections == 1
    assert peer.requests[1].startswith(b"GET /v1.50/y HTTP/1.1\r\n")


def test_a_body_without_length_ends_with_the_connection(peer: Peer) -> None:
    """Without a length the body goes to the end of the connection, and another is opened afterwards."""
    peer.scripts = [b"HTTP/1.1 200 OK\r\n\r\n[1, 2]", b"HTTP/1.1 204 No Content\r\n\r\n"]
    peer.close_after = {0}
    engine = Engine(peer.host)
    assert engine.get("/x") == [1, 2]
    assert engine.post("/y") is None
    assert peer.connections == 2


def test_an_idle_connection_that_was_dropped_is_replaced(peer: Peer) -> None:
    """If the engine closed the kept connection meanwhile, a GET is asked again on a new one."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
    peer.scripts = [answer, answer]
    peer.close_after = {0}
    engine = Engine(peer.host)
    assert engine.get("/x") == 1
    assert engine.get("/y") == 1
    assert peer.connections == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'HTTP/1.1 404 Not Found\r\nContent-Length: 28\r\n\r\n{"message":"No such thing."}', "No such thing."),
        (b"HTTP/1.1 500 X\r\nContent-Length: 5\r\n\r\noops\n", "oops"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", "request returned status 503 without a message"),
    ],
)
def test_errors_carry_the_message(peer: Peer, answer: bytes, message: str) -> None:
    """An answer of 400 and above is an ApiError with the engine's message."""
    peer.scripts = [answer]
    with pytest.raises(ApiError) as caught:
        Engine(peer.host).get("/x")
    assert caught.value.message.startswith(message)
    assert caught.value.status == int(answer[9:12])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 2",
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
)
def test_nonsense_is_an_error(peer: Peer, answer: bytes) -> None:
    """What is no HTTP/1.1, or breaks off, is a ProtocolError, never a hang or a wrong value."""
    peer.scripts = [answer]
    peer.close_after = {0}
    with pytest.raises(ProtocolError):
        Engine(peer.host).get("/x")


@pytest.mark.parametrize("status", [b"101 UPGRADED", b"200 OK"])
def test_both_forms_of_taking_over(peer: Peer, status: bytes) -> None:
    """attach is answered by 101 or the older 200; what follows the head is the stream."""
    peer.scripts = [b"HTTP/1.1 " + status + b"\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nfirst"]
    wire = Engine(peer.host).hijack("/containers/x/attach", {"stream": "1"})
    assert wire.receive() == b"first"
    assert b"Upgrade: tcp" in peer.requests[0]
    wire.close()


def test_streamed_requests_are_chunked(peer: Peer) -> None:
    """A body of unknown length goes out chunked."""
    peer.scripts = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    Engine(peer.host).call("POST", "/x", None, iter([b"abc", b"", b"de"])).read()
    assert b"Transfer-Encoding: chunked" in peer.requests[0]


def test_nobody_listens(tmp_path: Path) -> None:
    """No socket there is CannotConnect with the kernel's reason."""
    with pytest.raises(CannotConnect) as caught:
        Engine(parse_host(f"unix://{tmp_path}/none")).get("/x")
    assert caught.value.errno == 2


MESSAGES = [{"status": "a"}, {"stream": 'x"}{\n'}, [1, "ü"], {"deep": {"a": {}}}, "text"]


@given(st.lists(st.integers(min_value=1, max_value=12), max_size=30), st.sampled_from(["\r\n", "\n", ""]))
@settings(deadline=None)
def test_messages_may_be_cut_anywhere(cuts: list[int], separator: str) -> None:
    """A stream of JSON values gives the same values however it is cut."""
    raw = separator.join(format_json(message) for message in MESSAGES).encode()
    pieces = []
    for cut in cuts:
        pieces.append(raw[:cut])
        raw = raw[cut:]
    assert list(parse_messages([*pieces, raw])) == MESSAGES


def test_a_broken_off_message_is_an_error() -> None:
    """A stream that ends inside a value is not silently taken as ended."""
    with pytest.raises(ProtocolError):
        list(parse_messages([b'{"a":1}{"b"']))


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.binary(max_size=30)), max_size=8),
    st.lists(st.integers(min_value=1, max_value=9), max_size=30),
)
def test_frames_may_be_cut_anywhere(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """The multiplexed stream is split into stdout and stderr however it is cut."""
    raw = b"".join(bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for kind, data in frames)
    out, err = bytearray(), bytearray()
    split = Demultiplexer(out.extend, err.extend)
    for cut in cuts:
        split.feed(raw[:cut])
        raw = raw[cut:]
    split.feed(raw)
    split.finish()
    assert out == b"".join(data for kind, data in frames if kind != 2)
    assert err == b"".join(data for kind, data in frames if kind == 2)


def test_broken_frames() -> None:
    """A frame of an unknown stream, one that breaks off, and the engine's error frame are errors."""
    split = Demultiplexer(print, print)
    with pytest.raises(ProtocolError, match="Unrecognized input header: 72"):
        split.feed(b"HTTP/1.1 200")
    split = Demultiplexer(print, print)
    split.feed(b"\x01\0\0\0\0\0\0\x05")
    with pytest.raises(ProtocolError, match="unexpected EOF"):
        split.finish()
    with pytest.raises(ProtocolError, match="stream: bad"):
        Demultiplexer(print, print).feed(b"\x03\0\0\0\0\0\0\x03bad")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_goes_there_and_back(value: object) -> None:
    """What is written is what is read, compact or indented, and the standard library agrees."""
    import json

    for indent in ("", "    "):
        text = format_json(value, indent)
        assert parse_json(text) == json.loads(text) == value


def test_json_details() -> None:
    """Layout is Go's; depth and nonsense are refused."""
    assert format_json({"a": [], "b": {}, "c": [1, {"d": 1.0}]}, "  ") == (
        '{\n  "a": [],\n  "b": {},\n  "c": [\n    1,\n    {\n      "d": 1\n    }\n  ]\n}'
    )
    assert format_json([1e21, 1e-7, 0.1, 1e20]) == "[1e+21,1e-7,0.1,100000000000000000000]"
    assert format_json([2.6625051927962157e-05, -1.5e-06, 1.5e300]) == "[0.000026625051927962157,-0.0000015,1.5e+300]"
    with pytest.raises(ValueError, match="inf"):
        format_json(float("inf"))
    assert format_json("<&>", escape_html=True) == '"\\u003c\\u0026\\u003e"'
    for text in ("", "{", "[1,]", "1 2", "nul", "[" * 100_000):
        with pytest.raises(ValueError, match=r"JSON|delimiter|value|Expecting|property|extra|comma"):
            parse_json(text)


def test_queries() -> None:
    """Names and filters are encoded for the wire."""
    assert quote("a b/ü&") == "a%20b%2F%C3%BC%26"
    assert quote("reg:5000/x", "/:@") == "reg:5000/x"
    assert format_filters(["b=2", "a=1", "a=x=y"]) == '{"a":{"1":true,"x=y":true},"b":{"2":true}}'
    with pytest.raises(ValueError, match="expected"):
        format_filters(["x"])
