# An error where $a[1] can't become a regular file.
if ([IO.Directory]::Exists($a[1])) { throw ($a[1] + ': is a directory') }
$folder = [IO.Path]::GetDirectoryName([IO.Path]::GetFullPath($a[1]))
if (-not [IO.Directory]::Exists($folder)) { throw ($folder + ': No such file or directory') }
