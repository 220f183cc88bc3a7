# describe PATH: prints its kind, size, permissions, time and path, and a NUL; then the ids of owner and group, their names (where they
# have none, UNKNOWN or the id), and where it leads if it is a link, with colons between, and a NUL. No name of an account has a colon.
# include: facts.sh
describe() {
  target=
  if [ -L "$1" ]; then
    kind=l
    # A name may end with line feeds, which $() drops.
    target=$(readlink -n -- "$1"; echo x)
    target=${target%x}
  elif [ -f "$1" ]; then kind=f
  elif [ -d "$1" ]; then kind=d
  else kind='?'
  fi
  facts=$(facts '%s %a %Y/%u:%g:%U:%G' '%z %Mp%Lp %m/%u:%g:%Su:%Sg' "$1" 2>/dev/null || echo 0 644 0/:::)
  printf '%s %s %s\0%s:%s\0' "$kind" "${facts%%/*}" "$1" "${facts#*/}" "$target"
}
