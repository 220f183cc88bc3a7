"""How a port of our own is taken out of a VM, and a small program that does it when the port's owner was killed.

The owner (`own_port.py`) starts this file as a program of its own session and tells it, on standard input, which ports it
has. The end of that input is the owner's end: what is still there then is taken out. An owner that ends well has none left.

It runs beside each owner, so it imports nothing of guestwire's, which would cost memory and a tenth of a second.
"""

import contextlib
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

PREFIX: Final = "org.guestwire."
CONTROLLER: Final = f"{PREFIX}controller-"
"""What the ids of virtio-serial controllers of our own begin with; no port's purpose is so."""

QMP: Final = "qmp"
LIBVIRT: Final = "libvirt"

PERIPHERAL: Final = "/machine/peripheral"
"""Where QEMU lists the devices that have an id."""

PAUSE: Final = 0.02
KEEPS_TRYING: Final = 60.0
"""Seconds after its owner's end; another program may hold the QMP socket."""
ANSWERS_WITHIN: Final = 5.0
AGAIN_AFTER: Final = 2.0
"""Seconds after which libvirt is asked once more: its daemon does what it was told last although who told it was killed."""


class Place(NamedTuple):
    """A VM, as it can be reached by another process: `QMP` and a socket's path, or `LIBVIRT`, its URI, and the domain's UUID."""

    kind: str
    where: str
    uuid: str = ""


class Refused(Exception):
    """QEMU refused a command, for this reason."""


class Pause(NamedTuple):
    """A step that is no command: some seconds pass."""

    seconds: float


class Ask(NamedTuple):
    """A step that is a command of QMP's."""

    command: str
    arguments: dict[str, object]


Steps = Generator[Ask | Pause, Any, None]
"""Work with QMP, apart from how commands get there: each `Ask` is given QEMU's answer, or `Refused` is thrown in."""


def take_out(name: str) -> Steps:
    """Takes a port out, with its chardev. What is not there is no error.

    It goes on until the port is gone: the caller says how long.
    """
    with contextlib.suppress(Refused):
        yield Ask("device_del", {"id": name})
    # QEMU frees a device a little later than it answers, and its chardev is in use until then.
    while any(device["label"] == name for device in (yield Ask("query-chardev", {}))):
        try:
            yield Ask("chardev-remove", {"id": name})
        except Refused:
            yield Pause(PAUSE)


def take_out_idle_controllers() -> Steps:
    """Takes out controllers of ours that no port is on. A guest that does not run keeps them until it does."""
    for device in (yield Ask("qom-list", {"path": PERIPHERAL})):
        if device["name"].startswith(CONTROLLER):
            with contextlib.suppress(Refused):  # it has gone meanwhile, or was asked to go before
                children = yield Ask("qom-list", {"path": bus_of(device["name"])})
                if not has_ports(children):
                    yield Ask("device_del", {"id": device["name"]})


def has_ports(properties: list[dict[str, str]]) -> bool:
    """True if a bus that has these properties has a port."""
    return any(found["name"].startswith("child[") for found in properties)


def bus_of(controller: str) -> str:
    """The place where QEMU lists the ports of a controller of ours."""
    return f"{PERIPHERAL}/{controller}/virtio-backend/{controller}.0"


def detach(domain: Any, name: str, flags: int) -> None:
    """Takes a port out of a domain of libvirt's, as its binding has it; raises the binding's error. Blocks."""
    from xml.etree.ElementTree import tostring  # noqa: PLC0415  # only where it is used

    # libvirt compares all that it is given, also the socket's path, which it has chosen itself.
    channel = channels_of(domain).get(name)
    if channel is not None:
        domain.detachDeviceFlags(tostring(channel, encoding="unicode"), flags)


def channels_of(domain: Any) -> dict[str, "Element"]:
    """The channels of a domain of libvirt's that runs, by the names of their ports."""
    from xml.etree.ElementTree import fromstring  # noqa: PLC0415  # as above

    root = fromstring(domain.XMLDesc())  # noqa: S314  # libvirt wrote it
    targets = ((channel, channel.find("target")) for channel in root.iterfind("devices/channel"))
    return {target.get("name", ""): channel for channel, target in targets if target is not None}


# The program


def main() -> None:
    """Reads which ports its owner has, a line of JSON each time one comes or goes, and takes out those left at the end."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the service manager's, too: its owner tells its end
        signal.signal(signum, signal.SIG_IGN)
    ports: set[tuple[Place, str]] = set()
    for line in sys.stdin:
        is_there, place, name = json.loads(line)
        (ports.add if is_there else ports.discard)((Place(*place), name))
    until = time.monotonic() + KEEPS_TRYING
    while ports and time.monotonic() < until:
        for place in {place for place, _ in ports}:
            names = [name for where, name in ports if where == place]
            with contextlib.suppress(Exception):  # next time, whatever it was; nobody reads what it would write
                _ways[place.kind](place, names)
                ports.difference_update((place, name) for name in names)
        if ports:
            time.sleep(0.5)


def _by_qmp(place: Place, names: list[str]) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWERS_WITHIN)
        try:
            connection.connect(place.where)
        except (FileNotFoundError, ConnectionRefusedError):
            return  # no QEMU, no port
        with connection.makefile("r", encoding="utf-8", errors="replace") as lines:

            def ask(step: Ask) -> Any:
                connection.sendall(json.dumps({"execute": step.command, "arguments": step.arguments}).encode() + b"\n")
                for line in lines:
                    answer = json.loads(line)
                    if "error" in answer:
                        raise Refused(answer["error"].get("desc"))
                    if "return" in answer:
                        return answer["return"]
                raise ConnectionError

            lines.readline()  # QEMU greets first
            ask(Ask("qmp_capabilities", {}))
            for name in names:
                _do(take_out(name), ask)
            _do(take_out_idle_controllers(), ask)


def _do(steps: Steps, ask: Callable[[Ask], Any]) -> None:
    until = time.monotonic() + ANSWERS_WITHIN
    with contextlib.suppress(StopIteration):
        step = next(steps)
        while time.monotonic() < until:
            answer = None
            try:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                else:
                    answer = ask(step)
            except Refused as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
        raise TimeoutError


def _by_libvirt(place: Place, names: list[str]) -> None:
    import libvirt  # noqa: PLC0415  # only where it is used

    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open(place.where)
    try:
        domain = connection.lookupByUUIDString(place.uuid)
        if domain.isActive():
            for pause in (0.0, AGAIN_AFTER):
                time.sleep(pause)
                for name in names:
                    detach(domain, name, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
    finally:
        connection.close()


_ways: Final = {QMP: _by_qmp, LIBVIRT: _by_libvirt}

if __name__ == "__main__":
    main()
