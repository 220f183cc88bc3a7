"""`guestwire proxy` and `guestwire forward`: connections of this machine go on in a guest, which needs no network for them."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from guestwire.cli.byte_streams import ProcessEnd, SocketEnd, StandardStreams, carry, until_signal
from guestwire.cli.connecting import guest_argument, on_guest
from guestwire.cli.host_keys import guest_of, write_known_hosts
from guestwire.cli.output import examples, json_option, note, to_json, visible
from guestwire.errors import GuestwireError

if TYPE_CHECKING:
    import asyncio

    from guestwire.client import Guest
    from guestwire.client.live_processes import LiveProcess

LOCALHOST: Final = "localhost"
HERE: Final = "127.0.0.1"
EVERYWHERE: Final = "*"
HIGHEST_PORT: Final = 65535

NO_SSHD: Final = 127
"""The exit code of `scripts/unix/sshd.sh` where there is none."""

LAST_WORDS_WITHIN: Final = 2.0
"""Seconds."""

_field: Final = re.compile(r"\[([^\[\]]+)\]|([^:\[\]]+)")


class NoSshServer(GuestwireError):
    """The guest has no SSH server."""

    exit_code = 3


class CanNotListen(GuestwireError):
    """This machine can't listen on the address."""

    exit_code = 74


class Forward(NamedTuple):
    """Connections to `bind` and `port` of this machine go on to `host` and `host_port` in the guest."""

    bind: str
    port: int
    host: str
    host_port: int


@click.command(
    "proxy",
    epilog=examples("guestwire proxy web 5432", "ssh -o ProxyCommand='guestwire proxy --sshd web' root@web"),
)
@guest_argument
@click.argument("target", metavar="[[HOST:]PORT]", help="A TCP port, of the guest itself without HOST.", required=False)
@click.option("--sshd", help="To an SSH server that is started for this connection.", is_flag=True)
@click.option(
    "--known-hosts",
    metavar="FOLDER",
    help="GUEST is a name of `ssh --config`, as web.guest: write its host keys to a file of that name there first.",
)
@click.pass_context
def proxy(
    context: click.Context,
    guest: str,
    target: str | None,
    *,
    sshd: bool,
    known_hosts: str | None,
) -> None:
    """Connect standard input and output to a TCP port in a guest."""
    if sshd == (target is not None):
        raise click.UsageError("Name one port in the guest, or give --sshd.")
    host, port = _target(target) if target else ("", 0)

    async def connect(one: "Guest") -> int:
        if known_hosts:
            await write_known_hosts(one, guest, Path(known_hosts) / guest)
        if sshd:
            return await _serve_ssh(one)
        async with one.connect_tcp(host, port) as connection:
            with StandardStreams() as streams:
                await carry(streams, connection, until_guest_ends=True)
        return 0

    # ssh ends its proxy with SIGHUP. Ctrl-C reaches both; ssh says what there is to say.
    signals = (signal.SIGINT,) if sshd else ()
    name = guest_of(guest) if known_hosts else guest
    raise click.exceptions.Exit(on_guest(context, name, lambda one: until_signal(connect(one), *signals)))


async def _serve_ssh(guest: "Guest") -> int:
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it

    from guestwire.agent.systems import SHELL, script_text  # noqa: PLC0415  # `--help` must not wait for it

    async with guest.start([SHELL, "-c", script_text("unix/sshd.sh")], connection=True) as process:
        reporting = asyncio.create_task(_report(process), name="errors of sshd")
        try:
            with StandardStreams() as streams:
                if not await carry(streams, ProcessEnd(process), until_guest_ends=True):
                    await process.stdin.close()  # ssh was killed, and its server would wait for it
            ended = await process.wait()
            await asyncio.wait([reporting], timeout=LAST_WORDS_WITHIN)
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
    if ended.code == NO_SSHD:
        raise NoSshServer(f"{guest.context}: there is no sshd; install an SSH server in the guest, as openssh-server")
    return ended.code if ended.code is not None else 128 + (ended.signal or 0)


async def _report(process: "LiveProcess") -> None:
    """Shows what the server in the guest complains of."""
    if process.stderr:
        async for line in process.stderr:
            note(line.decode("utf-8", "replace").rstrip())


