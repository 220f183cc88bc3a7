# Prints what stands at $1, links followed: kind (f, d or ?), size, permissions, time.
if [ -f "$1" ]; then kind=f
elif [ -d "$1" ]; then kind=d
elif [ -e "$1" ]; then kind='?'
else echo "$1: No such file or directory" >&2; exit 1
fi
if stat -L -c %s / >/dev/null 2>&1; then
  set -- "$(stat -L -c '%s %a %Y' -- "$1")"
else
  set -- "$(stat -L -f '%z %Lp %m' -- "$1")"
fi
echo "$kind $1"
