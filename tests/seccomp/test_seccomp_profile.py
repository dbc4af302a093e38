"""Docker's profile format, resolved for one container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tare.errors import InvalidArgument, Unsupported
from tare.oci.runtime_spec import LinuxSeccomp, LinuxSyscall
from tare.runtime.seccomp import compile_filter, default_profile, filter_flags, resolve_profile

NONE: frozenset[str] = frozenset()


def resolve(profile: dict[str, Any], *caps: str, arch: str = "amd64", kernel: str = "6.1.0") -> LinuxSeccomp:
    resolved = resolve_profile(json.dumps(profile).encode(), frozenset(caps), arch, kernel)
    assert resolved is not None
    return resolved


def names(seccomp: LinuxSeccomp) -> set[str]:
    return {name for call in seccomp.syscalls or () for name in call.names}


def profile(**call: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": ["mount"], **call}]}


def test_default_profile_depends_on_capabilities() -> None:
    """mount is allowed with CAP_SYS_ADMIN only, and clone then without its condition on namespaces."""
    plain = resolve_profile(default_profile(), NONE, "amd64", "6.1")
    admin = resolve_profile(default_profile(), frozenset({"CAP_SYS_ADMIN"}), "amd64", "6.1")
    assert plain and admin
    assert "mount" not in names(plain) and "mount" in names(admin)
    assert next(call.args for call in plain.syscalls or () if "clone" in call.names)
    assert all(call.args is None for call in admin.syscalls or () if "clone" in call.names)
    assert plain.architectures == ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"includes": {"arches": ["amd64"]}}, True),
        ({"includes": {"caps": ["CAP_A"]}}, True),
        ({"includes": {"caps": ["CAP_A", "CAP_B"]}}, False),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.2"}}, False),
        ({"includes": {"minKernel": "10.0"}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"excludes": {"caps": ["CAP_B", "CAP_A"]}}, False),
        ({"excludes": {"caps": ["CAP_B"]}}, True),
        ({"excludes": {"minKernel": "6.1"}}, False),
        ({"excludes": {"minKernel": "6.2"}}, True),
        ({"includes": {}, "excludes": {"caps": None}, "args": None, "comment": "x"}, True),
    ],
)
def test_conditions_on_a_call(conditions: dict[str, Any], kept: bool) -> None:
    """includes asks for all of its capabilities and one of its architectures; excludes for any one."""
    assert ("mount" in names(resolve(profile(**conditions), "CAP_A"))) is kept


def test_older_name_key_is_one_name() -> None:
    """`name` stands for a list of one; with `names` too it is Docker's error."""
    assert names(resolve(profile(names=None, name="open"))) == {"open"}
    with pytest.raises(InvalidArgument, match="both 'name' and 'names' are specified in the seccomp profile"):
        resolve(profile(name="open"))


def test_architectures_and_arch_map_exclude_each_other() -> None:
    """As Docker says it."""
    bad = profile() | {"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}
    with pytest.raises(InvalidArgument, match="both 'architectures' and 'archMap' are specified"):
        resolve(bad)
    assert resolve(profile() | {"architectures": ["SCMP_ARCH_X86"]}).architectures == ("SCMP_ARCH_X86",)


def test_empty_profile_is_no_seccomp() -> None:
    """No default action and no calls: the container runs unconfined, as with Docker."""
    assert resolve_profile(b"{}", NONE) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'"x"',
        b"\xff",
        b"[" * 100_000,
        b'{"defaultAction": "SCMP_ACT_MAYBE"}',
        b'{"defaultAction": 1}',
        b'{"syscalls": [{"names": ["open"], "action": "SCMP_ACT_ALLOW"}]}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [1]}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["open"], "action": "ALLOW"}]}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": "open", "action": "SCMP_ACT_KILL"}]}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["open"], "action": "SCMP_ACT_KILL",'
        b' "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_ABOUT"}]}]}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["open"], "action": "SCMP_ACT_KILL",'
        b' "includes": {"minKernel": "new"}}]}',
        b" " * (1 << 20) + b"{}",
    ],
)
def test_hostile_profile_is_refused(text: bytes) -> None:
    """Wrong types, unknown actions, depth and size give InvalidArgument, nothing else."""
    with pytest.raises(InvalidArgument):
        resolve_profile(text, NONE)


@pytest.mark.parametrize(
    "change",
    [
        {"args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"args": [{"index": -1, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]},
        {"args": [{"index": 0, "value": 1 << 64, "op": "SCMP_CMP_EQ"}]},
        {"names": [""]},
        {"action": "SCMP_ACT_ERRNO", "errnoRet": 4096},
        {"action": "SCMP_ACT_ERRNO", "errnoRet": -1},
    ],
)
def test_rule_that_no_program_can_express_is_refused(change: dict[str, Any]) -> None:
    """Out-of-range numbers are found when the program is made."""
    with pytest.raises(InvalidArgument):
        compile_filter(resolve(profile(**change)))


def test_unknown_names_are_skipped_and_unknown_architectures_refused() -> None:
    """A profile may name calls that only other kernels have; an architecture that none has is an error."""
    assert compile_filter(resolve(profile(names=["open", "no_such_call", "x" * 5000])))
    with pytest.raises(InvalidArgument, match="string SCMP_ARCH_Z80 is not a valid arch for seccomp"):
        compile_filter(resolve(profile() | {"architectures": ["SCMP_ARCH_Z80"]}))


def test_notify_is_refused_by_name() -> None:
    """A listener isn't there yet: Unsupported says so, instead of a filter without it."""
    with pytest.raises(Unsupported, match="SCMP_ACT_NOTIFY"):
        compile_filter(resolve(profile(action="SCMP_ACT_NOTIFY")))


def test_flags() -> None:
    """None given is runc's default; an unknown one is an error."""
    assert filter_flags(resolve(profile())) == 4
    assert filter_flags(resolve(profile() | {"flags": []})) == 0
    assert filter_flags(resolve(profile() | {"flags": ["SECCOMP_FILTER_FLAG_LOG"]})) == 2
    with pytest.raises(InvalidArgument):
        filter_flags(resolve(profile() | {"flags": ["SECCOMP_FILTER_FLAG_X"]}))


def test_cache_file_is_used_and_a_torn_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process reads what the first compiled; a half-written file is compiled anew and replaced."""
    seccomp = LinuxSeccomp("SCMP_ACT_ERRNO", syscalls=(LinuxSyscall(("read", "write"), "SCMP_ACT_ALLOW"),))
    monkeypatch.setattr("tare.runtime.seccomp._compiled", {})
    program = compile_filter(seccomp, str(tmp_path))
    [cached] = tmp_path.iterdir()
    whole = cached.read_bytes()

    def no_compiling(*arguments: object) -> bytes:
        raise AssertionError("compiled in spite of the cache")

    monkeypatch.setattr("tare.runtime.seccomp._compiled", {})
    with monkeypatch.context() as patch:
        patch.setattr("tare.runtime.seccomp.compile_rules", no_compiling)
        assert compile_filter(seccomp, str(tmp_path)) == program
    cached.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr("tare.runtime.seccomp._compiled", {})
    assert compile_filter(seccomp, str(tmp_path)) == program
    assert cached.read_bytes() == whole
