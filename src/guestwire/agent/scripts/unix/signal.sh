# Sends the signal $1 to the process $2 and all below it, as a terminal does: to all at once, from the top. A shell that hears of it later
# than what it waits for would go on with its next command.
# include: tree.sh
kill -0 "$2" 2>/dev/null || exit 1
# A child that ended since it was listed is no failure.
# shellcheck disable=SC2046 # each number is a word
kill -s "$1" $(tree "$2") 2>/dev/null
true
