# Lists the folder $a[0].
# include: tree.ps1
Walk (New-Object IO.DirectoryInfo $a[0]) '' $false
