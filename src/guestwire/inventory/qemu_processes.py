"""QEMU processes of this machine: their command lines say where the sockets are.

A process says of itself what it likes. So its sockets have to belong to its user, and a guestwire of root takes the VMs
of root and of the accounts that virtual machines run as: another user's process could lead it anywhere. A user's words
stand on the command lines of set-user-ID programs, too, as `su`: such a process is of nobody, whatever its ids are.
"""

import contextlib
import json
import os
import pwd
import re
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from guestwire.channels.agent_port import AGENT_PORT, NO_CHANNEL, qemu_options
from guestwire.inventory.found import FoundVm, added_channel, number_in
from guestwire.inventory.host import boot_seconds
from guestwire.inventory.machine import COUNTERS_FRESH, TICKS

PROC: Final = Path("/proc")
QEMU: Final = re.compile(r"(qemu-system-[a-z0-9_]+|kvm|qemu-kvm)")
MAX_COMMAND_LINE: Final = 256 * 1024

ACCOUNTS: Final = frozenset({"root", "qemu", "libvirt-qemu", "kvm", "nova", "oneadmin"})
"""Whose VMs root's guestwire uses unasked."""

OF_PROXMOX: Final = "/run/qemu-server/"
OF_LIBVIRT: Final = re.compile(r"/libvirt/qemu/(channel/|domain-|org\.qemu\.guest_agent)|^fd=")

_ids: Final = re.compile(rb"^Uid:\t(\d+)\t(\d+)\t(\d+)\t(\d+)$", re.MULTILINE)
"""Of `/proc/PID/status`: real, effective, saved, and that for files."""

WITHOUT_QMP: Final = f"start it with one: {' '.join(qemu_options('PATH'))}"


class QemuProcesses:
    """A `Source`."""

    name = "QEMU's processes"

    def find(self) -> list[FoundVm]:
        """See `Source.find`."""
        return [found for pid in sorted(_pids()) if (found := _look_at(pid)) is not None]


class ProcessStarts:
    """When the processes of VMs were started that another program, as libvirt, has started on this machine."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}
        """By UUID: a process, and when it was started, in ticks."""
        self._looked_at = -COUNTERS_FRESH

    def uptimes(self, uuids: Iterable[str]) -> dict[str, tuple[int, int]]:
        """By UUID, in small letters: the process and its age in seconds, of those that are found. For threads."""
        wanted = set(uuids)
        self._known = {
            uuid: seen for uuid, seen in self._known.items() if uuid in wanted and _start_of(seen[0]) == seen[1]
        }
        # All are looked at again for those that have just been started, and not for each list.
        if wanted - self._known.keys() and boot_seconds() - self._looked_at >= COUNTERS_FRESH:
            self._looked_at = boot_seconds()
            for pid in _pids():
                with contextlib.suppress(OSError):
                    uuid, start = _uuid_of(pid).lower(), _start_of(pid)
                    if uuid in wanted and start is not None:
                        self._known[uuid] = pid, start
        now = boot_seconds()
        return {uuid: (pid, max(int(now - start / TICKS), 0)) for uuid, (pid, start) in self._known.items()}


def _uuid_of(pid: int) -> str:
    """On the command line of a QEMU that this user trusts; "": there is none."""
    process = PROC / str(pid)
    words = _words_of(process)
    if not QEMU.fullmatch(Path(words[0]).name):
        return ""
    uid = _user_of(process)
    is_trusted = uid is not None and (uid == os.geteuid() or _account(uid) in ACCOUNTS)
    return _first(list(pairwise(words[1:])), "-uuid") if is_trusted else ""


def _start_of(pid: int) -> int | None:
    """When a process was started, in ticks since the machine's start."""
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _words_of(process: Path) -> list[str]:
    with (process / "cmdline").open("rb") as file:
        return os.fsdecode(file.read(MAX_COMMAND_LINE)).split("\0")


def _pids() -> Iterator[int]:
    for entry in os.scandir(PROC):
        if entry.name.isdecimal():
            yield int(entry.name)


def _look_at(pid: int) -> FoundVm | None:
    """Raises `OSError` when nothing can be said of it, as when this process may open no more files."""
    process = PROC / str(pid)
    try:
        words = _words_of(process)
        if not QEMU.fullmatch(Path(words[0]).name):
            return None
        uid = _user_of(process)
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or this user may not look
        return None
    if uid is None:
        return None
    folder = Path("/")
    with contextlib.suppress(OSError):
        folder = (process / "cwd").readlink()
    return found_in(words, pid, uid, folder)


def _user_of(process: Path) -> int | None:
    """The one user that it has always been; None where another user may have written its command line."""
    ids = _ids.search((process / "status").read_bytes())
    if ids is None or len(set(ids.groups())) > 1:
        return None
    with contextlib.suppress(PermissionError):  # only root sees everyone's
        if (process / "exe").stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
            return None
    return int(ids[1])


