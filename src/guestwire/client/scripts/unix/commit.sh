# Puts the unfinished file $1 in the place $2, when its SHA-256 is $3 ("" stands for any): 9 where it is another one,
# 127 where no tool tells.
# $4: permissions; "" for those of the old file, or those that $mask leaves to a new one. $5: time, as touch -t takes
# it, or "".
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
if [ -n "$4" ]; then
  chmod "$4" "$1" || end "$@"
elif [ -f "$2" ]; then
  chown "$(facts %u:%g %u:%g "$2")" "$1" 2>/dev/null
  chmod "$(facts %a %Mp%Lp "$2")" "$1" || end "$@"
else
  # shellcheck disable=SC2004 # without the $, some shells read its octal digits as decimal
  chmod "$(printf %o "$((0666 & ~$mask))")" "$1" || end "$@"
fi
if [ -n "$5" ]; then TZ=UTC0 touch -t "$5" -- "$1" || end "$@"; fi
mv -f -- "$1" "$2" || end "$@"
# What older copies of something else to the same place left.
rm -f -- "${1%-*}"-*
