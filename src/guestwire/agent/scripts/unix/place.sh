# Ends with 1 where $2 can't become a regular file.
if [ -d "$2" ]; then echo "$2: is a directory" >&2; exit 1; fi
if [ -e "$2" ] && [ ! -f "$2" ]; then echo "$2: is no regular file" >&2; exit 1; fi
case "$2" in
  */*) folder=${2%/*}/ ;;
  *) folder=. ;;
esac
if [ ! -d "$folder" ]; then echo "$folder: No such file or directory" >&2; exit 1; fi
