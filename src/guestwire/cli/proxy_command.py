"""`guestwire proxy`: standard input and output of this machine to a program in the guest that serves one connection."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.connecting import guest_argument, on_guest
from guestwire.cli.host_keys import write_known_hosts
from guestwire.cli.output import examples, note, visible

if TYPE_CHECKING:
    from guestwire.client import Guest
    from guestwire.client.live_processes import LiveProcess

SSHD: Final = "/usr/sbin/sshd"
CHUNK: Final = 64 * 1024


@click.command("proxy", epilog=examples("ssh -o ProxyCommand='guestwire proxy --sshd web' root@web"))
@guest_argument
@click.option("--sshd", help="To an SSH server that is started for this connection.", is_flag=True, required=True)
@click.option("--known-hosts", metavar="FILE", help="Write the guest's SSH host keys there first.")
@click.option("--known-as", metavar="NAME", help="The guest's name in that file.")
@click.pass_context
def proxy(context: click.Context, guest: str, *, sshd: bool, known_hosts: str | None, known_as: str | None) -> None:  # noqa: ARG001
    """Connect standard input and output to a server in the guest."""
    file = Path(known_hosts) if known_hosts else None

    async def connect(one: "Guest") -> int:
        if file:
            await write_known_hosts(one, known_as or guest, file)
        async with one.start([SSHD, "-i"]) as process:
            return await _until_hangup(_pass_on(process))

    raise click.exceptions.Exit(on_guest(context, guest, connect))


async def _until_hangup(work: Coroutine[Any, Any, int]) -> int:
    """Does the work; ssh ends its proxy with SIGHUP, and then the program in the guest ends at once, too."""
    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
    numbers = (signal.SIGHUP, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        if task.cancelled() and not asyncio.current_task().cancelling():  # type: ignore[union-attr]
            return 0
        task.cancel()
        raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _pass_on(process: "LiveProcess") -> int:
    """Passes bytes on both ways until the program writes no more."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    # Copies: the event loop closes what it is given, and the command's end still wants its own.
    source, target = (
        os.fdopen(os.dup(stream.fileno()), mode, 0) for stream, mode in ((sys.stdin, "rb"), (sys.stdout, "wb"))
    )
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, target)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)

    async def to_guest() -> None:
        with contextlib.suppress(BrokenPipeError):
            while data := await reader.read(CHUNK):
                await process.stdin.write(data)
            await process.stdin.close()

    async def errors() -> None:
        if process.stderr:
            async for line in process.stderr:
                note(visible(line.decode("utf-8", "replace").rstrip()))

    sending, reporting = asyncio.create_task(to_guest()), asyncio.create_task(errors())
    try:
        while data := await process.stdout.read(CHUNK):
            writer.write(data)
            await writer.drain()
        ended = await process.wait()
    finally:
        sending.cancel()
        reporting.cancel()
        writer.close()
        await asyncio.gather(sending, reporting, return_exceptions=True)
    return ended.code if ended.code is not None else 128 + (ended.signal or 0)
