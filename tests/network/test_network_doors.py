"""What takes privilege goes through doors.py, or is opened by the modules named here; checked on the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "src" / "tare" / "network"
FILES = {path.name: path for path in sorted(ROOM.glob("*.py"))}

# What a module opens in the namespace of its own process, where the engine is root either way.
OWN_NAMESPACE = {
    "bridge.py": {"write_proc"},  # sysctls of bridges, forwarding
    "egress_log.py": {"PacketLog"},
    "endpoints.py": {"open_namespace"},  # of a live container, by its pid
    "flows.py": {"ConntrackSocket", "RouteSocket"},  # in a thread
    "leaving.py": {"RouteSocket"},  # in a thread
    "port_guard.py": {"NftablesSocket"},
    "service.py": {"RouteSocket"},
    "table.py": {"NftablesSocket"},
    "table_watch.py": {"NftablesNews"},
}
# Sockets as any program has them.
ORDINARY = {
    "dns_forward.py": {"create_datagram_endpoint", "open_connection"},
    "host_ports.py": {"socket"},
    "relays.py": {"socket"},
    "relay_datagrams.py": {"socket"},
}
# Outside of the engine's namespaces, and no part of it: it runs the program that connects them.
OUTSIDE = {
    "uplink_keeper.py": {"Popen", "RouteSocket", "pidfd_open"},
    "uplink_programs.py": {"socket"},
}
NOWHERE = {"setns", "unshare", "fork", "posix_spawn", "make_user_namespace", "create_subprocess_exec"}
WATCHED = NOWHERE.union(*OWN_NAMESPACE.values(), *ORDINARY.values(), *OUTSIDE.values(), {"start_server", "socketpair"})
GIVEN = {"fileno", "sock", "fd"}  # by these a call takes what somebody else opened


def opened(path: Path) -> set[str]:
    """The watched functions and classes that a module calls, unless it hands them a descriptor."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        takes_over = any(keyword.arg in GIVEN for keyword in node.keywords)
        takes_over |= name in ("RouteSocket", "NftablesSocket") and bool(node.args)
        if name in WATCHED and not takes_over:
            found.add(name)
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_module_opens_no_more_than_it_is_listed_for(name: str) -> None:
    """Everything else it gets from outside."""
    listed = [table.get(name, set()) for table in (OWN_NAMESPACE, ORDINARY, OUTSIDE)]
    assert opened(FILES[name]) == set().union(*listed)
    assert "import subprocess" not in FILES[name].read_text() or name in OUTSIDE


def test_few_modules_know_of_an_uplink() -> None:
    """Whoever holds host ports, whoever asks the host's resolvers, and the room's front by its doors."""
    users = {name for name, path in FILES.items() if "network.uplink import" in path.read_text()}
    assert users == {"doors.py", "host_ports.py", "host_resolvers.py"}
    told = {name for name, path in FILES.items() if "uplink." in path.read_text() and not name.startswith("uplink")}
    assert told == users - {"doors.py"} | {"service.py"}


def test_nobody_asks_whether_there_is_root() -> None:
    """No branch on it: the same room works in either namespace."""
    for name, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            assert text not in ("geteuid", "getuid", "rootless", "is_root"), name
