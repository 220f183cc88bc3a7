# Prints the SHA-256 of the first $2 bytes of the file $1.
# include: sha.sh
head -c "$2" <"$1" | sha
