"""pull and push between engines and a real registry: Docker's messages, nothing twice, and the very bytes that came."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry as SchemaRegistry
from referencing import Resource
from referencing.jsonschema import DRAFT4
from scripted_registry import INDEX, MANIFEST, ScriptedRegistry, build, tar_of

from support.engine import Engine, run
from support.registry import PASSWORD, USER, Registry
from tare import AsyncClient, connect
from tare.sdk.errors import ProtocolError, Unauthorized
from tare.sdk.records import RegistryLogin

RegistryOf = Callable[..., Registry]
SCHEMAS = Path(__file__).parent.parent / "data" / "oci-image"


def layer_tar(text: str, size: int = 0) -> bytes:
    """A tar with one small file, and if asked one that doesn't compress."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in (("etc/file", text.encode()), *([("big", os.urandom(size))] if size else [])):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def messages(engine: Engine, method: str, path: str, **query: str) -> list[dict[str, Any]]:
    """What a pull or push says."""
    headers = {"X-Registry-Auth": "e30="}
    answer = engine.api.request(method, path, query=query, headers=headers, check=False)
    assert answer.status == 200, answer
    return [json.loads(line) for line in answer.body.splitlines() if line]


def statuses(said: list[dict[str, Any]]) -> list[str]:
    """Their statuses without those that count bytes, which come as often as there is time for."""
    counting = ("Downloading", "Extracting", "Pushing", "Waiting")
    shown = [one.get("status") or one.get("error") or "aux" for one in said]
    return [text for text in shown if text not in counting]


def pull(engine: Engine, name: str, tag: str = "", **query: str) -> list[dict[str, Any]]:
    return messages(engine, "POST", "/images/create", fromImage=name, **({"tag": tag} if tag else {}), **query)


def push(engine: Engine, name: str, tag: str) -> list[dict[str, Any]]:
    return messages(engine, "POST", f"/images/{name}/push", tag=tag)


def forget(engine: Engine, *names: str) -> None:
    for name in names:
        engine.api.request("DELETE", f"/images/{name}", query={"force": "1", "trash": "0"}, check=False)


def test_a_round_trip_says_what_docker_says(engine: Engine, registry_of: RegistryOf) -> None:
    """Push, push again, mount, pull, pull again: the messages, in their order and form."""
    registry = registry_of(engine)
    one, two = registry.reference("a/one"), registry.reference("b/two")
    engine.import_image(f"{one}:1", layer_tar(engine.unique()))
    engine.api.request("POST", f"/images/{one}:1/tag", query={"repo": two, "tag": "2"})
    said = push(engine, one, "1")
    assert statuses(said)[:3] == [f"The push refers to repository [{one}]", "Preparing", "Pushed"]
    done = re.fullmatch(r"1: digest: (sha256:[0-9a-f]{64}) size: (\d+)", statuses(said)[3])
    assert done
    aux = {"Tag": "1", "Digest": done[1], "Size": int(done[2])}
    assert said[-1] == {"progressDetail": {}, "aux": aux}
    assert {key for each in said if each.get("status") == "Pushed" for key in each} == {
        "status",
        "progressDetail",
        "id",
    }
    assert "Layer already exists" in statuses(push(engine, one, "1"))
    assert "Mounted from a/one" in statuses(push(engine, two, "2"))

    inspected = engine.api.request("GET", f"/images/{one}:1/json").json
    assert inspected["RepoDigests"] == [f"{one}@{done[1]}", f"{two}@{done[1]}"]
    forget(engine, f"{one}:1", f"{two}:2")
    said = pull(engine, one, "1")
    assert statuses(said) == [
        "Pulling from a/one",
        "Pulling fs layer",
        "Verifying Checksum",
        "Download complete",
        "Pull complete",
        f"Digest: {done[1]}",
        f"Status: Downloaded newer image for {one}:1",
    ]
    assert said[0] == {"status": "Pulling from a/one", "id": "1"}
    counted = [each for each in said if each["status"] in ("Downloading", "Extracting")]
    assert {each["status"] for each in counted} == {"Downloading", "Extracting"}
    assert re.fullmatch(r"\[=+> *\] +\d[\d.]*k?B/\d[\d.]*k?B", counted[-1]["progress"]), counted[-1]
    assert statuses(pull(engine, one, "1"))[1:] == [f"Digest: {done[1]}", f"Status: Image is up to date for {one}:1"]
    assert statuses(pull(engine, two))[-1] == f"Status: Downloaded newer image for {two}"
    by_digest = pull(engine, one, done[1])
    assert statuses(by_digest)[0] == "Pulling from a/one" and by_digest[0]["id"] == f"{one}@{done[1]}"
    assert engine.api.request("GET", f"/images/{one}:1/json").json["Id"] == inspected["Id"]
    forget(engine, f"{one}:1", f"{two}:2", f"{one}@{done[1]}")


