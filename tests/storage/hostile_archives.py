"""Archives that attack an extractor, each a list of raw tar members; made by hand, since tar programs refuse to."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

Member = tuple[str, bytes, str, bytes, int, int]  # name, type, linkname, data, major, minor


def build(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info, data = member if isinstance(member, tuple) else (member, b"")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def file(name: str, data: bytes = b"evil\n") -> tuple[tarfile.TarInfo, bytes]:
    return entry(name), data


def directory(name: str) -> tarfile.TarInfo:
    return entry(name, tarfile.DIRTYPE, mode=0o755)


def symlink(name: str, to: str) -> tarfile.TarInfo:
    return entry(name, tarfile.SYMTYPE, to)


def hard_link(name: str, to: str) -> tarfile.TarInfo:
    return entry(name, tarfile.LNKTYPE, to)


def device(name: str, kind: bytes, major: int, minor: int) -> tarfile.TarInfo:
    info = entry(name, kind)
    info.devmajor, info.devminor = major, minor
    return info


def patched(data: bytes, offset: int, field: bytes) -> bytes:
    """`data` with bytes of its first header replaced and the checksum made right again."""
    header = bytearray(data[:512])
    header[offset : offset + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


# Each must be refused with this text in the error. `{out}` is a directory outside the tree.
REFUSED: dict[str, tuple[Callable[[str], bytes], str]] = {
    "dotdot": (lambda out: build(file("../evil")), "outside"),
    "dotdot_deep": (lambda out: build(file("a/b/../../../evil")), "outside"),
    "dotdot_many": (lambda out: build(file("../" * 30 + out.lstrip("/") + "/evil")), "outside"),
    "symlink_then_write": (lambda out: build(symlink("x", out), file("x/evil")), "not a directory"),
    "symlink_relative_then_write": (
        lambda out: build(symlink("x", "../" * 30 + out.lstrip("/")), file("x/evil")),
        "not a directory",
    ),
    "symlink_to_root_chain": (
        lambda out: build(symlink("a", "/"), symlink("b", "a"), file(f"b{out}/evil")),
        "not a dir",
    ),
    "symlink_then_mkdir": (lambda out: build(symlink("x", out), directory("x/evil")), "not a directory"),
    "symlink_then_symlink": (lambda out: build(symlink("x", out), symlink("x/evil", "/etc")), "not a directory"),
    "symlink_then_device": (lambda out: build(symlink("x", out), entry("x/evil", tarfile.FIFOTYPE)), "not a directory"),
    "symlink_then_hard_link": (lambda out: build(symlink("x", out), hard_link("y", "x/secret")), "not a directory"),
    "symlink_then_whiteout": (lambda out: build(symlink("x", out), file("x/.wh.secret", b"")), "not a directory"),
    "symlink_then_opaque": (lambda out: build(symlink("x", out), file("x/.wh..wh..opq", b"")), "not a directory"),
    "directory_swapped_for_symlink": (
        lambda out: build(directory("d"), file("d/a"), symlink("d", out), file("d/evil")),
        "not a directory",
    ),
    "file_as_directory": (lambda out: build(file("f"), file("f/evil")), "not a directory"),
    "hard_link_outside": (
        lambda out: build(hard_link("y", f"../../../../../../../..{out}/secret")),
        "invalid hardlink",
    ),
    "hard_link_absolute": (lambda out: build(hard_link("y", f"{out}/secret")), "invalid hardlink"),
    "hard_link_to_nothing": (lambda out: build(hard_link("y", "nothing")), "invalid hardlink"),
    "hard_link_to_root": (lambda out: build(hard_link("y", ".")), "invalid hardlink"),
    "hard_link_to_directory": (lambda out: build(directory("d"), hard_link("y", "d")), "is a directory"),
    "hard_link_to_whiteout": (lambda out: build(file(".wh.x", b""), hard_link("y", ".wh.x")), "invalid hardlink"),
    "root_is_a_file": (lambda out: build(file("./.")), "root is not a directory"),
    "root_is_a_link": (lambda out: build(symlink("./", out)), "root is not a directory"),
    "whiteout_of_parent": (lambda out: build(directory("d"), file("d/.wh...", b"")), "not a whiteout"),
    "whiteout_of_self": (lambda out: build(directory("d"), file("d/.wh..", b"")), "not a whiteout"),
    "whiteout_of_nothing": (lambda out: build(file(".wh.", b"")), "not a whiteout"),
    "whiteout_dotdot": (lambda out: build(file("../.wh.secret", b"")), "outside"),
    "empty_symlink": (lambda out: build(symlink("x", "")), "symbolic link to nothing"),
    "long_component": (lambda out: build(file("n" * 256)), "too long"),
    "long_path": (lambda out: build(file("d/" * 2500 + "f")), "too long"),
    "unknown_type": (lambda out: build(entry("x", b"V")), "unhandled tar header type 86"),
    "bad_checksum": (lambda out: b"x" + build(file("f"))[1:], "invalid tar header"),
    "not_a_tar": (lambda out: b"this is no archive\n" * 100, "invalid tar header"),
    "truncated_header": (lambda out: build(file("f"))[:300], "unexpected EOF"),
    "truncated_payload": (lambda out: build(file("f", b"x" * 5000))[:2000], "unexpected EOF"),
    "truncated_padding": (lambda out: build(file("f", b"x" * 5000))[: 512 + 5000 + 10], "unexpected EOF"),
    "huge_size": (lambda out: patched(build(file("f", b"x" * 600)), 124, b"77777777777\0"), "EOF"),
    "huge_base256_size": (
        lambda out: patched(build(file("f")), 124, b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7),
        "larger",
    ),
    "negative_size": (lambda out: patched(build(file("f")), 124, b"\xff" * 12), "invalid tar header"),
    "letters_in_size": (lambda out: patched(build(file("f")), 124, b"zzz\0"), "invalid tar header"),
    "huge_owner": (lambda out: patched(build(file("f")), 108, b"\x80\0\0\x01\0\0\0\0"), "invalid owner"),
    "huge_device": (
        lambda out: patched(build(device("n", tarfile.CHRTYPE, 1, 3)), 329, b"7777777\0"),
        "invalid device",
    ),
    "pax_path_dotdot": (lambda out: _pax({"path": "../../evil"}), "outside"),
    "pax_path_override_link": (lambda out: _pax_link({"linkpath": "../../../etc/passwd"}), "invalid hardlink"),
    "pax_bad_size": (lambda out: _pax({"size": "1x"}), "invalid tar header"),
    "pax_bad_time": (lambda out: _pax({"mtime": "soon"}), "invalid tar header"),
    "pax_huge_record": (lambda out: _pax({"comment": "x" * (2 << 20)}), "extension header"),
    "pax_sparse_overlap": (
        lambda out: _pax({"GNU.sparse.map": "0,4,2,1", "GNU.sparse.size": "10"}, b"evil\n"),
        "sparse map",
    ),
    "pax_sparse_beyond": (
        lambda out: _pax({"GNU.sparse.map": "8,5", "GNU.sparse.size": "10"}, b"evil\n"),
        "sparse map",
    ),
    "pax_sparse_bomb": (
        lambda out: _pax({"GNU.sparse.map": "0,5", "GNU.sparse.size": str(10 << 30)}, b"evil\n"),
        "sparse files claim",
    ),
}


def _pax(headers: dict[str, str], data: bytes = b"") -> bytes:
    info = entry("plain")
    info.pax_headers = headers
    return build((info, data))


def _pax_link(headers: dict[str, str]) -> bytes:
    info = hard_link("plain", "harmless")
    info.pax_headers = headers
    return build(file("harmless"), info)
