"""`guestwire`, the command: all commands below their headings.

Each is loaded when it is wanted, as click's documentation shows it for lazy groups.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TextIO

import click
from click.exceptions import NoArgsIsHelpError

from guestwire.cli.completion import NAME, VARIABLE
from guestwire.cli.extras import extra_missing
from guestwire.cli.output import Group, examples, note
from guestwire.cli.view_names import VIEWS
from guestwire.errors import INTERRUPTED, GuestwireError, InvalidParameters

if TYPE_CHECKING:
    from guestwire.contract import Endpoint

WITHOUT_HOST: Final = frozenset({"api", "serve", "access", "audit", "completion"})
"""The commands that need no host: what says which one helps none of them."""

LOCAL_FAULT: Final = 74
"""The exit code for a fault of files and streams of this machine."""

COMMANDS: Final[Mapping[str, Mapping[str, str]]] = {
    "Look at guests": {
        "ls": "guests.ls",
        "df": "disks.df",
        "load": "load.load",
        "memory": "plugging.memory",
        "routes": "load.routes",
        "vcpus": "plugging.vcpus",
        "doctor": "doctor.doctor",
        "agent": "agent_command.agent",
        "metrics": "metrics_command.metrics",
        "watch": "watch_command.watch",
    },
    "Work in a guest": {
        "exec": "processes.execute",
        "status": "processes.status",
        "shell": "shell.shell",
        "ssh": "ssh_command.ssh",
        "logs": "logs_command.logs",
        "proxy": "proxy_command.proxy",
        "forward": "proxy_command.forward",
        "cat": "processes.cat",
        "cp": "copying.copy",
        "edit": "copying.edit",
    },
    "Change a guest": {
        "freeze": "power.freeze",
        "thaw": "power.thaw",
        "trim": "power.trim",
        "passwd": "power.passwd",
        "ssh-key": "ssh_keys.ssh_key",
        "set-time": "power.set_time",
        "power": "power.power",
        "shutdown": "power.shutdown",
        "reboot": "power.reboot",
        "halt": "power.halt",
        "suspend": "power.suspend",
        "wait": "power.wait",
        "channel": "channel_command.channel",
    },
    "API and service": {
        "api": "raw_calls.api",
        "raw": "raw_calls.raw",
        "mcp": "mcp_command.mcp",
        "serve": "serve_command.serve",
        "access": "access_command.access",
        "audit": "audit_command.audit",
        "completion": "completion.completion",
    },
}
"""The commands written by hand: below each heading of the help, the name with its module and function.

