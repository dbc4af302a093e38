"""The same verbs by docker-py, whose exceptions and streams depend on exact answers; on both engines."""

from __future__ import annotations

import io
import itertools
import tarfile
import time

import docker.errors
import pytest
import requests

from support.deadline import wait_until
from support.engine import Engine


def test_run_returns_output(engine: Engine) -> None:
    """containers.run gives stdout, stderr when asked, and raises ContainerError with the code."""
    run = engine.sdk.containers.run
    assert run(engine.image, ["echo", "hi"], remove=True) == b"hi\n"
    assert run(engine.image, ["sh", "-c", "echo e >&2"], remove=True, stderr=True, stdout=False) == b"e\n"
    with pytest.raises(docker.errors.ContainerError) as error:
        run(engine.image, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert error.value.exit_status == 3 and error.value.stderr == b"bad\n"


def test_exceptions_tell_images_from_containers(engine: Engine) -> None:
    """ImageNotFound and NotFound are told apart by the text of the 404."""
    sdk = engine.sdk
    with pytest.raises(docker.errors.ImageNotFound):
        sdk.images.get("no-such-image")
    with pytest.raises(docker.errors.NotFound) as error:
        sdk.containers.get("no-such-container")
    assert not isinstance(error.value, docker.errors.ImageNotFound)
    with pytest.raises(docker.errors.ImageNotFound):
        sdk.api.create_container("no-such-image", "x")
    with pytest.raises(docker.errors.APIError) as conflict:
        name = engine.unique()
        for _ in range(2):
            sdk.containers.create(engine.image, "true", name=name)
    assert conflict.value.status_code == 409


def test_life_of_a_container(engine: Engine) -> None:
    """create, start, reload, pause, unpause, rename, stop, wait, remove."""
    name = engine.unique()
    container = engine.sdk.containers.create(engine.image, ["sleep", "1000"], name=name, labels={"a": "b"})
    assert container.status == "created" and container.labels["a"] == "b"
    container.start()
    container.reload()
    assert container.status == "running"
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename(f"{name}-new")
    assert engine.sdk.containers.get(f"{name}-new").id == container.id
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137
    container.remove()
    assert name not in [c.name for c in engine.sdk.containers.list(all=True)]


def test_list_with_filters(engine: Engine) -> None:
    """containers.list filters by label and status."""
    label = engine.unique("label")
    running = engine.start(flags=["--label", label])
    engine.docker("create", "--label", label, engine.image)
    listed = engine.sdk.containers.list(filters={"label": label})
    assert [container.id for container in listed] == [running]
    assert len(engine.sdk.containers.list(all=True, filters={"label": [label], "status": ["created", "running"]})) == 2


def test_exec_run(engine: Engine) -> None:
    """exec_run gives code and output, demultiplexed, streamed, and by socket."""
    container = engine.sdk.containers.get(engine.start())
    assert container.exec_run(["sh", "-c", "exit 4"]).exit_code == 4
    code, (out, err) = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
    assert (code, out, err) == (0, b"o\n", b"e\n")
    result = container.exec_run(["sh", "-c", "echo $A; id -u; pwd"], environment={"A": "1"}, user="web", workdir="/tmp")
    assert result.output.split() == [b"1", b"101", b"/tmp"]
    assert b"".join(container.exec_run(["seq", "1000"], stream=True).output).split()[-1] == b"1000"
    assert container.exec_run(["sh", "-c", "test -t 1 && echo tty"], tty=True).output == b"tty\r\n"


def test_exec_by_socket(engine: Engine) -> None:
    """exec_start(socket=True) hands the connection over; stdin's end reaches the program."""
    container = engine.start()
    made = engine.sdk.api.exec_create(container, ["cat"], stdin=True)["Id"]
    connection = engine.sdk.api.exec_start(made, socket=True)
    sock = getattr(connection, "_sock", connection)
    sock.settimeout(60)
    sock.sendall(b"by hand")
    sock.shutdown(1)
    received = b"".join(iter(lambda: sock.recv(4096), b""))
    assert received[8:] == b"by hand" and received[0] == 1
    connection.close()


def test_attach_socket(engine: Engine) -> None:
    """attach_socket carries stdin and both outputs of a running container."""
    container = engine.sdk.containers.create(engine.image, ["sh", "-c", "read l; echo got-$l"], stdin_open=True)
    connection = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    sock = getattr(connection, "_sock", connection)
    sock.settimeout(60)
    sock.sendall(b"line\n")
    received = b"".join(iter(lambda: sock.recv(4096), b""))
    assert received[8:] == b"got-line\n"
    connection.close()


def test_attach_streams(engine: Engine) -> None:
    """attach(stream=True, logs=True) yields what was and what comes, with demux as pairs."""
    script = "echo a; while [ ! -e /go ]; do sleep 0.05; done; echo b >&2"
    container = engine.sdk.containers.get(engine.start(command=["sh", "-c", script]))
    wait_until(lambda: container.logs() == b"a\n", "the first line is in the log")
    stream = container.attach(stream=True, logs=True, demux=True)
    container.exec_run(["touch", "/go"])
    pairs = list(stream)
    assert b"".join(out or b"" for out, _ in pairs) == b"a\n"
    assert b"".join(err or b"" for _, err in pairs) == b"b\n"


def test_logs(engine: Engine) -> None:
    """logs by bytes, by tail, by time, as a stream that follows to the end."""
    container = engine.sdk.containers.get(
        engine.start(command=["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"])
    )
    assert [line.strip() for line in container.logs(stream=True, follow=True)] == [b"1", b"2", b"3"]
    assert container.logs(tail=1) == b"3\n"
    assert container.logs(stderr=False, timestamps=True).split()[1] == b"1"
    assert container.logs(since=int(time.time()) + 1000) == b""


def test_wait(engine: Engine) -> None:
    """wait returns the exit code of one that runs and of one that has ended, and times out as asked."""
    container = engine.sdk.containers.create(engine.image, ["sh", "-c", "read l; exit 6"], stdin_open=True)
    connection = container.attach_socket(params={"stdin": 1, "stream": 1})
    container.start()
    with pytest.raises(requests.exceptions.ConnectionError):
        container.wait(timeout=0.2)
    getattr(connection, "_sock", connection).sendall(b"go\n")
    assert container.wait(timeout=20)["StatusCode"] == 6
    assert container.wait(condition="not-running")["StatusCode"] == 6
    connection.close()


def test_events(engine: Engine) -> None:
    """events(decode=True) yields documents; closing ends it."""
    label = engine.unique("label")
    stream = engine.sdk.events(decode=True, filters={"label": label, "type": "container"})
    made = engine.docker("create", "--label", label, engine.image).out.strip()
    engine.docker("rm", made)
    told = list(itertools.islice(stream, 2))
    stream.close()
    assert [(event["Action"], event["Actor"]["ID"]) for event in told] == [("create", made), ("destroy", made)]


def test_stats(engine: Engine) -> None:
    """stats as one document and as a stream."""
    container = engine.sdk.containers.get(engine.start())
    assert container.stats(stream=False)["memory_stats"]["usage"] > 0
    assert next(container.stats(decode=True))["pids_stats"]["current"] == 1


def test_top_diff_update_and_prune(engine: Engine) -> None:
    """top, diff, update and prune return what docker-py's users read."""
    label = engine.unique("label")
    container = engine.sdk.containers.get(engine.start(flags=["--label", label]))
    top = container.top()
    assert top["Titles"][1] == "PID" and top["Processes"][0][-1] == "sleep 1000"
    container.exec_run(["touch", "/new"])
    assert {"Path": "/new", "Kind": 1} in container.diff()
    container.update(mem_limit="80m", memswap_limit="160m")
    container.reload()
    assert container.attrs["HostConfig"]["Memory"] == 80 << 20
    container.kill()
    container.wait()
    pruned = engine.sdk.containers.prune({"label": [label]})
    assert pruned["ContainersDeleted"] == [container.id]


def test_images(engine: Engine) -> None:
    """import, tag, history, list, commit and remove."""
    sdk, repository = engine.sdk, engine.unique("image")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    assert '"status"' in sdk.api.import_image_from_data(data.getvalue(), repository=repository, tag="v1")
    image = sdk.images.get(f"{repository}:v1")
    assert image.tag(repository, "v2") and image.history()[0]["Comment"]
    image.reload()
    assert set(image.tags) == {f"{repository}:v1", f"{repository}:v2"}
    assert image.id in [listed.id for listed in sdk.images.list(name=repository)]
    container = sdk.containers.create(engine.image, "true")
    committed = container.commit(repository, "v3", message="m", author="a", conf={"Env": ["X=1"]})
    assert "X=1" in committed.attrs["Config"]["Env"]
    container.remove()
    for tag in ("v1", "v2", "v3"):
        sdk.images.remove(f"{repository}:{tag}")
    assert sdk.images.list(name=repository) == []


def test_export(engine: Engine) -> None:
    """export streams a tar."""
    container = engine.sdk.containers.create(engine.image, "true")
    data = b"".join(container.export())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getmember("bin/busybox").size > 100_000


def test_info_version_ping(engine: Engine) -> None:
    """ping, info and version answer; the version was negotiated."""
    assert engine.sdk.ping() is True
    assert engine.sdk.info()["OSType"] == "linux"
    assert engine.sdk.version()["ApiVersion"] >= "1.41"
