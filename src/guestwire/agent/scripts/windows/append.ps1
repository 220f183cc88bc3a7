# Adds standard input to the file $a[0].
$f = [IO.File]::Open($a[0], 'Append')
try { [Console]::OpenStandardInput().CopyTo($f) } finally { $f.Close() }
