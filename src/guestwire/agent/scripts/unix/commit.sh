# Puts the unfinished file $1 in the place $2, when its SHA-256 is $3 ("" stands for any): 9 where it is another one,
# 127 where no tool tells.
# $4: permissions; "" for those of the old file, or those that $mask leaves to a new one; with a - before them they are
# for a new one alone. $5: time, as touch -t takes it, or "".
# An old file's owner, group, ACL, attributes and SELinux label go to the new one, as far as the guest's tools can.
# include: sha.sh
# include: facts.sh
is() { found=$(sha <"$1") || exit 127; [ "${found%% *}" = "$2" ]; }
# Another copy of the same bytes may be done with the same files at any moment: whatever fails, the file may be in its
# place already.
is_done() { [ ! -e "$1" ] && [ -n "$3" ] && [ -f "$2" ] && is "$2" "$3"; }
end() { is_done "$@" && exit 0; exit 1; }
if is_done "$@"; then exit 0; fi
# include: place.sh
if [ -n "$3" ]; then is "$1" "$3" || exit 9; fi
mode=${4#-}
if [ -f "$2" ]; then
  if [ "$4" != "$mode" ]; then mode=; fi
  # The cp of GNU takes over everything but the content; to other systems a tool for each thing is what there is.
  if cp --attributes-only --preserve=all -- "$2" "$1" 2>/dev/null; then
    touch -- "$1" || end "$@"
  else
    chown "$(facts %u:%g %u:%g "$2")" "$1" 2>/dev/null
    chmod "$(facts %a %Mp%Lp "$2")" "$1" || end "$@"
    # That cp ends at an owner who can't be given: the rest by itself.
    for kept in xattr mode; do cp --attributes-only --preserve="$kept" -- "$2" "$1" 2>/dev/null; done
    if command -v getfacl >/dev/null && command -v setfacl >/dev/null; then
      # GNU's setfacl takes a whole list, that of the BSDs its changes.
      getfacl "$2" 2>/dev/null | setfacl --set-file=- "$1" 2>/dev/null || getfacl "$2" 2>/dev/null | setfacl -M - "$1" 2>/dev/null
    fi
    if command -v chcon >/dev/null; then chcon --reference="$2" "$1" 2>/dev/null; fi
  fi
elif [ -z "$mode" ]; then
  # shellcheck disable=SC2004 # without the $, some shells read its octal digits as decimal
  mode=$(printf %o "$((0666 & ~$mask))")
fi
if [ -n "$mode" ]; then chmod "$mode" "$1" || end "$@"; fi
if [ -n "$5" ]; then TZ=UTC0 touch -t "$5" -- "$1" || end "$@"; fi
if ! words=$(LC_ALL=C mv -f -- "$1" "$2" 2>&1); then
  case $words in
    # A file that something is mounted on, as in a container, can't be replaced: it is written in its place.
    *busy*)
      cat <"$1" >"$2" || exit 1
      rm -f -- "$1"
      if [ -n "$mode" ]; then chmod "$mode" "$2"; fi
      if [ -n "$5" ]; then TZ=UTC0 touch -t "$5" -- "$2"; fi
      ;;
    *) echo "$words" >&2; end "$@" ;;
  esac
  if [ -n "$3" ]; then is "$2" "$3" || exit 9; fi
fi
# What older copies of something else to the same place left.
rm -f -- "${1%-*}"-*
