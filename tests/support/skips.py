"""The one list of reasons for which a test may be skipped where CI=true; anything else skipped there is a failure."""

from __future__ import annotations

# Each is the beginning of a reason as the test states it.
ALLOWED = (
    "this machine's cgroups are version 1",
    "this machine's cgroups are version 2",
    "the kernel has no AppArmor",
    "this kernel has no ipvlan links",
    "this kernel has no vlan links",
    "this kernel has no br_netfilter loaded",
    "the kernel has no sch_netem",
    "the kernel has sch_netem",
    "the kernel has no time namespaces",
    "this machine is no x86-64",
    "Docker differs here:",
    "other roots need TARE_ROOTS=all",
    "whole systems are made with TARE_BOOTSTRAP=all",
    "no mirror of Debian's packages answers",
    "the kernel has no tun devices",
    "this kernel has no project quotas on",
    "an ordinary user can't make namespaces here:",
    "client not installed:",  # scripts/clients; `make compat` has them all
)


def is_allowed(reason: str) -> bool:
    """Whether a skip for this reason is expected anywhere."""
    return reason.removeprefix("Skipped: ").startswith(ALLOWED)
