"""Runs docker-py's own integration tests on Tare and on a real dockerd, and compares; never collected by pytest.

The tests come with docker-py's source distribution (the last that ships them is 7.0.0), fetched by pip into
build/clients. Nothing is fetched by an engine: the images that the tests expect are made of busybox. What needs a
registry therefore fails on both, which the comparison shows. Exit code 1 where dockerd passes what Tare does not,
unless EXPECTED gives the reason.

    python tests/clients/dockerpy_suite.py [--engine tare|docker|both] [--keep] [pytest arguments …]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.busybox import GROUP, PASSWD, busybox_tar
from support.dockerd import Dockerd
from support.engine import clean_environment
from support.tared import Tared

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "clients"
VERSION = "7.0.0"
SOURCE = CACHE / f"docker-{VERSION}"
PYTHON = CACHE / "dockerpy" / "bin" / "python"
# What the suite expects of the images that it names, beside busybox.
CONTENT = {
    "etc/passwd": PASSWD + "postgres:x:70:70::/var/lib/postgresql:/bin/sh\n",
    "etc/group": GROUP + "postgres:x:70:\n",
    "var/opt/.keep": "/dev/null",
}
IMAGES = ("alpine:3.10", "alpine:latest", "busybox:latest", "hello-world:latest")
# The oldest version that both engines speak and the suite's tests of the newest features of dockerd 20.10 need.
API_VERSION = "1.41"

GROUPS = {
    "containers": ("api_container_test", "models_containers_test", "api_healthcheck_test"),
    "exec": ("api_exec_test",),
    "volumes": ("api_volume_test", "models_volumes_test"),
    "images": ("api_image_test", "models_images_test"),
    "system": (
        "api_client_test",
        "client_test",
        "errors_test",
        "regression_test",
        "context_api_test",
        "models_resources_test",
    ),
    "networks": ("api_network_test", "models_networks_test"),
    "build": ("api_build_test",),
}
# Whole files that need what no single engine without the internet has; counted, not run.
NOT_RUN = {
    "swarm": (
        "api_config",
        "api_secret",
        "api_service",
        "api_swarm",
        "models_nodes",
        "models_services",
        "models_swarm",
    ),
    "plugins": ("api_plugin",),
}
# What dockerd passes and Tare does not, with the reason.
EXPECTED: dict[str, str] = {
    "api_container_test.ContainerCPUTest.test_create_with_runtime": (
        "the suite's request leaves HostConfig.Runtime unset; the default runtime is called runc there, tare here"
    ),
    "models_containers_test.ContainerTest.test_exec_run_failed": (
        "a command that isn't found exits 127, as in Docker since 28; dockerd 20.10 says 126"
    ),
}
# What parts of the suite need that isn't there, by parts of tests' names.
NEEDS = {
    ("api_build_test", "ImageCollectionTest.test_build"): "needs a builder",
    (
        "test_create_inspect_network_with_scope",
        "test_create_network_attachable",
        "test_create_network_ingress",
    ): "needs a swarm",
}


def fetch() -> None:
    """The source distribution and an environment to run it in, below build/clients; quick when they are there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not (SOURCE / "tests").is_dir():
        archive = CACHE / f"docker-{VERSION}.tar.gz"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "docker"]
        subprocess.run([*pip, "--dest", str(CACHE), f"docker=={VERSION}"], check=True)
        with tarfile.open(archive) as tar:
            tar.extractall(CACHE, filter="data")
    subprocess.run([str(ROOT / "scripts" / "clients"), "dockerpy"], check=True)


