# Lists all below the folder $a[0]; paths are relative to it, with slashes.
# include: tree.ps1
Walk (New-Object IO.DirectoryInfo $a[0]) '' $true
