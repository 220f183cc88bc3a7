# Becomes a program whose standard streams are FIFOs, with a relay beside it that carries their bytes to and from the host.
#   $1 the stream's id   $2 the relay, a script   $3 "ROWS COLUMNS": it gets a terminal   $4 the user it runs as   $5 m: its errors go
#   where its output goes; n: it gets no input   $6 its folder   $7 how many reads of its outputs make one part of a file   $8 the program   $9 what
#   sets its variables, a line for the shell   ${10} the port that its terminal uses where that is there in time; then the program and
#   its arguments
# The program keeps the id of this process: the agent says how it ended.
# include: find_port.sh
id=$1 relay=$2 size=$3 user=$4 flags=$5 folder=$6 reads=$7 program=$8 environment=$9 name=${10}
shift 10
merge=
case $flags in *m*) merge=1 ;; esac
[ -z "$folder" ] || cd -- "$folder" 2>/dev/null || exit 96
case $program in
  */*) [ -f "$program" ] && [ -x "$program" ] ;;
  *) command -v "$program" >/dev/null 2>&1 ;;
esac || { if [ -e "$program" ]; then exit 126; else exit 127; fi; }
# As few processes as can be, from here on: in a guest without much of a processor, each takes ten milliseconds.
for tool in mkfifo dd cat su; do command -v $tool >/dev/null 2>&1 || exit 95; done
case $flags in *n*) ;; *) dd bs=1 count=1 iflag=fullblock </dev/null >/dev/null 2>&1 || exit 95 ;; esac
if [ "$size" ]; then
  merge=1
  if command -v script >/dev/null 2>&1 && command -v stty >/dev/null 2>&1; then
    terminal=script
  else
    terminal=$(command -v python3 || command -v /usr/libexec/platform-python) || exit 94
  fi
fi
[ -z "$user" ] || id -u -- "$user" >/dev/null 2>&1 || exit 93
old=$(umask)
umask 077
for base in /run /dev/shm /tmp /var/tmp; do
  # Of a stream whose relay was killed, too.
  for d in "$base"/guestwire-stream-*; do
    { read -r relay_of <"$d/relay"; } 2>/dev/null && ! [ -d "/proc/$relay_of" ] && rm -rf "$d"
  done
  d=$base/guestwire-stream-$id
  mkdir "$d" 2>/dev/null && break
  d=
done
[ "$d" ] || exit 92
mkfifo "$d/i" "$d/o" "$d/e" "$d/in" "$d/ctl" "$d/a1" "$d/a2" "$d/h0" "$d/h1" "$d/h2" "$d/wait" "$d/life" || exit 92
# Until the relay writes its own number there: what is killed before leaves nothing that the next stream would not remove.
echo $$ >"$d/relay"
[ -z "$user" ] || chown -- "$user" "$d/i" "$d/o" "$d/e"
printf %s "$relay" >"$d/relay.sh"
: >"$d/1.0"
: >"$d/2.0"
# Only the host may know it: who can write it into an output can end that.
read -r mark </proc/sys/kernel/random/uuid || mark=$(od -An -N18 -tx1 /dev/urandom | tr -d ' \n')
by_port=
if [ "$name" ] && find_port "$name" 20; then
  command exec 6<>"$port" && by_port=p
fi
printf '\036%s %s\n' "$mark" "$by_port" >"$d/mark"
read -r _ _ _ _ group _ </proc/$$/stat
# Not below the program: what is sent to that and all below it is not for the relay.
(/bin/sh "$d/relay.sh" "$d" $$ "$merge" "$reads" "$terminal" &) </dev/null >/dev/null 2>&1

if [ "$user" ]; then
  # shellcheck disable=SC2016 # the other shell's
  set -- su -s /bin/sh -c 'exec "$0" "$@"' -- "$user" "$@"
fi
if [ "$size" ]; then
  [ "$HOME" ] || export HOME=/
  export TERM="${TERM:-xterm-256color}"
fi
if [ "$by_port" ]; then
  # Nothing is between: each process on the way of a key costs half a millisecond in a guest that is emulated. 5 tells the relay of the end.
  exec <&6 >&6 5>"$d/o" 6<&-
else
  exec <"$d/i" >"$d/o"
fi
case $flags in *n*) exec </dev/null ;; esac
if [ "$merge" = 1 ]; then exec 2>&1; else exec 2>"$d/e"; fi
umask "$old"
# The variables come last, for they may have any name; and never into a command line, which every user of the guest may read.
become() {
  eval "$environment"
  exec "$@"
}
if [ -z "$size" ]; then
  # Its own group, and no other process: a leader of a group would have to be left for another.
  [ "$group" = $$ ] || ! command -v setsid >/dev/null 2>&1 || become setsid "$@"
  become "$@"
fi
GUESTWIRE_STREAM=$d
export GUESTWIRE_STREAM
if [ "$terminal" = script ]; then
  # `script` takes one line for a shell: the words are quoted for it.
  line=
  for word; do
    case $word in
      *\'*) word=$(printf %s. "$word" | sed "s/'/'\\\\''/g" | sed '$s/.$//') ;;
    esac
    line="$line '$word'"
  done
  owner=
  [ -z "$user" ] || owner="chown '$user' \"\$(tty)\"; "
  become script -qefc "${owner}stty rows ${size% *} cols ${size#* }; tty >\"\$GUESTWIRE_STREAM/tty\"; unset GUESTWIRE_STREAM; exec 5>&-; exec$line" /dev/null
fi
become "$terminal" -c 'import fcntl, os, select, struct, sys
try: from termios import TIOCSWINSZ
except ImportError: TIOCSWINSZ = 0x5414
rows, columns, folder = int(sys.argv[1]), int(sys.argv[2]), os.environ.pop("GUESTWIRE_STREAM")
def begin():
    try: os.close(5)
    except OSError: pass
    fcntl.ioctl(0, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with open(folder + "/tty", "w") as file: file.write(os.ttyname(0) + "\n")
    try: os.execvp(sys.argv[3], sys.argv[3:])
    except OSError as error: print(error); os._exit(126)
pid, master = os.forkpty()
if not pid: begin()
ends = [0, master]
while True:
    ready = select.select(ends, [], [])[0]
    if master in ready:
        try: data = os.read(master, 65536)
        except OSError: data = b""
        if not data: break
        while data: data = data[os.write(1, data):]
    if 0 in ready:
        data = os.read(0, 4096)
        if not data: ends.remove(0); data = b"\4"
        while data: data = data[os.write(master, data):]
status = os.waitpid(pid, 0)[1]
sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))' "${size% *}" "${size#* }" "$@"
