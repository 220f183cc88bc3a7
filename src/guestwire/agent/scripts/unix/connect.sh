# Connects standard input and output to TCP port $2 of host $1, by what there is.
# Standard error is for the host alone: first a line "connected", or "connected, no end" where the end of the input can't be passed on;
# "closed" where the other side ends. Else it says what is wrong.
export LC_ALL=C PATH="$PATH:/usr/local/bin:/usr/libexec"
[ "$1" != localhost ] || grep -qs localhost /etc/hosts || set -- 127.0.0.1 "$2"
has() { command -v "$1" >/dev/null 2>&1; }
# Without what its site loads, nor the codec of names that are not ASCII: half the time until it is up, which counts where a guest
# has many connections to make.
for python in python3 platform-python; do
  has $python && exec $python -IS -c 'import os, socket, sys, threading
host, port = sys.argv[1:]
try: host = host.encode("ascii")
except UnicodeError: pass
try: s = socket.create_connection((host, port))
except OSError as e: sys.exit(e.strerror or str(e))
os.write(2, b"connected\n")
def send():
    try:
        while d := os.read(0, 65536): s.sendall(d)
        s.shutdown(1)
    except OSError: os.close(0)
t = threading.Thread(target=send, daemon=True)
t.start()
try:
    while d := s.recv(65536):
        while d: d = d[os.write(1, d):]
except OSError as e: os.write(2, e.strerror.encode()); os._exit(1)
os.write(2, b"closed\n")
os.close(2)
os.close(1)
t.join()' "$1" "$2"
done
has perl && perl -MSocket=getaddrinfo -e 1 2>/dev/null && exec perl -e 'use Socket qw(:DEFAULT getaddrinfo);
my ($why, @all) = getaddrinfo($ARGV[0], $ARGV[1], {socktype => SOCK_STREAM});
my $s;
for (@all) {
  last if socket($s, $_->{family}, SOCK_STREAM, 0) && connect($s, $_->{addr});
  $why = "$!"; undef $s;
}
$s or die "$why\n";
syswrite(STDERR, "connected\n");
sub pass {
  my ($from, $to) = @_;
  while (my $n = sysread($from, my $d, 65536)) {
    for (my $o = 0; $o < $n;) { my $w = syswrite($to, $d, $n - $o, $o) or return 0; $o += $w; }
  }
  return !$!;
}
$SIG{PIPE} = "IGNORE";
my $child = fork;
if (!$child) { close STDOUT; close STDERR; $! = 0; pass(STDIN, $s) and shutdown($s, 1); exit }
close STDIN;
$! = 0;
pass($s, STDOUT) or do { syswrite(STDERR, "$!"); kill 9, $child; exit 1 };
syswrite(STDERR, "closed\n"); close STDERR; close STDOUT;
waitpid($child, 0)' "$1" "$2"
# The others do not say when they are connected; the kernel does.
report() {
  while sleep 0.05 2>/dev/null || sleep 1; do
    [ -e "/proc/$1/exe" ] || exit
    # shellcheck disable=SC2012 # names are numbers
    for inode in $(ls -l "/proc/$1/fd" | sed -n 's/.*socket:\[\([0-9]*\)\]$/\1/p'); do
      # Any state but SYN-SENT (02) and CLOSE (07)
      if cat /proc/net/tcp /proc/net/tcp6 | grep -Eq " (0[13-689]|0B) [^ ]+ [^ ]+ [^ ]+ +[0-9]+ +[0-9]+ $inode "; then
        echo "$2" >&3
        exit
      fi
    done
  done
}
become() {
  text=$1
  shift
  (report $$ "$text" </dev/null 3>&2 >/dev/null 2>&1 &)
  exec "$@"
}
has ncat && become connected ncat "$1" "$2"
for nc in nc netcat; do
  has $nc || continue
  case $($nc -h 2>&1; $nc --help 2>&1) in
    *[Bb]usy[Bb]ox* | *Ncat*) become connected $nc "$1" "$2" ;;
    *"[-"*N*shutdown* | *-N*Shutdown*) become connected $nc -v -N "$1" "$2" ;;
  esac
  last=$nc
done
has busybox && busybox nc --help >/dev/null 2>&1 && become connected busybox nc "$1" "$2"
# It can't end one direction alone.
has bash && exec bash -c 'exec 3<>"/dev/tcp/$0/$1" || exit
echo "connected, no end" >&2
cat <&0 >&3 2>/dev/null 3<&- &
cat <&3
kill $! 2>/dev/null' "$1" "$2"
[ -z "$last" ] || become "connected, no end" "$last" -v "$1" "$2"
echo "it has none of python3, perl, nc, ncat and bash" >&2
exit 1
