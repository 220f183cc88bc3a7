"""From the options before a command to a host that answers, and the arguments that name a guest there."""

import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from guestwire.addresses import is_served_here
from guestwire.errors import GuestwireError

if TYPE_CHECKING:
    import asyncio

    from guestwire.client import CallFailed, Guest, GuestInfo, Host
    from guestwire.client.settings import Settings

T = TypeVar("T")

COMPLETES_WITHIN: Final = 3.0
"""Seconds that Tab waits for the host at most."""

# `guestwire --help` and Tab must not wait for the client: everything of it is imported where it is used.


def find_settings(context: click.Context) -> "Settings":
    """The settings by the options before the command, the environment and the profile.

    The fingerprint that was trusted before is among them.

    Raises:
        ConfigurationError: one of them can't be used.
    """
    from guestwire.cli.trust import add_known_fingerprint  # noqa: PLC0415
    from guestwire.client.settings import settings_for  # noqa: PLC0415

    profile = context.find_root().params.get("profile")
    return _with_password(add_known_fingerprint(settings_for(given_settings(context), profile=profile)))


def given_settings(context: click.Context) -> dict[str, str | bool | None]:
    """The settings that the options before the command name; the others are None."""
    options = context.find_root().params
    values = {name: options.get(name) for name in ("host", "token_file", "ca", "fingerprint")}
    return values | {"verify": False if options.get("insecure") else None}


def _with_password(settings: "Settings") -> "Settings":
    """Asks on a terminal for the password of a user that has none."""
    if not settings.user or "@" not in settings.user or settings.password or settings.token or settings.token_file:
        return settings
    if not sys.stdin.isatty():
        return settings  # which says what is missing
    from msgspec.structs import replace  # noqa: PLC0415

    from guestwire.cli.asking import ask_password  # noqa: PLC0415

    return replace(settings, password=ask_password(f"Password for {settings.user}: "))


class Connection:
    """A host, and the event loop that its calls run in; made by `connected`."""

    def __init__(self, runner: "asyncio.Runner", settings: "Settings", *, ask: bool) -> None:
        self._runner = runner
        self._settings = settings
        self._ask = ask
        self._hosts: list[Host] = []

    def run(self, job: Callable[["Host"], Awaitable[T]]) -> T:
        """The result of a job on the host.

        When the certificate is trusted only after a question, the job begins again: nothing was sent.

        Raises:
            CallFailed: see `client.errors`.
        """
        from guestwire.client.errors import CertificateNotTrusted  # noqa: PLC0415

        if not self._hosts:
            self._runner.run(self._open())
        try:
            return self._run(job)
        except CertificateNotTrusted as error:
            if not self._ask:
                raise
            self._trust(error)
        return self._run(job)

    def _run(self, job: Callable[["Host"], Awaitable[T]]) -> T:
        from inspect import CORO_CREATED, getcoroutinestate  # noqa: PLC0415

        work = _awaited(job, self._hosts[0])
        try:
            return self._runner.run(work)
        finally:
            # Ctrl-C may come before it is begun, and Python would complain. One that was begun is not closed but ended
            # by the loop: a second Ctrl-C comes while it cleans up.
            if getcoroutinestate(work) == CORO_CREATED:
                work.close()

    def _trust(self, error: Any) -> None:
        from guestwire.cli.trust import ask_to_trust  # noqa: PLC0415

        self._settings = ask_to_trust(self._settings, error, self._runner.run)
        self.close()
        self._runner.run(self._open())

    async def _open(self) -> None:
        """Makes the host. It is kept at once: Ctrl-C may drop the result of what the loop runs."""
        from guestwire.client.hosts import open_host  # noqa: PLC0415

        host = self._settings.host
        if host and host != "local:" and not is_served_here(host):
            _load_https()
        self._hosts.append(open_host(self._settings))

    def close(self) -> None:
        """Ends connections, also when Ctrl-C comes meanwhile."""
        interrupted = None
        while self._hosts:
            try:
                self._runner.run(self._hosts[-1].close())
                self._hosts.pop()
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted:
            raise interrupted


@contextlib.contextmanager
def connected(context: click.Context, *, ask: bool = True) -> Iterator[Connection]:
    """The host that the options, the environment or the profile name. Nothing is sent yet.

    With `ask`, a person may be asked to trust its certificate.

    Raises:
        ConfigurationError: none was named, or what was given can't be used.
    """
    import asyncio  # noqa: PLC0415

    settings = find_settings(context)
    with asyncio.Runner() as runner:
        connection = Connection(runner, settings, ask=ask)
        try:
            yield connection
        finally:
            connection.close()


