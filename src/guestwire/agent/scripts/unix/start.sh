# Runs a command in the folder $1, with the files $2, $3 and $4 for standard input, output and error; each may be "".
# include: enter.sh
if [ -n "$1" ]; then enter "$1" || exit 126; fi
if [ -n "$2" ]; then exec <"$2" || exit 126; fi
if [ -n "$3" ]; then exec >"$3" || exit 126; fi
if [ -n "$4" ]; then exec 2>"$4" || exit 126; fi
shift 4
exec "$@"
