"""What a guest's system does with files, as command lines: a Unix by its shell, Windows by PowerShell.

Above it: `files.py`, `folders.py` and `streams.py`, which run them. The Unix scripts use what POSIX has, and where it has nothing (modes and
times of a file, SHA-256) what is there: GNU's, busybox's or the BSDs' tools.
"""

import ntpath
import posixpath
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from guestwire.client.commands import SHELL, powershell

_windows_path = re.compile(r"[A-Za-z]:|\\\\")
_sha256 = re.compile(r"[0-9a-f]{64}")

Command = list[str]
"""The arguments to give to the agent."""

_FACTS: Final = """\
if stat -c %s . >/dev/null 2>&1; then facts() { stat -c "$1" -- "$3"; }; else facts() { stat -f "$2" -- "$3"; }; fi
"""
"""`facts GNU_FORMAT BSD_FORMAT FILE`. GNU's stat has an -f too, which means something else."""

_RENAME: Final = f"""\
{_FACTS}
if [ -d "$2" ]; then echo "$2: is a directory" >&2; exit 1; fi
if [ -n "$3" ]; then chmod "$3" "$1" || exit 1
elif [ -f "$2" ]; then
  chown "$(facts %u:%g %u:%g "$2")" "$1" 2>/dev/null
  chmod "$(facts %a %Mp%Lp "$2")" "$1" 2>/dev/null
fi
if [ -n "$4" ]; then TZ=UTC0 touch -t "$4" -- "$1"; fi
mv -f -- "$1" "$2"
"""

_DIGEST: Final = """\
for tool in sha256sum 'sha256 -q' 'shasum -a 256' 'openssl dgst -sha256 -r'; do
  command -v "${tool%% *}" >/dev/null 2>&1 && exec $tool <"$1"
done
echo 'no tool for SHA-256' >&2
exit 127
"""

# dd ends a file where it seeks to; not every system has truncate.
_CUT: Final = 'exec dd if=/dev/null of="$1" bs=1 seek="$2" 2>/dev/null'

_JOIN: Final = f"""\
if [ -e "$2" ]; then size=$(wc -c <"$2") || exit 1; else size=; fi
cat <"$1" >>"$2" && exec rm -f -- "$1"
if [ -n "$size" ]; then set -- "$2" "$((size))"; {_CUT.removeprefix("exec ")}; else rm -f -- "$2"; fi
exit 1
"""

_STAT: Final = f"""\
{_FACTS}
for f in "$@"; do
  if [ -L "$f" ]; then k=l; elif [ -f "$f" ]; then k=f; elif [ -d "$f" ]; then k=d; elif [ -e "$f" ]; then k=?; else continue; fi
  printf '%s %s %s\\0' "$k" "$(facts '%s %a %Y' '%z %Mp%Lp %m' "$f" 2>/dev/null || echo 0 644 0)" "$f"
done
"""
_LIST: Final = 'cd -- "$1" || exit 1; set -- .[!.]* ..?* *\n' + _STAT
_TREE: Final = 'cd -- "$1" || exit 1; find . -exec sh -c \'' + _STAT.replace("'", "'\\''") + "' sh {} +"


def _sh(script: str, *arguments: str) -> Command:
    return [SHELL, "-c", script, "sh", *arguments]


_WINDOWS_RENAME: Final = """\
if ([IO.Directory]::Exists($a[1])) { throw ($a[1] + ': is a directory') }
if ($a[2]) { [IO.File]::SetLastWriteTimeUtc($a[0], ([DateTime]'1970-01-01').AddSeconds([long]$a[2])) }
if ([IO.File]::Exists($a[1])) { [IO.File]::Replace($a[0], $a[1], [NullString]::Value) } else { [IO.File]::Move($a[0], $a[1]) }
"""

_WINDOWS_DIGEST: Final = """\
$f = [IO.File]::OpenRead($a[0])
try { $h = [Security.Cryptography.SHA256]::Create().ComputeHash($f) } finally { $f.Close() }
Send ([Console]::OpenStandardOutput()) (-join ($h | % { $_.ToString('x2') }))
"""

_WINDOWS_SIZE: Final = "Send ([Console]::OpenStandardOutput()) ([string](New-Object IO.FileInfo $a[0]).Length)\n"

_WINDOWS_APPEND: Final = """\
$f = [IO.File]::Open($a[0], 'Append')
try { [Console]::OpenStandardInput().CopyTo($f) } finally { $f.Close() }
"""

_WINDOWS_CUT: Final = """\
$f = [IO.File]::Open($a[0], 'Open')
try { $f.SetLength([long]$a[1]) } finally { $f.Close() }
"""

_WINDOWS_JOIN: Final = """\
$f = [IO.File]::Open($a[1], 'OpenOrCreate')
$size = $f.Seek(0, 'End')
try {
  $part = [IO.File]::OpenRead($a[0])
  try { $part.CopyTo($f) } catch { $f.SetLength($size); throw } finally { $part.Close() }
} finally { $f.Close() }
[IO.File]::Delete($a[0])
"""

_WINDOWS_REMOVE: Final = "if ([IO.File]::Exists($a[0])) { [IO.File]::Delete($a[0]) }\n"

_WINDOWS_MAKE: Final = "[void][IO.Directory]::CreateDirectory($a[0])\n"

