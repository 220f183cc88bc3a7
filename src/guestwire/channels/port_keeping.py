"""This process's keeper of ports: the program in `port_keeper.py`, started with the first port, told of each."""

import asyncio
import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from typing import Final

from guestwire.channels import port_keeper
from guestwire.channels.port_keeper import Place

ENDS_WITHIN: Final = 5.0


class _Keeper:
    """One for all loops and threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._program: subprocess.Popen[bytes] | None = None
        self._ports: set[tuple[Place, str]] = set()

    def keep(self, place: Place, name: str) -> None:
        with self._lock:
            self._ports.add((place, name))
            if self._program is None or self._program.poll() is not None:
                self._start()
            else:
                self._tell(place, name, is_there=True)

    def forget(self, place: Place, name: str) -> None:
        with self._lock:
            self._ports.discard((place, name))
            self._tell(place, name, is_there=False)

    def end(self) -> None:
        """At the end of this process: what is left of ports, it takes out."""
        if (program := self._program) and program.stdin:
            program.stdin.close()
            if not self._ports:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.wait(ENDS_WITHIN)

    def forget_all(self) -> None:
        """In a process that was forked from this one: the program is not its child, and its ports are not its own."""
        if self._program and self._program.stdin:
            self._program.stdin.close()  # while it is open, the program would not see its owner's end
            self._program.returncode = 0
        self.__init__()  # type: ignore[misc]  # as new

    def _start(self) -> None:
        # Without -P, `import libvirt` would find our own module of that name beside the program.
        self._program = subprocess.Popen(  # this Python, and a file of ours
            [sys.executable, "-P", port_keeper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        if self._program.stdin:
            os.set_blocking(self._program.stdin.fileno(), False)
        for place, name in self._ports:
            self._tell(place, name, is_there=True)

    def _tell(self, place: Place, name: str, *, is_there: bool) -> None:
        if self._program and self._program.stdin:
            # One that is killed or stopped is no reason not to have a port: the next owner clears what is left.
            with contextlib.suppress(OSError):
                line = json.dumps([is_there, place, name]).encode() + b"\n"
                os.write(self._program.stdin.fileno(), line)


_keeper = _Keeper()
atexit.register(_keeper.end)
os.register_at_fork(after_in_child=_keeper.forget_all)


async def keep(place: Place, name: str) -> None:
    """Has a port taken out when this process ends, however it does. Tell it before the port is plugged in."""
    await asyncio.to_thread(_keeper.keep, place, name)  # the first one starts a process


def forget(place: Place, name: str) -> None:
    """The port is gone."""
    _keeper.forget(place, name)
