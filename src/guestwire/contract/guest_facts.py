"""What a guest says of itself that seldom changes, so that a change is news. The guest is hostile: all of it is bounded."""

import ipaddress
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from guestwire.agent import commands as qga
from guestwire.agent.readers import Read
from guestwire.agent.results import FileSystem, Interface

LONGEST_TEXT: Final = 200
MOST: Final = 200
"""Addresses, users, or file systems of one guest."""

NEARLY_FULL: Final = 0.9
ROOM_AGAIN: Final = 0.85
"""The used share of a file system from which on it is nearly full, and below which it is so no more."""

CLOCK_OFF: Final = 5.0
"""Seconds."""

NEVER_FULL: Final = {"iso9660", "squashfs", "udf"}
"""File systems that are written once, and have no room by design."""


class GuestFacts(NamedTuple):
    """What is known of a guest from inside; None: its agent does not say.

    `addresses` are those of its network, without loopback and link-local ones; `users` are logged in; `full` are the
    mount points of file systems that are nearly full; `clock_off`: its clock is off by more than five seconds.
    """

    host_name: str | None = None
    system: str | None = None
    addresses: frozenset[str] | None = None
    users: frozenset[str] | None = None
    full: frozenset[str] | None = None
    clock_off: bool | None = None


async def read_facts(read: Read, before: GuestFacts | None) -> GuestFacts:
    """Asks a guest; `before` is what it said last.

    Raises:
        GuestError: its agent does not answer, or its file systems are frozen.
    """
    host_name = await read(qga.GET_HOST_NAME)
    system = await read(qga.GET_OSINFO)
    interfaces = await read(qga.NETWORK_GET_INTERFACES)
    users = await read(qga.GET_USERS)
    file_systems = await read(qga.GET_FSINFO)
    began = time.time()
    clock = await read(qga.GET_TIME)
    words = [system.pretty_name or system.name or system.id or "", system.kernel_release or ""] if system else []
    return GuestFacts(
        host_name=None if host_name is None else _text(host_name.host_name),
        system=_text(" ".join(filter(None, words))) if system else None,
        addresses=None if interfaces is None else frozenset(islice(_addresses(interfaces), MOST)),
        users=None if users is None else frozenset(islice((_text(one.user) for one in users), MOST)),
        full=None if file_systems is None else frozenset(islice(_full(file_systems, before), MOST)),
        clock_off=None if clock is None else abs(clock / 1e9 - (began + time.time()) / 2) > CLOCK_OFF,
    )


def _addresses(interfaces: Iterable[Interface]) -> Iterator[str]:
    for interface in interfaces:
        for address in interface.ip_addresses or ():
            try:
                # Without its zone, which may be any text, of any length.
                found = ipaddress.ip_address(address.ip_address.partition("%")[0])
            except ValueError:
                continue
            if not (found.is_loopback or found.is_link_local):
                yield str(found)


def _full(file_systems: Iterable[FileSystem], before: GuestFacts | None) -> Iterator[str]:
    full = before.full if before and before.full else frozenset()
    for one in file_systems:
        if one.total_bytes and one.used_bytes is not None and one.type not in NEVER_FULL:
            mountpoint = _text(one.mountpoint)
            if one.used_bytes >= one.total_bytes * (ROOM_AGAIN if mountpoint in full else NEARLY_FULL):
                yield mountpoint


def _text(text: Any) -> str:
    return str(text)[:LONGEST_TEXT]
