"""Builds the Debian guest: a kernel, a small initramfs, and a disk with systemd, the guest agent and OpenSSH.

Nothing of it runs while it is built: packages are unpacked, and what their scripts would configure is written here.
The disk is only ever read; each machine keeps what it writes for itself.
"""

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

from devtools.guests import cpio, modules
from devtools.guests.image import BUSYBOX, GuestImage, agent_version, only_file, recipe_key, single_build
from devtools.guests.packages import Archive, run, this_host, unpack

PACKAGES: Final = (
    # Essential ones, on which no other package says that it depends
    "base-files", "base-passwd", "bash", "bsdutils", "coreutils", "dash", "debianutils", "diffutils", "findutils",
    "grep", "gzip", "hostname", "libc-bin", "login", "mawk", "mount", "ncurses-base", "ncurses-bin", "sed",
    "sysvinit-utils", "tar", "util-linux",
    # What the guest is for
    "systemd-sysv", "udev", "kmod", "qemu-guest-agent", "openssh-server", "openssh-client", "passwd", "procps",
    "iproute2", "netbase", "less", "vim", "tmux", "rsync", "python3-minimal", "busybox-static",
)  # fmt: skip

MODULES: Final = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "button", "crc32c_generic", "ext4")  # fmt: skip

MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders that are links into `/usr`; packages still have files in them."""

UNUSED: Final = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/bug",
)

LINKS: Final = {
    "etc/alternatives/awk": "/usr/bin/mawk",
    "usr/bin/awk": "/etc/alternatives/awk",
    "usr/bin/vim": "/usr/bin/vim.basic",
    "usr/bin/vi": "/usr/bin/vim.basic",
    "usr/bin/editor": "/usr/bin/vim.basic",
    "usr/bin/pager": "/usr/bin/less",
    "usr/bin/which": "/usr/bin/which.debianutils",
    "etc/mtab": "../proc/self/mounts",
    "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
    "var/run": "/run",
    "var/lock": "/run/lock",
    "etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
    "etc/systemd/system/multi-user.target.wants/ssh.service": "/lib/systemd/system/ssh.service",
    "etc/systemd/system/multi-user.target.wants/host-shell.service": "/etc/systemd/system/host-shell.service",
    "etc/systemd/system/sshd.service": "/lib/systemd/system/ssh.service",
}

MASKED: Final = (
    "dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "proc-sys-fs-binfmt_misc.automount",
    "kmod-static-nodes.service", "systemd-modules-load.service", "systemd-binfmt.service",
    "systemd-remount-fs.service", "systemd-fsck-root.service", "systemd-random-seed.service",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-sysusers.service",
    "systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-update-done.service",
    "systemd-pstore.service", "systemd-logind.service", "systemd-sysctl.service", "ldconfig.service",
    "getty@tty1.service", "serial-getty@ttyS0.service", "getty-static.service", "autovt@.service",
    "e2scrub_reap.service", "e2scrub_all.timer", "fstrim.timer", "dpkg-db-backup.timer", "remote-fs.target",
    "procps.service", "rsync.service", "systemd-ask-password-console.path", "systemd-ask-password-wall.path",
)  # fmt: skip
"""Units that this guest can do without: each costs a tenth of a second or more where the processor is emulated."""

ACCOUNTS: Final = {
    "etc/passwd": "systemd-network:x:998:998::/run:/usr/sbin/nologin\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\nlabuser:x:1000:1000::/home/labuser:/bin/bash\n",
    "etc/group": "systemd-network:x:998:\nsystemd-journal:x:190:\nrender:x:191:\nkvm:x:192:\nsgx:x:193:\ninput:x:194:\n_ssh:x:195:\nlabuser:x:1000:\n",
}
"""Beside those of the package base-passwd."""

HOST_KEYS: Final = ("ed25519", "ecdsa")

SPARE: Final = 192 * 1024 * 1024
"""Bytes free on the disk, for what tests and measurements write."""


def build_debian(cache: Path) -> GuestImage:
    """Builds the guest from packages of the host's distribution, or finds it in the cache. Blocks; takes about a minute.

    Args:
        cache: a folder of ours; several processes may use it at once.

    Raises:
        GuestImageError: this host's packages are not known, or can't be had; it says which.
    """
    folder = cache / f"debian-{this_host().suite}-{recipe_key(with_debian=True)}"
    with single_build(folder) as unfinished:
        if unfinished:
            _build(unfinished)
    version = json.loads((folder / "guest.json").read_text())["agent_version"]
    return GuestImage(folder / "kernel", folder / "initramfs", version, folder / "disk")


def _build(folder: Path) -> None:
    host = this_host()
    work = folder.parent
    archive = Archive(work / "apt", host, host.suite)
    packages = archive.download(PACKAGES)
    tree = work / "tree"
    unpack(packages, tree)
    unpack(archive.download_kernel(), work / "kernel-tree")
    _merge_usr(tree)
    busybox = (tree / "usr" / BUSYBOX).read_bytes()
    _configure(tree)
    _make_disk(tree, folder / "disk")
    shutil.copyfile(only_file(work / "kernel-tree/boot", "vmlinuz-*"), folder / "kernel")
    initramfs = cpio.archive(dict(_initramfs(busybox, work / "kernel-tree")))
    (folder / "initramfs").write_bytes(gzip.compress(initramfs, 6, mtime=0))
    (folder / "guest.json").write_text(json.dumps({"agent_version": agent_version(packages)}))


def _merge_usr(tree: Path) -> None:
    for name in MERGED:
        top = tree / name
        if top.is_dir() and not top.is_symlink():
            shutil.copytree(top, tree / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(top)
        if (tree / "usr" / name).is_dir() and not top.is_symlink():
            top.symlink_to(f"usr/{name}")


def _configure(tree: Path) -> None:
    for path in UNUSED:
        shutil.rmtree(tree / path, ignore_errors=True)
    for path in ("dev", "proc", "sys", "run", "tmp", "mnt", "home", "var/log/journal"):
        (tree / path).mkdir(parents=True, exist_ok=True)
    for name in ("passwd", "group"):
        shutil.copyfile(tree / f"usr/share/base-passwd/{name}.master", tree / "etc" / name)
    for path, lines in ACCOUNTS.items():
        with (tree / path).open("a") as file:
            file.write(lines)
    shutil.copytree(str(resources.files("devtools.guests.debian") / "root"), tree, dirs_exist_ok=True)
    shutil.copyfile(tree / "usr/share/openssh/sshd_config", tree / "etc/ssh/sshd_config")
    for path, target in (LINKS | {f"etc/systemd/system/{unit}": "/dev/null" for unit in MASKED}).items():
        _link(tree / path, target)
    # A strict umask of the one who builds it must not keep the guest's users out; the secrets come after this.
    run(["chmod", "-R", "go+rX", str(tree)])
    (tree / "tmp").chmod(0o1777)
    _add_secrets(tree)


def _link(path: Path, target: str) -> None:
    """Makes a link, also in the place of what a package has there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _add_secrets(tree: Path) -> None:
    """What only root may read: root's home, the passwords, of which there are none, and the host keys."""
    shutil.copytree(tree / "etc/skel", tree / "root", dirs_exist_ok=True)
    (tree / "root").chmod(0o700)
    names = [line.partition(":")[0] for line in (tree / "etc/passwd").read_text().splitlines()]
    shadow = tree / "etc/shadow"
    shadow.write_text("".join(f"{name}:*:20000:0:99999:7:::\n" for name in names))
    shadow.chmod(0o600)
    for kind in HOST_KEYS:
        path = str(tree / f"etc/ssh/ssh_host_{kind}_key")
        run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "root@debian", "-f", path])


def _make_disk(tree: Path, disk: Path) -> None:
    """Everything belongs to root: systemd-tmpfiles makes the user's home when the guest boots."""
    size = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    with disk.open("wb") as file:
        os.ftruncate(file.fileno(), (size * 5 // 4 + SPARE) // 4096 * 4096)
    # Where root does not build it, root of a namespace does, so that files belong to root on the disk.
    namespace = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
    options = ["-q", "-F", "-L", "root", "-b", "4096", "-O", "^has_journal", "-m", "0"]
    run([*namespace, "mkfs.ext4", *options, "-d", str(tree), str(disk)])


def _initramfs(busybox: bytes, kernel: Path) -> Iterator[tuple[str, cpio.Entry]]:
    for path in ("bin", "dev", "lib", "lib/modules"):
        yield path, cpio.directory()
    yield "dev/console", cpio.character_device(5, 1)
    yield "bin/busybox", cpio.file(busybox, 0o755)
    yield "init", cpio.file((resources.files("devtools.guests.debian") / "init").read_bytes(), 0o755)
    for number, (module, content) in enumerate(modules.in_order(kernel, MODULES)):
        yield f"lib/modules/{number:02d}-{module}.ko", cpio.file(content)
