"""The virtio-serial port of a guest agent, as QEMU's command line and libvirt's XML have it."""

from typing import Final

AGENT_PORT: Final = "org.qemu.guest_agent.0"
"""The name by which agents find their port."""

NO_CHANNEL: Final = "it has no channel for a guest agent"
"""What is wrong with a VM without this port."""

LIBVIRT_CHANNEL: Final = "<channel type='unix'><target type='virtio' name='{name}'/></channel>"
"""A port with this name in a domain of libvirt's, which chooses the socket."""


def qemu_options(path: str) -> tuple[str, ...]:
    """QEMU's options for the channel of a guest agent whose socket on the host is `path`, one a line.

    The port has an `id`: QEMU tells of a port without one neither when it opens nor when it closes.
    """
    return (
        f"-device virtio-serial -chardev socket,id=qga,path={path},server=on,wait=off",
        f"-device virtserialport,id=qga,chardev=qga,name={AGENT_PORT}",
    )