_WINDOWS_LIST: Final = """\
$out = [Console]::OpenStandardOutput()
function Walk($folder, $above, $deep) {
  foreach ($i in $folder.GetFileSystemInfos()) {
    $is = $i.Attributes
    $k = if ($is -band [IO.FileAttributes]::ReparsePoint) { 'l' } elseif ($is -band [IO.FileAttributes]::Directory) { 'd' } else { 'f' }
    $s = if ($k -eq 'f') { $i.Length } else { 0 }
    $m = if ($k -eq 'd') { '755' } elseif ($is -band [IO.FileAttributes]::ReadOnly) { '444' } else { '644' }
    $t = [long][Math]::Floor(($i.LastWriteTimeUtc - [DateTime]'1970-01-01').TotalSeconds)
    Send $out ("$k $s $m $t $above" + $i.Name + "`0")
    if ($deep -and $k -eq 'd') { Walk $i ($above + $i.Name + '/') $deep }
  }
}
Walk (New-Object IO.DirectoryInfo $a[0]) '' ([bool]$a[1])
"""


@dataclass(frozen=True, slots=True)
class System:
    """Command lines for what is done with files.

    Attributes:
        split: a path's folder and its last name.
        join: a folder and what is below it.
        nothing: does nothing.
        append: adds standard input to a file; one that was not there is for its owner alone, where the guest is a Unix.
        cut: ends a file after so many bytes.
        size: says how many bytes a file has.
        digest: begins with a file's SHA-256; `digest_in` finds it.
        rename: puts one file in another's place; permissions (None: those of the file that is replaced) and time, where it knows them.
        add: adds a file to the end of another, and removes it; that fails as a whole.
        remove: removes a file; one that is not there is gone already.
        make_folder: makes a folder, and those above it.
        entries: lists a folder: for each of its entries `KIND SIZE MODE TIME PATH` and a NUL.
        tree: the same for all below it; paths are relative to it, with slashes.
    """

    split: Callable[[str], tuple[str, str]]
    join: Callable[[str, str], str]
    nothing: Command
    append: Callable[[str], Command]
    cut: Callable[[str, int], Command]
    size: Callable[[str], Command]
    digest: Callable[[str], Command]
    rename: Callable[[str, str, int | None, int | None], Command]
    add: Callable[[str, str], Command]
    remove: Callable[[str], Command]
    make_folder: Callable[[str], Command]
    entries: Callable[[str], Command]
    tree: Callable[[str], Command]

    def beside(self, path: str, name: str) -> str:
        """The path of this name in the same folder."""
        folder, _ = self.split(path)
        return self.join(folder, name) if folder else name


def _unix_rename(unfinished: str, path: str, mode: int | None, mtime: int | None) -> Command:
    when = time.strftime("%Y%m%d%H%M.%S", time.gmtime(mtime)) if mtime is not None else ""
    return _sh(_RENAME, unfinished, path, f"{mode:o}" if mode is not None else "", when)


def _windows_rename(unfinished: str, path: str, mode: int | None, mtime: int | None) -> Command:  # noqa: ARG001  # Windows has none
    return powershell(_WINDOWS_RENAME, unfinished, path, str(mtime) if mtime is not None else "")


UNIX: Final = System(
    split=posixpath.split,
    join=posixpath.join,
    nothing=["true"],
    append=lambda path: [SHELL, "-c", 'umask 077; cat >> "$0"', path],
    cut=lambda path, size: _sh(_CUT, path, str(size)),
    size=lambda path: [SHELL, "-c", 'wc -c < "$0"', path],
    digest=lambda path: _sh(_DIGEST, path),
    rename=_unix_rename,
    add=lambda part, path: _sh(_JOIN, part, path),
    remove=lambda path: ["rm", "-f", "--", path],
    make_folder=lambda path: ["mkdir", "-p", "--", path],
    entries=lambda path: _sh(_LIST, path),
    tree=lambda path: _sh(_TREE, path),
)

WINDOWS: Final = System(
    split=ntpath.split,
    join=ntpath.join,
    nothing=["cmd.exe", "/c", "exit 0"],
    append=lambda path: powershell(_WINDOWS_APPEND, path),
    cut=lambda path, size: powershell(_WINDOWS_CUT, path, str(size)),
    size=lambda path: powershell(_WINDOWS_SIZE, path),
    digest=lambda path: powershell(_WINDOWS_DIGEST, path),
    rename=_windows_rename,
    add=lambda part, path: powershell(_WINDOWS_JOIN, part, path),
    remove=lambda path: powershell(_WINDOWS_REMOVE, path),
    make_folder=lambda path: powershell(_WINDOWS_MAKE, path),
    entries=lambda path: powershell(_WINDOWS_LIST, path, ""),
    tree=lambda path: powershell(_WINDOWS_LIST, path, "deep"),
)


def system_of(path: str) -> System:
    r"""The system that a path belongs to: Windows' begin with a drive (`C:\`) or a server (`\\`). Nobody need be asked."""
    return WINDOWS if _windows_path.match(path) else UNIX


def digest_in(output: str) -> str | None:
    """The SHA-256 in what `digest` said, in hexadecimal digits."""
    found = _sha256.match(output.strip().lower())
    return found[0] if found else None
