"""Folders with agents' sockets, as some managers of VMs have them: `[[source]]` names the folder and a pattern."""

import os
import stat
from pathlib import Path
from typing import Final

from guestwire.inventory.found import FoundVm, number_in

QMP_SUFFIXES: Final = (".qmp", "-qmp.sock", ".monitor")
MOST: Final = 10_000
"""Sockets of one folder."""

ENDINGS: Final = (".qga", "-agent.sock", ".agent", ".sock")


class SocketFolder:
    """A `Source`: each socket in `folder` that fits `pattern` (as of a shell, `*` and `**`) is a VM's agent."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder = folder
        self._pattern = pattern

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return str(self._folder / self._pattern)

    def find(self) -> list[FoundVm]:
        """See `Source.find`."""
        os.scandir(self._folder).close()  # says why it can't be read, which `glob` keeps to itself
        found = []
        for path in sorted(self._folder.glob(self._pattern))[:MOST]:
            try:
                if not stat.S_ISSOCK(path.stat().st_mode):
                    continue
            except OSError:  # it went meanwhile
                continue
            found.append(self._found(path))
        return found

    def _found(self, path: Path) -> FoundVm:
        name = path.name
        for ending in ENDINGS:
            name = name.removesuffix(ending)
        beside = [path.with_name(name + suffix) for suffix in QMP_SUFFIXES]
        qmp = next((other for other in beside if other.is_socket()), None)
        name = name.encode("utf-8", "backslashreplace").decode()  # answers and the store have UTF-8
        return FoundVm(
            key=str(path).encode("utf-8", "backslashreplace").decode(), name=name, source=self.name, vmid=number_in(name), agent=f"unix:{path}",
            qmp=f"unix:{qmp}" if qmp else None,
        )  # fmt: skip
