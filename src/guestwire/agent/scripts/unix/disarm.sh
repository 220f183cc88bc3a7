# Ends the watchdog with the id $1 that was started at $2; without them, the one that there is.
# include: since.sh
if [ $# = 0 ]; then
  { read -r pid start </run/guestwire-watchdog; } 2>/dev/null || exit 0
  set -- "$pid" "$start"
fi
if [ "$(since "$1")" = "$2" ]; then kill "$1"; fi
rm -f /run/guestwire-watchdog
