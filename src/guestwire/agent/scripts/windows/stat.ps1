# Prints what stands at $a[0]: kind, size, the permissions that a Unix would give, time.
# include: seconds.ps1
if ([IO.File]::Exists($a[0])) {
  $i = New-Object IO.FileInfo $a[0]
  Say ('f ' + $i.Length + ' 644 ' + (Seconds $i.LastWriteTimeUtc))
} elseif ([IO.Directory]::Exists($a[0])) { Say ('d 0 755 ' + (Seconds ([IO.Directory]::GetLastWriteTimeUtc($a[0])))) }
else { throw ($a[0] + ': No such file or directory') }