def run_suite(daemon: Tared | Dockerd, extra: list[str]) -> Results:
    """Outcome, seconds and the last line of the failure of each test."""
    engine = daemon.engine
    home = CACHE / f"home-{engine.name}"
    home.mkdir(exist_ok=True)
    content = {name: text.encode() if name.startswith("etc/") else text for name, text in CONTENT.items()}
    for image in IMAGES:
        engine.import_image(image, busybox_tar(content))
    report = CACHE / f"dockerpy-{engine.name}.xml"
    files = [f"tests/integration/{name}.py" for names in GROUPS.values() for name in names]
    argv = [*engine.enter, str(PYTHON), "-m", "pytest", "-q", "--timeout=90", "-p", "no:cacheprovider"]
    argv += ["--tb=short", f"--junit-xml={report}", *(extra or files)]
    environment = clean_environment(
        {
            "DOCKER_HOST": f"unix://{engine.socket}",
            "DOCKER_TEST_API_VERSION": API_VERSION,
            "HOME": str(home),
            "DOCKER_CONFIG": str(home / ".docker"),
        }
    )
    with (CACHE / f"dockerpy-{engine.name}.log").open("w") as log:
        subprocess.run(argv, cwd=SOURCE, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    return read_report(report)


def read_report(report: Path) -> Results:
    """A JUnit report as {test: {outcome, seconds, why}}."""
    results = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.integration.')}.{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        found = bad if bad is not None else skipped
        outcome = "failed" if bad is not None else "skipped" if skipped is not None else "passed"
        why = (found.get("message") or "").strip().split("\n")[0][:300] if found is not None else ""
        results[name] = {"outcome": outcome, "seconds": float(case.get("time", 0)), "why": why}
    return results


def group_of(test: str) -> str:
    """The part of the engine that a test is about."""
    file = test.split(".", 1)[0]
    return next((group for group, files in GROUPS.items() if file in files), "other")


Results = dict[str, dict[str, Any]]


def count(tare: Results, docker: Results) -> dict[str, tuple[int, ...]]:
    """Of each group: tests, and those that pass on dockerd, on Tare, on both, only on dockerd, only on Tare."""
    counted = {}
    for group in dict.fromkeys(group_of(test) for test in docker):
        tests = [test for test in docker if group_of(test) == group]
        ours = {test for test in tests if tare.get(test, {}).get("outcome") == "passed"}
        theirs = {test for test in tests if docker[test]["outcome"] == "passed"}
        both = len(ours & theirs)
        counted[group] = (len(tests), len(theirs), len(ours), both, len(theirs) - both, len(ours) - both)
    return counted


def reason_for(test: str) -> str:
    """Why Tare isn't expected to pass, or ""."""
    needs = next((why for names, why in NEEDS.items() if any(name in test for name in names)), "")
    return EXPECTED.get(test) or needs


def only_on_dockerd(tare: Results, docker: Results) -> dict[str, str]:
    """What dockerd passes and Tare doesn't, with the reason or the failure."""
    return {
        test: reason_for(test) or tare.get(test, {}).get("why", "not run")
        for test, real in docker.items()
        if real["outcome"] == "passed" and tare.get(test, {}).get("outcome") != "passed"
    }


def compare(tare: Results, docker: Results) -> int:
    """Prints a table and what dockerd passes and Tare doesn't; the number of these without an expected reason."""
    print(f"{'group':<12}{'tests':>6}{'dockerd':>9}{'tare':>6}{'both':>6}{'only dockerd':>14}{'only tare':>11}")
    for group, numbers in count(tare, docker).items():
        print(f"{group:<12}" + "".join(f"{n:>{w}}" for n, w in zip(numbers, (6, 9, 6, 6, 14, 11), strict=True)))
    only = only_on_dockerd(tare, docker)
    for test, why in only.items():
        print(f"\n{group_of(test)}: {test}\n    {why}")
    unexplained = sum(not reason_for(test) for test in only)
    print(f"\n{unexplained} tests pass on dockerd only, without an expected reason")
    return unexplained


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=("tare", "docker", "both"), default="both")
    options, extra = parser.parse_known_args()
    fetch()
    os.environ.pop("TARE_TEST_DOCKERD", None)  # the suite prunes and removes: only on a dockerd of its own
    results: dict[str, Results] = {}
    for name, make in (("tare", Tared), ("docker", Dockerd)):
        saved = CACHE / f"dockerpy-{name}.json"
        if options.engine in (name, "both"):
            daemon = make()
            began = time.monotonic()
            try:
                daemon.start()
                daemon.engine.prepare()
                results[name] = run_suite(daemon, extra)
                if name == "tare":
                    (CACHE / "dockerpy-tared.log").write_text(daemon.log_tail(100_000))
            finally:
                daemon.stop()
            passed = sum(result["outcome"] == "passed" for result in results[name].values())
            print(f"{name}: {passed} of {len(results[name])} passed in {time.monotonic() - began:.0f} s", flush=True)
            if not extra:
                saved.write_text(json.dumps(results[name], indent=1))
        elif saved.exists():
            results[name] = json.loads(saved.read_text())
    if extra or len(results) < 2:
        return 0
    return 1 if compare(results["tare"], results["docker"]) else 0


if __name__ == "__main__":
    sys.exit(main())
