"""QEMU as libvirt starts it, with the far side of the agent's channel somewhere else: at the socket of an agent in a sandbox.

    python qemu_bridge.py FOLDER QEMU-ARGUMENTS…

The VM is a real one, whose guest opens the port; what libvirt writes to it goes to `FOLDER/NAME.qga`, where NAME is the
domain's, and the answers come from there. Without a file `FOLDER/NAME.bridged` it is plain QEMU.
"""

import contextlib
import ctypes
import os
import re
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

QEMU: Final = "/usr/bin/qemu-system-x86_64"
PR_SET_PDEATHSIG: Final = 1

_name = re.compile(r"guest=([^,]+)")
_channel = re.compile(r"socket,id=charchannel0,fd=(\d+),.*")


def main() -> None:
    """Becomes QEMU; where the domain is bridged, a child carries bytes until QEMU ends."""
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    name = next((found[1] for text in arguments if (found := _name.match(text))), "")
    for position, text in enumerate(arguments):
        if (found := _channel.fullmatch(text)) and (folder / f"{name}.bridged").exists():
            arguments[position] = "null,id=charchannel0"
            descriptor = int(found[1])
            if os.fork() == 0:
                _carry(descriptor, folder / f"{name}.qga")
            os.close(descriptor)
    os.execv(QEMU, [QEMU, *arguments])  # noqa: S606  # none is wanted


def _carry(descriptor: int, agent: Path) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, min(2**16, os.sysconf("SC_OPEN_MAX")))
    listening = socket.socket(fileno=descriptor)
    listening.setblocking(True)  # noqa: FBT003
    while True:
        host, _ = listening.accept()
        with host:
            while _carry_until_the_agent_ends(host, agent):
                pass


def _carry_until_the_agent_ends(host: socket.socket, agent: Path) -> bool:
    """False when libvirt has hung up. An agent that has ended is no end for libvirt: the port of a VM stays, too."""
    with socket.socket(socket.AF_UNIX) as guest, selectors.DefaultSelector() as ready:
        try:
            guest.connect(str(agent))
        except OSError:
            time.sleep(0.02)
            return not _is_closed(host)
        ready.register(host, selectors.EVENT_READ, guest)
        ready.register(guest, selectors.EVENT_READ, host)
        while True:
            for key, _ in ready.select():
                end, other = key.fileobj, key.data
                try:
                    data = end.recv(2**16)  # type: ignore[union-attr]  # a socket
                except OSError:
                    data = b""
                if not data:
                    return end is guest
                with contextlib.suppress(OSError):
                    other.sendall(data)


def _is_closed(host: socket.socket) -> bool:
    """What is sent while there is no agent is lost, as on a closed port."""
    try:
        return host.recv(2**20, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


if __name__ == "__main__":
    main()
