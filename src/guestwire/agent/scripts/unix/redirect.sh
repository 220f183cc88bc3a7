# Runs a command whose standard output becomes the file $1.
out=$1
shift
umask 077
exec "$@" >"$out"
