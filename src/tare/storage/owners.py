"""The owners of files in a container with a user namespace of its own: its ids inside, and what they are on the host.

For archives of a running container's root, which shows the host's ids to the engine. Pure.
"""

from __future__ import annotations

import os
import struct

import msgspec

from tare.errors import InvalidArgument
from tare.storage.tar_format import Entry
from tare.storage.tar_writer import entry_of

_NOBODY = 65534
_CAPABILITIES = b"security.capability"
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
# struct vfs_ns_cap_data (linux/capability.h): with the id of the namespace's root behind it from revision 3 on.
_REVISION_2, _REVISION_3, _REVISION_MASK = 0x02000000, 0x03000000, 0xFF000000
_word, _acl = struct.Struct("<I"), struct.Struct("<HHI")
_ACL_USER, _ACL_GROUP = 0x02, 0x08


class Owners(msgspec.Struct, frozen=True):
    """uid, gid: what the container's user 0 and group 0 are on the host. count: how many ids it has."""

    uid: int
    gid: int
    count: int

    def shown(
        self, path: bytes, status: os.stat_result, linkname: bytes = b"", xattrs: dict[bytes, bytes] | None = None
    ) -> Entry:
        """As `entry_of`, with the container's ids; what isn't among them is nobody's."""
        entry = entry_of(path, status, linkname, xattrs)
        entry.uid = self._inside(entry.uid, self.uid)
        entry.gid = self._inside(entry.gid, self.gid)
        entry.xattrs = self._convert(entry.xattrs, inside=True)
        return entry

    def place(self, entry: Entry) -> None:
        """Gives an archive's entry the host's ids. Raises InvalidArgument for one that the container doesn't have."""
        if not (0 <= entry.uid < self.count and 0 <= entry.gid < self.count):
            raise InvalidArgument(
                f"{os.fsdecode(entry.name)}: owner {entry.uid}:{entry.gid} does not exist in the container's user "
                f"namespace (0 to {self.count - 1})"
            )
        entry.uid += self.uid
        entry.gid += self.gid
        entry.xattrs = self._convert(entry.xattrs, inside=False)

    def _inside(self, number: int, first: int) -> int:
        return number - first if first <= number < first + self.count else _NOBODY

    def _convert(self, xattrs: dict[bytes, bytes], *, inside: bool) -> dict[bytes, bytes]:
        found = dict(xattrs)
        if _CAPABILITIES in found:
            found[_CAPABILITIES] = self._capabilities(found[_CAPABILITIES], inside=inside)
        for name in _ACLS:
            if name in found:
                found[name] = self._entries(found[name], inside=inside)
        return found

    def _capabilities(self, data: bytes, *, inside: bool) -> bytes:
        """File capabilities that are the host's root's inside an archive are this namespace's root's on the host."""
        magic = _word.unpack_from(data)[0]
        flags, revision = magic & ~_REVISION_MASK, magic & _REVISION_MASK
        if inside and revision == _REVISION_3 and data[20:24] == _word.pack(self.uid):
            return _word.pack(_REVISION_2 | flags) + data[4:20]
        if not inside and revision == _REVISION_2:
            return _word.pack(_REVISION_3 | flags) + data[4:20] + _word.pack(self.uid)
        return data

    def _entries(self, data: bytes, *, inside: bool) -> bytes:
        out = bytearray(data[:4])
        for tag, permissions, number in _acl.iter_unpack(data[4:]):
            if tag in (_ACL_USER, _ACL_GROUP):
                first = self.uid if tag == _ACL_USER else self.gid
                number = self._inside(number, first) if inside else number + first
            out += _acl.pack(tag, permissions, number)
        return bytes(out)
