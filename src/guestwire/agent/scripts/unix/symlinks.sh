# Makes links: for each, where it leads, and its path.
while [ $# -gt 0 ]; do
  if [ -d "$2" ] && [ ! -L "$2" ]; then echo "$2: is a directory" >&2; exit 1; fi
  rm -f -- "$2" && ln -s -- "$1" "$2" || exit 1
  shift 2
done
