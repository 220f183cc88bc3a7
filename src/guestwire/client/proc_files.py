"""What a Linux guest's kernel says in files, where its agent is too old to say it, or the host has no endpoint for it.

Source: proc(5); the results are those of guest-get-load and guest-network-get-route.
"""

import ipaddress
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

from guestwire.agent.results import Load, Route
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import AgentRefused, NoSuchEndpoint, PrivilegeMissing

T = TypeVar("T")

LONGEST: Final = 1024 * 1024
"""Bytes of a file that are read: more than 5,000 routes."""

BIG_ENDIAN: Final = frozenset(
    {"s390x", "s390", "ppc64", "ppc", "mips64", "mips", "m68k", "sparc64", "parisc", "parisc64"}
)
"""Machines where the numbers in /proc/net/route have their bytes in another order."""

FIELDS_OF_IPV4: Final = 11
FIELDS_OF_IPV6: Final = 10


async def or_from_files(asked: Awaitable[T], read: Callable[[], Awaitable[T]]) -> T:
    """What the agent says; where it lacks the command, or the host the endpoint, what stands in files.

    What is switched off in the guest stays so. Where the files can't be read either, the agent's or the host's answer is
    the error.

    Raises:
        CallFailed: see `client.errors`.
    """
    try:
        return await asked
    except (AgentRefused, NoSuchEndpoint) as error:
        if isinstance(error, AgentRefused) and not error.is_too_old:
            raise
        try:
            return await read()
        except (AgentRefused, PrivilegeMissing, ValueError):
            raise error from None


async def read_load(calls: Endpoints) -> Load:
    """What stands in /proc/loadavg.

    Raises:
        CallFailed: it can't be read.
        ValueError: it is no such file.
    """
    first, second, third = map(float, (await _read(calls, "/proc/loadavg")).split()[:3])
    if not math.isfinite(first + second + third):
        raise ValueError("no number")
    return Load(first, second, third)


async def read_routes(calls: Endpoints) -> list[Route]:
    """What stands in /proc/net/route and /proc/net/ipv6_route.

    Raises:
        CallFailed: they can't be read.
        ValueError: they are no such files, or those of a machine whose numbers are not read here.
    """
    machine = (await calls.get_osinfo()).machine
    if machine in BIG_ENDIAN:
        raise ValueError(f"numbers of a {machine}")
    lines = (await _read(calls, "/proc/net/route")).splitlines()[1:]
    found = list(_ipv4(lines))
    try:
        lines = (await _read(calls, "/proc/net/ipv6_route")).splitlines()
    except AgentRefused:  # a guest without IPv6
        return found
    return [*found, *_ipv6(lines)]


async def _read(calls: Endpoints, file: str) -> str:
    return (await calls.read_bytes(file, offset=0, count=LONGEST)).content.decode("ascii")


def _ipv4(lines: list[str]) -> Iterator[Route]:
    for line in lines:
        iface, destination, gateway, flags, refcnt, use, metric, mask, mtu, window, irtt = line.split()[:FIELDS_OF_IPV4]
        yield Route(
            iface=iface, destination=_address4(destination), metric=int(metric), version=4, gateway=_address4(gateway),
            mask=_address4(mask), irtt=int(irtt), flags=int(flags, 16), refcnt=int(refcnt), use=int(use), window=int(window),
            mtu=int(mtu),
        )  # fmt: skip


def _ipv6(lines: list[str]) -> Iterator[Route]:
    for line in lines:
        destination, length, source, source_length, nexthop, metric, refcnt, use, flags, iface = line.split()[
            :FIELDS_OF_IPV6
        ]
        yield Route(
            iface=iface, destination=_address6(destination), metric=int(metric, 16), version=6, flags=int(flags, 16),
            refcnt=int(refcnt, 16), use=int(use, 16), desprefixlen=str(int(length, 16)), source=_address6(source),
            srcprefixlen=str(int(source_length, 16)), nexthop=_address6(nexthop),
        )  # fmt: skip


def _address4(text: str) -> str:
    return str(ipaddress.IPv4Address(bytes.fromhex(text)[::-1]))


def _address6(text: str) -> str:
    return str(ipaddress.IPv6Address(bytes.fromhex(text)))
