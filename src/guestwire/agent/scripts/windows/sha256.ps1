# Prints the SHA-256 of the first $a[1] bytes of the file $a[0].
# include: sha.ps1
Say (Sha $a[0] $a[1])
