"""Writes cpio archives in the `newc` format, which the kernel unpacks as its first root file system.

Source: the kernel's documentation of the initramfs buffer format.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TRAILER: Final = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, link, directory or device: `mode` with its type's bits, content (a link's target), device numbers."""

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(stat.S_IFDIR | mode)


def file(content: bytes, mode: int = 0o644) -> Entry:
    """A file."""
    return Entry(stat.S_IFREG | mode, content)


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device."""
    return Entry(stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Mapping[str, Entry]) -> bytes:
    """The archive of `entries` by path without a leading slash; all belong to root, and nothing in it tells the time."""
    parts = [_record(number, path, entries[path]) for number, path in enumerate(sorted(entries), 1)]
    return b"".join([*parts, _record(0, TRAILER, Entry(0))])


def _record(inode: int, path: str, entry: Entry) -> bytes:
    name = path.encode() + b"\0"
    fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
