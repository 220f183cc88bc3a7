"""Command lines for processes in a guest.

What the API can't pass (environment, directory, standard input from a file) is passed by a shell, with quoting that holds for every byte.
Proxmox VE breaks the agent's JSON with characters above U+00FF: for it a command line is made of ASCII alone (`as_ascii`).
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

SHELL: Final = "/bin/sh"
ENV: Final = "/usr/bin/env"
POWERSHELL: Final = "powershell.exe"

HIGHEST_ON_PROXMOX: Final = "\u00ff"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be run: `cwd` and `env` beside the arguments; `stdin`, `stdout` and `stderr` are paths in the guest."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    stdin: str | None = None
    stdout: str | None = None
    stderr: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the agent can run it without a shell."""
        return not self.env and not any((self.cwd, self.stdin, self.stdout, self.stderr))


_UNIX_SCRIPT: Final = """\
if [ -n "$1" ]; then cd -- "$1" || exit 126; fi
if [ -n "$2" ]; then exec < "$2" || exit 126; fi
if [ -n "$3" ]; then exec > "$3" || exit 126; fi
if [ -n "$4" ]; then exec 2> "$4" || exit 126; fi
shift 4
exec "$@"
"""


def unix_command(wish: Wish) -> list[str]:
    """The arguments to give to the agent of a Unix guest."""
    if wish.is_plain:
        return list(wish.argv)
    environment = [ENV, *(f"{name}={value}" for name, value in wish.env.items())] if wish.env else []
    if not any((wish.cwd, wish.stdin, wish.stdout, wish.stderr)):
        return [*environment, *wish.argv]
    places = (wish.cwd, wish.stdin, wish.stdout, wish.stderr)
    return [SHELL, "-c", _UNIX_SCRIPT, "sh", *(place or "" for place in places), *environment, *wish.argv]


def windows_command(wish: Wish) -> list[str]:
    """The arguments to give to the agent of a Windows guest: PowerShell with the whole script encoded, so that nothing is quoted twice."""
    if wish.is_plain:
        return list(wish.argv)
    lines = [f"$env:{name} = {_powershell(value)}" for name, value in wish.env.items()]
    if wish.cwd:
        lines.append(f"Set-Location -LiteralPath {_powershell(wish.cwd)} -ErrorAction Stop")
    call = "& " + " ".join(_powershell(argument) for argument in wish.argv)
    if wish.stdin:
        call = f"Get-Content -Raw -LiteralPath {_powershell(wish.stdin)} | {call}"
    if wish.stdout:
        call += f" > {_powershell(wish.stdout)}"
    if wish.stderr:
        call += f" 2> {_powershell(wish.stderr)}"
    script = "\n".join([*lines, call, "exit $LASTEXITCODE"])
    encoded = base64.b64encode(script.encode("utf-16-le")).decode()
    return [POWERSHELL, "-NoProfile", "-NonInteractive", "-EncodedCommand", encoded]


def _powershell(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def needs_ascii(argv: Sequence[str]) -> bool:
    """Whether Proxmox VE would break these arguments."""
    return any(argument and max(argument) > HIGHEST_ON_PROXMOX for argument in argv)


def as_ascii(argv: Sequence[str]) -> list[str]:
    """The same command line for a Unix guest, in ASCII: a shell makes the bytes again."""
    lines = []
    for number, argument in enumerate(argv, 1):
        octal = "".join(f"\\{byte:03o}" for byte in argument.encode("utf-8", "surrogateescape"))
        lines.append(f"a{number}=$(printf '{octal}x')")
    words = " ".join(f'"${{a{number}%x}}"' for number in range(1, len(argv) + 1))
    return [SHELL, "-c", "; ".join([*lines, f"exec {words}"])]
