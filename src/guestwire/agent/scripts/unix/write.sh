# Writes standard input at the offset $2, a multiple of 64 KiB, of the file $1.
[ -f "$1" ] || { echo "$1: it is gone; another copy to the same place may have ended" >&2; exit 1; }
exec dd of="$1" bs=65536 seek="$(($2 / 65536))" conv=notrunc
