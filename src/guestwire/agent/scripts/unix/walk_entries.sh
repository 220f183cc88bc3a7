# Describes each path of those that find gives.
# include: facts.sh
for path; do
  target=
  if [ -L "$path" ]; then
    kind=l
    # A name may end with line feeds, which $() drops.
    target=$(readlink -n -- "$path"; echo x)
    target=${target%x}
  elif [ -f "$path" ]; then kind=f
  elif [ -d "$path" ]; then kind=d
  else kind='?'
  fi
  printf '%s %s %s\0%s\0' "$kind" "$(facts '%s %a %Y' '%z %Mp%Lp %m' "$path" 2>/dev/null || echo 0 644 0)" "$path" "$target"
done
