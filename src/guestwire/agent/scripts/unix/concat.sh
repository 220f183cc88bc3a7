# Adds the file $1 to the end of $2, and removes it. When that fails, $2 is as it was.
size=
if [ -e "$2" ]; then size=$(wc -c <"$2") || exit 1; fi
cat <"$1" >>"$2" && exec rm -f -- "$1"
# dd ends a file where it seeks to; not every system has truncate.
if [ -n "$size" ]; then dd if=/dev/null of="$2" bs=1 seek="$((size))" 2>/dev/null; else rm -f -- "$2"; fi
exit 1
