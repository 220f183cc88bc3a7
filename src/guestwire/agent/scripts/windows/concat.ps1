# Adds the file $a[0] to the end of $a[1], and removes it. When that fails, $a[1] is as it was.
$f = [IO.File]::Open($a[1], 'OpenOrCreate')
$size = $f.Seek(0, 'End')
try {
  $part = [IO.File]::OpenRead($a[0])
  try { $part.CopyTo($f) } catch { $f.SetLength($size); throw } finally { $part.Close() }
} finally { $f.Close() }
[IO.File]::Delete($a[0])
