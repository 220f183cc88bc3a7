# Lists the folder $1: for each entry its kind, size, permissions, time and name, and a NUL.
# include: facts.sh
# include: enter.sh
enter "$1" || exit 1
# shellcheck disable=SC2035 # no name is taken for an option below
for name in .[!.]* ..?* *; do
  if [ -L "$name" ]; then kind=l
  elif [ -f "$name" ]; then kind=f
  elif [ -d "$name" ]; then kind=d
  elif [ -e "$name" ]; then kind='?'
  else continue # a pattern that nothing matches stays as it is
  fi
  printf '%s %s %s\0' "$kind" "$(facts '%s %a %Y' '%z %Mp%Lp %m' "$name" 2>/dev/null || echo 0 644 0)" "$name"
done
