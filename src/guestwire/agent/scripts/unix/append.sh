# Adds standard input to the file $1; one that was not there is for its owner alone.
umask 077
cat >>"$1"
