"""The packages of the guest agent: which version each system carries, and how it is installed and updated there. Data, no input or output.

The versions were looked up on the day `AS_OF`; what is not in the table is not known, and said so. Sources:

- Debian: its archive, by `apt-cache policy` and `qemu-ga --version` (bullseye 1:5.2+dfsg-11+deb11u3, bookworm
  1:7.2+dfsg-7+deb12u18, trixie 1:10.0.13+ds-0+deb13u1).
- Ubuntu: the pages of its packages and manuals (focal 4.2-3ubuntu6.30, jammy 6.2+dfsg-2ubuntu6, noble
  8.2.2+ds-0ubuntu1.18, questing 10.1.0+ds-5ubuntu2.6, resolute 10.2.1+ds-1ubuntu3.2).
- RHEL and those built from it: qemu-guest-agent 6.2.0 of the module virt (8.10), 10.1.0-17.el9_8, 10.1.0-16.el10_2.
- Fedora: 10.1.2-1.fc43, 10.2.2-1.fc44.
- SUSE: the advisories for qemu (6.2.0-150400, 7.1.0-150500, 8.2.10-150600).
- Alpine: 10.0.0-r1 in v3.22/community.
- Windows: mingw-qemu-ga-win 110.2.3 in the ISO of virtio-win. These agents have numbers of their own, since 100.0.0
  (QEMU 3.1).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from guestwire.agent.results import OsInfo

AS_OF: Final = "2026-11-27"

NEWEST: Final[Mapping[str, Mapping[str, str]]] = {
    "debian": {"11": "5.2.0", "12": "7.2.22", "13": "10.0.13"},
    "ubuntu": {"20.04": "4.2", "22.04": "6.2", "24.04": "8.2.2", "25.10": "10.1", "26.04": "10.2.1"},
    "rhel": {"8": "6.2.0", "9": "10.1.0", "10": "10.1.0"},
    "fedora": {"43": "10.1", "44": "10.2"},
    "suse": {"15.4": "6.2", "15.5": "7.1", "15.6": "8.2"},
    "alpine": {"3.22": "10.0"},
    "windows": {"": "110.2.3"},
}
"""The version of the agent that a release carries, as far as it is known: two numbers leave the third open."""

_PARTS: Final = {"ubuntu": 2, "suse": 2, "alpine": 2, "windows": 0}
"""How many numbers of a system's version name a release of `NEWEST`; 1 for the others."""

_PACKAGES_OF: Final[Mapping[str, str]] = {
    "mswindows": "windows",
    **dict.fromkeys(("centos", "rocky", "almalinux", "ol"), "rhel"),
    **dict.fromkeys(
        ("sles", "sled", "sles_sap", "sle_hpc", "opensuse", "opensuse-leap", "opensuse-tumbleweed"), "suse"
    ),
}
"""By the id of an os-release, the distribution whose packages it has, where that is another."""

Family = Literal["debian", "rhel", "suse", "alpine", "windows"]

_FAMILIES: Final[Mapping[str, Family]] = {
    **dict.fromkeys(("debian", "ubuntu", "linuxmint", "raspbian", "devuan", "kali"), "debian"),
    **dict.fromkeys(("rhel", "fedora"), "rhel"),
    "suse": "suse",
    "alpine": "alpine",
    "windows": "windows",
}  # fmt: skip

MOST_CHARACTERS: Final = 80
"""Of a name that a guest gives itself."""

_id: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_number: Final = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}")


@dataclass(frozen=True, slots=True)
class System:
    """A guest's system.

    Attributes:
        id: the os-release's, or `mswindows`; "" where it is not known.
        release: its version, for example `12` or `9.4`; "" where it is not known.
        name: for people.
        packages: the distribution whose packages it has, a key of `NEWEST` where it stands there.
        family: those that install and configure their agents in the same way; None: not known.
    """

    id: str = ""
    release: str = ""
    name: str = "its system"
    packages: str = ""
    family: Family | None = None


UNKNOWN: Final = System()


def system_of(info: OsInfo | None) -> System:
    """The system that an agent names. What is not of the form of an id or a version counts as not known."""
    if info is None:
        return UNKNOWN
    own = info.id if info.id and _id.fullmatch(info.id) else ""
    release = info.version_id if info.version_id and _number.fullmatch(info.version_id) else ""
    name = (info.pretty_name or info.name or f"{own} {release}".strip() or UNKNOWN.name)[:MOST_CHARACTERS]
    packages = _PACKAGES_OF.get(own, own)
    return System(own, release, name, packages, _FAMILIES.get(packages))


def system_of_family(family: Family) -> System:
    """A system of a family, where no more is known of it."""
    return System(id="mswindows" if family == "windows" else family, packages=family, family=family)


def numbers_of(version: str) -> tuple[int, ...]:
    """The numbers at the beginning of a version, at most three; () where it has none."""
    found = re.match(r"\d{1,6}(?:\.\d{1,6}){0,2}", version)
    return tuple(map(int, found[0].split("."))) if found else ()


