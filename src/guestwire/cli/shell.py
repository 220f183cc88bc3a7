"""`guestwire shell`: a login shell at this terminal; or where there is none, a line at a time.

Each of these lines runs in a shell of its own, which gets the directory and the environment that the one before left behind.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from guestwire.cli.connecting import Connection, connected, guest_argument
from guestwire.cli.output import examples, json_option, note, to_json, visible
from guestwire.cli.watched import LeftRunning, Watched, exit_code, fields, pass_on
from guestwire.errors import GuestwireError

if TYPE_CHECKING:
    from guestwire.client import CompletedProcess, Guest, Host

SCRIPT: Final = r"""
trap 'code=$?; printf "\n%s %s %s\0" MARK exit "$PWD"; export -p; exit "$code"' EXIT
eval "$2"
cd -- "$1" || exit
command eval "$3"
code=$?
trap 'printf "\n%s %s %s\0" MARK next "$PWD"; export -p; exit "$code"' EXIT
exit "$code"
"""
"""$1: directory; $2: environment, as `export -p` wrote it; $3: the line.

When the line exits, the first trap is still in place.
"""


LOGIN: Final = r"""
IFS=: read -r USER _ _ _ _ HOME SHELL <<END
$(getent passwd "$(id -un)" 2>/dev/null || grep "^$(id -un):" /etc/passwd || echo root:::::/:/bin/sh)
END
export USER HOME SHELL LOGNAME="$USER"
cd
exec "${SHELL:-/bin/sh}" -l
"""
"""The shell of the user it runs as, as after a login."""


class Unusable(GuestwireError):
    """The guest has no such shell."""

    exit_code = 3


@click.command("shell", epilog=examples("guestwire shell web", "echo 'cd /srv; ls' | guestwire shell web"))
@guest_argument
@click.option("--user", "-u", metavar="NAME", help="The guest's user; default: the agent's own, mostly root.")
@click.option("--lines", help="Run lines one at a time, without a terminal.", is_flag=True)
@json_option
@click.pass_context
def shell(context: click.Context, guest: str, *, user: str | None, lines: bool, json: bool) -> None:
    """Open a shell in a guest, at this terminal.

    ~. at the beginning of a line leaves it, and ends it. Piped in, with --lines or --json, or where the guest can have no
    terminal, lines run in its /bin/sh one at a time: the directory and exported variables are kept, a line's output comes when it
    has ended, the first Ctrl-C is passed on to what runs, the second leaves it running.
    """
    is_here = sys.stdin.isatty() and sys.stdout.isatty() and not (lines or json)
    if user and not is_here:
        raise click.UsageError("--user is for a shell at a terminal; lines run as the agent's own user.")
    with connected(context) as connection:
        found = connection.run(lambda host: _usable(host, guest))
        if is_here and (code := connection.run(lambda _: _at_terminal(found, user))) is not None:
            raise click.exceptions.Exit(code)
        raise click.exceptions.Exit(_Session(connection, found, guest, as_json=json).talk())


async def _at_terminal(guest: "Guest", user: str | None) -> int | None:
    """The exit code of a login shell; None where the guest can't have a terminal."""
    from guestwire.cli.live import Program, run_live  # noqa: PLC0415  # `--help` must not wait for it
    from guestwire.client.errors import NoStream  # noqa: PLC0415  # as above

    try:
        return await run_live(guest, Program(["/bin/sh", "-c", LOGIN], tty=True, user=user))
    except NoStream as error:
        if user:
            raise
        note(f"guestwire: {error.message}")
        return None


async def _usable(host: "Host", name: str) -> "Guest":
    found = await host.guest(name)
    if await found.is_windows():
        raise Unusable(f"{found.context}: it has no /bin/sh; on Windows: guestwire exec {name} -- cmd /c COMMAND")
    return found


class _Session:
    def __init__(self, connection: Connection, guest: "Guest", name: str, *, as_json: bool) -> None:
        self._connection = connection
        self._guest = guest
        self._name = visible(name)
        self._as_json = as_json
        self._directory, self._environment = "/", ""
        self._code = 0

    def talk(self) -> int:
        """Runs lines until there are no more, or one exits; the last one's exit code."""
        for line in self._lines():
            if line.strip() and not self._goes_on(line):
                break
        return self._code

    def _lines(self) -> Iterator[str]:
        if not sys.stdin.isatty():
            yield from sys.stdin
            return
        import readline  # noqa: F401, PLC0415  # makes input() one that can be edited

        note(
            f"{self._name}: no terminal, but a line at a time; directory and exported variables are kept. Ctrl-D ends."
        )
        while True:
            try:
                yield input(f"{self._name}:{visible(self._directory)}$ ")
            except KeyboardInterrupt:
                print()
            except EOFError:
                print()
                return

    def _goes_on(self, line: str) -> bool:
        mark = os.urandom(16).hex()
        argv = ["/bin/sh", "-c", SCRIPT.replace("MARK", mark), "sh", self._directory, self._environment, line]
        try:
            ended = self._connection.run(lambda _: Watched().run(self._guest, argv))
        except (LeftRunning, KeyboardInterrupt) as error:
            note(f"guestwire: {error}" if isinstance(error, LeftRunning) else "interrupted; nothing was run")
            self._code = LeftRunning.exit_code
            return sys.stdin.isatty()
        return self._ended(ended, mark)

    def _ended(self, ended: "CompletedProcess", mark: str) -> bool:
        output, found, left = ended.stdout.rpartition(f"\n{mark} ".encode())
        shown = replace(ended, stdout=output) if found else ended
        if self._as_json:
            print(to_json(fields(shown)), flush=True)
        else:
            pass_on(shown)
        self._code = exit_code(ended)
        if not found:
            note(
                f"guestwire: {self._guest.context}: the line left no word of its directory and variables; they are as before it"
            )
            return True
        how, _, state = left.decode("utf-8", "surrogateescape").partition(" ")
        self._directory, _, self._environment = state.partition("\0")
        return how == "next"
