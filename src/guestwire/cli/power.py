"""Commands that change a guest as a whole: freezing, passwords, power. Those that disrupt it ask first."""

import contextlib
import shutil
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from guestwire.cli.asking import confirm, new_password, yes_option
from guestwire.cli.connecting import guest_argument, guest_names, on_guest, on_host, plain
from guestwire.cli.output import Column, examples, json_option, note, print_table, report, to_json
from guestwire.cli.times import day_and_time
from guestwire.cli.units import Seconds, size
from guestwire.counting import counted
from guestwire.errors import GuestError, RequestError

if TYPE_CHECKING:
    from guestwire.agent.results import TrimResult
    from guestwire.client import Guest, Host
    from guestwire.client.guests import Action
    from guestwire.contract.endpoints.leases import Frozen

T = TypeVar("T")

COMMAND: Final = "guestwire.command"

LONGEST_LEASE: Final = 86_400
LEASE_OF_COMMAND: Final = 300
"""Seconds."""

ENDS_WITHIN: Final = 10.0
"""Seconds that an interrupted command has to end."""

FROZEN: Final = ("file system is", "file systems are")

NONE_TRIMMED: Final = 3
"""The exit code when each file system has an error of its own, which is shown."""

TRIMMED: Final = (
    Column("MOUNTED ON", "path"),
    Column("TRIMMED", "trimmed", size),
    Column("AT LEAST", "minimum", size),
    Column("ERROR", "error"),
)


class _GuestsAndCommand(click.Command):
    """What stands behind `--` is a command of this machine."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        if "--" in args:
            position = args.index("--")
            ctx.meta[COMMAND] = args[position + 1 :]
            args = args[:position]
        return super().parse_args(ctx, args)


@click.command(
    "freeze",
    cls=_GuestsAndCommand,
    epilog=examples(
        "guestwire freeze --lease 60 web -- take-a-snapshot",
        "guestwire freeze --lease 120 web db -- sh -c 'lvcreate -s -n snap -L 1G vg/images'",
        "guestwire freeze web && take-a-snapshot; guestwire thaw web",
    ),
)
@click.argument(
    "guests", metavar="GUEST... [-- COMMAND...]", nargs=-1, required=True, help="VMs' names or ids.",
    shell_complete=guest_names,
)  # fmt: skip
@click.option("--lease", metavar="S", help="Thaw after S seconds in any case.", type=click.IntRange(1, LONGEST_LEASE))
@click.option(
    "--mount", "mounts", metavar="PATH", help="Freeze only what is mounted here; may be repeated.", multiple=True
)
@yes_option
@json_option
@click.pass_context
def freeze(
    context: click.Context,
    guests: tuple[str, ...],
    lease: int | None,
    mounts: tuple[str, ...],
    *,
    yes: bool,
    json: bool,
) -> None:
    """Freeze guests' file systems, after a question.

    Everything that writes in the guest waits until they are thawed.

    With a COMMAND, which runs on this machine, they are thawed when it ends: several guests are all frozen, or none. The
    exit code is the command's, or 7 when a freeze did not hold until its end.

    With --lease nothing stays frozen for longer, whatever becomes of this command: a server of guestwire thaws, and a
    process in the guest does a second later, where the guest can have one. A COMMAND has a lease of 300 seconds without it.
    """
    command = context.meta.get(COMMAND)
    if command == []:
        raise click.UsageError("There is no command behind --.")
    if len(guests) > 1 and not command:
        raise click.UsageError("Several guests are frozen together for a COMMAND: guestwire freeze A B -- COMMAND.")
    if not command:
        confirm(f"Freeze the file systems of guest {guests[0]}? What writes in it waits until you thaw them.", yes=yes)
        _freeze_one(context, guests[0], lease, mounts, as_json=json)
        return
    if json:
        raise click.UsageError("Standard output is the command's: --json goes without one.")
    raise click.exceptions.Exit(_freeze_while(context, guests, lease or LEASE_OF_COMMAND, mounts, command))


def _freeze_one(
    context: click.Context, guest: str, lease: int | None, mounts: tuple[str, ...], *, as_json: bool
) -> None:
    async def freeze_guest(found: "Guest") -> "int | Frozen":
        import asyncio  # noqa: PLC0415  # `--help` must not wait for it, nor for the client

        from guestwire.agent.watchdog import WINDOWS  # noqa: PLC0415
        from guestwire.client.cancellation import finish_when_cancelled  # noqa: PLC0415
        from guestwire.client.freezing import freeze, freeze_for, thaw  # noqa: PLC0415

        try:
            if not lease and not mounts:
                return await freeze(found)
            has_server = await _has_server(found)
            frozen = await freeze_for(found, lease, mounts or None)
        except asyncio.CancelledError:
            note(f"{guest}: interrupted; its file systems are thawed")
            raise
        if lease and not has_server and not frozen.watchdog and frozen.problem != WINDOWS:
            # This command ends now: the lease would be an empty promise.
            await finish_when_cancelled(thaw(found))
            raise GuestError(
                f"guest {guest}: nothing would thaw it after its lease, so it is thawed again: {frozen.problem};"
                " freeze it for a COMMAND, or without a lease"
            )
        return frozen

    found = on_guest(context, guest, lambda found: _until_ended(freeze_guest(found)))
    count = found if isinstance(found, int) else found.frozen
    until = "" if isinstance(found, int) else _until(guest, found)
    report(
        found if isinstance(found, int) else plain(found),
        f"{guest}: {counted(count, *FROZEN)} frozen{until}; guestwire thaw {guest}",
        as_json=as_json,
    )


async def _has_server(found: "Guest") -> bool:
    """True if guestwire's server is between, which ends leases."""
    return not found.host.is_local and await found.host.is_guestwire()


