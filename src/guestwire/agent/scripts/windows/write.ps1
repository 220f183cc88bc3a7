# Writes standard input at the offset $a[1] of the file $a[0].
$f = [IO.File]::Open($a[0], 'Open', 'Write', 'ReadWrite')
try {
  [void]$f.Seek([long]$a[1], 'Begin')
  [Console]::OpenStandardInput().CopyTo($f)
} finally { $f.Close() }
