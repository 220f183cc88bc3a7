# `clear_stream FOLDER` ends what a relay that was killed has left, and removes its folder.
clear_stream() {
  # `$$` is another's in a shell's part that runs beside it.
  read -r own _ </proc/self/stat
  left=$(grep -lF -- "$1" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | grep -vx "$own")
  # shellcheck disable=SC2086 # each number is a word
  [ -z "$left" ] || kill -KILL $left 2>/dev/null
  remove_stream "$1"
}
# `remove_stream FOLDER`: one that is just being killed may still make a file there.
remove_stream() {
  for _ in 1 2 3 4 5; do
    rm -rf "$1" && break
    sleep 0.2 2>/dev/null || sleep 1
  done
}
