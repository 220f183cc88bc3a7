# Runs a program whose standard input and output are a port of the host's, with nothing between.
#   $1 the port's name; then the program and its arguments
# The host knows the rest from streams/port_process.py: what comes from the port begins with the mark and h, and ends with the mark and e;
# the program's errors are this script's.
# include: find_port.sh
# include: tree.sh
name=$1
shift
case $1 in
  */*) [ -f "$1" ] && [ -x "$1" ] ;;
  *) command -v "$1" >/dev/null 2>&1 ;;
esac || { if [ -e "$1" ]; then exit 126; else exit 127; fi; }
find_port "$name" 20 || exit 91
# shellcheck disable=SC2154 # by find_port
command exec 6<>"$port" || exit 91
# What this shell has to say of its children is not what the program says.
exec 5>&2 2>/dev/null
# Only the host may know it: who can write it can end the output.
read -r mark </proc/sys/kernel/random/uuid || mark=$(od -An -N18 -tx1 /dev/urandom | tr -d ' \n')
# What is sent to all of them is the program's, which hears of it as if there were no `trap`; what waits for it and watches it goes on.
trap '' HUP INT QUIT TERM USR1 USR2 ALRM
# A program that does not read does not see that its host has gone, and with it the port.
(
  exec 5>&- 6<&-
  while sleep 6; do
    read -r found <"/sys/class/virtio-ports/${port#/dev/}/name" && [ "$found" = "$name" ] && continue
    read -r own _ </proc/self/stat
    # shellcheck disable=SC2046 # each number is a word
    kill -KILL $(tree $$ | sed 1d | grep -vx "$own")
    exit
  done
) </dev/null >/dev/null &
watcher=$!
trap : HUP INT QUIT TERM USR1 USR2 ALRM
(
  exec <&6 >&6 2>&5 5>&- 6<&-
  # Only now, for what the host sends next may be a signal, and this shell is what hears of it already.
  printf '\036%sh' "$mark"
  exec "$@"
)
code=$?
kill -KILL "$watcher"
# Beside this: where the host has hung up, it waits until the port is gone.
printf '\036%se' "$mark" >&6 5>&- &
# What was written last must not meet a port that closes: the host hangs up.
read -r _ <&6
exit "$code"
