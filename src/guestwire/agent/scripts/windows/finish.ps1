# Puts the unfinished file $a[0] in the place $a[1].
# include: commit.ps1
