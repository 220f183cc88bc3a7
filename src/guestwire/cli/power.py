"""What changes a guest as a whole: its file systems' freeze, a password, its power. What disrupts it asks first."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from guestwire.cli.asking import confirm, new_password
from guestwire.cli.connecting import on_guest, plain
from guestwire.cli.names import GuestArgument
from guestwire.cli.output import Column, note, print_table, to_json
from guestwire.cli.quick import add
from guestwire.cli.site import Json, Yes
from guestwire.cli.units import size

if TYPE_CHECKING:
    from guestwire.client import Guest

TRIMMED: Final = (
    Column("MOUNTED ON", "path"),
    Column("TRIMMED", "trimmed", size),
    Column("AT LEAST", "minimum", size),
    Column("ERROR", "error"),
)


class Mode(StrEnum):
    """Where a suspended guest's memory is kept."""

    RAM = "ram"
    DISK = "disk"
    HYBRID = "hybrid"


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    add(app, "freeze", freeze, "guestwire freeze web && take-a-snapshot; guestwire thaw web")
    add(app, "thaw", thaw, "guestwire thaw web")
    add(app, "trim", trim, "guestwire trim web")
    add(app, "passwd", passwd, "guestwire passwd web root", "guestwire passwd --stdin web root < secret")
    add(app, "shutdown", shutdown, "guestwire shutdown --wait 60 web")
    add(app, "suspend", suspend, "guestwire suspend ram web")
    add(app, "wait", wait, "guestwire wait --timeout 300 web && guestwire exec web -- uptime")


def _tell(found: Any, words: str, *, as_json: bool) -> None:
    if as_json:
        print(to_json(found))
    else:
        note(words)


def freeze(context: typer.Context, guest: GuestArgument, *, yes: Yes = False, json: Json = False) -> None:
    """Freeze a guest's file systems: everything that writes in it waits until they are thawed. Asks first."""
    confirm(f"Freeze the file systems of guest {guest}? What writes in it waits until you thaw them.", yes=yes)
    count = on_guest(context, guest, lambda found: found.fsfreeze_freeze())
    _tell(count, f"{guest}: {count} file systems are frozen; guestwire thaw {guest}", as_json=json)


def thaw(context: typer.Context, guest: GuestArgument, *, json: Json = False) -> None:
    """Thaw a guest's file systems."""
    count = on_guest(context, guest, lambda found: found.fsfreeze_thaw())
    _tell(count, f"{guest}: {count} file systems were thawed", as_json=json)


def trim(context: typer.Context, guest: GuestArgument, *, json: Json = False) -> None:
    """Give unused blocks of a guest's file systems back to the host."""
    found = plain(on_guest(context, guest, lambda found: found.fstrim()))
    if json:
        print(to_json(found, indent=2))
    else:
        print_table(found["paths"], TRIMMED)


def passwd(
    context: typer.Context,
    guest: GuestArgument,
    user: Annotated[str, typer.Argument(metavar="USER", help="A user in the guest.", show_default=False)],
    *,
    stdin: Annotated[bool, typer.Option("--stdin", help="Take the first line of standard input.")] = False,
    crypted: Annotated[bool, typer.Option("--crypted", help="It is a hash already, as /etc/shadow has it.")] = False,
    json: Json = False,
) -> None:
    """Set the password of a user in a guest; it is asked for, or comes on standard input."""
    password = new_password(f"{user} in guest {guest}", from_stdin=stdin)
    on_guest(context, guest, lambda found: found.set_user_password(user, password, crypted=crypted))
    _tell({}, f"{guest}: password of {user} changed", as_json=json)


def shutdown(
    context: typer.Context,
    guest: GuestArgument,
    *,
    wait: Annotated[  # the command of that name stands below
        float | None, typer.Option("--wait", metavar="S", min=0, help="Seconds to wait until it is off.")
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Shut a guest down. Asks first."""
    confirm(f"Shut guest {guest} down?", yes=yes)
    on_guest(context, guest, lambda found: found.shutdown(wait=wait))
    _tell({}, f"{guest}: {'off' if wait is not None else 'shutting down'}", as_json=json)


def suspend(
    context: typer.Context,
    mode: Annotated[Mode, typer.Argument(help="Where its memory is kept.", show_default=False)],
    guest: GuestArgument,
    *,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Suspend a guest to memory, to its disk, or to both. Asks first."""
    confirm(f"Suspend guest {guest} to {mode.value}? Its agent does not answer until it is woken.", yes=yes)
    on_guest(context, guest, lambda found: _suspended(found, mode))
    _tell({}, f"{guest}: suspended to {mode.value}", as_json=json)


async def _suspended(guest: "Guest", mode: Mode) -> None:
    await {Mode.RAM: guest.suspend_ram, Mode.DISK: guest.suspend_disk, Mode.HYBRID: guest.suspend_hybrid}[mode]()


def wait(
    context: typer.Context,
    guest: GuestArgument,
    *,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", min=0, help="Seconds to wait at most.")] = 120.0,
    json: Json = False,
) -> None:
    """Wait until a guest's agent answers, as after the start of its VM."""
    on_guest(context, guest, lambda found: found.wait_ready(timeout))
    _tell({}, f"{guest}: the agent answers", as_json=json)
