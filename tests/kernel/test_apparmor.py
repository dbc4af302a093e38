"""What the kernel tells of AppArmor, read from files of its form; and the profile that a container gets by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tare.engine.oci_security import apparmor_profile, asked_profile
from tare.engine.options import HostOptions
from tare.kernel.apparmor import has_apparmor, loaded_profiles
from tare.oci.runtime_spec import Process
from tare.runtime.plan_process import plan_label


def test_files(tmp_path: Path) -> None:
    """Names may hold blanks and slashes; missing files mean that there is nothing."""
    enabled, profiles = tmp_path / "enabled", tmp_path / "profiles"
    assert not has_apparmor(str(enabled)) and loaded_profiles(str(profiles)) == frozenset()
    enabled.write_text("Y\n")
    profiles.write_text("docker-default (enforce)\n/usr/bin/man (complain)\nmy own (old) (unconfined)\n")
    assert has_apparmor(str(enabled))
    assert loaded_profiles(str(profiles)) == {"docker-default", "/usr/bin/man", "my own (old)"}
    enabled.write_text("N\n")
    assert not has_apparmor(str(enabled))


@pytest.mark.parametrize(
    ("options", "asked"),
    [((), ""), (("apparmor=a",), "a"), (("apparmor:a",), "a"), (("apparmor=a", "seccomp=x", "apparmor=b"), "b")],
)
def test_asked(options: tuple[str, ...], asked: str) -> None:
    """Of several the last one counts; without AppArmor none is applied."""
    host = HostOptions(security_opt=options)
    assert asked_profile(host) == asked
    if not has_apparmor():
        assert apparmor_profile(host) == ""


@pytest.mark.parametrize(("profile", "steps"), [("", 0), ("unconfined", 0), ("a", 1)])
def test_unconfined_writes_nothing(profile: str, steps: int) -> None:
    """Only a profile is a step of the plan."""
    assert len(plan_label(Process(cwd="/", args=("x",), apparmor_profile=profile))) == steps