def test_what_is_not_there(engine: Engine, registry_of: RegistryOf) -> None:
    """Unknown tags, repositories, images and registries: Docker's statuses and texts."""
    registry = registry_of(engine)
    name, none = registry.reference("c/one"), registry.reference("none")
    engine.import_image(f"{name}:1", layer_tar(engine.unique()))
    push(engine, name, "1")

    def asked(method: str, path: str, **query: str) -> tuple[int, str]:
        answer = engine.api.request(method, path, query=query, check=False)
        return answer.status, answer.message

    unknown = "not found: manifest unknown: manifest unknown"
    create = "/images/create"
    assert asked("POST", create, fromImage=name, tag="no") == (404, f"manifest for {name}:no {unknown}")
    assert asked("POST", create, fromImage=none, tag="no") == (404, f"manifest for {none}:no {unknown}")
    status, text = asked("POST", create, fromImage=none)
    assert (status, text.partition("known")[0]) == (404, f"repository {none} not found: name un")
    status, text = asked("POST", create, fromImage="localhost:1/x", tag="1")
    assert status == 500 and text.endswith(":1: connect: connection refused"), text
    assert asked("GET", f"/distribution/{name}:no/json") == (404, "manifest unknown: manifest unknown")
    lost = registry.reference("lost")
    assert statuses(push(engine, lost, "1"))[-1] == f"An image does not exist locally with the tag: {lost}"
    assert statuses(push(engine, name, "9"))[-1] == f"tag does not exist: {name}:9"
    forget(engine, f"{name}:1")


