# Shows the last $1 lines of a log; $2: and those that follow. $3 is a file, or a unit of systemd's, or empty: the system's own log.
has() { command -v "$1" >/dev/null 2>&1; }
case $3 in
  /*)
    [ -e "$3" ] || exit 91
    [ -d "$3" ] && exit 92
    file=$3
    ;;
  *)
    if has journalctl && [ -d /run/systemd/journal ]; then
      if [ "$3" ] && [ "$(systemctl show -p LoadState --value -- "$3" 2>/dev/null)" = not-found ] &&
        ! journalctl -q --no-pager -n 1 -o cat -u "$3" | grep -q .; then
        exit 93
      fi
      exec journalctl -q --no-pager -n "$1" ${2:+-f} ${3:+-u "$3"}
    fi
    [ -z "$3" ] || exit 94
    for file in /var/log/syslog /var/log/messages ""; do [ ! -r "$file" ] || break; done
    [ "$file" ] || exit 95
    ;;
esac
if [ "$2" ]; then exec tail -n "$1" -F -- "$file"; else exec tail -n "$1" -- "$file"; fi
