"""Tells systemd how the service does (`Type=notify`).

Source: sd_notify(3): a datagram to the socket that NOTIFY_SOCKET names.
"""

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Sends `state`, for example `READY=1`; does nothing where nobody listens: the service goes on without."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(0)
        sender.connect(address)
        sender.send(state.encode())
