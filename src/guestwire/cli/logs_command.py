"""`guestwire logs`: the journals of guests, or files in them, as they are written."""

import os
import re
import sys
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.byte_streams import until_signal
from guestwire.cli.connecting import AT_ONCE, RUNNING, guest_names, on_host, tag_option
from guestwire.cli.disks import SOME_FAILED
from guestwire.cli.output import examples, json_option, note, to_json, visible
from guestwire.errors import GuestwireError

if TYPE_CHECKING:
    from guestwire.client import Guest, Host

MOST_LINES: Final = 100_000

MOST_KEPT: Final = 16 * 1024 * 1024
"""Bytes of a guest's log that are kept until it is its turn to be shown."""

LONGEST_REASON: Final = 500
"""Bytes of what the guest says went wrong."""

COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue")

REASONS: Final = {
    91: "there is no WHAT; `guestwire ls GUEST:FOLDER` lists what there is",
    92: "WHAT is a folder; name a file in it",
    93: "systemd has no unit WHAT; `guestwire exec GUEST -- systemctl list-units` lists those that there are",
    94: "it has no journal, and so no log of WHAT; name a file, as /var/log/messages",
    95: "it has no journal, no /var/log/syslog and no /var/log/messages; name a file",
}
"""Why there is no log, by the exit code of `scripts/unix/logs.sh`."""

_unit: Final = re.compile(r".\.(service|socket|timer|target|mount|automount|path|scope|slice|swap|device)\Z")


class NoLog(GuestwireError):
    """The guest has no such log."""

    exit_code = 3


@click.command(
    "logs",
    epilog=examples(
        "guestwire logs web",
        "guestwire logs -f web db ssh.service",
        "guestwire logs -f -n 0 --tag prod /var/log/nginx/error.log",
    ),
)
@click.argument(
    "words",
    metavar="GUEST... [UNIT|FILE]",
    nargs=-1,
    shell_complete=guest_names,
    help="VMs by name or id; then a unit, which ends in .service and the like, or a file, which begins with /.",
)
@click.option("--follow", "-f", is_flag=True, help="Show what is written from now on, too, until Ctrl-C.")
@click.option(
    "--lines",
    "-n",
    metavar="N",
    type=click.IntRange(0, MOST_LINES),
    default=10,
    help="How many of the last lines to show.",
)
@click.option("--unit", "-u", metavar="UNIT", help="A unit of any name.")
@click.option("--all", "-a", "every", help="Each running guest.", is_flag=True)
@tag_option
@json_option
@click.pass_context
def logs(
    context: click.Context,
    words: tuple[str, ...],
    *,
    follow: bool,
    lines: int,
    unit: str | None,
    every: bool,
    tags: tuple[str, ...],
    json: bool,
) -> None:
    """Show the journals of guests, or files in them.

    Without a journal it is /var/log/syslog or /var/log/messages. The lines of several guests have their names in front;
    a guest that has no such log is one line on standard error, and the exit code is 3. With --json, each line is an object.
    """
    *names, last = words or ("",)
    what = last if last.startswith("/") or _unit.search(last) else ""
    guests = names if what else list(filter(None, words))
    if what and unit:
        raise click.UsageError("Name a unit or a file, and not both.")
    if bool(guests) == (every or bool(tags)):
        raise click.UsageError("Name guests, or give --all or --tag.")

    async def show(host: "Host") -> int:
        found = [await host.guest(name) for name in guests] if guests else await _running(host, tags)
        return await _Logs(found, unit or what, lines, as_json=json).show(follow=follow)

    raise click.exceptions.Exit(on_host(context, lambda host: until_signal(show(host))))


async def _running(host: "Host", tags: Sequence[str]) -> list["Guest"]:
    return [host.guest_from(info) for info in await host.guests() if info.status == RUNNING and info.has_tags(tags)]


