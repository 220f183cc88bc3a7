# Makes standard input the file $a[1], by way of the unfinished file $a[0].
# include: place.ps1
try {
  $f = [IO.File]::Open($a[0], 'Create')
  try { [Console]::OpenStandardInput().CopyTo($f) } finally { $f.Close() }
# include: commit.ps1
} finally { [IO.File]::Delete($a[0]) }
