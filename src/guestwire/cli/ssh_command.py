"""`guestwire ssh`: OpenSSH into a guest without a network, by its agent, with the guest's own users, keys and host keys."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from guestwire.addresses import HybridVsockAddress, UnixAddress, parse_agent_address
from guestwire.cli.connecting import given_settings, guest_names, on_guest
from guestwire.cli.host_keys import SUFFIX, ssh_name, write_known_hosts
from guestwire.cli.output import examples, note
from guestwire.cli.ssh_keys import public_keys_in
from guestwire.errors import GuestwireError, RequestError

if TYPE_CHECKING:
    from guestwire.client import Guest

REMOVED_WITHIN: Final = 20.0
"""Seconds for taking a pushed key away again, in which no signal ends this."""


_THIS_GUESTWIRE: Final = (sys.executable, "-P", "-m", "guestwire")


class NoOpenSsh(GuestwireError):
    """This machine has no OpenSSH client."""

    exit_code = 78


@click.command(
    "ssh",
    epilog=examples(
        "guestwire ssh root@web",
        "guestwire ssh web -L 8080:localhost:80",
        "guestwire ssh --push-key root@web uptime",
        "guestwire ssh --config >> ~/.ssh/config",
    ),
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
@click.option("--config", help="Show the lines that make `ssh WEB.guest` work, for ~/.ssh/config.", is_flag=True)
@click.option("--push-key", help="Let your public key log in, as long as this takes.", is_flag=True)
@click.argument("guest", metavar="[USER@]GUEST", help="A VM's name or id.", required=False, shell_complete=guest_names)
@click.argument("arguments", metavar="[ARGUMENT OF SSH]...", help="Options of ssh, and a command.", nargs=-1)
@click.pass_context
def ssh(context: click.Context, guest: str | None, arguments: tuple[str, ...], *, config: bool, push_key: bool) -> None:
    """Log in to a guest's own SSH server, which needs no network.

    Its host keys are read through the agent: there is no question of trust. Ends with ssh's exit code.
    """
    if config:
        print(config_lines(context), end="")
        if os.environ.get("GUESTWIRE_TOKEN") or os.environ.get("GUESTWIRE_PASSWORD"):
            note(
                "guestwire: secrets of the environment are not in these lines: a token's file (--token-file) is better"
            )
        return
    if not guest:
        raise click.UsageError("a guest is missing, as in `guestwire ssh root@web`.")
    if not (program := shutil.which("ssh")):
        raise NoOpenSsh("OpenSSH's client is missing on this machine; install it (Debian: openssh-client)")
    user, at, name = guest.rpartition("@")
    with _signals_undo(), tempfile.TemporaryDirectory(prefix="guestwire-ssh-") as folder:
        known_hosts = Path(folder) / "known_hosts"
        line = [program, *_options(context, name, known_hosts), f"{user}{at}{ssh_name(name)}", *arguments]
        login, key = _login_and_key(line) if push_key else ("", "")

        async def prepare(one: "Guest") -> bool:
            await write_known_hosts(one, ssh_name(name), known_hosts)
            return bool(key) and not await _has_key(one, login, key)

        # Before ssh: what is wrong with the guest is one sentence, and not ssh's.
        is_new = on_guest(context, name, prepare)
        try:
            if is_new:
                try:
                    on_guest(context, name, lambda one: one.ssh_add_authorized_keys(login, [key]))
                except GuestwireError:
                    is_new = False
                    raise
            code = _run(line)
        finally:
            if is_new:
                _take_key_away(context, name, login, key)
    raise click.exceptions.Exit(code)


def config_lines(context: click.Context) -> str:
    """The lines for `~/.ssh/config`, which lead every name that ends in `.guest` to the guest of that name."""
    # A file a guest, and no `~`: the shell and ssh may not agree on whose home it is.
    folder = str(_cache_folder() / "ssh")
    program = ("guestwire",) if shutil.which("guestwire") else _THIS_GUESTWIRE
    proxy = shlex.join([*program, *_lasting_options(context), "proxy", "--sshd", "--known-hosts", folder])
    # ssh itself puts the name in the place of %n, and a shell reads what comes out. Today's ssh refuses a name with a
    # character that means something there; before 9.6 (CVE-2023-51385) it took any, and a link in a git repository was
    # enough to run a command. In single quotes only a quote could, and names with one are left to other lines.
    return (
        f'Host *{SUFFIX} "!*\'*"\n'
        f"    ProxyCommand {proxy.replace('%', '%%')} -- '%n'\n"
        f'    UserKnownHostsFile "{folder.replace("%", "%%")}/%n"\n'
        "    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n"
        "    UpdateHostKeys no\n"
        "    CheckHostIP no\n"
    )


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guestwire"


def _options(context: click.Context, name: str, known_hosts: Path) -> list[str]:
    """Options of ssh that lead to the guest."""
    proxy = [*_THIS_GUESTWIRE, *_lasting_options(context), "proxy", "--sshd", "--", name]
    options = {
        "ProxyCommand": shlex.join(proxy).replace("%", "%%"),
        "HostKeyAlias": ssh_name(name),
        "UserKnownHostsFile": f'"{known_hosts}"'.replace("%", "%%"),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
    }
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def _lasting_options(context: click.Context) -> list[str]:
    """The options before the command, for another `guestwire`, which ssh may start in another folder and environment.

    So paths are whole, and what the environment names is among them, except for secrets.
    """
    from guestwire.client.settings import DEFAULT_PROFILE, ENVIRONMENT, settings_for  # noqa: PLC0415  # as above

    given = given_settings(context)
    profile = context.find_root().params.get("profile")
    settings = settings_for(given, profile=profile)
    if settings.host and not (profile or given["host"] or os.environ.get(ENVIRONMENT["host"])):
        profile = os.environ.get("GUESTWIRE_PROFILE") or DEFAULT_PROFILE
    options = {
        "profile": profile,
        "host": settings.host and _whole_target(settings.host),
        "token-file": settings.token_file and not settings.token and _whole_path(settings.token_file),
        "ca": settings.ca and _whole_path(settings.ca),
        "fingerprint": settings.fingerprint,
    }
    found = [word for name, value in options.items() if value for word in (f"--{name}", str(value))]
    return found if settings.verify else [*found, "--insecure"]


def _whole_target(host: str) -> str:
    match parse_agent_address(host):
        case UnixAddress(path, qmp):
            return str(UnixAddress(path.absolute(), qmp and qmp.absolute()))
        case HybridVsockAddress(path, port):
            return str(HybridVsockAddress(path.absolute(), port))
    return host


def _whole_path(text: str) -> str:
    from guestwire.client.settings import expand_home  # noqa: PLC0415  # as above

    return str(expand_home(text).absolute())


async def _has_key(guest: "Guest", user: str, key: str) -> bool:
    """True if this key may log in already."""
    from guestwire.client.errors import CallFailed, is_no_such_file  # noqa: PLC0415  # `--help` must not wait for the client

    try:
        known = (await guest.ssh_get_authorized_keys(user)).keys
    except CallFailed as error:
        if not is_no_such_file(error):
            raise
        return False
    return any(key.split()[1] in one.split() for one in known)


def _take_key_away(context: click.Context, name: str, user: str, key: str) -> None:
    """Ctrl-C and the like wait meanwhile: the key would stay."""
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it

    waiting = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = {number: signal.signal(number, signal.SIG_IGN) for number in waiting}

    async def remove(one: "Guest") -> None:
        async with asyncio.timeout(REMOVED_WITHIN):
            await one.ssh_remove_authorized_keys(user, [key])

    try:
        on_guest(context, name, remove)
    except (GuestwireError, TimeoutError) as error:
        note(f"guestwire: your key is still in the guest; `guestwire ssh-key remove` takes it away: {error}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _login_and_key(line: Sequence[str]) -> tuple[str, str]:
    """Who logs in with this command line, and the public half of the key that ssh will offer."""
    settings = _settings(line)
    return settings["user"][0], _public_key(settings["identityfile"])


def _settings(line: Sequence[str]) -> dict[str, list[str]]:
    """What ssh makes of its command line and its configuration: values by the names of options.

    Raises:
        RequestError: it understands neither.
    """
    found = subprocess.run([line[0], "-G", *line[1:]], capture_output=True, text=True, check=False)
    if found.returncode:
        raise RequestError(f"ssh does not understand this: {found.stderr.strip()}")
    settings: dict[str, list[str]] = {}
    for name, _, value in (text.partition(" ") for text in found.stdout.splitlines()):
        settings.setdefault(name, []).append(value)
    return settings


def _public_key(identities: Sequence[str]) -> str:
    """The public half of the first key of ours that is there."""
    for identity in identities:
        path = Path(f"{identity}.pub").expanduser()
        if path.exists():
            return public_keys_in(str(path))[0]
    raise RequestError("there is no public key to push: `ssh-keygen` makes one, and `-i FILE` after the guest names it")


def _run(line: Sequence[str]) -> int:
    """Runs ssh to its end; gives its exit code. Ctrl-C is the terminal's, and reaches ssh by itself."""
    process = subprocess.Popen(line)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _signals_undo() -> Iterator[None]:
    """Makes signals that end us an exception, so that what was done for ssh is undone."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
