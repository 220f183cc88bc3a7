# Sends SIGINT to the process $1 and all below it, as a terminal does: to all at once, from the top. A shell that hears of it later
# than what it waits for would go on with its next command.
children() {
  cat /proc/"$1"/task/*/children 2>/dev/null && return
  # A kernel without that: each process names its parent, behind its own name in brackets and its state.
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    # shellcheck disable=SC2086 # each field is a word
    set -- "$1" ${line##*) }
    if [ "$3" = "$1" ]; then
      stat=${stat%/stat}
      echo "${stat#/proc/}"
    fi
  done
}
tree() {
  echo "$1"
  # shellcheck disable=SC2013 # they are numbers, all on one line
  for child in $(children "$1"); do tree "$child"; done
}
kill -0 "$1" 2>/dev/null || exit 1
# A child that ended since it was listed is no failure.
# shellcheck disable=SC2046 # each number is a word
kill -INT $(tree "$1") 2>/dev/null
true
