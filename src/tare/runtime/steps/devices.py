"""Steps for /dev: device nodes, links, the terminal as /dev/console."""

from __future__ import annotations

import errno
import os
import socket
import stat

import msgspec

from tare.errors import InvalidArgument, KernelError
from tare.kernel import mounts, pty
from tare.kernel.fds import RESOLVE_NO_SYMLINKS, make_directories, make_file
from tare.runtime.steps.init import Init

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class DeviceNode(msgspec.Struct, frozen=True):
    """A device node; mode without the type's bits."""

    path: str
    type: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


class MakeDevices(msgspec.Struct, frozen=True, tag_field="step", tag="devices"):
    """Makes the device nodes and links of /dev. bind: mount the host's nodes instead (a user namespace can't mknod)."""

    nodes: tuple[DeviceNode, ...]
    links: dict[str, str]
    bind: bool = False

    def describe(self) -> str:
        return "create device nodes"

    def apply(self, init: Init) -> None:
        directories: dict[str, int] = {}
        try:
            for node in self.nodes:
                parent, _, name = node.path.rpartition("/")
                self._make_node(init, node, self._directory(init, directories, parent), name)
            for path, target in self.links.items():
                parent, _, name = path.rpartition("/")
                self._link(target, self._directory(init, directories, parent), name)
        finally:
            for fd in directories.values():
                os.close(fd)

    def _directory(self, init: Init, opened: dict[str, int], path: str) -> int:
        fd = opened.get(path)
        if fd is None:
            fd = opened[path] = make_directories(init.root_fd, path or "/")
        return fd

    def _link(self, target: str, directory_fd: int, name: str) -> None:
        try:
            os.symlink(target, name, dir_fd=directory_fd)
        except FileExistsError:
            pass  # an image's own /dev, when no tmpfs is mounted there

    def _make_node(self, init: Init, node: DeviceNode, directory_fd: int, name: str) -> None:
        if self.bind:
            self._bind_node(init, node)
            return
        kind = _TYPES[node.type]
        device = os.makedev(node.major, node.minor) if kind != stat.S_IFIFO else 0
        try:
            os.mknod(name, kind | node.mode, device, dir_fd=directory_fd)
        except FileExistsError:
            facts = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            if stat.S_IFMT(facts.st_mode) != kind or facts.st_rdev != device:
                raise InvalidArgument(f"{node.path} exists and is not the device asked for") from None
        except OSError as error:
            if error.errno != errno.EPERM:
                raise KernelError(error.errno or errno.EIO, "mknod", node.path) from error
            self._bind_node(init, node)
            return
        if node.path == "/dev/null" and init.null_fd < 0:
            init.take_null(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd))
        if node.uid or node.gid:
            os.chown(name, node.uid, node.gid, dir_fd=directory_fd, follow_symlinks=False)

    def _bind_node(self, init: Init, node: DeviceNode) -> None:
        source_fd = os.open(node.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        facts = os.fstat(source_fd)
        if stat.S_IFMT(facts.st_mode) != _TYPES[node.type] or facts.st_rdev != os.makedev(node.major, node.minor):
            raise InvalidArgument(f"the host's {node.path} is not the device asked for")
        tree_fd = mounts.clone_fd(source_fd)
        target_fd = make_file(init.root_fd, node.path, 0o600)
        mounts.move_mount(tree_fd, target_fd, about=node.path)
        for fd in (source_fd, tree_fd, target_fd):
            os.close(fd)


class OpenTerminal(msgspec.Struct, frozen=True, tag_field="step", tag="terminal"):
    """Opens a terminal of the container's own devpts, shows it as /dev/console and sends it to the creator."""

    rows: int = 0
    columns: int = 0
    console: bool = True

    def describe(self) -> str:
        return "open terminal"

    def apply(self, init: Init) -> None:
        devpts_fd = init.devpts_fd
        if devpts_fd < 0:
            devpts_fd = init.resolve("/dev/pts", RESOLVE_NO_SYMLINKS)
        master_fd, slave_fd = pty.open_pty(devpts_fd)
        if self.rows or self.columns:
            pty.set_window_size(master_fd, self.rows, self.columns)
        if self.console:
            # By descriptor: what the image put at /dev/console or /dev/pts/N plays no part (CVE-2025-52565).
            tree_fd = mounts.clone_fd(slave_fd)
            target_fd = make_file(init.root_fd, "/dev/console", 0o600)
            mounts.move_mount(tree_fd, target_fd, about="/dev/console")
            os.close(tree_fd)
            os.close(target_fd)
        socket.send_fds(init.channel, [b"terminal"], [master_fd])
        os.close(master_fd)
        init.stdio = (slave_fd, slave_fd, slave_fd)
        init.terminal = True