def _until(guest: str, frozen: "Frozen") -> str:
    """When it ends; notes what does not see to it."""
    if frozen.problem:
        note(f"{guest}: no process in the guest thaws it: {frozen.problem}")
    return f" until {day_and_time(frozen.until)}" if frozen.until else ""


def _freeze_while(
    context: click.Context, guests: tuple[str, ...], lease: int, mounts: tuple[str, ...], command: list[str]
) -> int:
    """Runs a command of this machine while guests are frozen; its exit code, as shells have it."""
    if not shutil.which(command[0]):
        raise RequestError(f"{command[0]}: there is no such command on this machine: nothing was frozen")

    async def run(host: "Host") -> int:
        import asyncio  # noqa: PLC0415  # as above

        from guestwire.client.freezing import freezing_for  # noqa: PLC0415

        found = await asyncio.gather(*map(host.guest, guests))
        if len({one.vm.vmid for one in found}) < len(found):
            raise RequestError("a guest is named twice: nothing was frozen")
        async with freezing_for(found, lease, mounts or None) as frozen:
            for name, one in zip(guests, frozen, strict=True):
                if not one.frozen:
                    raise GuestError(
                        f"guest {name}: it has no file system that can be frozen: {command[0]} was not run"
                    )
                note(f"{name}: {counted(one.frozen, *FROZEN)} frozen{_until(name, one)}")
            code = await _run(command)
        for name in guests:
            note(f"{name}: thawed; the freeze held to its end")
        return code

    return on_host(context, lambda host: _until_ended(run(host)))


async def _until_ended(work: Coroutine[Any, Any, T]) -> T:
    """Has SIGTERM and SIGHUP cancel it, as Ctrl-C does: what is frozen is thawed. systemd, `timeout` and a lost SSH session send them."""
    import asyncio  # noqa: PLC0415  # as above
    import threading  # noqa: PLC0415  # asyncio has it loaded

    loop, task, seen = asyncio.get_running_loop(), asyncio.current_task(), list[int]()

    def end(signum: int) -> None:
        seen.append(signum)
        if task:
            task.cancel()

    # Only the main thread may say what signals do; `nohup` has one of them ignored.
    candidates = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    ends = [signum for signum in candidates if signal.getsignal(signum) is not signal.SIG_IGN]
    for signum in ends:
        loop.add_signal_handler(signum, end, signum)
    try:
        return await work
    except asyncio.CancelledError:
        if not seen:
            raise
        raise click.exceptions.Exit(128 + seen[0]) from None
    finally:
        for signum in ends:
            loop.remove_signal_handler(signum)


