# Makes $2 a link to the path $1.
case "$1" in
  /*) ;;
  *) set -- "$PWD/$1" "$2" ;;
esac
exec ln -s -- "$1" "$2"
