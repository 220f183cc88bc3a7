# Makes $a[1] a link to the path $a[0].
[void](New-Item -ItemType SymbolicLink -Path $a[1] -Value $a[0])
