# `clear_stream FOLDER` ends what a relay that was killed has left, and removes its folder.
clear_stream() {
  # `$$` is another's in a shell's part that runs beside it.
  read -r own _ </proc/self/stat
  left=$(grep -lF -- "$1" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | grep -vx "$own")
  rm -rf "$1"
  # shellcheck disable=SC2086 # each number is a word
  [ -z "$left" ] || kill -KILL $left 2>/dev/null
}
