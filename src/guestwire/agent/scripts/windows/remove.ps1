# Removes the file $a[0]; one that is not there is gone already.
if ([IO.File]::Exists($a[0])) { [IO.File]::Delete($a[0]) }
