"""What is done with files inside a Windows guest, by PowerShell: the same as by `scripts.py` in a Unix guest, and every one may run twice.

They call .NET, whose methods take paths as they are; PowerShell's own commands are of many versions.
"""

import ntpath
from collections.abc import Sequence
from typing import Final

from guestwire.client.commands import powershell
from guestwire.client.scripts import OTHER_BYTES, Command

TEMPORARY: Final = "C:\\Windows\\Temp\\"
"""Of the agent, which runs as LocalSystem."""

_SAY: Final = "function Say($text) { Send ([Console]::OpenStandardOutput()) ([string]$text) }\n"

_SHA: Final = """\
function Sha($path, [long]$most) {
  $h, $b = [Security.Cryptography.SHA256]::Create(), (New-Object byte[] 1048576)
  $from = [IO.File]::OpenRead($path)
  try {
    while ($most -gt 0 -and ($n = $from.Read($b, 0, [int][Math]::Min([long]$b.Length, $most))) -gt 0) {
      [void]$h.TransformBlock($b, 0, $n, $b, 0)
      $most -= $n
    }
  } finally { $from.Close() }
  [void]$h.TransformFinalBlock($b, 0, 0)
  -join ($h.Hash | % { $_.ToString('x2') })
}
"""

_TIME: Final = "function Seconds($when) { [long][Math]::Floor(($when - [DateTime]'1970-01-01').TotalSeconds) }\n"

_PLACE: Final = """\
if ([IO.Directory]::Exists($a[1])) { throw ($a[1] + ': is a directory') }
$folder = [IO.Path]::GetDirectoryName([IO.Path]::GetFullPath($a[1]))
if (-not [IO.Directory]::Exists($folder)) { throw ($folder + ': No such file or directory') }
"""
"""Whether `$a[1]` can be a file."""

_BEGIN: Final = f"""\
{_SAY}{_PLACE}
[IO.File]::Delete($a[0])
[IO.File]::Open($a[0], 'CreateNew').Close()
Say 0
"""

_PREFIX: Final = f"{_SAY}{_SHA}Say (Sha $a[0] $a[1])\n"

_PIECE: Final = """\
$f = [IO.File]::Open($a[0], 'Open', 'Write', 'ReadWrite')
try {
  [void]$f.Seek([long]$a[1], 'Begin')
  [Console]::OpenStandardInput().CopyTo($f)
} finally { $f.Close() }
"""

_FINISH: Final = f"""\
{_SHA}
$all = [long]::MaxValue
if ([IO.File]::Exists($a[0]) -or -not $a[2] -or -not [IO.File]::Exists($a[1]) -or (Sha $a[1] $all) -ne $a[2]) {{
  {_PLACE}
  if ($a[2] -and (Sha $a[0] $all) -ne $a[2]) {{ $code = {OTHER_BYTES} }}
  else {{
    if ($a[3]) {{ [IO.File]::SetLastWriteTimeUtc($a[0], ([DateTime]'1970-01-01').AddSeconds([long]$a[3])) }}
    if ([IO.File]::Exists($a[1])) {{ [IO.File]::Replace($a[0], $a[1], [NullString]::Value) }} else {{ [IO.File]::Move($a[0], $a[1]) }}
    $name = [IO.Path]::GetFileName($a[0])
    [IO.Directory]::GetFiles($folder, $name.Substring(0, $name.LastIndexOf('-')) + '-*') | % {{ [IO.File]::Delete($_) }}
  }}
}}
"""

_PUT: Final = f"""\
{_PLACE}
try {{
  $f = [IO.File]::Open($a[0], 'Create')
  try {{ [Console]::OpenStandardInput().CopyTo($f) }} finally {{ $f.Close() }}
{_FINISH}
}} finally {{ [IO.File]::Delete($a[0]) }}
"""

_STAT: Final = f"""\
{_SAY}{_TIME}
if ([IO.File]::Exists($a[0])) {{
  $i = New-Object IO.FileInfo $a[0]
  Say ('f ' + $i.Length + ' 644 ' + (Seconds $i.LastWriteTimeUtc))
}} elseif ([IO.Directory]::Exists($a[0])) {{ Say ('d 0 755 ' + (Seconds ([IO.Directory]::GetLastWriteTimeUtc($a[0])))) }}
else {{ throw ($a[0] + ': No such file or directory') }}
"""

_ALIAS: Final = "[void](New-Item -ItemType SymbolicLink -Path $a[1] -Value $a[0])\n"