async def _run(command: list[str]) -> int:
    """Ends it when this is cancelled: what it is for is over."""
    import asyncio  # noqa: PLC0415  # as above

    try:
        process = await asyncio.create_subprocess_exec(*command)
    except OSError as error:
        raise RequestError(f"{command[0]}: {error.strerror}") from error
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDS_WITHIN):
                await process.wait()
        if process.returncode is None:
            process.kill()
        raise
    return code if code >= 0 else 128 - code


@click.command("thaw", epilog=examples("guestwire thaw web"))
@guest_argument
@json_option
@click.pass_context
def thaw(context: click.Context, guest: str, *, json: bool) -> None:
    """Thaw a guest's file systems."""

    async def thaw_guest(found: "Guest") -> int:
        from guestwire.client.freezing import end_freeze, end_watchdog  # noqa: PLC0415

        count = await end_freeze(found)
        if count and not await _has_server(found):  # which knows what it started
            await end_watchdog(found)
        return count

    count = on_guest(context, guest, thaw_guest)
    words = (
        f"{counted(count, 'file system was', 'file systems were')} thawed" if count else "no file systems were frozen"
    )
    report(count, f"{guest}: {words}", as_json=json)


@click.command("trim", epilog=examples("guestwire trim web", "guestwire trim --minimum 1048576 web"))
@guest_argument
@click.option(
    "--minimum", metavar="BYTES", help="Leave out free ranges that are shorter.", type=click.IntRange(0), default=0
)
@json_option
@click.pass_context
def trim(context: click.Context, guest: str, *, minimum: int, json: bool) -> None:
    """Give unused blocks of file systems back to the host."""

    async def trim_guest(found: "Guest") -> "TrimResult":
        return await (found.fstrim_minimum(minimum=minimum) if minimum else found.fstrim())

    found = plain(on_guest(context, guest, trim_guest))
    if json:
        print(to_json(found, indent=2))
    else:
        print_table(found["paths"], TRIMMED)
    if found["paths"] and all("error" in one for one in found["paths"]):
        raise click.exceptions.Exit(NONE_TRIMMED)


@click.command("passwd", epilog=examples("guestwire passwd web root", "guestwire passwd --stdin web root < secret"))
@guest_argument
@click.argument("user", metavar="USER", help="A user in the guest.")
@click.option("--stdin", help="Take the first line of standard input as the password.", is_flag=True)
@click.option("--crypted", help="The password is a hash, as in /etc/shadow.", is_flag=True)
@json_option
@click.pass_context
def passwd(context: click.Context, guest: str, user: str, *, stdin: bool, crypted: bool, json: bool) -> None:
    """Set the password of a user in a guest.

    You are asked for it twice, or it comes on standard input.
    """
    password = new_password(f"{user} in guest {guest}", from_stdin=stdin)
    on_guest(context, guest, lambda found: found.set_user_password(user, password, crypted=crypted))
    report({}, f"{guest}: password of {user} changed", as_json=json)


@click.command("shutdown", epilog=examples("guestwire shutdown --wait 60 web"))
@guest_argument
@click.option("--wait", metavar="S", help="Seconds to wait until the VM is off.", type=Seconds())
@yes_option
@json_option
@click.pass_context
def shutdown(context: click.Context, guest: str, *, wait: float | None, yes: bool, json: bool) -> None:
    """Shut a guest down, after a question."""
    confirm(f"Shut guest {guest} down?", yes=yes)
    on_guest(context, guest, lambda found: found.shutdown(wait=wait))
    report({}, f"{guest}: {'off' if wait is not None else 'shutting down'}", as_json=json)


@click.command("reboot", epilog=examples("guestwire reboot --yes --wait 120 web"))
@guest_argument
@click.option("--wait", metavar="S", help="Seconds to wait until its agent answers again.", type=Seconds())
@yes_option
@json_option
@click.pass_context
def reboot(context: click.Context, guest: str, *, wait: float | None, yes: bool, json: bool) -> None:
    """Have a guest start anew by its agent, after a question.

    The VM goes on. `guestwire power reboot` does it by the host, on Proxmox VE, too.
    """
    confirm(f"Reboot guest {guest}?", yes=yes)
    on_guest(context, guest, lambda found: found.reboot(wait=wait))
    report({}, f"{guest}: {'the agent answers again' if wait is not None else 'rebooting'}", as_json=json)


