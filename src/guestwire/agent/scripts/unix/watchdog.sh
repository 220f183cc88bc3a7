# Starts a process that thaws all file systems $1 seconds from now, whatever becomes of host and agent, unless it is ended before.
# Prints its id and when it was started. It writes to no disk, and what it runs is in memory by then. An agent runs no program while
# file systems are frozen: one that is left over from before is needed no more.
# include: since.sh
command -v fsfreeze >/dev/null 2>&1 || exit 127
[ "$(id -u)" = 0 ] || exit 126
note=/run/guestwire-watchdog
if { read -r pid start <"$note"; } 2>/dev/null && [ "$(since "$pid")" = "$start" ]; then kill "$pid"; fi
pause() {
  sleep "$1" &
  wait $!
}
thaw() {
  found=1
  while read -r device mount _; do
    case $device in
      /*) fsfreeze --unfreeze "$(printf %b "$mount")" && found=0 ;;
    esac
  done </proc/self/mounts
  return $found
}
(
  trap '' HUP
  trap 'kill $!; exit' TERM
  # Outside the agent's own group: who ends its service ends all that is in that.
  for group in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/systemd/cgroup.procs; do echo 0 >"$group"; done
  cat "$(command -v fsfreeze)"
  pause "$1"
  # A freeze that took longer than this to begin comes to its end later.
  thawed=
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    if thaw; then thawed=1; elif [ -n "$thawed" ]; then break; fi
    pause 1
  done
  rm -f "$note"
) </dev/null >/dev/null 2>&1 &
start=$(since $!) || exit 125
{ echo "$! $start" >"$note"; } 2>/dev/null
echo "$! $start"
