# Puts the unfinished file $a[0] in the place $a[1], when its SHA-256 is $a[2] ('' stands for any): 9 where it is
# another one.
# $a[3] are a Unix's permissions, which Windows has not; $a[4] is the time in seconds, or ''. A file that is replaced
# keeps its permissions.
# include: sha.ps1
$all = [long]::MaxValue
if ([IO.File]::Exists($a[0]) -or -not $a[2] -or -not [IO.File]::Exists($a[1]) -or (Sha $a[1] $all) -ne $a[2]) {
  # include: place.ps1
  if ($a[2] -and (Sha $a[0] $all) -ne $a[2]) { $code = 9 }
  else {
    if ($a[4]) { [IO.File]::SetLastWriteTimeUtc($a[0], ([DateTime]'1970-01-01').AddSeconds([long]$a[4])) }
    if ([IO.File]::Exists($a[1])) { [IO.File]::Replace($a[0], $a[1], [NullString]::Value) } else { [IO.File]::Move($a[0], $a[1]) }
    $name = [IO.Path]::GetFileName($a[0])
    [IO.Directory]::GetFiles($folder, $name.Substring(0, $name.LastIndexOf('-')) + '-*') | % { [IO.File]::Delete($_) }
  }
}
