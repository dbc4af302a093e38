"""Mount options as users write them, parsed into the kernel's flags; pure."""

from __future__ import annotations

import msgspec

from tare.errors import InvalidArgument, Unsupported
from tare.kernel import mounts

_SET = {
    "ro": mounts.MOUNT_ATTR_RDONLY,
    "nosuid": mounts.MOUNT_ATTR_NOSUID,
    "nodev": mounts.MOUNT_ATTR_NODEV,
    "noexec": mounts.MOUNT_ATTR_NOEXEC,
    "nodiratime": mounts.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": mounts.MOUNT_ATTR_NOSYMFOLLOW,
}
_CLEAR = {
    "rw": mounts.MOUNT_ATTR_RDONLY,
    "suid": mounts.MOUNT_ATTR_NOSUID,
    "dev": mounts.MOUNT_ATTR_NODEV,
    "exec": mounts.MOUNT_ATTR_NOEXEC,
    "diratime": mounts.MOUNT_ATTR_NODIRATIME,
    "symfollow": mounts.MOUNT_ATTR_NOSYMFOLLOW,
}
_ATIME = {
    "noatime": mounts.MOUNT_ATTR_NOATIME,
    "strictatime": mounts.MOUNT_ATTR_STRICTATIME,
    "relatime": mounts.MOUNT_ATTR_RELATIME,
    "atime": mounts.MOUNT_ATTR_RELATIME,
    "norelatime": mounts.MOUNT_ATTR_STRICTATIME,
    "nostrictatime": mounts.MOUNT_ATTR_RELATIME,
}
_SUPERBLOCK = frozenset(("sync", "dirsync", "lazytime", "mand", "iversion"))
_IGNORED = frozenset(("defaults", "async", "loud", "silent", "nolazytime", "nomand", "noiversion", "acl", "noacl", ""))
_PROPAGATION = {
    "private": mounts.MS_PRIVATE,
    "shared": mounts.MS_SHARED,
    "slave": mounts.MS_SLAVE,
    "unbindable": mounts.MS_UNBINDABLE,
}
_UNSUPPORTED = frozenset(("remount", "tmpcopyup"))


class MountOptions(msgspec.Struct):
    """What a list of mount options asks for. mapped: of ids. data: what goes to the file system itself."""

    bind: bool = False
    recursive_bind: bool = False
    set: int = 0
    clear: int = 0
    recursive_set: int = 0
    recursive_clear: int = 0
    propagation: int = 0
    recursive_propagation: bool = False
    mapped: bool = False
    data: list[str] = []


def _attribute(options: MountOptions, word: str) -> bool:
    """Takes a word that sets or clears attributes of the mount, with an `r` in front for all mounts below it too."""
    for name, recursive in ((word, False), (word[1:], word.startswith("r"))):
        if name != word and not recursive:
            continue
        if name in _SET:
            set, clear = _SET[name], 0
        elif name in _CLEAR:
            set, clear = 0, _CLEAR[name]
        elif name in _ATIME:
            set, clear = _ATIME[name], mounts.MOUNT_ATTR__ATIME
        else:
            continue
        if recursive:
            options.recursive_set = options.recursive_set & ~clear | set
            options.recursive_clear = options.recursive_clear & ~set | clear
        else:
            options.set = options.set & ~clear | set
            options.clear = options.clear & ~set | clear
        return True
    return False


def parse_mount_options(words: tuple[str, ...]) -> MountOptions:
    """Parses the options of a mount; later ones win over earlier ones."""
    options = MountOptions()
    for word in words:
        if "\0" in word:
            raise InvalidArgument(f"invalid mount option {word!r}")
        if word in ("bind", "rbind"):
            options.bind = True
            options.recursive_bind = word == "rbind"
        elif word in ("idmap", "ridmap"):
            options.mapped = True
        elif word in _UNSUPPORTED:
            raise Unsupported(f"mount option {word!r}")
        elif word in _IGNORED or _attribute(options, word):
            pass
        elif word in _PROPAGATION or (word[:1] == "r" and word[1:] in _PROPAGATION):
            options.recursive_propagation = word not in _PROPAGATION
            options.propagation = _PROPAGATION[word[1:] if options.recursive_propagation else word]
        else:
            options.data.append(word)
    return options


def option_names() -> list[str]:
    """All options that aren't passed on to the file system."""
    plain = {*_SET, *_CLEAR, *_ATIME}
    propagation = {*_PROPAGATION, *("r" + name for name in _PROPAGATION)}
    return sorted(plain | {"r" + name for name in plain} | propagation | {"bind", "rbind"} | (_IGNORED - {""}))
