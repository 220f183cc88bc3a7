"""`guestwire ls`, and what a guest tells about itself: one record for each command, all made in the same way."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from guestwire.cli.connecting import on_guest, on_host, plain
from guestwire.cli.names import GuestArgument, guest_and_path, guest_names
from guestwire.cli.output import Column, Row, note, print_table, show, to_json, visible, yes_or_no
from guestwire.cli.quick import add
from guestwire.cli.site import Json
from guestwire.cli.times import day_and_time
from guestwire.cli.units import mode_words, offset, size

if TYPE_CHECKING:
    from guestwire.client import Guest

GUESTS: Final = (Column("VMID", "vmid"), Column("NAME", "name"), Column("STATUS", "status"), Column("NODE", "node"))
ENTRIES: Final = (
    Column("MODE", "mode"),
    Column("SIZE", "size"),
    Column("CHANGED", "mtime", day_and_time),
    Column("NAME", "path"),
)


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    add(app, "ls", ls, "guestwire ls", "guestwire ls web:/etc")
    for view in VIEWS:
        add(app, view.name, _command(view), f"guestwire {view.name} web", help=view.help)


def ls(
    context: typer.Context,
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="[GUEST:PATH]", help="A folder in a guest.", show_default=False, autocompletion=guest_names
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """List the guests that you may see; or what is in a folder of a guest."""
    if path is None:
        guests = on_host(context, lambda host: host.guests())
        show([_fields(guest) for guest in guests], GUESTS, as_json=json)
        if not guests:
            note("guestwire: there is no guest that you may see: the user or token needs VM.Audit")
        return
    name, folder = guest_and_path(path)
    listed = on_guest(context, name, lambda guest: guest.folders.entries(folder))
    # Where links lead is not looked up for a list.
    entries = [{field: value for field, value in _fields(entry).items() if field != "link"} for entry in listed]
    show(entries if json else [{**entry, "mode": mode_words(entry)} for entry in entries], ENTRIES, as_json=json)


def _fields(record: Any) -> Row:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class View:
    """A command that shows what one call tells.

    Attributes:
        name: the command.
        help: what it does.
        ask: the call.
        tell: shows people what it told, as JSON has it.
    """

    name: str
    help: str
    ask: Callable[["Guest"], Awaitable[Any]]
    tell: Callable[[Any], None]


def _command(view: View) -> Callable[..., None]:
    def command(context: typer.Context, guest: GuestArgument, *, json: Json = False) -> None:
        found = plain(on_guest(context, guest, view.ask))
        if json:
            print(to_json(found, indent=2))
        else:
            view.tell(found)

    return command


def _table(*columns: Column, of: Callable[[Any], Sequence[Row]] = lambda found: found) -> Callable[[Any], None]:
    def tell(found: Any) -> None:
        print_table(of(found), columns)

    return tell


def _facts(names: Mapping[str, str]) -> Callable[[Any], None]:
    """One fact a line: its words, and the field that has it."""

    def tell(found: Row) -> None:
        rows = [{"what": what, "is": found[name]} for name, what in names.items() if found.get(name) is not None]
        print_table(rows, (Column("", "what"), Column("", "is")), headings=False)

    return tell


def _line(words: Callable[[Any], str]) -> Callable[[Any], None]:
    def tell(found: Any) -> None:
        print(visible(words(found)))

    return tell


async def _ping(guest: "Guest") -> dict[str, Any]:
    await guest.ping()
    return {}


async def _memory(guest: "Guest") -> dict[str, Any]:
    info = await guest.get_memory_block_info()
    return {"size": info.size, "blocks": await guest.get_memory_blocks()}


def _clock(nanoseconds: int) -> str:
    ahead = nanoseconds / 1e9 - time.time()
    return f"{day_and_time(nanoseconds / 1e9)}, {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine"


def _zone(found: Row) -> str:
    return f"{found.get('zone') or 'unknown'} {offset(found['offset'])}"


def _with_use(found: Sequence[Row]) -> list[Row]:
    """File systems that have a size, by mount point."""
    rows: list[Row] = []
    for one in sorted(found, key=lambda each: str(each["mountpoint"])):
        if total := one.get("total-bytes"):
            used = one.get("used-bytes") or 0
            rows.append({**one, "free": total - used, "use": f"{used / total:.0%}"})
    return rows


def _memory_sums(found: Row) -> str:
    online = sum(bool(block["online"]) for block in found["blocks"])
    return (
        f"{len(found['blocks'])} blocks of {size(found['size'])}: {size(online * found['size'])} online,"
        f" {size((len(found['blocks']) - online) * found['size'])} offline"
    )


def _agent(found: Row) -> None:
    print(visible(f"guest agent {found['version']}"))
    print_table(
        sorted(found["supported_commands"], key=lambda command: str(command["name"])),
        (Column("COMMAND", "name"), Column("ENABLED", "enabled", yes_or_no)),
    )


def _addresses(found: Sequence[Row]) -> list[str]:
    return [f"{address['ip-address']}/{address['prefix']}" for address in found]


OS_FACTS: Final = {
    "pretty-name": "system",
    "id": "id",
    "version": "version",
    "variant": "variant",
    "kernel-release": "kernel",
    "kernel-version": "kernel build",
    "machine": "machine",
}

VIEWS: Final = (
    View("ping", "Check that a guest's agent answers.", _ping, _line(lambda _: "the agent answers")),
    View("info", "Show the agent's version, and which commands it has.", lambda guest: guest.info(), _agent),
    View("osinfo", "Show which operating system a guest runs.", lambda guest: guest.get_osinfo(), _facts(OS_FACTS)),
    View(
        "hostname",
        "Show a guest's host name.",
        lambda guest: guest.get_host_name(),
        _line(lambda found: str(found["host-name"])),
    ),
    View(
        "time",
        "Show a guest's clock. JSON: nanoseconds since the epoch.",
        lambda guest: guest.get_time(),
        _line(_clock),
    ),
    View("timezone", "Show a guest's time zone.", lambda guest: guest.get_timezone(), _line(_zone)),
    View(
        "users",
        "Show who is logged in to a guest.",
        lambda guest: guest.get_users(),
        _table(Column("USER", "user"), Column("DOMAIN", "domain"), Column("SINCE", "login-time", day_and_time)),
    ),
    View(
        "ip",
        "Show a guest's network interfaces and addresses.",
        lambda guest: guest.network_get_interfaces(),
        _table(
            Column("INTERFACE", "name"),
            Column("MAC", "hardware-address"),
            Column("ADDRESSES", "ip-addresses", _addresses),
        ),
    ),
    View(
        "df",
        "Show how full a guest's file systems are; those without a size are in JSON only.",
        lambda guest: guest.get_fsinfo(),
        _table(
            Column("FILE SYSTEM", "name"),
            Column("TYPE", "type"),
            Column("SIZE", "total-bytes", size),
            Column("USED", "used-bytes", size),
            Column("FREE", "free", size),
            Column("USE", "use"),
            Column("MOUNTED ON", "mountpoint"),
            of=_with_use,
        ),
    ),
    View(
        "vcpus",
        "Show a guest's processors.",
        lambda guest: guest.get_vcpus(),
        _table(
            Column("CPU", "logical-id"),
            Column("ONLINE", "online", yes_or_no),
            Column("CAN GO OFFLINE", "can-offline", yes_or_no),
        ),
    ),
    View("memory", "Show how much memory a guest has, in blocks that can be plugged.", _memory, _line(_memory_sums)),
    View(
        "freeze-status",
        "Say whether a guest's file systems are frozen or thawed.",
        lambda guest: guest.fsfreeze_status(),
        _line(str),
    ),
)
