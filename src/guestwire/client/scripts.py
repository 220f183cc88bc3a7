"""What is done with files inside a Unix guest, as shell scripts; every one of them may run twice.

They use what POSIX has, and where it has nothing (permissions and times of a file, SHA-256) what is there: GNU's, busybox's or the BSDs' tools.
"""

import re
import time
from collections.abc import Sequence
from typing import Final

from guestwire.client.commands import SHELL, folder

Command = list[str]
"""The arguments to give to the agent."""

OTHER_BYTES: Final = 9
"""The exit code of `finish` when the file is not what it should be."""

NO_TOOL: Final = 127
"""The exit code where the guest has no tool for SHA-256."""

_SHA: Final = """\
sha() {
  for tool in sha256sum 'sha256 -q' 'shasum -a 256' 'openssl dgst -sha256 -r'; do
    command -v "${tool%% *}" >/dev/null 2>&1 && { $tool; return; }
  done
  return 127
}
"""

_FACTS: Final = """\
if stat -c %s / >/dev/null 2>&1; then facts() { stat -c "$1" -- "$3"; }; else facts() { stat -f "$2" -- "$3"; }; fi
"""
"""`facts GNU_FORMAT BSD_FORMAT FILE`. GNU's stat has an -f too, which means something else."""

_PLACE: Final = """\
if [ -d "$2" ]; then echo "$2: is a directory" >&2; exit 1; fi
if [ -e "$2" ] && [ ! -f "$2" ]; then echo "$2: is no regular file" >&2; exit 1; fi
case "$2" in */*) folder=${2%/*}/ ;; *) folder=. ;; esac
if [ ! -d "$folder" ]; then echo "$folder: No such file or directory" >&2; exit 1; fi
"""
"""Whether `$2` can be a file."""

_BEGIN: Final = f"""\
{_PLACE}
if [ -f "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ "$3" = keep ]; then wc -c <"$1"; exit; fi
rm -f -- "$1" || exit 1
umask 077; set -C
: >"$1" && echo 0
"""
"""Nobody but the agent's user may have made what is continued: the name can be guessed."""

_PREFIX: Final = f"""\
{_SHA}
head -c "$2" <"$1" | sha
"""

_FINISH: Final = f"""\
{_SHA}{_FACTS}
is() {{ found=$(sha <"$1") || exit {NO_TOOL}; [ "${{found%% *}}" = "$2" ]; }}
is_done() {{ [ ! -e "$1" ] && [ -n "$3" ] && [ -f "$2" ] && is "$2" "$3"; }}
end() {{ is_done "$@" && exit 0; exit 1; }}
if is_done "$@"; then exit 0; fi
{_PLACE}
if [ -n "$3" ]; then is "$1" "$3" || exit {OTHER_BYTES}; fi
if [ -n "$4" ]; then chmod "$4" "$1" || end "$@"
elif [ -f "$2" ]; then
  chown "$(facts %u:%g %u:%g "$2")" "$1" 2>/dev/null
  chmod "$(facts %a %Mp%Lp "$2")" "$1" || end "$@"
else chmod "$(printf %o "$((0666 & ~$mask))")" "$1" || end "$@"; fi
if [ -n "$5" ]; then TZ=UTC0 touch -t "$5" -- "$1" || end "$@"; fi
mv -f -- "$1" "$2" || end "$@"
rm -f -- "${{1%-*}}"-*
"""
"""Of a new file the permissions are those that the guest gives; what older copies to the same place left goes.
Another copy of the same bytes may be done with it at any moment."""

_PUT: Final = f"""\
mask=$(umask); umask 077
trap 'rm -f -- "$1"' EXIT
rm -f -- "$1"
{_PLACE}
cat >"$1" || exit 1
"""

_PIECE: Final = """\
[ -f "$1" ] || { echo "$1: it is gone; another copy to the same place may have ended" >&2; exit 1; }
exec dd of="$1" bs=65536 seek="$2" conv=notrunc
"""

_STAT: Final = """\
if [ -f "$1" ]; then k=f; elif [ -d "$1" ]; then k=d; elif [ -e "$1" ]; then k=?; else echo "$1: No such file or directory" >&2; exit 1; fi
if stat -L -c %s / >/dev/null 2>&1; then set -- "$(stat -L -c '%s %a %Y' -- "$1")"; else set -- "$(stat -L -f '%z %Lp %m' -- "$1")"; fi
echo "$k $1"
"""

# dd ends a file where it seeks to; not every system has truncate.
_CUT: Final = 'exec dd if=/dev/null of="$1" bs=1 seek="$2" 2>/dev/null'

_ADD: Final = f"""\
if [ -e "$2" ]; then size=$(wc -c <"$2") || exit 1; else size=; fi
cat <"$1" >>"$2" && exec rm -f -- "$1"
if [ -n "$size" ]; then set -- "$2" "$((size))"; {_CUT.removeprefix("exec ")}; else rm -f -- "$2"; fi
exit 1
"""

_INTERRUPT: Final = """\
interrupt() {
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do interrupt "$child"; done
  kill -INT "$1" 2>/dev/null || [ ! -d /proc/"$1" ]
}
interrupt "$1"
"""
"""A shell waits for what it runs: that must end first."""

