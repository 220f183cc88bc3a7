"""Tools for guests as a whole: which there are, how one is, and why one does not answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from guestwire.agent.results import FileSystem, HostName, Interface, OsInfo, TimeZone, User
from guestwire.client import CallFailed, Guest
from guestwire.client.diagnosis import examine
from guestwire.client.errors import AgentRefused, PrivilegeMissing
from guestwire.contract import Effect, Level, Parameters, Role, parameter
from guestwire.mcp.caller import rule_for
from guestwire.mcp.tool import AnyGuestParameters, Call, GuestParameters, Registry

T = TypeVar("T")

tools = Registry()

AT_ONCE = 2
"""Calls to one guest."""

MOST_OF_A_KIND = 12
"""Disks, interfaces, users in an overview."""


class Nothing(Parameters, frozen=True):
    """No parameters."""


class ListedGuest(msgspec.Struct, frozen=True):
    """One guest, and what the policy allows in it."""

    vmid: int
    name: str
    status: str
    node: str
    allowed: list[str]


class Guests(msgspec.Struct, frozen=True):
    """All guests that are to be seen."""

    guests: list[ListedGuest]


@tools.tool("list_guests", Nothing, level=Level.READ, effect=Effect.READS)
async def list_guests(call: Call, _: Nothing) -> Guests:
    """Lists the virtual machines with their state, and what you may do in each. Start here."""
    listed = []
    for guest in await call.caller.host.guests():
        allowed = sorted(level.value for level in rule_for(call.policy, call.caller.host, guest).levels)
        if allowed:
            listed.append(ListedGuest(guest.vmid, guest.name, guest.status, guest.node, allowed))
    return Guests(listed)


class Disk(msgspec.Struct, frozen=True):
    """A mounted file system, in GiB."""

    mount: str
    type: str
    size_gib: float
    used_gib: float
    used_percent: int


class Overview(msgspec.Struct, frozen=True, omit_defaults=True):
    """One guest at a glance; what could not be read stands in `problems`."""

    host_name: str | None = None
    system: str | None = None
    kernel: str | None = None
    addresses: list[str] = []
    disks: list[Disk] = []
    users: list[str] = []
    time: int | None = None
    zone: str | None = None
    more: str | None = None
    problems: list[str] = []


class _Answers(NamedTuple):
    """The answers of a guest; None for those that could not be read."""

    name: HostName | None
    system: OsInfo | None
    time: int | None
    zone: TimeZone | None
    interfaces: list[Interface] | None
    disks: list[FileSystem] | None
    users: list[User] | None


@tools.tool("guest_overview", GuestParameters, level=Level.READ, effect=Effect.READS)
async def guest_overview(call: Call, _: GuestParameters) -> Overview:
    """System, addresses, disks with their use, users and clock (seconds since the epoch) of a guest in one call."""
    problems: dict[str, CallFailed] = {}
    answers = await _collect(call.guest, problems)
    if all(part is None for part in answers):
        raise problems["host name"]
    return _overview(answers, problems)


async def _collect(guest: Guest, problems: dict[str, CallFailed]) -> _Answers:
    """Asks once, and then for the rest: of a silent guest each call takes seconds, and Proxmox VE has few workers."""
    name = await _part("host name", guest.get_host_name, problems)
    error = problems.get("host name")
    if error and not isinstance(error, AgentRefused | PrivilegeMissing):
        raise error
    turn = asyncio.Semaphore(AT_ONCE)
    rest = await asyncio.gather(
        _part("system", guest.osinfo, problems, turn),
        _part("time", guest.get_time, problems, turn),
        _part("zone", guest.get_timezone, problems, turn),
        _part("addresses", guest.interfaces, problems, turn),
        _part("disks", guest.filesystems, problems, turn),
        _part("users", guest.get_users, problems, turn),
    )
    return _Answers(name, *rest)


def _overview(answers: _Answers, problems: dict[str, CallFailed]) -> Overview:
    system, addresses = answers.system, _addresses(answers.interfaces or [])
    kinds: dict[str, list[Any]] = {"addresses": addresses, "disks": answers.disks or [], "users": answers.users or []}
    return Overview(
        host_name=answers.name.host_name if answers.name else None,
        system=(system.pretty_name or system.name) if system else None,
        kernel=system.kernel_release if system else None,
        addresses=addresses[:MOST_OF_A_KIND],
        disks=[_disk(one) for one in kinds["disks"][:MOST_OF_A_KIND]],
        users=[one.user for one in kinds["users"][:MOST_OF_A_KIND]],
        time=answers.time and answers.time // 1_000_000_000,
        zone=answers.zone.zone if answers.zone else None,
        more=_more(kinds),
        problems=[f"{what}: {error.message[:120]}" for what, error in sorted(problems.items())],
    )


def _addresses(interfaces: list[Interface]) -> list[str]:
    """Those that others can reach it by; where there is none, those of its links, but never of itself.

    A host of containers has dozens of links, each with an address of its own.
    """
    found: dict[bool, list[str]] = {False: [], True: []}
    for one in interfaces:
        for address in one.ip_addresses or []:
            try:
                ip = ip_address(address.ip_address)
            except ValueError:  # the guest says what it likes
                continue
            if not ip.is_loopback:
                found[ip.is_link_local].append(f"{one.name} {address.ip_address}/{address.prefix}")
    return found[False] or found[True]


async def _part(
    what: str, ask: Callable[[], Awaitable[T]], problems: dict[str, CallFailed], turn: asyncio.Semaphore | None = None
) -> T | None:
    try:
        async with turn or contextlib.nullcontext():
            return await ask()
    except CallFailed as error:
        problems[what] = error
        return None


def _disk(found: Any) -> Disk:
    total, used = found.total_bytes or 0, found.used_bytes or 0
    return Disk(
        found.mountpoint, found.type, _gib(total), _gib(used), round(100 * used / total) if total else 0
    )  # fmt: skip


def _gib(size: int) -> float:
    return round(size / 2**30, 2)


def _more(kinds: dict[str, list[Any]]) -> str | None:
    left_out = [
        f"{len(found) - MOST_OF_A_KIND} more {kind}" for kind, found in kinds.items() if len(found) > MOST_OF_A_KIND
    ]
    return ", ".join(left_out) or None


class Examined(msgspec.Struct, frozen=True):
    """The steps, each with what was found and what to do next."""

    steps: list[dict[str, str | None]]


@tools.tool("diagnose", AnyGuestParameters, level=Level.READ, effect=Effect.READS)
async def diagnose(call: Call, parameters: AnyGuestParameters) -> Examined:
    """Finds out why a guest does not answer. Use it after an error.

    The steps are address, certificate, credentials, VM, agent, privilege, disabled commands.
    """
    return Examined((await examine(call.caller.host, _guest_to_diagnose(call, parameters.guest))).steps)


def _guest_to_diagnose(call: Call, name: str) -> str:
    """A guest that was not found has no rule.

    Only the steps before the guest may be examined, even when it could be found by now.
    """
    if call.caller.host.has_one_guest:
        return name
    return f"{call.chosen.node}/{call.chosen.vmid}" if call.chosen else ""


class ReadMore(Parameters, frozen=True, kw_only=True):
    """Parameters of read_more."""

    cursor: Annotated[str, parameter("As a shortened answer gave it.", Role.TEXT, max_length=80)]


class More(msgspec.Struct, frozen=True, omit_defaults=True):
    """The next part of a text, and the cursor behind it."""

    text: str
    cursor: str | None = None


@tools.tool("read_more", ReadMore, level=Level.READ, effect=Effect.READS)
async def read_more(call: Call, parameters: ReadMore) -> More:
    """Goes on with an answer that was shortened. Asks no guest."""
    text, cursor = call.caller.texts.read(parameters.cursor, call.limits.characters * 2 // 5)  # JSON may double it
    return More(text, cursor)
