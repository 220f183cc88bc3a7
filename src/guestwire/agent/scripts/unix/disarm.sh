# Ends the watchdog with the id $1 that was started at $2.
# include: since.sh
if [ "$(since "$1")" = "$2" ]; then kill "$1"; fi
rm -f /run/guestwire-watchdog
