"""The id of a task, as Proxmox VE writes it: who began which work on which VM, when, and where."""

import re
from dataclasses import dataclass
from typing import Final

_UPID: Final = re.compile(
    r"UPID:(?P<node>[a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?):(?P<pid>[0-9A-Fa-f]{8}):(?P<pstart>[0-9A-Fa-f]{8,9}):"
    r"(?P<starttime>[0-9A-Fa-f]{8}):(?P<type>[^:\s]+):(?P<id>[^:\s]*):(?P<user>[^:\s]+):"
)


@dataclass(frozen=True, slots=True)
class Upid:
    """The parts of a task's id; `str` is the id.

    Attributes:
        node: where it runs.
        pid, pstart: tell it from others of the same second.
        starttime: in seconds since the epoch.
        type: `qmstart` and so on.
        id: the VM's, as text.
        user: or token, as `ann@pve!backup`.
    """

    node: str
    pid: int
    pstart: int
    starttime: int
    type: str
    id: str
    user: str

    def __str__(self) -> str:
        return (
            f"UPID:{self.node}:{self.pid:08X}:{self.pstart:08X}:{self.starttime:08X}:{self.type}:{self.id}:{self.user}:"
        )

    @classmethod
    def parse(cls, text: str) -> "Upid | None":
        """The parts of an id; None where it is none."""
        found = _UPID.fullmatch(text)
        if found is None:
            return None
        pid, pstart, starttime = (int(found[name], 16) for name in ("pid", "pstart", "starttime"))
        return cls(found["node"], pid, pstart, starttime, found["type"], found["id"], found["user"])