def test_distribution_and_all_tags(engine: Engine, registry_of: RegistryOf) -> None:
    """What a registry has is told without fetching it; all tags come and go with -a."""
    registry = registry_of(engine)
    name = registry.reference("many")
    for tag in ("1", "2"):
        engine.import_image(f"{name}:{tag}", layer_tar(engine.unique()))
    done = engine.docker("push", "-a", name).out
    assert "1: digest: sha256:" in done and "2: digest: sha256:" in done
    found = engine.api.request("GET", f"/distribution/{name}:2/json").json
    assert found["Descriptor"]["digest"] == registry_digest(engine, registry, "many", "2")
    assert found["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    forget(engine, f"{name}:1", f"{name}:2")
    if engine.is_tare:
        assert engine.tare_cli("search", "--list-tags", name).out == f"{name}:1\n{name}:2\n"
    out = engine.docker("pull", "-a", name).out
    assert f"Status: Downloaded newer image for {name}\n{name}\n" in out
    rows = engine.docker("images", "--digests", "--format", "{{.Tag}} {{.Digest}}", name).out.split("\n")
    assert sorted(row for row in rows if row) == [
        f"{tag} {registry_digest(engine, registry, 'many', tag)}" for tag in ("1", "2")
    ]
    forget(engine, f"{name}:1", f"{name}:2")


def registry_digest(engine: Engine, registry: Registry, name: str, tag: str) -> str:
    """What the registry says, asked where it is."""
    head = ["curl", "-sI", "-H", "Accept: application/vnd.oci.image.manifest.v1+json"]
    head += ["-H", "Accept: application/vnd.docker.distribution.manifest.v2+json"]
    out = engine.in_network(*head, f"http://{registry.host}/v2/{name}/manifests/{tag}").out
    found = re.search(r"(?i)docker-content-digest: (\S+)", out)
    assert found, out
    return found[1]


def test_docker_py_pulls_and_pushes(engine: Engine, registry_of: RegistryOf) -> None:
    """docker-py's own ways: push with stream, pull of one tag and of all."""
    registry = registry_of(engine)
    name = registry.reference("py")
    engine.import_image(f"{name}:1", layer_tar(engine.unique()))
    sdk = engine.sdk
    last = list(sdk.images.push(name, tag="1", stream=True, decode=True))[-1]
    assert last["aux"]["Tag"] == "1"
    image_id = sdk.images.get(f"{name}:1").id
    forget(engine, f"{name}:1")
    assert sdk.images.pull(name, tag="1").id == image_id
    assert [one.id for one in sdk.images.pull(name, all_tags=True)] == [image_id]
    data = sdk.images.get_registry_data(f"{name}:1")
    assert data.id == last["aux"]["Digest"] and data.has_platform("linux/amd64")
    forget(engine, f"{name}:1")


# ── Tare alone ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pulled_layer_goes_out_bit_for_bit(
    tare: Engine, docker_engine: Engine, tmp_path: Path, registry: Registry, registry_of: RegistryOf
) -> None:
    """What a real Docker pushed comes, goes to another registry with the same digest, and comes back to Docker."""
    there = registry_of(docker_engine, data=registry.data)
    source = there.reference("from/docker")
    docker_engine.import_image(f"{source}:1", layer_tar("docker", 300_000))
    digest = push(docker_engine, source, "1")[-1]["aux"]["Digest"]
    ours = registry.reference("from/docker")
    pull(tare, ours, "1")
    target = registry.reference("again/tare")
    tare.api.request("POST", f"/images/{ours}:1/tag", query={"repo": target, "tag": "x"})
    second = Registry(tmp_path / "second")
    second.start()
    try:
        elsewhere = second.reference("elsewhere")
        tare.api.request("POST", f"/images/{ours}:1/tag", query={"repo": elsewhere, "tag": "y"})
        assert "Pushed" in statuses(push(tare, elsewhere, "y"))
        assert second.digest("elsewhere", "y") == digest
        layer = second.manifest("elsewhere", "y")["layers"][0]["digest"]
        assert second.blob("elsewhere", layer) == registry.blob("from/docker", layer)
    finally:
        second.stop()
    assert "Mounted from from/docker" in statuses(push(tare, target, "x"))
    forget(docker_engine, f"{source}:1")
    assert statuses(pull(docker_engine, there.reference("again/tare"), "x"))[-2] == f"Digest: {digest}"
    forget(docker_engine, f"{there.reference('again/tare')}:x")
    forget(tare, f"{ours}:1", f"{target}:x", f"{elsewhere}:y")


def test_docker_runs_what_tare_pushed(
    tare: Engine, docker_engine: Engine, registry: Registry, registry_of: RegistryOf
) -> None:
    """An image made here, with layers that Docker never saw."""
    there = registry_of(docker_engine, data=registry.data)
    name = registry.reference("made/here")
    tare.docker("tag", tare.image, f"{name}:1")
    push(tare, name, "1")
    theirs = there.reference("made/here")
    assert docker_engine.docker("run", "--rm", f"{theirs}:1", "echo", "hello").out == "hello\n"
    forget(docker_engine, f"{theirs}:1")
    forget(tare, f"{name}:1")


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="client not installed: skopeo")
def test_skopeo_reads_and_writes(tare: Engine, tmp_path: Path, registry: Registry) -> None:
    """skopeo copies out what Tare pushed, and Tare pulls what skopeo put there, by Docker's types."""
    name = registry.reference("sk/opeo")
    tare.import_image(f"{name}:1", layer_tar("skopeo"))
    image_id = tare.api.request("GET", f"/images/{name}:1/json").json["Id"]
    push(tare, name, "1")
    copy = ["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"]
    run([*copy, f"docker://{name}:1", f"oci:{tmp_path}/layout:1"])
    run([*copy, "--format", "v2s2", f"oci:{tmp_path}/layout:1", f"docker://{name}:2"])
    assert registry.manifest("sk/opeo", "2")["mediaType"].startswith("application/vnd.docker.")
    forget(tare, f"{name}:1")
    pull(tare, name, "2")
    assert tare.api.request("GET", f"/images/{name}:2/json").json["RootFS"]["Layers"]
    assert tare.api.request("GET", f"/images/{name}:2/json").json["Id"] == image_id
    forget(tare, f"{name}:2")