_REMOVE: Final = "if ([IO.File]::Exists($a[0])) { [IO.File]::Delete($a[0]) }\n"

_SIZE: Final = f"{_SAY}Say (New-Object IO.FileInfo $a[0]).Length\n"

_APPEND: Final = """\
$f = [IO.File]::Open($a[0], 'Append')
try { [Console]::OpenStandardInput().CopyTo($f) } finally { $f.Close() }
"""

_ADD: Final = """\
$f = [IO.File]::Open($a[1], 'OpenOrCreate')
$size = $f.Seek(0, 'End')
try {
  $part = [IO.File]::OpenRead($a[0])
  try { $part.CopyTo($f) } catch { $f.SetLength($size); throw } finally { $part.Close() }
} finally { $f.Close() }
[IO.File]::Delete($a[0])
"""

_MAKE: Final = "$a | % { [void][IO.Directory]::CreateDirectory($_) }\n"

_LIST: Final = f"""\
{_SAY}{_TIME}
function Walk($folder, $above, $deep) {{
  foreach ($i in $folder.GetFileSystemInfos()) {{
    $is = $i.Attributes
    $k = if ($is -band [IO.FileAttributes]::ReparsePoint) {{ 'l' }} elseif ($is -band [IO.FileAttributes]::Directory) {{ 'd' }} else {{ 'f' }}
    $s = if ($k -eq 'f') {{ $i.Length }} else {{ 0 }}
    $m = if ($k -eq 'd') {{ '755' }} elseif ($is -band [IO.FileAttributes]::ReadOnly) {{ '444' }} else {{ '644' }}
    Say ("$k $s $m " + (Seconds $i.LastWriteTimeUtc) + " $above" + $i.Name + "`0")
    if ($deep -and $k -eq 'd') {{ Walk $i ($above + $i.Name + '/') $deep }}
  }}
}}
Walk (New-Object IO.DirectoryInfo $a[0]) '' ([bool]$a[1])
"""


def join(folder: str, name: str) -> str:
    """What is below a folder; between folders of the name, slashes are taken too."""
    return ntpath.join(folder, name.replace("/", "\\"))


def begin(unfinished: str, path: str, *, keep: bool) -> Command:  # noqa: ARG001  # who made what is there can't be told as in a Unix
    """Makes the unfinished file anew."""
    return powershell(_BEGIN, unfinished, path)


def prefix(path: str, size: int) -> Command:
    """See `scripts.prefix`."""
    return powershell(_PREFIX, path, str(size))


def piece(path: str, at: int) -> Command:
    """See `scripts.piece`."""
    return powershell(_PIECE, path, str(at))


def put(unfinished: str, path: str, digest: str, mode: int | None, mtime: int | None) -> Command:  # noqa: ARG001  # Windows has none
    """See `scripts.put`."""
    return powershell(_PUT, unfinished, path, digest, _kept(mtime))


def finish(unfinished: str, path: str, digest: str, mode: int | None, mtime: int | None) -> Command:  # noqa: ARG001  # as above
    """See `scripts.finish`. A file that is replaced keeps who may do what with it."""
    return powershell(_FINISH, unfinished, path, digest, _kept(mtime))


def stat(path: str) -> Command:
    """See `scripts.stat`; permissions are what a Unix would give."""
    return powershell(_STAT, path)


def alias(path: str, link: str) -> Command:
    """See `scripts.alias`."""
    return powershell(_ALIAS, path, link)


def remove(path: str) -> Command:
    """Removes a file; one that is not there is gone already."""
    return powershell(_REMOVE, path)


def size(path: str) -> Command:
    """Prints how many bytes a file has."""
    return powershell(_SIZE, path)


def append(path: str) -> Command:
    """Adds standard input to a file."""
    return powershell(_APPEND, path)


def add(part: str, path: str) -> Command:
    """Adds a file to the end of another, and removes it; that fails as a whole."""
    return powershell(_ADD, part, path)


def make_folders(paths: Sequence[str]) -> Command:
    """Makes folders, and those above them."""
    return powershell(_MAKE, *paths)


def entries(path: str) -> Command:
    """Lists a folder."""
    return powershell(_LIST, path, "")


def tree(path: str) -> Command:
    """Lists all below a folder; paths are relative to it, with slashes."""
    return powershell(_LIST, path, "deep")


def _kept(mtime: int | None) -> str:
    return "" if mtime is None else str(mtime)
