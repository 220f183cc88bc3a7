# Removes the file $1; one that is not there is gone already.
exec rm -f -- "$1"
