"""Downloads and unpacks Debian packages without installing anything: apt with folders of its own, and dpkg-deb.

The archive's address comes from the host's own apt sources; another suite (Debian 13 on a Debian 12 host) is reached at
the same address.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guestwire.errors import GuestImageError

SOURCES: Final = Path("/etc/apt")
OS_RELEASE: Final = Path("/etc/os-release")

TIMEOUT: Final = 180.0
"""Seconds for one run of apt."""

COMPONENTS: Final = {"debian": "main", "ubuntu": "main universe"}
KERNELS: Final = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-virtual"}


@dataclass(frozen=True, slots=True)
class Host:
    """The distribution that we run on: `debian` or `ubuntu`, and its suite's name."""

    id: str
    suite: str

    @property
    def kernel(self) -> str:
        """The package that leads to a kernel for virtual machines."""
        return KERNELS[self.id]


def this_host() -> Host:
    """What /etc/os-release says.

    Raises:
        GuestImageError: it is a system whose packages we don't know.
    """
    found = dict(
        re.findall(r'^(\w+)="?([^"\n]*)"?$', OS_RELEASE.read_text() if OS_RELEASE.exists() else "", re.MULTILINE)
    )
    host = Host(found.get("ID", "unknown"), found.get("VERSION_CODENAME", ""))
    missing = [tool for tool in ("apt-get", "dpkg-deb") if not shutil.which(tool)]
    if host.id not in KERNELS or missing:
        raise GuestImageError(
            f"the small guest is made of Debian's or Ubuntu's packages, and this is {host.id} {host.suite}".rstrip()
            + "; run it on one of them, or in a container of one"
        )
    return host


@dataclass(frozen=True, slots=True)
class Source:
    """One archive as apt knows it; `options` as in brackets of a one-line entry."""

    uri: str
    suites: tuple[str, ...]
    options: str


_one_line = re.compile(r"^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)", re.MULTILINE)


def sources(folder: Path = SOURCES) -> list[Source]:
    """The host's apt sources, of both notations."""
    found = []
    for path in sorted([folder / "sources.list", *folder.glob("sources.list.d/*.list")]):
        text = path.read_text() if path.exists() else ""
        found += [Source(uri, (suite,), options.strip()) for options, uri, suite in _one_line.findall(text)]
    for path in sorted(folder.glob("sources.list.d/*.sources")):
        found += [source for paragraph in path.read_text().split("\n\n") if (source := _deb822(paragraph))]
    return found


def _deb822(paragraph: str) -> Source | None:
    fields = {
        key.lower(): value.strip() for key, value in re.findall(r"^([\w-]+):[ \t]*(.*)$", paragraph, re.MULTILINE)
    }
    if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
        return None
    key = fields.get("signed-by", "")
    options = f"signed-by={key}" if key.startswith("/") else ""
    return Source(fields.get("uris", "").split(" ")[0], tuple(fields.get("suites", "").split()), options)


class Archive:
    """One suite of a distribution's packages, with apt's state in `folder`.

    Args:
        folder: for lists, packages and what is unpacked.
        host: the distribution that we run on.
        suite: another suite than the host's own, at the same address.
    """

    def __init__(self, folder: Path, host: Host, suite: str) -> None:
        self.folder = folder
        self._host = host
        self._suite = suite
        self._updated = False

    def has(self, package: str) -> bool:
        """True if the suite has that package."""
        self._update()
        return bool(self._run("apt-cache", "search", "--names-only", f"^{re.escape(package)}$"))

    def download(self, packages: Iterable[str]) -> list[Path]:
        """Packages with all they depend on.

        Raises:
            GuestImageError: they can't be had.
        """
        self._update()
        self._apt("-y", "--no-install-recommends", "--download-only", "install", *packages)
        return sorted(self._packages.glob("*.deb"))

    def download_kernel(self) -> list[Path]:
        """The kernel for virtual machines with its modules, and none of what it depends on.

        Raises:
            GuestImageError: as for `download`.
        """
        self._update()
        image = self._depends(self._host.kernel, r"linux-image-\d\S*")
        if not image:
            raise GuestImageError(f"the package {self._host.kernel} names no kernel in {self._suite}")
        wanted = [*image, *self._depends(image[0], r"linux-modules-\d\S*")]
        folder = self.folder / "kernel"
        folder.mkdir(parents=True, exist_ok=True)
        self._apt("download", *wanted, folder=folder)
        return sorted(folder.glob("*.deb"))

    @property
    def _packages(self) -> Path:
        return self.folder / "archives"

    def _depends(self, package: str, pattern: str) -> list[str]:
        text = self._run("apt-cache", "depends", "--important", package)
        return re.findall(rf"Depends: ({pattern})", text)[:1]

    def _update(self) -> None:
        if self._updated:
            return
        for name in ("lists/partial", "archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        (self.folder / "sources.list").write_text("".join(self._entries()))
        self._apt("update")
        self._updated = True

    def _entries(self) -> list[str]:
        """One entry an archive that has the host's suite: the suite we want, without its updates."""
        known = {(source.uri, source.options) for source in sources() if self._host.suite in source.suites}
        if not known:
            raise GuestImageError(f"no apt source on this host has the suite {self._host.suite}")
        components = COMPONENTS[self._host.id]
        return [f"deb [{options or 'arch=amd64'}] {uri} {self._suite} {components}\n" for uri, options in sorted(known)]

    def _apt(self, *arguments: str, folder: Path | None = None) -> str:
        return self._run("apt-get", "-q", *arguments, folder=folder)

    def _run(self, program: str, *arguments: str, folder: Path | None = None) -> str:
        options = {
            "Dir::State": self.folder,
            "Dir::State::lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder,
            "Dir::Cache::archives": self._packages,
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "APT::Sandbox::User": "root",
            "APT::Architecture": "amd64",
            "Debug::NoLocking": "1",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return run([program, *settings, *arguments], folder=folder)


def unpack(packages: Iterable[Path], target: Path) -> None:
    """Unpacks packages into one tree.

    Raises:
        GuestImageError: one is damaged.
    """
    target.mkdir(parents=True, exist_ok=True)
    for package in packages:
        run(["dpkg-deb", "--extract", str(package), str(target)])


def run(command: Sequence[str], *, folder: Path | None = None) -> str:
    """Runs a program and returns what it wrote.

    Raises:
        GuestImageError: it is missing, fails or takes too long; with the end of what it wrote.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    except FileNotFoundError as error:
        raise GuestImageError(f"the program {command[0]} is missing; `./dev setup` installs what is needed") from error
    except subprocess.TimeoutExpired as error:
        raise GuestImageError(f"{command[0]} took longer than {TIMEOUT:g} seconds") from error
    except subprocess.CalledProcessError as error:
        raise GuestImageError(
            f"{' '.join(command[:1])} {command[-1]} failed: {(error.stderr or error.stdout).strip()[-600:]}"
        ) from error
    return done.stdout
