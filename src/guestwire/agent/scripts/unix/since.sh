# Prints when the process $1 was started, in ticks since the boot: what tells it from a later one of the same id.
since() {
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # shellcheck disable=SC2086 # each field is a word
  set -- ${stat##*) }
  echo "${20}"
}
