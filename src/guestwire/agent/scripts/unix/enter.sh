# enter FOLDER: for cd, - is another folder, and a path that begins with neither / nor . is looked for in CDPATH.
enter() {
  case "$1" in
    /*) cd -- "$1" || return ;;
    *) cd -- "./$1" || return ;;
  esac
}