def test_what_is_pushed_is_valid(tare: Engine, registry: Registry) -> None:
    """Manifest and config by the image specification's schemas; the same image gives the same bytes again."""
    name = registry.reference("valid")
    tare.import_image(f"{name}:1", layer_tar("valid"), ['CMD ["sh"]', "ENV a=b", "EXPOSE 80"])
    push(tare, name, "1")
    manifest = registry.manifest("valid", "1")
    check_schema("image-manifest-schema.json", manifest)
    check_schema("config-schema.json", json.loads(registry.blob("valid", manifest["config"]["digest"])))
    digest = registry.digest("valid", "1")
    other = registry.reference("other/valid")
    tare.api.request("POST", f"/images/{name}:1/tag", query={"repo": other, "tag": "1"})
    push(tare, other, "1")
    assert registry.digest("other/valid", "1") == digest
    forget(tare, f"{name}:1", f"{other}:1")


def check_schema(name: str, document: Any) -> None:
    resources = {path.name: Resource(json.loads(path.read_text()), DRAFT4) for path in SCHEMAS.glob("*.json")}
    known: SchemaRegistry[object] = SchemaRegistry().with_resources(resources.items())  # type: ignore[arg-type]
    jsonschema.Draft4Validator({"$ref": name}, registry=known).validate(document)


def test_a_large_layer_goes_in_chunks_and_layers_are_shared(tare: Engine, registry: Registry) -> None:
    """More than one chunk; a second image on the same layers fetches only what is new."""
    name = registry.reference("large")
    tare.import_image(f"{name}:1", layer_tar("large", 34 << 20))
    container = tare.docker("create", f"{name}:1", "x").out.strip()
    tare.docker("cp", "-", f"{container}:/", input=layer_tar("more"))
    tare.docker("commit", container, f"{name}:2")
    for tag in ("1", "2"):
        push(tare, name, tag)
    tare.docker("rm", container)
    forget(tare, f"{name}:1", f"{name}:2")
    tare.clean()
    assert statuses(pull(tare, name, "1")).count("Pulling fs layer") == 1
    second = statuses(pull(tare, name, "2"))
    assert (second.count("Already exists"), second.count("Pulling fs layer")) == (1, 1)
    forget(tare, f"{name}:1", f"{name}:2")


