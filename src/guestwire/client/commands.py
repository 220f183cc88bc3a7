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
    line = _with_environment(wish.argv, wish.env) if wish.env else list(wish.argv)
    if not any((wish.cwd, wish.stdin, wish.stdout, wish.stderr)):
        return line
    places = (folder(wish.cwd) if wish.cwd else None, wish.stdin, wish.stdout, wish.stderr)
    return [SHELL, "-c", _UNIX_SCRIPT, "sh", *(place or "" for place in places), *line]


def _with_environment(argv: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """`env` takes a program's name with an equals sign for one more variable: a shell starts such a one."""
    program = [SHELL, "-c", 'exec "$@"', "sh", *argv] if "=" in argv[0] else argv
    return [ENV, "--", *(f"{name}={value}" for name, value in env.items()), *program]


def folder(path: str) -> str:
    """A folder as `cd` takes it: `-` is another one for it, and what does not begin with a slash or a dot is looked for in CDPATH."""
    return path if path.startswith("/") else f"./{path}"


_WINDOWS_SCRIPT: Final = """\
$i = New-Object Diagnostics.ProcessStartInfo
$i.FileName, $i.Arguments, $i.WorkingDirectory = $a[0..2]
$i.UseShellExecute = $false
$places = $a[3..5]
$i.RedirectStandardInput, $i.RedirectStandardOutput, $i.RedirectStandardError = $places | % { $_ -ne '' }
for ($n = 6; $n -lt $a.Length; $n += 2) { $i.EnvironmentVariables[$a[$n]] = $a[$n + 1] }
$in, $out, $err = $places[0], $places[1], $places[2]
$files = @()
if ($in) { $files += ($from = [IO.File]::OpenRead($in)) }
if ($out) { $files += ($to = [IO.File]::Create($out)) }
if ($err) { $files += ($errTo = [IO.File]::Create($err)) }
$p = [Diagnostics.Process]::Start($i)
$copying = @()
if ($out) { $copying += $p.StandardOutput.BaseStream.CopyToAsync($to) }
if ($err) { $copying += $p.StandardError.BaseStream.CopyToAsync($errTo) }
if ($in) {
  # A program may end before it has read all.
  try { $from.CopyTo($p.StandardInput.BaseStream); $p.StandardInput.BaseStream.Close() } catch [IO.IOException] { }
}
$p.WaitForExit()
$copying | % { $_.Wait() }
$files | % { $_.Close() }
$code = $p.ExitCode
"""
"""Arguments: program, its arguments as one text, directory; files for standard input, output and error; names and values of variables."""


def windows_command(wish: Wish) -> list[str]:
    """The arguments to give to the agent of a Windows guest.

    PowerShell passes quotes and empty arguments on wrongly: the program is started by .NET, with its command line made here. A batch file
    reads its arguments by rules of its own, which no quoting satisfies: give `cmd /c` and one line instead.
    """
    if wish.is_plain and not needs_ascii(wish.argv):
        return list(wish.argv)
    program, *arguments = wish.argv
    places = (wish.cwd, wish.stdin, wish.stdout, wish.stderr)
    variables = (word for variable in wish.env.items() for word in variable)
    line = windows_line(arguments)
    return powershell(_WINDOWS_SCRIPT, program, line, *(place or "" for place in places), *variables, failing=126)


def windows_line(arguments: Sequence[str]) -> str:
    """Arguments as one text, which Windows programs take apart again by the rules of Microsoft's C runtime."""
    from subprocess import list2cmdline  # noqa: PLC0415  # Python's own, and few guests are Windows

    return list2cmdline(arguments)


_POWERSHELL: Final = """\
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$a = @(ARGUMENTS)
$code = 0
function Send($stream, $text) { $b = [Text.Encoding]::UTF8.GetBytes($text); $stream.Write($b, 0, $b.Length); $stream.Flush() }
try {
SCRIPT} catch {
  Send ([Console]::OpenStandardError()) ($_.Exception.GetBaseException().Message + "`n")
  $code = FAILING
}
exit $code
"""


def powershell(script: str, *arguments: str, failing: int = 1) -> list[str]:
    """Runs a script in a Windows guest, which has the arguments in `$a`; sent encoded, so that nothing is quoted twice.

    What it sends with `Send ([Console]::OpenStandardOutput()) TEXT` arrives as UTF-8, whatever code page the guest has. An error ends it with
    exit code `failing`.
    """
    given = ", ".join(map(_powershell_text, arguments))
    whole = _POWERSHELL.replace("FAILING", str(failing)).replace("SCRIPT", script).replace("ARGUMENTS", given)
    encoded = base64.b64encode(whole.encode("utf-16-le", "surrogatepass")).decode()
    # Without -InputFormat None it would read the standard input that is meant for the script.
    return [
        POWERSHELL, "-NoProfile", "-NonInteractive", "-InputFormat", "None", "-OutputFormat", "Text", "-EncodedCommand", encoded,
    ]  # fmt: skip


_QUOTES: Final = {ord(quote): quote * 2 for quote in "'\u2018\u2019\u201a\u201b"}
"""PowerShell takes all of them for an end of a text; two are one that is meant."""


def _powershell_text(text: str) -> str:
    return f"'{text.translate(_QUOTES)}'"


def needs_ascii(argv: Sequence[str]) -> bool:
    """Whether Proxmox VE would break these arguments."""
    return any(argument and max(argument) > HIGHEST_ON_PROXMOX for argument in argv)


def is_no_text(text: str) -> bool:
    """Whether there are bytes in it that are not UTF-8 (surrogateescape): no API can carry them."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def as_ascii(argv: Sequence[str]) -> list[str]:
    """The same command line for a Unix guest, in ASCII: a shell makes the bytes again."""
    lines = []
    for number, argument in enumerate(argv, 1):
        octal = "".join(f"\\{byte:03o}" for byte in argument.encode("utf-8", "surrogateescape"))
        lines.append(f"a{number}=$(printf '{octal}x')")
    words = " ".join(f'"${{a{number}%x}}"' for number in range(1, len(argv) + 1))
    return [SHELL, "-c", "; ".join([*lines, f"exec {words}"])]
