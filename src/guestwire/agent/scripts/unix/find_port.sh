# `find_port NAME LOOKS` waits for a port of that name, and leaves its device in `port`; 20 looks are a second. False where it does not come.
find_port() {
  looks=0
  while [ $looks -lt "$2" ]; do
    for port in /sys/class/virtio-ports/*; do
      found=
      { read -r found <"$port/name"; } 2>/dev/null
      port=/dev/${port##*/}
      [ "$found" != "$1" ] || ! [ -c "$port" ] || return 0
    done
    looks=$((looks + 1))
    sleep 0.05 2>/dev/null || {
      sleep 1
      looks=$((looks + 19))
    }
  done
  return 1
}
