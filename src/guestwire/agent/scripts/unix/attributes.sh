# Sets permissions and time: for each file or folder, permissions, time (as touch -t takes it), and path.
while [ $# -gt 0 ]; do
  chmod "$1" "$3" && TZ=UTC0 touch -t "$2" -- "$3" || exit 1
  shift 3
done