def found_in(words: Sequence[str], pid: int, uid: int, folder: Path) -> FoundVm:
    """What a command line says of its VM.

    Args:
        words: of the command line.
        pid: of the process.
        uid: its user.
        folder: that its paths start at.
    """
    options = list(pairwise(words[1:]))
    name = _first(options, "-name")
    name = _as_text(_fields(name).get("guest") or name.partition(",")[0]) or f"qemu-{pid}"
    chardevs = {fields.get("id", ""): fields for value in _all(options, "-chardev") for fields in [_fields(value)]}
    agent, qmp = _agent_socket(options, chardevs), _qmp_socket(options, chardevs)
    paths = {
        "agent": str(folder / agent) if agent and not agent.startswith("fd=") else None,
        "qmp": str(folder / qmp) if qmp else None,
    }
    qmp_path = paths["qmp"] if paths["qmp"] and not _socket_problem(paths["qmp"], uid)[0] else None
    added = added_channel(Path(qmp_path)) if qmp_path else None
    if agent is None and added and added.is_socket():
        agent = paths["agent"] = str(added)
    problem, hint = _problem(agent, paths["agent"], uid)
    if agent is None and qmp_path:
        hint = f"give it one: guestwire channel add {shlex.quote(name)}"
    elif problem:
        qmp_path = None
    # Not the added channel: a VM that gets one stays the same.
    socket = paths["qmp"] if agent is None or agent == str(added) else paths["agent"]
    return FoundVm(
        key=_as_text(_first(options, "-uuid") or socket or f"{name} {pid}"),
        name=name,
        source=f"QEMU process {pid}",
        vmid=number_in(_first(options, "-id")),
        agent=f"unix:{paths['agent']}" if paths["agent"] and not problem else None,
        qmp=f"unix:{qmp_path}" if qmp_path else None,
        running=True,
        problem=problem,
        hint=hint,
    )


def _problem(agent: str | None, path: str | None, uid: int) -> tuple[str, str]:
    if agent is None:
        return NO_CHANNEL, WITHOUT_QMP
    if OF_LIBVIRT.search(agent):
        return "libvirt holds its agent's socket", "reach it through libvirt: --host qemu:///system"
    if path and OF_PROXMOX in path:
        return (
            "Proxmox VE's own service uses its agent's socket",
            f"reach it through Proxmox VE: --host https://{os.uname().nodename}:8006",
        )
    return _socket_problem(path or "", uid)


def _socket_problem(path: str, uid: int) -> tuple[str, str]:
    own = os.geteuid()
    owner = _account(uid)
    if uid != own and not (own == 0 and owner in ACCOUNTS):
        return f"it is of user {owner}", f"run guestwire as {owner}, or name {shlex.quote(path)} in a configuration"
    try:
        found = Path(path).stat()
    except OSError as error:
        return f"{path}: {error.strerror}", "see where its QEMU was started, and as whom"
    except ValueError:  # a NUL or half a character, as JSON may have them
        return f"{path} is no path", "see how its QEMU was started"
    if found.st_uid != uid:
        return f"{path} is of another user than its QEMU", "name it in a configuration if that is right"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"{path}: permission denied", f"run guestwire as {owner}"
    return "", ""


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _agent_socket(options: Sequence[tuple[str, str]], chardevs: Mapping[str, Mapping[str, str]]) -> str | None:
    for value in _all(options, "-device"):
        device = _fields(value)
        if device.get("driver") == "virtserialport" and device.get("name") == AGENT_PORT:
            return _socket(chardevs.get(device.get("chardev", ""), {}))
    return None


def _qmp_socket(options: Sequence[tuple[str, str]], chardevs: Mapping[str, Mapping[str, str]]) -> str | None:
    for option, value in options:
        if option == "-qmp" and value.startswith("unix:"):
            return value.removeprefix("unix:").partition(",")[0]
        if option == "-mon":
            monitor = _fields(value)
            path = _socket(chardevs.get(monitor.get("chardev", monitor.get("driver", "")), {}))
            if monitor.get("mode") == "control" and path and not path.startswith("fd="):
                return path
    return None


def _socket(chardev: Mapping[str, str]) -> str | None:
    if "fd" in chardev:
        return f"fd={chardev['fd']}"
    return chardev.get("path")


def _all(options: Sequence[tuple[str, str]], name: str) -> Iterator[str]:
    return (value for option, value in options if option in (name, f"-{name}"))


def _first(options: Sequence[tuple[str, str]], name: str) -> str:
    return next(_all(options, name), "")


def _fields(value: str) -> dict[str, str]:
    """The parts of an option's value; the one without a name is the driver. `,,` is a comma."""
    if value.startswith("{"):
        with contextlib.suppress(ValueError, AttributeError, RecursionError):
            found: dict[str, Any] = json.loads(value)
            return {name: str(item) for name, item in found.items()}
    parts = [part.replace("\0", ",") for part in value.replace(",,", "\0").split(",")]
    fields = {name: text for name, sign, text in (part.partition("=") for part in parts) if sign}
    return ({"driver": parts[0]} if "=" not in parts[0] else {}) | fields


def _as_text(words: str) -> str:
    """For answers and the store, which have UTF-8."""
    return words.encode("utf-8", "backslashreplace").decode()
