"""The log drivers syslog, journald, gelf and fluentd on real servers; where a socket of the file system will do, on
both engines."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from pathlib import Path

import pytest
from log_servers import (
    DatagramServer,
    StreamServer,
    join_gelf,
    read_forward,
    read_journal,
    split_octet_counted,
)

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared

TWO_LINES = ("sh", "-c", "echo to-out; echo to-err >&2; exec sleep 1000")
STAMP = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
ZONE = r"(Z|[+-]\d\d:\d\d)"


def run(
    engine: Engine, driver: str, *options: str, command: tuple[str, ...] = TWO_LINES, flags: tuple[str, ...] = ()
) -> str:
    """A container with a log driver; returns its id."""
    opts = [part for option in options for part in ("--log-opt", option)]
    argv = ("run", "-d", "--log-driver", driver, *opts, *flags, engine.image, *command)
    return engine.docker(*argv).out.strip()


def has_both(messages: list[bytes]) -> bool:
    """Whether both lines of TWO_LINES are there."""
    return any(b"to-out" in message for message in messages) and any(b"to-err" in message for message in messages)


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", rf"<%s>{STAMP} (\S+ )?TAG\[\d+\]: %s"),
        ("rfc3164", rf"<%s>{STAMP} \S+ TAG\[\d+\]: %s"),
        ("rfc5424", rf"<%s>1 {RFC3339}{ZONE} \S+ TAG \d+ TAG - %s"),
        ("rfc5424micro", rf"<%s>1 {RFC3339}\.\d{{6}}{ZONE} \S+ TAG \d+ TAG - %s"),
    ],
)
def test_syslog_formats(engine: Engine, tmp_path: Path, form: str, pattern: str) -> None:
    """Each syslog-format has the form that Docker gives it; facility and severity make the priority."""
    with DatagramServer(tmp_path / "s") as server:
        options = [f"syslog-address=unixgram://{tmp_path}/s", "syslog-facility=local3", "tag=my-{{.Name}}"]
        name = engine.unique("sys")
        container = run(
            engine, "syslog", *options, *([f"syslog-format={form}"] if form else []), flags=("--name", name)
        )
        wait_until(lambda: has_both(server.received), "both lines", 15)
        for priority, text in (("158", "to-out"), ("155", "to-err")):
            wanted = pattern.replace("TAG", f"my-{name}") % (priority, text)
            got = [message.decode().rstrip("\n") for message in server.received]
            assert any(re.fullmatch(wanted, line) for line in got), (wanted, got)
        assert engine.docker("logs", container).out == "to-out\n"  # dual logging
        engine.docker("rm", "-f", container)


def test_syslog_over_udp_and_tcp(tare: Engine) -> None:
    """UDP carries a message a datagram, TCP one a line; the tag is the short id unless another is asked for."""
    with DatagramServer() as udp, StreamServer() as tcp:
        over_udp = run(tare, "syslog", f"syslog-address=udp://127.0.0.1:{udp.port}")
        over_tcp = run(tare, "syslog", f"syslog-address=tcp://127.0.0.1:{tcp.port}", "syslog-format=rfc3164")
        wait_until(lambda: has_both(udp.received), "both lines by UDP", 15)
        tcp.wait(lambda data: b"to-out" in data and b"to-err" in data, "both lines by TCP")
        assert all(f" {over_udp[:12]}[".encode() in message for message in udp.received)
        lines = tcp.received.decode().splitlines()
        assert len(lines) == 2 and all(f" {over_tcp[:12]}[" in line for line in lines)


def test_syslog_over_tls(tare: Engine, tmp_path: Path) -> None:
    """tcp+tls checks the server's certificate against syslog-tls-ca-cert; RFC 5424 messages are octet-counted there."""
    argv = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{tmp_path}/key", "-out", f"{tmp_path}/cert"]
    subprocess.run([*argv.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with StreamServer(context=context) as server:
        address = f"syslog-address=tcp+tls://127.0.0.1:{server.port}"
        distrusted = run(tare, "syslog", address)
        run(tare, "syslog", address, f"syslog-tls-ca-cert={tmp_path}/cert", "syslog-format=rfc5424")
        server.wait(lambda data: b"to-out" in data and b"to-err" in data, "both lines by TLS")
        wait_until(lambda: "certificate" in tare.inspect(distrusted)["LogShipping"]["Error"], "the other's distrust")
        messages = split_octet_counted(server.received)
        assert len(messages) == 2 and all(message.startswith(b"<") for message in messages)


@pytest.mark.parametrize("compression", ["gzip", "zlib", "none"])
def test_gelf_over_udp(tare: Engine, compression: str) -> None:
    """A GELF message has Docker's fields, is compressed as asked, and comes in chunks if it is large."""
    with DatagramServer() as server:
        options = [f"gelf-address=udp://127.0.0.1:{server.port}", f"gelf-compression-type={compression}"]
        options += ["labels=team", "env-regex=^MO", "tag={{.ImageName}}"]
        script = "echo short; head -c 6000 /dev/urandom | base64 -w0; echo; echo bad >&2"
        flags = ("--label", "team=red", "-e", "MODE=fast")
        container = run(tare, "gelf", *options, command=("sh", "-c", script), flags=flags)
        wait_until(lambda: len(join_gelf(server.received)) == 3, "three messages", 15)
        messages = sorted((json.loads(message) for message in join_gelf(server.received)), key=lambda m: m["level"])
        assert [message["level"] for message in messages] == [3, 6, 6]
        assert messages[0]["short_message"] == "bad"
        assert sorted(len(message["short_message"]) for message in messages) == [3, 5, 8000]
        for message in messages:
            assert message["version"] == "1.1" and message["_container_id"] == container
            assert (message["_team"], message["_MODE"], message["_tag"]) == ("red", "fast", tare.image)
            assert message["_image_name"] == tare.image and message["_command"].startswith("sh -c echo")
            assert abs(message["timestamp"] - json_time(tare, container)) < 60
        assert max(map(len, server.received)) <= 1420


def json_time(engine: Engine, container: str) -> float:
    """When a container was started, in seconds."""
    from datetime import datetime

    return datetime.fromisoformat(
        engine.inspect(container)["State"]["StartedAt"][:26].rstrip("Z") + "+00:00"
    ).timestamp()


def test_gelf_over_tcp(tare: Engine) -> None:
    """Over TCP each message ends in a NUL and nothing is compressed."""
    with StreamServer() as server:
        run(tare, "gelf", f"gelf-address=tcp://127.0.0.1:{server.port}")
        server.wait(lambda data: data.count(b"\0") == 2, "two messages")
        texts = [json.loads(part)["short_message"] for part in server.received.split(b"\0")[:2]]
        assert sorted(texts) == ["to-err", "to-out"]


def test_fluentd(engine: Engine, tmp_path: Path) -> None:
    """A forward message carries tag, time and Docker's record, over a unix socket, from either engine."""
    with StreamServer(tmp_path / "f") as server:
        name = engine.unique("flu")
        options = (f"fluentd-address=unix://{tmp_path}/f", "tag=app.{{.Name}}", "labels=team")
        container = run(engine, "fluentd", *options, flags=("--name", name, "--label", "team=red"))
        server.wait(lambda data: len(read_forward(data)) == 2, "two messages")
        for tag, instant, record, *_ in read_forward(server.received):
            assert tag == f"app.{name}" and instant > 1_600_000_000
            stream = record["source"]
            assert record == {
                "container_id": container,
                "container_name": f"/{name}",
                "source": stream,
                "log": "to-out" if stream == "stdout" else "to-err",
                "team": "red",
            }
        engine.docker("rm", "-f", container)


def test_fluentd_acknowledged(tare: Engine) -> None:
    """With fluentd-request-ack an entry counts as sent only when the server says that it has it."""
    silent = StreamServer().start()
    try:
        address = f"fluentd-address=127.0.0.1:{silent.port}"
        options = (address, "fluentd-request-ack=true", "fluentd-sub-second-precision=true")
        container = run(tare, "fluentd", *options)
        silent.wait(lambda data: read_forward(data), "a first message")
        assert tare.inspect(container)["LogShipping"]["Sent"] == 0
        silent.stop()

        def acknowledge(data: bytes) -> bytes:
            chunk = read_forward(data)[-1][3]["chunk"].encode()
            return b"\x81\xa3ack" + bytes([0xA0 + len(chunk)]) + chunk

        silent._answer = acknowledge
        silent.start()
        wait_until(lambda: tare.inspect(container)["LogShipping"]["Sent"] == 2, "both acknowledged", 15)
        assert len(read_forward(silent.received)[-1][1]) == 8  # EventTime: seconds and nanoseconds
    finally:
        silent.stop()


def test_journald(daemon: Tared) -> None:
    """The journal gets Docker's fields; text with newlines in a label goes by its size."""
    with DatagramServer(daemon.home / "journal") as server:
        daemon.args += ["--journald-socket", str(daemon.home / "journal"), "--log-driver", "journald"]
        daemon.start()
        engine = daemon.engine
        engine.prepare()
        flags = ("--name", "jo", "--label", "my.note=two\nlines", "--log-opt", "labels=my.note")
        container = engine.docker("run", "-d", *flags, engine.image, *TWO_LINES).out.strip()
        wait_until(lambda: has_both(server.received), "both lines", 15)
        entries = {fields["MESSAGE"]: fields for fields in map(read_journal, server.received)}
        assert entries[b"to-out"]["PRIORITY"] == b"6" and entries[b"to-err"]["PRIORITY"] == b"3"
        for fields in entries.values():
            assert fields["CONTAINER_ID_FULL"] == container.encode() and fields["CONTAINER_NAME"] == b"jo"
            assert fields["CONTAINER_ID"] == fields["CONTAINER_TAG"] == fields["SYSLOG_IDENTIFIER"]
            assert fields["MY_NOTE"] == b"two\nlines" and fields["IMAGE_NAME"] == engine.image.encode()
        assert engine.docker("logs", "jo").out == "to-out\n"


ALWAYS = {"syslog": "syslog-address=udp://127.0.0.1:9", "gelf": "gelf-address=udp://127.0.0.1:9"}


OF_20 = ("syslog-address should be", "invalid fluentd-address h:1:2", "conflicting options: cannot specify both")


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("syslog", ["nope=1"], "unknown log opt 'nope' for syslog log driver"),
        ("syslog", ["syslog-address=foo"], "syslog-address should be in form proto://address, got foo"),
        ("syslog", ["syslog-address=unix:///nope"], "stat /nope: no such file or directory"),
        ("syslog", ["syslog-address=udp://127.0.0.1:abc"], 'invalid port ":abc" after host'),
        ("syslog", ["syslog-facility=x"], "invalid syslog facility"),
        ("syslog", ["syslog-facility=99"], "invalid syslog facility"),
        ("syslog", ["syslog-format=x"], "Invalid syslog format"),
        ("syslog", ["mode=x"], "logger: logging mode not supported: x"),
        (
            "syslog",
            ["mode=non-blocking", "max-buffer-size=x"],
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
        ("syslog", ["max-buffer-size=1m"], "max-buffer-size option is only supported with 'mode=non-blocking'"),
        ("syslog", ["cache-disabled=maybe"], "invalid value for option cache-disabled: maybe"),
        ("syslog", ["max-size=1m"], "unknown log opt 'max-size' for syslog log driver"),
        ("gelf", [], "gelf-address is a required parameter"),
        ("gelf", ["gelf-address=udp://h"], "gelf: please provide gelf-address as proto://host:port"),
        ("gelf", ["gelf-address=unix:///x"], "gelf: endpoint needs to be TCP or UDP"),
        ("gelf", ["gelf-address=udp://h:1", "nope=1"], 'unknown log opt "nope" for gelf log driver'),
        ("gelf", ["gelf-address=udp://h:1", "gelf-compression-type=x"], 'unknown value "x" for log opt'),
        ("gelf", ["gelf-address=tcp://h:1", "gelf-compression-level=1"], "compression is only supported on UDP"),
        ("gelf", ["gelf-address=udp://h:1", "gelf-tcp-max-reconnect=1"], "is only valid for TCP"),
        ("gelf", ["gelf-address=tcp://h:1", "gelf-tcp-reconnect-delay=x"], "must be a positive integer"),
        ("fluentd", ["nope=1"], "unknown log opt 'nope' for fluentd log driver"),
        ("fluentd", ["fluentd-address=h:1:2"], "invalid fluentd-address h:1:2: address h:1:2: too many colons"),
        ("fluentd", ["fluentd-async=x"], 'strconv.ParseBool: parsing "x": invalid syntax'),
        ("fluentd", ["fluentd-buffer-limit=x"], "invalid size: 'x'"),
        ("fluentd", ["fluentd-retry-wait=x"], 'time: invalid duration "x"'),
        ("fluentd", ["fluentd-max-retries=x"], 'strconv.ParseUint: parsing "x": invalid syntax'),
        ("fluentd", ["fluentd-async=1", "fluentd-async-connect=1"], "conflicting options: cannot specify both"),
        ("journald", ["nope=1"], "unknown log opt 'nope' for journald log driver"),
    ],
)
def test_wrong_options(engine: Engine, driver: str, options: list[str], words: str) -> None:
    """What a driver can't make sense of is refused at create, in Docker's words."""
    if not engine.is_tare and engine.release > 20 and words.startswith(OF_20):
        pytest.skip("Docker differs here: newer versions say less, or nothing")
    given = dict(option.split("=", 1) for option in options)
    answer = engine.create({"Cmd": ["true"], "HostConfig": {"LogConfig": {"Type": driver, "Config": given}}})
    assert answer.status == 400 and words in answer.message, answer