@click.command("halt", epilog=examples("guestwire halt --yes web"))
@guest_argument
@yes_option
@json_option
@click.pass_context
def halt(context: click.Context, guest: str, *, yes: bool, json: bool) -> None:
    """Halt a guest and leave its VM on, after a question."""
    confirm(f"Halt guest {guest}? Its VM goes on without it, until it is stopped or reset.", yes=yes)
    on_guest(context, guest, lambda found: found.shutdown_mode(mode="halt"))
    report({}, f"{guest}: halted", as_json=json)


@click.command("set-time", epilog=examples("guestwire set-time --now web", "guestwire set-time web"))
@guest_argument
@click.option("--now", help="To the time of this machine.", is_flag=True)
@json_option
@click.pass_context
def set_time(context: click.Context, guest: str, *, now: bool, json: bool) -> None:
    """Set a guest's clock to that of its VM, as after a pause.

    The VM has its host's time, unless that was changed from the guest. With --now it is the time of this machine, which
    the VM's clock gets, too.
    """

    async def set_clock(found: "Guest") -> int:
        import time  # noqa: PLC0415  # next to it, for it is taken when all is ready

        await found.set_time(time=time.time_ns() if now else None)
        return await found.get_time()

    clock = on_guest(context, guest, set_clock)
    report(clock, f"{guest}: its clock is set to {day_and_time(clock // 10**9)}", as_json=json)


ENDS: Final = {
    "stop": "Stop VM {guest} at once, as pulling the plug does? What its guest has not written is lost.",
    "reset": "Reset VM {guest}? What its guest has not written is lost.",
    "shutdown": "Shut VM {guest} down?",
    "reboot": "Reboot guest {guest}?",
    "suspend": "Halt the processors of VM {guest}? Its guest does not answer until they go on.",
}
"""The actions that are asked about first."""


@click.command(
    "power", epilog=examples("guestwire power start web && guestwire wait web", "guestwire power stop -y web")
)
@click.argument(
    "action",
    metavar="ACTION",
    help="One of start, stop, shutdown, reboot, reset, suspend, resume.",
    type=click.Choice(["start", "stop", "shutdown", "reboot", "reset", "suspend", "resume"]),
)
@guest_argument
@click.option("--wait", metavar="S", help="Seconds to wait for the end.", type=Seconds(), default=300.0)
@click.option("--no-wait", help="Only begin it, and show the task's id.", is_flag=True)
@yes_option
@json_option
@click.pass_context
def power(
    context: click.Context, action: "Action", guest: str, wait: float, *, no_wait: bool, yes: bool, json: bool
) -> None:
    """Start, stop or pause the VM itself.

    A question comes first where something may be lost. Needs a server or a libvirt: an agent's own socket can't do it.
    """
    if action in ENDS:
        confirm(ENDS[action].format(guest=guest), yes=yes)
    upid = on_guest(context, guest, lambda found: found.power(action, wait=None if no_wait else wait))
    report({"upid": upid}, f"{guest}: {action}: {upid if no_wait else 'done'}", as_json=json)


@click.command("suspend", epilog=examples("guestwire suspend ram web"))
@click.argument("mode", help="The place that keeps the guest's memory.", type=click.Choice(["ram", "disk", "hybrid"]))
@guest_argument
@yes_option
@json_option
@click.pass_context
def suspend(context: click.Context, mode: str, guest: str, *, yes: bool, json: bool) -> None:
    """Suspend a guest to memory, disk or both, after a question."""
    confirm(f"Suspend guest {guest} to {mode}? Its agent does not answer until it is woken.", yes=yes)

    async def suspend_guest(found: "Guest") -> None:
        calls = {"ram": found.suspend_ram, "disk": found.suspend_disk, "hybrid": found.suspend_hybrid}
        await calls[mode]()

    on_guest(context, guest, suspend_guest)
    report({}, f"{guest}: suspended to {mode}", as_json=json)


@click.command("wait", epilog=examples("guestwire wait --timeout 300 web && guestwire exec web -- uptime"))
@guest_argument
@click.option("--timeout", metavar="S", help="Seconds to wait at most.", type=Seconds(), default=120.0)
@json_option
@click.pass_context
def wait(context: click.Context, guest: str, timeout: float, *, json: bool) -> None:
    """Wait until a guest's agent answers, as after a start."""
    on_guest(context, guest, lambda found: found.wait_ready(timeout))
    report({}, f"{guest}: the agent answers", as_json=json)
