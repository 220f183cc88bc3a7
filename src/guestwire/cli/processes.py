"""`guestwire exec`, `status` and `cat`: bytes that come from a guest, passed on unchanged."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.connecting import guest_and_path, guest_argument, on_guest, path_argument, plain
from guestwire.cli.output import examples, json_option, note, to_json
from guestwire.cli.terminal import write_whole, writer
from guestwire.cli.units import Seconds
from guestwire.cli.watched import Watched, exit_code, fields, pass_on

if TYPE_CHECKING:
    from guestwire.client import Guest

SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "fish"})

EXIT_CODES: Final = """\
\b
Exit codes:
  0    done
  1    any other error
  2    wrong use, or the host refuses a parameter; nothing was done
  3    the guest or its agent can't do it: stopped, not running, an error of its own
  4    no such guest
  5    authentication: no credentials, or bad ones
  6    a privilege is missing
  7    a freeze was lost, or could not be ended
  69   the host can't be reached, or its certificate is not trusted
  74   a file of this machine can't be used, what was copied is not what arrived, or an output was cut off
  78   configuration: no host, a profile or a file that can't be used
  124  the time is up
  130  Ctrl-C
exec and shell end with the program's own exit code, or with 128 + N after signal N. With --json, and where there is no
stream, as in Windows, 74 stands for 0 where more than 16 MiB of output came: the guest's agent keeps the beginning."""

pid_argument = click.argument("pid", metavar="PID", help="The process id that `exec --detach` shows.", type=int)


@click.command(
    "exec",
    epilog=examples(
        "guestwire exec web -- systemctl restart nginx",
        "guestwire exec web -- tail -f /var/log/syslog",
        "guestwire exec -t web -- top",
        "guestwire exec -i web -- tar -xC /srv < site.tar",
        "guestwire exec -e LANG=C -w /srv --timeout 60 web -- make",
    )
    + f"\n\n{EXIT_CODES}",
    context_settings={"allow_interspersed_args": False},
)
@guest_argument
@click.argument(
    "argv", metavar="-- ARGV...", help="The program and its arguments; no shell reads them.", nargs=-1, required=True
)
@click.option("--tty", "-t", help="Give it a terminal: this one. ~. at a line's beginning leaves it.", is_flag=True)
@click.option("--stdin", "-i", help="Pass standard input on while it runs.", is_flag=True)
@click.option(
    "--env", "-e", metavar="K=V", help="Set an environment variable. Can be given several times.", multiple=True
)
@click.option("--cwd", "-w", metavar="DIR", help="The program's working directory.")
@click.option("--user", "-u", metavar="NAME", help="The guest's user it runs as.")
@click.option(
    "--timeout",
    metavar="S",
    help="Seconds to wait for the end; the program runs on after them, but not on a terminal.",
    type=Seconds(),
)
@click.option("--detach", help="Show the process id, and do not wait.", is_flag=True)
@json_option
@click.pass_context
def execute(
    context: click.Context,
    guest: str,
    argv: tuple[str, ...],
    *,
    tty: bool,
    stdin: bool,
    env: tuple[str, ...],
    cwd: str | None,
    user: str | None,
    timeout: float | None,
    detach: bool,
    json: bool,
) -> None:
    """Run a program, and end with its exit code.

    Its outputs come byte for byte as it writes them. Without a terminal, the first Ctrl-C is passed on to the program, the
    second leaves it running. When this command ends otherwise, the program ends with it.
    """
    line = _line(argv)
    is_shell = len(line) == 1 and line[0].rpartition("/")[2] in SHELLS
    if is_shell and not (tty or stdin or detach) and sys.stdin.isatty():
        raise click.UsageError(f"{line[0]} would get no input: -t gives it a terminal, -i what is piped here.")
    if (json or detach) and (tty or user):
        raise click.UsageError("--json and --detach go with neither --tty nor --user: a terminal shows what comes.")
    variables = _environment(env)
    if not (detach or json):
        from guestwire.cli.live import Program, run_live  # noqa: PLC0415  # `--help` must not wait for it

        program = Program(line, tty, stdin, variables, cwd, user, timeout)

        async def run(found: "Guest") -> int:
            from guestwire.client.errors import NoStream  # noqa: PLC0415  # as above

            try:
                return await run_live(found, program)
            except NoStream:
                if tty or user:
                    raise
            import asyncio  # noqa: PLC0415  # as above

            given = await asyncio.to_thread(sys.stdin.buffer.read) if stdin else None
            ended = await Watched().run(found, line, timeout=timeout, input=given, env=variables, cwd=cwd)
            pass_on(ended)
            return exit_code(ended)

        raise click.exceptions.Exit(on_guest(context, guest, run))
    options: dict[str, Any] = {"input": sys.stdin.buffer.read() if stdin else None, "env": variables, "cwd": cwd}
    if detach:
        pid = on_guest(context, guest, lambda found: found.processes.start(line, **options))
        print(to_json({"pid": pid}) if json else pid)
        return
    ended = on_guest(context, guest, lambda found: Watched().run(found, line, timeout=timeout, **options))
    print(to_json(fields(ended), indent=2))
    raise click.exceptions.Exit(exit_code(ended))


def _line(argv: Sequence[str]) -> list[str]:
    """The program and its arguments, which stand behind `--` where that is given."""
    line = list(argv[1:] if argv[0] == "--" else argv)
    if not line:
        raise click.BadParameter("there is no program to run behind '--'.")
    if argv[0] != "--" and argv[0].startswith("-"):
        raise click.BadParameter(f"options stand before GUEST; a program named '{argv[0]}' stands behind '--'.")
    return line


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair.removeprefix("="):
            raise click.BadParameter(f"'{pair}' is not K=V.")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


@click.command("status", epilog=examples("guestwire status web 4711"))
@guest_argument
@pid_argument
@json_option
@click.pass_context
def status(context: click.Context, guest: str, pid: int, *, json: bool) -> None:
    """Show how a process ended, and what it wrote.

    Both outputs come byte for byte when it has ended; standard error says how it ended.
    """
    state = on_guest(context, guest, lambda found: found.processes.status(pid))
    if json:
        print(to_json(plain(state), indent=2))
        return
    write_whole(sys.stdout, (state.out_data or "").encode("latin-1"))
    write_whole(sys.stderr, (state.err_data or "").encode("latin-1"))
    how = f"exit code {state.exitcode}" if state.signal is None else f"signal {state.signal}"
    note(f"process {pid}: {f'ended with {how}' if state.exited else 'still runs'}")


@click.command("cat", epilog=examples("guestwire cat web:/etc/hostname", "guestwire cat web:/boot/vmlinuz > vmlinuz"))
@path_argument
@json_option
@click.pass_context
def cat(context: click.Context, path: str, *, json: bool) -> None:
    """Write a guest's file to standard output."""
    name, file = guest_and_path(path)
    if json:
        data = on_guest(context, name, lambda guest: guest.files.read(file))
        print(to_json({"content": data.decode("latin-1"), "bytes-read": len(data)}))
    else:
        on_guest(context, name, lambda guest: _piece_by_piece(guest, file))


async def _piece_by_piece(guest: "Guest", file: str) -> None:
    write = writer(sys.stdout)
    async for piece in guest.files.stream(file):
        write(piece)
    write(b"")
