# Prints how many bytes the file $1 has.
wc -c <"$1"
