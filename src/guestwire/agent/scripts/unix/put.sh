# Makes standard input the file $2, by way of the unfinished file $1. $3: its SHA-256; $4: permissions; $5: time.
mask=$(umask)
umask 077
trap 'rm -f -- "$1"' EXIT
rm -f -- "$1"
# include: place.sh
cat >"$1" || exit 1
# include: commit.sh