@click.command(
    "forward",
    epilog=examples(
        "guestwire forward web 8080:localhost:80", "guestwire forward web 0:localhost:5432 192.0.2.1:443:10.0.0.5:443"
    ),
)
@guest_argument
@click.argument(
    "forwards",
    metavar="[BIND:]PORT:HOST:PORT...",
    help="Where to listen here, and where to connect in the guest. BIND is 127.0.0.1 without it, * every address; PORT 0 a free one.",
    nargs=-1,
    required=True,
)
@json_option
@click.pass_context
def forward(context: click.Context, guest: str, forwards: tuple[str, ...], *, json: bool) -> None:
    """Listen here, and connect in a guest, until Ctrl-C.

    Any number of connections go on at the same time; one that fails is a line on standard error, and ends only itself.
    """
    wanted = [_forward(text) for text in forwards]
    raise click.exceptions.Exit(on_guest(context, guest, lambda one: until_signal(_listen(one, wanted, as_json=json))))


async def _listen(guest: "Guest", wanted: list[Forward], *, as_json: bool) -> int:
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it

    servers: list[asyncio.Server] = []
    connections: set[asyncio.Task[None]] = set()
    try:
        for one in wanted:

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Forward = one) -> None:
                task = asyncio.create_task(_pass_on(guest, target, reader, writer), name="a forwarded connection")
                connections.add(task)
                task.add_done_callback(connections.discard)

            servers.append(await _start_server(accept, one))
            _say(guest, one, servers[-1], as_json=as_json)
        await asyncio.Event().wait()  # until a signal
    finally:
        for server in servers:
            server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
    return 0


async def _start_server(
    accept: "Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]", one: Forward
) -> "asyncio.Server":
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it

    try:
        return await asyncio.start_server(accept, None if one.bind == EVERYWHERE else one.bind, one.port)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        raise CanNotListen(
            f"this machine can't listen on {_shown(one.bind, one.port)}: {why}; take another address or port, or port 0"
            " for a free one"
        ) from error


def _say(guest: "Guest", one: Forward, server: "asyncio.Server", *, as_json: bool) -> None:
    for socket in server.sockets:
        address, port = socket.getsockname()[:2]
        if as_json:
            print(to_json(one._asdict() | {"bind": address, "port": port}), flush=True)
        else:
            where = _shown(one.host, one.host_port)
            print(visible(f"{_shown(address, port)} leads to {where} in {guest.vm.name}"), flush=True)


async def _pass_on(
    guest: "Guest", one: Forward, reader: "asyncio.StreamReader", writer: "asyncio.StreamWriter"
) -> None:
    try:
        async with guest.connect_tcp(one.host, one.host_port) as connection:
            await carry(SocketEnd(reader, writer), connection, until_guest_ends=False)
    except GuestwireError as error:
        note(f"guestwire: {error}")
    except OSError:
        pass  # the client has gone
    finally:
        writer.close()


def _target(text: str) -> tuple[str, int]:
    """HOST and PORT of `[HOST:]PORT`.

    Raises:
        BadParameter: it is something else.
    """
    match _fields(text):
        case [port] if _is_port(port, least=1):
            return LOCALHOST, int(port)
        case [host, port] if _is_port(port, least=1):
            return host, int(port)
    raise click.BadParameter(f"'{text}' is not [HOST:]PORT, for example 5432, or [::1]:5432.")


def _forward(text: str) -> Forward:
    """As ssh has it.

    Raises:
        BadParameter: it is something else.
    """
    found = _fields(text)
    if len(found) == 3:  # noqa: PLR2004  # without BIND
        found.insert(0, HERE)
    match found:
        case [bind, port, host, host_port] if _is_port(port, least=0) and _is_port(host_port, least=1):
            return Forward(bind, int(port), host, int(host_port))
    raise click.BadParameter(f"'{text}' is not [BIND:]PORT:HOST:PORT, for example 8080:localhost:80.")


def _fields(text: str) -> list[str]:
    """What stands between colons; an address with colons stands in brackets. None where it is something else."""
    found = [match[1] or match[2] for match in _field.finditer(text)]
    rebuilt = ":".join(match[0] for match in _field.finditer(text))
    return found if rebuilt == text else []


def _is_port(text: str, *, least: int) -> bool:
    return text.isascii() and text.isdecimal() and least <= int(text) <= HIGHEST_PORT


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
