"""Kernel modules: those that others need come first, and packed ones are unpacked."""

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from devtools.guests import modules
from guestwire.errors import GuestImageError


def module(tree: Path, name: str, depends: str = "", ending: str = ".ko") -> Path:
    path = tree / "kernel" / f"{name}{ending}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content(name, depends))
    return path


def content(name: str, depends: str = "") -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=" + name.encode() + b"\0"


def names(tree: Path) -> list[str]:
    return [name for name, _ in modules.in_order(tree)]


def test_what_a_module_needs_comes_before_it(folder: Path) -> None:
    module(folder, "ext4", "jbd2,mbcache,crc16")
    module(folder, "jbd2", "deep")
    for name in ("mbcache", "crc16", "deep"):
        module(folder, name)

    found = names(folder)

    assert sorted(found) == ["crc16", "deep", "ext4", "jbd2", "mbcache"]
    assert found.index("deep") < found.index("jbd2") < found.index("ext4") == 4


def test_a_module_comes_once_also_when_two_need_it(folder: Path) -> None:
    module(folder, "virtio_blk", "virtio")
    module(folder, "virtio_net", "virtio")
    module(folder, "virtio")

    assert names(folder) == ["virtio", "virtio_blk", "virtio_net"]


def test_what_is_built_into_the_kernel_is_not_missed(folder: Path) -> None:
    module(folder, "button", "built_in")

    assert names(folder) == ["button"]


def test_what_nobody_wants_is_left_out(folder: Path) -> None:
    module(folder, "button")
    module(folder, "floppy")

    assert names(folder) == ["button"]


def test_dashes_and_underlines_are_the_same(folder: Path) -> None:
    module(folder, "virtio-rng", "hw-core")
    module(folder, "hw_core")

    assert names(folder) == ["hw_core", "virtio_rng"]


def test_modules_packed_with_xz_are_unpacked(folder: Path) -> None:
    path = module(folder, "button", ending=".ko.xz")
    path.write_bytes(lzma.compress(content("button", "helper")))
    module(folder, "helper")

    assert modules.in_order(folder) == [("helper", content("helper")), ("button", content("button", "helper"))]


@pytest.mark.skipif(not shutil.which("zstd"), reason="the program zstd is not there")
def test_modules_packed_with_zstd_are_unpacked(folder: Path) -> None:
    path = module(folder, "button")
    subprocess.run(["zstd", "-q", "--rm", str(path)], check=True, timeout=30)

    assert modules.in_order(folder) == [("button", content("button"))]


def test_modules_packed_otherwise_are_refused(folder: Path) -> None:
    module(folder, "button", ending=".ko.gz")

    with pytest.raises(GuestImageError, match=r"button\.ko\.gz"):
        modules.in_order(folder)
