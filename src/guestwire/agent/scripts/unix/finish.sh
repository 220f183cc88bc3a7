# Puts the unfinished file $1 in the place $2. $3: its SHA-256; $4: permissions; $5: time.
mask=$(umask)
# include: commit.sh
