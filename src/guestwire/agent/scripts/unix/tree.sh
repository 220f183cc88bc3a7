# `tree PID` prints a process and all below it, from the top.
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
