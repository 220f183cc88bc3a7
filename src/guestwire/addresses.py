"""Where a guest's agent is reached, as configurations and targets write it.

unix:/PATH                 a UNIX socket: QEMU's chardev, or an agent that listens itself
unix:/PATH?qmp=/PATH       the same, and the QMP socket of the VM
vsock:CID:PORT             an agent that listens on vsock in the guest with that id
hybrid-vsock:/PATH:PORT    the same through Cloud Hypervisor's or Firecracker's UNIX socket

A libvirt, with all its VMs, is named as virsh names it: qemu:///system, qemu:///session, qemu+ssh://HOST/system.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FORMS: Final = "unix:/PATH, unix:/PATH?qmp=/PATH, vsock:CID:PORT or hybrid-vsock:/PATH:PORT"

MAX_PATH: Final = 107
"""Bytes: the kernel's limit for the name of a UNIX socket."""

FIRST_GUEST: Final = 1
"""The smallest context id of a guest; 1 is this machine itself, 2 the host."""
LARGEST: Final = 2**32 - 2

_vsock: Final = re.compile(r"vsock:(?P<cid>[0-9]{1,10}):(?P<port>[0-9]{1,10})")
_hybrid: Final = re.compile(r"hybrid-vsock:(?P<path>.+):(?P<port>[0-9]{1,10})")
_libvirt: Final = re.compile(r"(?:qemu(?:\+(?:ssh|libssh|libssh2|tls|tcp|unix))?|test)://[!-~]*")


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A UNIX socket, and the VM's QMP socket, where it was named with it."""

    path: Path
    qmp: Path | None = None

    @property
    def name(self) -> str:
        """What a guest is called that has no other name."""
        return self.path.stem

    def __str__(self) -> str:
        return f"unix:{self.path}{_QMP}{self.qmp}" if self.qmp else f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class VsockAddress:
    """A port of a guest, by vsock."""

    cid: int
    port: int

    @property
    def name(self) -> str:
        """See `UnixAddress.name`."""
        return f"vsock-{self.cid}"

    def __str__(self) -> str:
        return f"vsock:{self.cid}:{self.port}"


@dataclass(frozen=True, slots=True)
class HybridVsockAddress:
    """A port of a guest, behind a UNIX socket that is told which one: `CONNECT PORT`."""

    path: Path
    port: int

    @property
    def name(self) -> str:
        """See `UnixAddress.name`."""
        return self.path.stem

    def __str__(self) -> str:
        return f"hybrid-vsock:{self.path}:{self.port}"


AgentAddress = UnixAddress | VsockAddress | HybridVsockAddress

_QMP: Final = "?qmp="

SCHEMES: Final = ("unix:", "vsock:", "hybrid-vsock:")


def is_agent_address(text: str) -> bool:
    """True for a text that means an agent's own socket, well written or not."""
    return text.startswith(SCHEMES)


def is_served_here(text: str) -> bool:
    """True for a target without a server: an agent's own socket, or a libvirt."""
    return is_agent_address(text) or is_libvirt_uri(text)


def parse_agent_address(text: str) -> AgentAddress | None:
    """Reads an address; None where it is none."""
    if text.startswith("unix:"):
        path, has_qmp, qmp = text.removeprefix("unix:").partition(_QMP)
        if not _is_path(path) or bool(has_qmp) != _is_path(qmp):
            return None
        return UnixAddress(Path(path), Path(qmp) if qmp else None)
    if found := _vsock.fullmatch(text):
        cid, port = int(found["cid"]), int(found["port"])
        return VsockAddress(cid, port) if FIRST_GUEST <= cid <= LARGEST and port <= LARGEST else None
    if (found := _hybrid.fullmatch(text)) and _is_path(found["path"]) and int(found["port"]) <= LARGEST:
        return HybridVsockAddress(Path(found["path"]), int(found["port"]))
    return None


def is_libvirt_uri(text: str) -> bool:
    """True for what names a libvirt, by QEMU's driver or that for tests; not for one that names a program to run."""
    return bool(_libvirt.fullmatch(text)) and "command=" not in text


def _is_path(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return bool(text) and "\0" not in text
