"""AppArmor: whether this kernel has it on, and which profiles are loaded. Loads none, applies none."""

from __future__ import annotations

ENABLED = "/sys/module/apparmor/parameters/enabled"
PROFILES = "/sys/kernel/security/apparmor/profiles"


def has_apparmor(path: str = ENABLED) -> bool:
    """Whether AppArmor is on (asked before the container's /sys is all we see, where it can be)."""
    try:
        with open(path, "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


def loaded_profiles(path: str = PROFILES) -> frozenset[str]:
    """Names of the loaded profiles; none where securityfs isn't mounted. A line is `name (mode)`."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return frozenset(line.rpartition(" (")[0] for line in file if " (" in line)
    except OSError:
        return frozenset()