The views of endpoints come on top; their records say below which heading. A command here of the same name can more
than the view.
"""

SELDOM: Final = frozenset(
    {
        "channel", "cpustats", "diskstats", "drivers", "forward", "freeze-status", "halt", "hostname", "load", "memory", "metrics",
        "proxy", "routes", "set-time", "status", "suspend", "time", "timezone", "users", "vcpus", "vm",
    }
)  # fmt: skip
"""Those that the help of all commands only names, so that it stays one page."""

PLACES: Final = {name: place for commands in COMMANDS.values() for name, place in commands.items()}


class LazyGroup(Group):
    """All commands."""

    seldom = SELDOM

    def sections(self, context: click.Context) -> Mapping[str, list[str]]:  # noqa: ARG002  # the same in every context
        """The headings, and the commands below each: the first one, then the views, then the others."""
        found = {}
        for heading, (first, *others) in COMMANDS.items():
            views = [name for name, (section, _) in VIEWS.items() if section == heading]
            found[heading] = [first, *views, *(name for name in others if name not in views)]
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the help."""
        return [name for names in self.sections(ctx).values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, loaded; None: there is none."""
        if cmd_name not in self.commands:
            if cmd_name in PLACES:
                module, function = PLACES[cmd_name].split(".")
                self.add_command(getattr(import_module(f"guestwire.cli.{module}"), function))
            elif cmd_name in VIEWS:
                from guestwire.cli.views import ViewCommand  # noqa: PLC0415  # as all others, when it is wanted

                self.add_command(ViewCommand(cmd_name, VIEWS[cmd_name][1], lambda: _viewed(cmd_name)))
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. Only here is known which command it is that lacks a package.

        Raises:
            ExtraMissing: the command needs an extra that is not installed.
        """
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if missing := extra_missing(str(ctx.invoked_subcommand), error):
                raise missing from error
            raise


def _viewed(name: str) -> "Endpoint":
    from guestwire.contract.guest_registry import CLIENT_ENDPOINTS  # noqa: PLC0415  # `--help` must not wait for it

    return next(endpoint for endpoint in CLIENT_ENDPOINTS if endpoint.command and endpoint.command.name == name)


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  # click's callback
    if wanted and not context.resilient_parsing:
        from guestwire import __version__  # noqa: PLC0415  # it is read from metadata, whose modules are slow to load

        print(f"guestwire {__version__}")
        context.exit()


@click.group(
    NAME,
    cls=LazyGroup,
    no_args_is_help=True,
    epilog=examples("guestwire --host unix:/run/vm/100.qga exec web -- uname -a")
    + "\n`guestwire exec --help` lists the exit codes.",
    context_settings={"show_default": True},
)
@click.option("--host", metavar="TARGET", help="https://HOST:8006, or unix:/PATH/TO.qga of one guest.")
@click.option("--profile", metavar="NAME", help="A table of the configuration file.")
@click.option("--token-file", metavar="F", help="A file with an API token.")
@click.option("--ca", metavar="F", help="The CA that signed the host's certificate.")
@click.option("--fingerprint", metavar="F", help="The SHA-256 fingerprint of the host's certificate.")
@click.option(
    "--insecure",
    is_flag=True,
    help="Accept any certificate (insecure: a man in the middle can read and change everything).",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def guestwire(**_options: object) -> None:
    """Reach inside QEMU virtual machines through their guest agents. Variables such as GUESTWIRE_HOST, or a profile, can stand for the options."""
    # `connecting.find_settings` reads the options where a host is wanted.


def run() -> None:
    """Runs the command; an error is one line and the exit code of its kind."""
    try:
        code = guestwire.main(prog_name=NAME, complete_var=VARIABLE, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except GuestwireError as error:
        _fail(_one_line(error), error.exit_code)
    except NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(_usage(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does.
        _forget(sys.stdout)
        sys.exit(1)
    except OSError as error:
        _forget(sys.stdout)
        where = f"{error.filename}: " if error.filename else ""
        why = "standard output is closed" if error.errno == errno.EBADF else error.strerror or error
        _fail(f"{where}{why}; check files and standard streams on this machine", LOCAL_FAULT)


def _forget(stream: TextIO) -> None:
    """Python would complain once more when it flushes at the end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(text: str, code: int) -> None:
    try:
        if text:
            note(f"{NAME}: {text}")
        sys.stderr.flush()
    except OSError:  # standard error is full or closed: the exit code has to do
        _forget(sys.stderr)
    sys.exit(code)


def _one_line(error: GuestwireError) -> str:
    if isinstance(error, InvalidParameters):
        names: dict[str, list[str]] = {}
        for name, text in error.errors.items():
            names.setdefault(text.strip(), []).append(name)
        return "; ".join(f"{', '.join(wrong)}: {text}" for text, wrong in names.items())
    return str(error)


def _usage(error: click.ClickException) -> str:
    """The mistake in the words of a command, and the help that has the right ones."""
    context = getattr(error, "ctx", None)
    text = _misplaced(error, context) or " ".join(error.format_message().split())
    text = text.replace("not a valid float range", "not a number").replace("valid integer range", "valid integer")
    text += "." if text and not text.endswith((".", "?")) else ""
    return f"{text} See '{context.command_path if context else NAME} --help'." if text else ""


def _misplaced(error: click.ClickException, context: click.Context | None) -> str:
    """Where an option stands that is right, but not in this place; empty if it is wrong everywhere."""
    if not isinstance(error, click.NoSuchOption) or not context:
        return ""
    option = error.option_name
    if not context.parent:
        return "--json stands behind the command: guestwire ls --json" if option == "--json" else ""
    command = context.command_path.removeprefix(f"{NAME} ")
    if command.split()[0] not in WITHOUT_HOST and any(
        option in parameter.opts for parameter in guestwire.params if parameter.expose_value
    ):
        return f"{option} stands before the command: guestwire {option} … {command}"
    return ""
