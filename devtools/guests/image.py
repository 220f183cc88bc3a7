"""Builds the small guest: a kernel, and one initramfs with busybox, the guest agent and what it calls.

The result is cached; its key is everything that goes into it, so a changed recipe or package makes another image.
"""

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final, Literal

from devtools.guests import cpio, elf, modules
from devtools.guests.packages import Archive, this_host, unpack
from guestwire.errors import GuestImageError

AgentSource = Literal["host", "trixie"]

PACKAGES: Final = ("qemu-guest-agent", "passwd", "libpam-modules", "libpam-modules-bin", "busybox-static")

BUSYBOX: Final = "bin/busybox"
LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"

PROGRAMS: Final = (
    "usr/sbin/qemu-ga",
    "usr/sbin/chpasswd",
    "usr/sbin/unix_chkpwd",
    "usr/lib/x86_64-linux-gnu/security/pam_unix.so",
    "usr/lib/x86_64-linux-gnu/security/pam_permit.so",
    "usr/lib/x86_64-linux-gnu/libnss_files.so.2",
)
"""Copied from the packages, with the libraries they need; a library that a newer system has no more is left out."""

OPTIONAL: Final = frozenset({"usr/lib/x86_64-linux-gnu/libnss_files.so.2"})


@dataclass(frozen=True, slots=True)
class Recipe:
    """Parts of a guest, from the distribution's packages.

    Attributes:
        name: begins the name of its folder in the cache.
        packages: with all they depend on.
        extra_packages: those of them that not every suite has, each with its programs.
        programs: as `PROGRAMS`.
        modules: of the kernel.
    """

    name: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    modules: tuple[str, ...]
    extra_packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


GUEST: Final = Recipe("guest", PACKAGES, PROGRAMS, modules.WANTED)

STORAGE: Final = Recipe(
    "storage",
    (*PACKAGES, "lvm2", "qemu-utils", "dropbear-bin"),
    (*PROGRAMS, "usr/sbin/lvm", "usr/bin/qemu-nbd", "usr/sbin/dropbear"),
    (*modules.WANTED, "dm_snapshot", "dm_thin_pool", "fuse"),
    {"zfs-fuse": ("usr/sbin/zfs-fuse", "usr/sbin/zfs", "usr/sbin/zpool", f"{LIBRARIES}/libgcc_s.so.1")},
)
"""The same with LVM and ZFS, which the kernel of the machine that runs the tests need not have; `qemu-nbd` serves them, and `dropbear` is for SSH."""

FOLDERS: Final = (
    "dev", "dev/pts", "etc", "home", "home/labuser", "lib", "lib64", "mnt", "mnt/data", "proc", "root", "run", "sys", "tmp", "usr",
    "usr/bin", "usr/lib", LIBRARIES, f"{LIBRARIES}/security", "usr/sbin", "var", "var/lib", "var/log",
)  # fmt: skip

LINKS: Final = {"bin": "usr/bin", "sbin": "usr/sbin", "lib/x86_64-linux-gnu": f"/{LIBRARIES}", "var/run": "/run"}


@dataclass(frozen=True, slots=True)
class GuestImage:
    """A guest that can be booted: kernel, initramfs, the version of the agent in it, and its root disk if it has one.

    The disk is only ever read: what a machine writes there is gone with its QEMU.
    """

    kernel: Path
    initramfs: Path
    agent_version: str
    disk: Path | None = None


def default_cache() -> Path:
    """Where built guests are kept: `$XDG_CACHE_HOME/guestwire`, or `~/.cache/guestwire`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guestwire"


def build(cache: Path, *, agent: AgentSource = "host", recipe: Recipe = GUEST) -> GuestImage:
    """Builds the guest, or finds it in the cache. Blocks; takes some ten seconds, and next to nothing when it is there.

    Args:
        cache: a folder of ours; several processes may use it at once.
        agent: the host distribution's guest agent, or the newer one of Debian 13.
        recipe: what else is in it.

    Raises:
        GuestImageError: this host's packages are not known, or can't be had; it says which.
    """
    host = this_host()
    if agent == "trixie" and host.id != "debian":
        raise GuestImageError(f"Debian 13's agent needs Debian's archive, and this is {host.id}")
    suite = host.suite if agent == "host" else agent
    folder = cache / f"{recipe.name}-{suite}-{recipe_key()}"
    with single_build(folder) as unfinished:
        if unfinished:
            _build(unfinished, suite, recipe)
    described = json.loads((folder / "guest.json").read_text())
    return GuestImage(folder / "kernel", folder / "initramfs", described["agent_version"])


@contextlib.contextmanager
def single_build(folder: Path) -> Iterator[Path | None]:
    """An empty folder to build an image in, which becomes `folder` if the block ends well; None if the image is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "guest.json").exists():
            yield None
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unfinished-") as name:
            unfinished = Path(name) / "ready"
            unfinished.mkdir()
            yield unfinished
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)


