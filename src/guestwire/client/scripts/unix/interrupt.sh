# Sends SIGINT to the process $1 and all below it. A shell waits for what it runs: that must end first.
interrupt() {
  # shellcheck disable=SC2013 # they are numbers, all on one line
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do interrupt "$child"; done
  kill -INT "$1" 2>/dev/null || [ ! -d /proc/"$1" ]
}
interrupt "$1"