def test_run_pulls_what_is_missing(tare: Engine, registry: Registry) -> None:
    """`tare run` by its three policies, and `tare pull`'s and `push`'s lines."""
    name = registry.reference("run/it")
    tare.docker("tag", tare.image, f"{name}:1")
    pushed = tare.tare_cli("push", f"{name}:1").out
    assert f"The push refers to repository [{name}]" in pushed and "1: digest: sha256:" in pushed
    forget(tare, f"{name}:1")
    never = tare.tare_cli("run", "--rm", "--pull", "never", f"{name}:1", "true", check=False)
    assert never.code == 125 and f"No such image: {name}:1" in never.err
    done = tare.tare_cli("run", "--rm", f"{name}:1", "echo", "hi")
    assert done.out == "hi\n" and f"Unable to find image '{name}:1' locally" in done.err
    assert f"Status: Downloaded newer image for {name}:1" in done.err
    always = tare.tare_cli("run", "--rm", "--pull", "always", f"{name}:1", "echo", "hi")
    assert f"Status: Image is up to date for {name}:1" in always.err
    assert tare.tare_cli("pull", "-q", f"{name}:1").out == f"{name}:1\n"
    found = tare.tare_cli("search", registry.reference("run/")).out
    assert found.splitlines()[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"] and name in found
    forget(tare, f"{name}:1")


def test_the_library_pulls_and_pushes(tare: Engine, tmp_path: Path) -> None:
    """Both faces: push gives the digest, pull takes a login, search and check_login ask the registry."""
    registry = Registry(tmp_path / "registry", passwords=True).start()
    login = RegistryLogin(USER, PASSWORD)
    name = registry.reference("library/x")
    tare.import_image(f"{name}:1", layer_tar("library"))

    async def scenario() -> str:
        async with AsyncClient(f"unix://{tare.socket}") as engine:
            with pytest.raises(ProtocolError, match="no basic auth credentials"):
                await engine.images.push(f"{name}:1")
            return await engine.images.push(f"{name}:1", login)

    try:
        digest = asyncio.run(scenario())
        forget(tare, f"{name}:1")
        with connect(f"unix://{tare.socket}") as engine:
            assert engine.images.pull(f"{name}:1", login=login).tags == (f"{name}:1",)
            assert engine.images.check_login(registry.host, login) == ""
            with pytest.raises(Unauthorized, match="401 Unauthorized"):
                engine.images.check_login(registry.host, RegistryLogin(USER, "wrong"))
        assert f"{name}@{digest}" in tare.api.request("GET", f"/images/{name}:1/json").json["RepoDigests"]
        forget(tare, f"{name}:1")
    finally:
        registry.stop()


def test_indexes(tare: Engine, scripted: ScriptedRegistry, registry: Registry) -> None:
    """Of an index the image for this machine or for --platform comes; whole it goes out whole, with its digest."""
    ours, theirs = build(tar_of(a=b"ours")), build(tar_of(a=b"theirs"), architecture="arm64")
    entries = []
    for built, architecture in ((theirs, "arm64"), (ours, "amd64")):
        digest = scripted.put_image("multi", architecture, built)
        size = len(json.dumps(built.manifest))
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform})
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    index = scripted.put("multi", "1", document, INDEX)
    name = f"{scripted.host}/multi"
    assert f"Digest: {index}" in statuses(pull(tare, name, "1"))
    found = tare.api.request("GET", f"/images/{name}:1/json").json
    assert (found["Architecture"], found["RepoDigests"]) == ("amd64", [f"{name}@{index}"])
    described = tare.api.request("GET", f"/distribution/{name}:1/json").json
    assert [one["architecture"] for one in described["Platforms"]] == ["arm64", "amd64"]
    target = registry.reference("multi/part")
    tare.api.request("POST", f"/images/{name}:1/tag", query={"repo": target, "tag": "1"})
    push(tare, target, "1")
    assert registry.digest("multi/part", "1") == entries[1]["digest"], "the one that is here, as it came"

    layout = io.BytesIO()
    blobs = {**ours.blobs, **theirs.blobs, index: json.dumps(document).encode()}
    blobs |= {
        one["digest"]: json.dumps(made.manifest).encode() for one, made in zip(entries, (theirs, ours), strict=True)
    }
    whole = registry.reference("multi/whole")
    names = {"io.containerd.image.name": f"{whole}:1"}
    top = {"mediaType": INDEX, "digest": index, "size": len(blobs[index]), "annotations": names}
    files = {f"blobs/sha256/{digest[7:]}": data for digest, data in blobs.items()}
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]}).encode()
    with tarfile.open(fileobj=layout, mode="w") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    platforms = [json.dumps(one["platform"]) for one in entries]
    loaded = tare.api.request("POST", "/images/load", layout.getvalue(), query={"platform": platforms, "quiet": "1"})
    assert b"Loaded image" in loaded.body, loaded
    assert statuses(push(tare, whole, "1"))[-1] == "aux"
    assert registry.digest("multi/whole", "1") == index
    for digest in [one["digest"] for one in entries]:
        assert registry.digest("multi/whole", digest) == digest
    forget(tare, f"{name}:1", f"{target}:1", f"{whole}:1")


def test_the_other_platform(tare: Engine, scripted: ScriptedRegistry) -> None:
    """--platform names another machine: that image comes, or the error says which there is."""
    arm = build(tar_of(a=b"arm"), architecture="arm64")
    scripted.put_image("arm", "1", arm)
    name = f"{scripted.host}/arm"
    assert statuses(pull(tare, name, "1", platform="linux/arm64"))[-1].startswith("Status: Downloaded newer image")
    assert statuses(pull(tare, name, "1", platform="linux/amd64"))[-1] == (
        f"image with reference {name}:1 was found but its platform (linux/arm64) does not match the specified platform"
        " (linux/amd64)"
    )
    forget(tare, f"{name}:1")