class _Logs:
    """The same log of each of these guests."""

    def __init__(self, guests: Sequence["Guest"], what: str, lines: int, *, as_json: bool) -> None:
        self._guests = guests
        self._what = what
        self._lines = lines
        self._as_json = as_json
        self._is_terminal = sys.stdout.isatty()
        self._fronts = self._names()

    def _names(self) -> list[bytes]:
        """What stands in front of each guest's lines."""
        names = [visible(guest.vm.name) for guest in self._guests]
        if len(names) < 2:  # noqa: PLR2004  # it is clear whose lines they are
            return [b""] * len(names)
        width = max(map(len, names))
        fronts = [f"{name:<{width}}" for name in names]
        if self._is_terminal and not os.environ.get("NO_COLOR"):
            fronts = [click.style(front, fg=colour) for front, colour in zip(fronts, cycle(COLOURS), strict=False)]
        return [f"{front}  ".encode() for front in fronts]

    async def show(self, *, follow: bool) -> int:
        """Gives the exit code."""
        import asyncio  # noqa: PLC0415  # `--help` must not wait for it

        if len(self._guests) == 1:
            async with aclosing(self._read(0, follow=follow)) as lines:
                async for line in lines:
                    self._print(0, line)
            return 0
        numbers = range(len(self._guests))
        if follow:
            jobs = [asyncio.create_task(self._follow(number), name="a log that is followed") for number in numbers]
            try:
                failed = await asyncio.gather(*jobs)
            finally:
                for job in jobs:
                    job.cancel()
                await asyncio.gather(*jobs, return_exceptions=True)
        else:
            failed = await self._show_in_turn()
        return SOME_FAILED if any(failed) else 0

    async def _follow(self, number: int) -> bool:
        """Shows the lines of one of several guests as they come. Gives whether it failed."""
        try:
            async with aclosing(self._read(number, follow=True)) as lines:
                async for line in lines:
                    self._print(number, line)
        except GuestwireError as error:
            note(f"guestwire: {error}")
            return True
        return False

    async def _show_in_turn(self) -> list[bool]:
        """Shows each guest's last lines after those of the guest before; several are asked at the same time.

        An error is shown at once: the guest before may take long.
        """
        from guestwire.client.cancellation import map_ordered  # noqa: PLC0415  # `--help` must not wait for the client

        async def jobs() -> AsyncGenerator[Coroutine[Any, Any, list[bytes] | None], None]:
            for number in range(len(self._guests)):
                yield self._last_lines(number)

        failed: list[bool] = []
        async with aclosing(map_ordered(jobs(), AT_ONCE)) as answers:
            async for answer in answers:
                for line in answer or ():
                    self._print(len(failed), line)
                failed.append(answer is None)
        return failed

    async def _last_lines(self, number: int) -> list[bytes] | None:
        """None where there are none to show, which it has said."""
        found: list[bytes] = []
        size = 0
        try:
            async with aclosing(self._read(number, follow=False)) as lines:
                async for line in lines:
                    found.append(line)
                    if (size := size + len(line)) > MOST_KEPT:
                        raise NoLog(f"{self._guests[number].context}: its last lines are too large; show it alone")
        except GuestwireError as error:
            note(f"guestwire: {error}")
            return None
        return found

    async def _read(self, number: int, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """The lines of a guest, without their ends.

        Raises:
            NoLog: there is no such log.
            CallFailed: see `client.errors`.
        """
        from guestwire.agent.systems import SHELL, script_text  # noqa: PLC0415  # as above

        guest = self._guests[number]
        script = [SHELL, "-c", script_text("unix/logs.sh"), "logs", str(self._lines), "1" if follow else "", self._what]
        async with guest.start(script, input=False) as process:
            async for line in process.stdout:
                yield line.removesuffix(b"\n")
            ended = await process.wait()
            if ended.code != 0:
                assert process.stderr  # noqa: S101  # it is apart
                said = visible((await process.stderr.read(LONGEST_REASON)).decode("utf-8", "replace").strip())
                why = REASONS.get(
                    ended.code or 0, said or f"it was ended there ({ended.signal or ended.code})"
                ).replace("WHAT", self._what)
                raise NoLog(f"{guest.context}: {why}")

    def _print(self, number: int, line: bytes) -> None:
        """Shows a line: to programs as it is, on a terminal without what could steer it, or forge another guest's."""
        text = line.decode("utf-8", "replace")
        if self._as_json:
            vm = self._guests[number].vm
            print(to_json({"guest": vm.name, "vmid": vm.vmid, "line": text}), flush=True)
            return
        shown = "\t".join(map(visible, text.split("\t"))).encode() if self._is_terminal else line
        sys.stdout.buffer.write(self._fronts[number] + shown + b"\n")
        sys.stdout.buffer.flush()
