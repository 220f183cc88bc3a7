# Carries the bytes of a program, $2, to and from the host; `stream.sh` starts it.
#   $1 its folder   $2 the program's id   $3 1: it has no errors of its own   $4 how many reads make one part of a file   $5 what makes
#   its terminal; "" where it has none
# The host knows the protocol from streams/relay.py. In the relay's own folder are
#   in      what the host sends:    i SEQ SIZE + bytes   t SEQ BYTES, each as \OOO   e: no more   p: from now on by a port
#   ctl     lines of the host's:    see `obey`
#   1.0 …   what the program writes, a file after the other, and 2.0 … its errors. The mark stands where a file ends: behind it
#           n (another follows), p (it goes on by a port) or e (the output has ended); with w it means nothing
#   ack     the SEQ that was taken last; x: nothing is taken any more
#   life    its end is the relay's; a line in it: `watch` is to count again
#   i o e   the program's own ends
# A terminal may have been given its port, file 6, by `stream.sh`: then none of its bytes go by here, and `o` only tells when it has ended.
# include: tree.sh
# include: clear_stream.sh
# include: find_port.sh

# `chunk NUMBER READS`: what so many reads of its input give goes to its output; false at the end.
chunk() {
  LC_ALL=C dd bs=65536 count="$2" 2>"$d/dd$1"
  read -r found <"$d/dd$1"
  [ "$found" != "0+0 records in" ]
}
# `write_files NUMBER`: an output becomes files, two ahead of what the host has read.
write_files() {
  exec 5<>"$d/a$1"
  file=0
  while :; do
    count=0
    while [ $count -lt 64 ]; do
      if ! chunk "$1" "$reads" >>"$d/$1.$file"; then
        printf '%se' "$mark" >>"$d/$1.$file"
        exit
      fi
      if [ -e "$d/switch" ]; then
        printf '%sp' "$mark" >>"$d/$1.$file"
        : >"$d/over$1"
        echo 1<>"$d/h$1"
        exit
      fi
      count=$((count + reads))
    done
    : >"$d/$1.$((file + 1))"
    printf '%sn' "$mark" >>"$d/$1.$file"
    file=$((file + 1))
    [ $file -lt 2 ] || read -r _ <&5
  done
}
# `wake NUMBER END`: has an output go over to its port also where nothing is written now, by as many reads as a part of a file takes.
wake() {
  left=$((reads * 3))
  while [ "$left" -gt 0 ] && ! [ -e "$d/over$1" ]; do
    printf '%sw' "$mark" 1<>"$d/$2"
    sleep 0.05 2>/dev/null || sleep 1
    left=$((left - 1))
  done
}
# `write_port NUMBER ACKED`: the same by a port, once the files are over. A host that must take whatever comes says what it has taken.
write_port() {
  if [ "$2" = 1 ]; then
    exec 5<>"$d/a$1"
    parts=0
    while chunk "$1" 16; do
      printf '%sn' "$mark"
      parts=$((parts + 1))
      [ $parts -lt 2 ] || read -r _ <&5
    done
  else
    cat
  fi
  printf '%se' "$mark"
}
feed() {
  last=0
  while read -r verb seq size; do
    case $verb in
      i)
        if [ "$seq" -le "$last" ]; then
          dd bs="$size" count=1 iflag=fullblock >/dev/null
          continue
        fi
        if ! dd bs="$size" count=1 iflag=fullblock >&9; then
          echo x >"$d/ack"
          exit
        fi
        last=$seq
        echo "$seq" >"$d/ack"
        ;;
      t) # a few bytes, as keys are: no process is made for them
        [ "$seq" -gt "$last" ] || continue
        # shellcheck disable=SC2059 # it is a format of bytes alone
        if ! printf "$size" >&9; then
          echo x >"$d/ack"
          exit
        fi
        last=$seq
        echo "$seq" >"$d/ack"
        ;;
      p)
        echo 1<>"$d/h0"
        exit
        ;;
      e) exit ;;
    esac
  done
}
# `carry KIND NAME ACKED`: uses the port of that name: 0 for input, 1 and 2 for the outputs, t for a terminal's bytes both ways.
carry() {
  case $1 in
    t) exec 5<>"$d/h0" 3<>"$d/h1" ;;
    0)
      exec 5<>"$d/h0"
      [ -e "$d/ended" ] && exec 9>&-
      ;;
    *) exec 5<>"$d/h$1" 9>&- ;; # an output that has ended waits here for ever, and no input would end
  esac
  find_port "$2" 200 || exit
  exec 6<>"$port"
  printf '%sh' "$mark" >&6
  if [ "$1" = t ]; then
    (
      read -r _ <&5
      cat <&6 >&9
      echo b 1<>"$d/ctl" # the host has hung up
    ) &
    read -r _ <&3
  else
    read -r word <&5
  fi
  # An input that ended before it was handed over goes nowhere, and nobody else may hold it open.
  if [ "$1" = 0 ] && [ "$word" != e ]; then
    : >"$d/fed"
    # A port that is taken out is an end, or an error of its reader's.
    if cat <&6 >&9 || ! [ -c "$port" ]; then
      exec 9>&-
      # A host that ends the input says so, too; one that has gone does not.
      sleep 3
      [ -e "$d/ended" ] || echo b 1<>"$d/ctl"
    else
      end_input
      echo x >"$d/ack"
    fi
  fi
  exec 9>&-
  case $1 in
    1 | t)
      exec <&7 >&6
      write_port 1 "$3"
      ;;
    2)
      exec <&8 >&6
      write_port 2 "$3"
      ;;
  esac
  # What was written last must not meet a port that closes.
  read -r _ <"$d/wait"
}
# When the program was started, in `found`: what tells it from a later one of the same id.
look() {
  found=
  { read -r line <"/proc/$program/stat"; } 2>/dev/null || return
  # shellcheck disable=SC2086 # each field is a word
  set -- ${line##*) }
  found=${20}
}
is_alive() {
  look
  [ "$found" ] && [ "$found" = "$start" ]
}
# `signal NAME`: to the program and all below it; what makes its terminal only hears how that ended.
signal() {
  is_alive || return
  # shellcheck disable=SC2046 # each number is a word
  case $terminal$1 in
    ?*HUP | ?*KILL | HUP | KILL) kill -s "$1" $(tree "$program") ;;
    *) kill -s "$1" $(tree "$program" | { [ -z "$terminal" ] || read -r _; cat; }) ;;
  esac
}
finish() {
  signal HUP
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    is_alive || break
    sleep 0.2 2>/dev/null || sleep 1
  done
  signal KILL
  # A file that the agent has open takes no room.
  for file in "$d"/[12].*; do : >"$file"; done
  # shellcheck disable=SC2046 # each number is a word
  kill -KILL $(tree $$ | sed 1d)
  remove_stream "$d"
  exit
}
# The program runs on without its stream: what it writes is lost, and no error.
leave() {
  # shellcheck disable=SC2046 # each number is a word
  kill -KILL $(tree $$ | sed 1d)
  exec 9>&- 3<&-
  remove_stream "$d"
  cat <&7 >/dev/null &
  cat <&8 >/dev/null &
  wait
  exit
}
# From now on only the host's words tell that it is there.
end_input() {
  : >"$d/ended"
  echo 1<>"$d/life"
}
# The relay itself was killed, and this is not.
end_alone() {
  signal KILL
  clear_stream "$d"
  exit
}
# Ends all when the host has said nothing for two looks; `hold` stands while file systems are frozen, when it can't. While an input comes by
# a port, whose end is seen, nothing is counted, and nothing done: a guest may have a hundred streams.
watch() {
  missed=0
  held=0
  seen=
  while sleep 6; do
    if [ -e "$d/fed" ] && ! [ -e "$d/ended" ]; then
      # Both ways first: to open it for reading alone waits for a relay, also for one that is gone.
      # shellcheck disable=SC2094 # nothing goes from one to the other
      command exec 5<>"$d/life" 4<"$d/life" || end_alone
      exec 5<&-
      read -r _ <&4 || end_alone
      missed=0
    fi
    [ -d "/proc/$$" ] || end_alone
    read -r beat <"$d/beat"
    if [ "$beat" != "$seen" ]; then missed=0; else missed=$((missed + 1)); fi
    seen=$beat
    if [ -e "$d/hold" ] && [ $held -lt 100 ]; then
      held=$((held + 1))
      missed=0
    fi
    [ $missed -lt 2 ] || echo b 1<>"$d/ctl"
  done
}
obey() {
  beats=0
  while read -r verb first second third; do
    beats=$((beats + 1))
    echo $beats >"$d/beat"
    case $verb in
      k)                                   # the host is there, and wants to see that this is
        [ ! -e "$d/hold" ] || rm -f "$d/hold"
        echo "$first" >"$d/alive"
        ;;
      f) : >"$d/hold" ;;                   # it will be silent: file systems are to be frozen
      e)                                   # no more input; p: of what goes by its port
        exec 9>&-
        end_input
        [ "$first" ] || echo e 1<>"$d/h0"
        ;;
      a) rm -f "$d/$first.$second"; echo 1<>"$d/a$first" ;; # it has read this file of an output, or part of a port's
      s)                                   # its window's size; the terminal may be just being made
        tries=0
        until [ -s "$d/tty" ] || [ $tries -ge 20 ]; do
          tries=$((tries + 1))
          sleep 0.05 2>/dev/null || {
            sleep 1
            tries=$((tries + 19))
          }
        done
        stty -F "$(cat "$d/tty")" rows "$first" cols "$second" || stty rows "$first" cols "$second" <"$(cat "$d/tty")"
        ;;
      g) signal "$first" ;;
      w)                                   # every port has said h: the outputs go there, also where nothing is written now
        : >"$d/switch"
        wake 1 o 4>&- &
        [ "$merge" = 1 ] || wake 2 e 4>&- &
        ;;
      p)                                   # a port is there
        (
          exec 3<&- 4>&-
          carry "$first" "$second" "$third"
        ) &
        ;;
      l) leave ;;                          # the host goes, and the program does not
      b) finish ;;                         # the host has all
    esac
  done
}
trap '' HUP
d=$1 program=$2 merge=$3 reads=$4 terminal=$5
read -r mark by_port <"$d/mark"
look
start=$found
echo $$ >"$d/relay"
# Outside the agent's own group: who ends its service ends all that is in that, and nothing would clear what is left.
for group in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/systemd/cgroup.procs; do echo 0 >"$group"; done
watch &
exec 4<>"$d/ctl"
if [ "$by_port" ]; then
  exec 7<"$d/o"
  (
    exec <&7 7<&- 4<&-
    read -r _
    printf '%se' "$mark" >&6
    # What was written last must not meet a port that closes.
    read -r _ <"$d/wait"
  ) &
  exec <&4 4<&- 6<&-
  obey
  exit
fi
exec 9>"$d/i" 7<"$d/o"
if [ "$merge" = 1 ]; then exec 8</dev/null; else exec 8<"$d/e"; fi
exec 3<>"$d/in"
# With `exec`, for a shell keeps what a function's redirection replaces: an input would not end.
(
  exec <&3 3<&- 4<&- 7<&- 8<&-
  feed
) &
(
  exec <&7 3<&- 4<&- 8<&- 9>&-
  write_files 1
) &
[ "$merge" = 1 ] || (
  exec <&8 3<&- 4<&- 7<&- 9>&-
  write_files 2
) &
exec <&4 4<&-
exec 4<>"$d/life"
obey
