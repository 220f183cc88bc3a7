# Ends with 0 where the process $1 is there.
kill -0 "$1" 2>/dev/null || [ -d /proc/"$1" ]
