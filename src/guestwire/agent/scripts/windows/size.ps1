# Prints how many bytes the file $a[0] has.
Say (New-Object IO.FileInfo $a[0]).Length
