# Makes the unfinished file $1, which becomes $2; with $3 = keep, leaves it as an earlier copy left it. Prints its size.
# include: place.sh
# The name can be guessed: what is continued must have been made by the user of the agent.
# shellcheck disable=SC3067 # -O is not in POSIX, but in dash, busybox, bash, ksh and the shells of the BSDs
if [ -f "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ "$3" = keep ]; then wc -c <"$1"; exit; fi
rm -f -- "$1" || exit 1
umask 077
# Without -C, a link that another user has just made under this name would be followed.
set -C
: >"$1" && echo 0