def recipe_key(*, with_debian: bool = False) -> str:
    """Changes with all that an image is made of: this package's files, those of the Debian guest only for that one."""
    digest = hashlib.sha256()
    package = Path(str(resources.files("devtools.guests")))
    for path in sorted(package.rglob("*")):
        is_recipe = path.suffix != ".pyc" and path.name not in ("machine.py", "__main__.py")
        if path.is_file() and is_recipe and (with_debian or package / "debian" not in path.parents):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _build(folder: Path, suite: str, recipe: Recipe) -> None:
    host = this_host()
    work = folder.parent
    own = Archive(work / "apt", host, host.suite)
    archive = own if suite == host.suite else Archive(work / f"apt-{suite}", host, suite)
    extra = [package for package in recipe.extra_packages if archive.has(package)]
    packages = archive.download([*recipe.packages, *extra])
    unpack(packages, work / "tree")
    unpack(own.download_kernel(), work / "kernel-tree")
    shutil.copyfile(only_file(work / "kernel-tree/boot", "vmlinuz-*"), folder / "kernel")
    programs = [*recipe.programs, *(path for package in extra for path in recipe.extra_packages[package])]
    entries = _entries(work / "tree", programs)
    for number, (module, content) in enumerate(modules.in_order(work / "kernel-tree", recipe.modules)):
        entries[f"lib/modules/{number:02d}-{module}.ko"] = cpio.file(content)
    (folder / "initramfs").write_bytes(gzip.compress(cpio.archive(entries), 6, mtime=0))
    (folder / "guest.json").write_text(json.dumps({"agent_version": agent_version(packages)}))


def agent_version(packages: list[Path]) -> str:
    """Of the guest agent among these packages."""
    name = next(path.name for path in packages if path.name.startswith("qemu-guest-agent_"))
    found = re.search(r"_(?:\d+%3a)?(\d+(?:\.\d+)*)", name)
    return found[1] if found else "unknown"


def only_file(folder: Path, pattern: str) -> Path:
    """The file of the kernel's package that the pattern means.

    Raises:
        GuestImageError: there is none.
    """
    found = sorted(folder.glob(pattern))
    if not found:
        raise GuestImageError(f"the kernel's package has no {pattern}")
    return found[-1]


def _entries(tree: Path, programs: Iterable[str]) -> dict[str, cpio.Entry]:
    """The guest's first root file system by path; modules are still missing."""
    entries = {folder: cpio.directory() for folder in FOLDERS}
    entries |= {path: cpio.link(target) for path, target in LINKS.items()}
    entries["dev/console"] = cpio.character_device(5, 1)
    entries["dev/null"] = cpio.character_device(1, 3, 0o666)
    entries |= _programs(tree, programs)
    entries |= _own_files()
    entries["etc/os-release"] = cpio.file(_os_release(tree))
    entries["lib/modules"] = cpio.directory()
    return entries


def _os_release(tree: Path) -> bytes:
    """Of the host: the guest is made of its packages, but for the file that would say so."""
    path = tree / "usr/lib/os-release"
    return path.read_bytes() if path.exists() else Path("/etc/os-release").read_bytes()


def _programs(tree: Path, programs: Iterable[str]) -> dict[str, cpio.Entry]:
    entries = {"usr/bin/busybox": cpio.file(_find(tree, BUSYBOX).read_bytes(), 0o755)}
    waiting = [path for path in programs if path not in OPTIONAL or _exists(tree, path)]
    while waiting:
        path = waiting.pop()
        if path in entries:
            continue
        content = _find(tree, path).read_bytes()
        entries[path] = cpio.file(content, 0o755)
        waiting += [f"{LIBRARIES}/{name}" for name in elf.needed(content) if not name.startswith("ld-linux")]
        if loader := elf.interpreter(content):
            entries[loader.lstrip("/")] = cpio.file(_find(tree, f"{LIBRARIES}/{Path(loader).name}").read_bytes(), 0o755)
    return entries


def _exists(tree: Path, path: str) -> bool:
    return any(candidate.exists() for candidate in _places(tree, path))


def _find(tree: Path, path: str) -> Path:
    """A file of the tree, in `/usr` or out of it: not all packages have moved there."""
    for candidate in _places(tree, path):
        if candidate.exists():
            return candidate
    raise GuestImageError(f"no package has {path}, which the guest needs")


def _places(tree: Path, path: str) -> list[Path]:
    moved = path.removeprefix("usr/")
    return [tree / moved, tree / "usr" / moved, tree / "usr" / moved.replace("bin/", "sbin/", 1)]


def _own_files() -> dict[str, cpio.Entry]:
    """The files in `root/`: programs where they are in `sbin` or called `init`."""
    entries = {}
    root = Path(str(resources.files("devtools.guests") / "root"))
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = str(path.relative_to(root))
        runs = name == "init" or name.startswith("sbin/")
        place = name.replace("sbin/", "usr/sbin/", 1) if name.startswith("sbin/") else name
        mode = 0o755 if runs else 0o640 if name == "etc/shadow" else 0o644
        entries[place] = cpio.file(path.read_bytes(), mode)
        entries |= {str(parent): cpio.directory() for parent in Path(place).parents if str(parent) != "."}
    return entries