State = Literal["newest", "older", "newer", "not known"]


@dataclass(frozen=True, slots=True)
class VersionCheck:
    """An agent's version beside the newest of its system.

    Attributes:
        agent: its own.
        newest: that the system carries; None: not known.
        state: of the agent's; `newer`: the table is older than the agent, or it is from elsewhere.
        as_of: the day when `newest` was looked up.
        update: the command that updates it, in the guest; None: there is no need, or it is not known.
    """

    agent: str
    newest: str | None
    state: State
    as_of: str = AS_OF
    update: str | None = None


def check_version(version: str, system: System) -> VersionCheck:
    """Compares an agent's version with the newest that its system carries."""
    release = ".".join(system.release.split(".")[: _PARTS.get(system.packages, 1)])
    newest = NEWEST.get(system.packages, {}).get(release)
    shown, own = version[:MOST_CHARACTERS], numbers_of(version)
    if newest is None or not own:
        return VersionCheck(shown, newest, "not known")
    wanted = numbers_of(newest)
    own = own[: len(wanted)]
    if own == wanted:
        return VersionCheck(shown, newest, "newest")
    if own > wanted:
        return VersionCheck(shown, newest, "newer")
    return VersionCheck(shown, newest, "older", update=INSTALLATIONS[_FAMILIES[system.packages]].update)


@dataclass(frozen=True, slots=True)
class Installation:
    """How the agent comes into a system.

    Attributes:
        system: the family.
        systems: for people.
        needs: what must be there, for people; "" for nothing.
        install: command lines for root in the guest.
        update: the command line that updates it.
        cloud_init: a cloud's user data for a new guest; for Windows of cloudbase-init.
        virt_customize: the command line for the disk of a guest that is off.
    """

    system: Family
    systems: str
    needs: str
    install: tuple[str, ...]
    update: str
    cloud_init: str
    virt_customize: str


def _cloud_config(*commands: str) -> str:
    run = "".join(f"  - {command}\n" for command in commands)
    return f"#cloud-config\npackage_update: true\npackages:\n  - qemu-guest-agent\nruncmd:\n{run}"


_CUSTOMIZE: Final = "virt-customize -a DISK.qcow2 --install qemu-guest-agent"
_ENABLE: Final = "systemctl enable --now qemu-guest-agent"

INSTALLATIONS: Final[Mapping[Family, Installation]] = {
    one.system: one
    for one in (
        # Its unit has no [Install]: a rule of udev's starts it with the port (the package's own files).
        Installation(
            "debian",
            "Debian, Ubuntu",
            "",
            ("apt-get update && apt-get install -y qemu-guest-agent", "systemctl start qemu-guest-agent"),
            "apt-get update && apt-get install -y --only-upgrade qemu-guest-agent",
            _cloud_config("systemctl start qemu-guest-agent"),
            _CUSTOMIZE,
        ),
        Installation(
            "rhel",
            "RHEL, CentOS, Rocky, Alma, Fedora",
            "",
            ("dnf install -y qemu-guest-agent", _ENABLE),
            "dnf upgrade -y qemu-guest-agent",
            _cloud_config(_ENABLE),
            f"{_CUSTOMIZE} --run-command 'systemctl enable qemu-guest-agent' --selinux-relabel",
        ),
        Installation(
            "suse",
            "SLES, openSUSE",
            "",
            ("zypper --non-interactive install qemu-guest-agent", _ENABLE),
            "zypper --non-interactive update qemu-guest-agent",
            _cloud_config(_ENABLE),
            f"{_CUSTOMIZE} --run-command 'systemctl enable qemu-guest-agent'",
        ),
        Installation(
            "alpine",
            "Alpine",
            "its repository community",
            ("apk add qemu-guest-agent", "rc-update add qemu-guest-agent default", "rc-service qemu-guest-agent start"),
            "apk add -u qemu-guest-agent && rc-service qemu-guest-agent restart",
            _cloud_config("rc-update add qemu-guest-agent default", "rc-service qemu-guest-agent start"),
            f"{_CUSTOMIZE} --run-command 'rc-update add qemu-guest-agent default'",
        ),
        # The ISO of virtio-win has guest-agent\qemu-ga-x86_64.msi, and its guest tools bring drivers and agent. The option
        # --inject-qemu-ga is in the manual of Debian 13's virt-customize, and not in Debian 12's.
        Installation(
            "windows",
            "Windows",
            "the ISO of virtio-win in its CD drive, here D",
            (r"D:\virtio-win-guest-tools.exe /install /quiet /norestart",),
            r"msiexec /i D:\guest-agent\qemu-ga-x86_64.msi /qn",
            "#ps1_sysnative\n"
            r"Start-Process -Wait D:\virtio-win-guest-tools.exe -ArgumentList '/install','/quiet','/norestart'"
            "\n",
            "virt-customize -a DISK.qcow2 --inject-virtio-win virtio-win.iso --inject-qemu-ga virtio-win.iso",
        ),
    )
}
"""By family."""
