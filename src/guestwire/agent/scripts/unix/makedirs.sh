# Makes folders, and those above them.
for folder; do mkdir -p -- "$folder" || exit 1; done