def on_host(context: click.Context, job: Callable[["Host"], Awaitable[T]], *, ask: bool = True) -> T:
    """Does one job on the host."""
    with connected(context, ask=ask) as connection:
        return connection.run(job)


tag_option = click.option(
    "--tag", "tags", metavar="TAG", help="Only guests with this tag; may be repeated.", multiple=True
)


def on_guest(context: click.Context, name: str, job: Callable[["Guest"], Awaitable[T]]) -> T:
    """Does one job on a guest."""

    async def found(host: "Host") -> T:
        from guestwire.client.errors import AgentTookTooLong, AgentUnavailable  # noqa: PLC0415

        guest = await host.guest(name)
        try:
            return await job(guest)
        except (AgentTookTooLong, AgentUnavailable) as error:
            from guestwire.client.diagnosis import NO_AGENT, advice_since_when  # noqa: PLC0415

            if NO_AGENT not in error.message and (advice := await advice_since_when(host, name)):
                error.advise(advice)
            raise

    return on_host(context, found)


AT_ONCE: Final = 8
"""Guests that are asked at the same time."""

RUNNING: Final = "running"


async def ask_running(
    host: "Host", tags: Iterable[str], ask: Callable[["Guest"], Awaitable[T]]
) -> "list[tuple[GuestInfo, T | CallFailed]]":
    """What each guest that runs and has these tags answers, in the order of the host's list; an error is an answer."""
    from contextlib import aclosing  # noqa: PLC0415  # `--help` must not wait for the client

    from guestwire.client.cancellation import map_ordered  # noqa: PLC0415
    from guestwire.client.errors import CallFailed  # noqa: PLC0415

    running = [guest for guest in await host.guests() if guest.status == RUNNING and guest.has_tags(tags)]

    async def answer(info: "GuestInfo") -> "tuple[GuestInfo, T | CallFailed]":
        try:
            return info, await ask(host.guest_from(info))
        except CallFailed as error:
            return info, error

    async def jobs() -> AsyncGenerator[Coroutine[Any, Any, "tuple[GuestInfo, T | CallFailed]"], None]:
        for info in running:
            yield answer(info)

    async with aclosing(map_ordered(jobs(), AT_ONCE)) as answers:
        return [answer async for answer in answers]


def _load_https() -> None:
    """Loads aiohttp without the system's certificates, of which the carrier reads those that it needs itself.

    At import aiohttp reads all of them into a context that is not used here: `ping` takes 285 ms of CPU time then, and
    250 ms without (median of 15 runs).
    """
    kept = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(kept, os.devnull))
    try:
        import guestwire.client.carriers.https  # noqa: F401, PLC0415
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


async def _awaited(job: Callable[["Host"], Awaitable[T]], host: "Host") -> T:
    return await job(host)


def plain(found: Any) -> Any:
    """A result as JSON has it, with the API's names."""
    import msgspec  # noqa: PLC0415

    return msgspec.to_builtins(found)


def guest_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of guests that begin with `incomplete`.

    There are none when the host can't be reached: an error or a question would disturb the shell's line.
    """
    import asyncio  # noqa: PLC0415  # only who presses Tab waits for it

    async def names(host: "Host") -> list[str]:
        async with asyncio.timeout(COMPLETES_WITHIN):
            return [guest.name for guest in await host.guests()]

    try:
        found = on_host(context, names, ask=False)
    except (GuestwireError, TimeoutError):
        return []
    return [name for name in found if name.startswith(incomplete)]


def guest_and_path(text: str) -> tuple[str, str]:
    """The two sides of `GUEST:PATH`.

    Raises:
        BadParameter: one of them is missing.
    """
    guest, _, path = text.partition(":")
    if not guest or not path:
        example = f"GUEST:{guest}" if guest.startswith("/") else f"{guest or 'GUEST'}:/etc"
        raise click.BadParameter(f"'{text}' is not GUEST:PATH, for example {example}.")
    return guest, path


guest_argument = click.argument("guest", metavar="GUEST", help="A VM's name or id.", shell_complete=guest_names)
path_argument = click.argument(
    "path", metavar="GUEST:PATH", help="A VM's name or id, and a path in it.", shell_complete=guest_names
)
