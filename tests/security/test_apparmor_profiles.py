"""AppArmor profiles: the one that a container names, the default, and none; with a profile of the tests' own.

Kernels without AppArmor skip; `make vm` has one with it.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from support.engine import Engine
from tare.kernel.apparmor import has_apparmor, loaded_profiles

pytestmark = pytest.mark.skipif(
    not has_apparmor() or shutil.which("apparmor_parser") is None, reason="the kernel has no AppArmor, or no parser"
)
PROFILE = """
profile {name} flags=(attach_disconnected) {{
  file,
  capability,
  network,
  signal,
  umount,
  deny /tmp/denied w,
}}
"""
CURRENT = "cat /proc/self/attr/current"


def load(name: str) -> None:
    subprocess.run(["apparmor_parser", "--add", "--skip-cache"], input=PROFILE.format(name=name).encode(), check=True)


def unload(name: str) -> None:
    subprocess.run(
        ["apparmor_parser", "--remove", "--skip-cache"], input=PROFILE.format(name=name).encode(), check=True
    )


@pytest.fixture(scope="module")
def profile() -> Iterator[str]:
    """A loaded profile that denies to write one file; gone afterwards."""
    name = f"tt-{secrets.token_hex(4)}"
    load(name)
    yield name
    unload(name)


def test_info_names_it(engine: Engine) -> None:
    """As Docker's clients look for it, in Docker's order."""
    options = engine.api.request("GET", "/info").json["SecurityOptions"]
    assert [option.partition(",")[0] for option in options] == ["name=apparmor", "name=seccomp", "name=cgroupns"]


@pytest.mark.parametrize("separator", ["=", ":"])
def test_a_named_profile_holds(engine: Engine, profile: str, separator: str) -> None:
    """For the program and whatever it starts, and for exec'd ones; also for root, and after a restart."""
    box = engine.start(flags=["--security-opt", f"apparmor{separator}{profile}"])
    assert engine.inspect(box)["AppArmorProfile"] == profile
    for _ in range(2):
        assert engine.docker("exec", box, "cat", "/proc/1/attr/current").out == f"{profile} (enforce)\n"
        assert engine.docker("exec", box, "sh", "-c", CURRENT).out == f"{profile} (enforce)\n"
        denied = engine.docker("exec", box, "touch", "/tmp/denied", check=False)
        assert denied.code == 1 and "Permission denied" in denied.err
        engine.docker("exec", box, "touch", "/tmp/other")
        engine.docker("restart", "-t", "0", box)


def test_a_privileged_exec_is_not_confined(engine: Engine, profile: str) -> None:
    box = engine.start(flags=["--security-opt", f"apparmor={profile}"])
    assert engine.docker("exec", "--privileged", box, "sh", "-c", CURRENT).out == "unconfined\n"


@pytest.mark.parametrize("flags", [("--privileged",), ("--security-opt", "apparmor=unconfined")])
def test_who_asks_for_none_gets_none(engine: Engine, flags: tuple[str, ...]) -> None:
    box = engine.start(flags=flags)
    assert engine.docker("exec", box, "cat", "/proc/1/attr/current").out == "unconfined\n"
    assert engine.inspect(box)["AppArmorProfile"] == "unconfined"


def test_a_privileged_container_may_name_one(engine: Engine, profile: str) -> None:
    box = engine.start(flags=["--privileged", "--security-opt", f"apparmor={profile}"])
    assert engine.docker("exec", box, "cat", "/proc/1/attr/current").out == f"{profile} (enforce)\n"


def test_an_unknown_profile_fails_the_start(engine: Engine) -> None:
    """The container stays as created, with the exit code of what couldn't be started."""
    created = engine.docker("create", "--security-opt", "apparmor=tt-no-such", engine.image, "true").out.strip()
    failed = engine.docker("start", created, check=False)
    assert failed.code == 1 and "unable to apply apparmor profile" in failed.err
    state = engine.inspect(created)["State"]
    assert state["Status"] == "created" and state["ExitCode"] == 127


def test_no_new_privileges_and_a_profile_go_together(engine: Engine, profile: str) -> None:
    """The kernel may refuse a change of profile at exec once that flag is set (man 2 prctl)."""
    flags = ["--security-opt", f"apparmor={profile}", "--security-opt", "no-new-privileges"]
    assert engine.docker("run", "--rm", *flags, engine.image, "sh", "-c", CURRENT).out == f"{profile} (enforce)\n"


def test_the_default_profile_is_the_first_that_is_loaded(tare: Engine) -> None:
    """tare-default, else docker-default, else none."""
    for name in ("docker-default", "tare-default"):
        had = name in loaded_profiles()
        if not had:
            load(name)
        try:
            box = tare.start()
            expected = "tare-default" if "tare-default" in loaded_profiles() else name
            assert tare.docker("exec", box, "cat", "/proc/1/attr/current").out == f"{expected} (enforce)\n"
            assert tare.inspect(box)["AppArmorProfile"] == expected
            tare.clean()
        finally:
            if not had:
                unload(name)
    if not loaded_profiles() & {"docker-default", "tare-default"}:
        box = tare.start()
        assert tare.docker("exec", box, "cat", "/proc/1/attr/current").out == "unconfined\n"
        assert tare.inspect(box)["AppArmorProfile"] == "unconfined"
