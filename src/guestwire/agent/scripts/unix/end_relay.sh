# Clears what is left of a stream whose relay was killed; one that runs clears it itself.
#   $1 the relay's folder
# include: clear_stream.sh
relay=$(cat "$1/relay" 2>/dev/null)
if ! [ "$relay" ] || ! [ -d "/proc/$relay" ]; then clear_stream "$1"; fi
