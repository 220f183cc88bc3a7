"""Kernel modules for the small guest: what to load, and in which order."""

import lzma
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from devtools.guests.packages import run
from guestwire.errors import GuestImageError

WANTED: Final = (
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "button",
    "evdev",
    "crc32c_generic",
    "ext4",
)
"""What the guest needs; a kernel may have some of them built in."""

_depends = re.compile(rb"\0depends=([^\0]*)\0")


def in_order(tree: Path, wanted: Iterable[str] = WANTED) -> list[tuple[str, bytes]]:
    """Names and contents of the modules to load, those that others need first."""
    found = {_name(path): path for path in tree.rglob("*.ko*")}
    ordered: dict[str, bytes] = {}
    for name in wanted:
        _add(name, found, ordered)
    return list(ordered.items())


def _add(name: str, found: dict[str, Path], ordered: dict[str, bytes]) -> None:
    if name in ordered or name not in found:
        return
    content = _read(found[name])
    for other in (_depends.search(content) or [b"", b""])[1].split(b","):
        _add(_normal(other.decode()), found, ordered)
    ordered[name] = content


def _name(path: Path) -> str:
    return _normal(path.name.partition(".ko")[0])


def _normal(name: str) -> str:
    return name.replace("-", "_")


def _read(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        plain = path.with_suffix("")
        run(["zstd", "-dqf", str(path), "-o", str(plain)])
        return plain.read_bytes()
    if path.suffix != ".ko":
        raise GuestImageError(f"{path.name}: modules packed like this are not known here")
    return path.read_bytes()