_EACH: Final = f"""\
{_FACTS}
for f in "$@"; do
  if [ -L "$f" ]; then k=l; elif [ -f "$f" ]; then k=f; elif [ -d "$f" ]; then k=d; elif [ -e "$f" ]; then k=?; else continue; fi
  printf '%s %s %s\\0' "$k" "$(facts '%s %a %Y' '%z %Mp%Lp %m' "$f" 2>/dev/null || echo 0 644 0)" "$f"
done
"""
_LIST: Final = 'cd -- "$1" || exit 1; set -- .[!.]* ..?* *\n' + _EACH

# find's own -printf takes a thousandth of the time that a process for each file does.
_TREE: Final = """\
cd -- "$1" || exit 1
if find . -prune -printf '' 2>/dev/null; then exec find . -printf '%y %s %m %Ts %p\\0%l\\0'; fi
exec find . -exec sh -c '
if stat -c %s . >/dev/null 2>&1; then facts() { stat -c "$1" -- "$3"; }; else facts() { stat -f "$2" -- "$3"; }; fi
for f in "$@"; do
  t=
  if [ -L "$f" ]; then k=l; t=$(readlink -n -- "$f"; echo x); t=${t%x}
  elif [ -f "$f" ]; then k=f; elif [ -d "$f" ]; then k=d; else k=?; fi
  printf "%s %s %s\\0%s\\0" "$k" "$(facts "%s %a %Y" "%z %Mp%Lp %m" "$f" 2>/dev/null || echo 0 644 0)" "$f" "$t"
done' sh {} +
"""

_MAKE: Final = 'for d in "$@"; do mkdir -p -- "$d" || exit 1; done'

_ALIAS: Final = 'case "$1" in /*) ;; *) set -- "$PWD/$1" "$2" ;; esac; exec ln -s -- "$1" "$2"'


def script(text: str, *arguments: str) -> Command:
    """A script with its arguments."""
    return [SHELL, "-c", text, "sh", *arguments]


def interrupt(pid: int) -> Command:
    """Sends SIGINT to a process and to those below it."""
    return script(_INTERRUPT, str(pid))


def begin(unfinished: str, path: str, *, keep: bool) -> Command:
    """Makes the unfinished file, or with `keep` leaves it as an earlier copy left it; prints its size."""
    return script(_BEGIN, unfinished, path, "keep" if keep else "")


def prefix(path: str, size: int) -> Command:
    """Prints the SHA-256 of the first bytes of a file."""
    return script(_PREFIX, path, str(size))


def piece(path: str, at: int) -> Command:
    """Writes standard input at a place, a multiple of 64 KiB, of a file that is there."""
    return script(_PIECE, path, str(at // 65536))


def put(unfinished: str, path: str, digest: str, mode: int | None, mtime: int | None) -> Command:
    """Makes standard input the file `path`: `begin`, writing and `finish` in one."""
    return script(_PUT + _FINISH, unfinished, path, digest, *_kept(mode, mtime))


def finish(unfinished: str, path: str, digest: str, mode: int | None, mtime: int | None) -> Command:
    """Puts the unfinished file in its place when its SHA-256 is `digest`; "" stands for any."""
    return script("mask=$(umask)\n" + _FINISH, unfinished, path, digest, *_kept(mode, mtime))


def stat(path: str) -> Command:
    """Prints what stands at a path, links followed: kind (f, d or ?), size, permissions, time."""
    return script(_STAT, path)


def alias(path: str, link: str) -> Command:
    """Makes a link to a path."""
    return script(_ALIAS, path, link)


def append(path: str) -> Command:
    """Adds standard input to a file; one that was not there is for its owner alone."""
    return script('umask 077; cat >>"$1"', path)


def size(path: str) -> Command:
    """Prints how many bytes a file has."""
    return script('wc -c <"$1"', path)


def add(part: str, path: str) -> Command:
    """Adds a file to the end of another, and removes it; that fails as a whole."""
    return script(_ADD, part, path)


def remove(path: str) -> Command:
    """Removes a file; one that is not there is gone already."""
    return ["rm", "-f", "--", path]


def make_folders(paths: Sequence[str]) -> Command:
    """Makes folders, and those above them."""
    return script(_MAKE, *paths)


def entries(path: str) -> Command:
    """Lists a folder; see `System.entries`."""
    return script(_LIST, folder(path))


def tree(path: str) -> Command:
    """Lists all below a folder; see `System.tree`."""
    return script(_TREE, folder(path))


def into(path: str, command: Command) -> Command:
    """A command whose standard output becomes a file."""
    return script('out=$1; shift; umask 077; exec "$@" >"$out"', path, *command)


def touched(mtime: float) -> str:
    """A time as `TZ=UTC0 touch -t` takes it."""
    return time.strftime("%Y%m%d%H%M.%S", time.gmtime(mtime))


def _kept(mode: int | None, mtime: int | None) -> tuple[str, str]:
    return f"{mode:o}" if mode is not None else "", "" if mtime is None else touched(mtime)


def digest_in(output: str) -> str | None:
    """The SHA-256 in what a tool printed."""
    found = re.match(r"\\?([0-9a-f]{64})\b", output)
    return found[1] if found else None
