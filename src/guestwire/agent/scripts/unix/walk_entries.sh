# Describes each path of those that find gives.
# include: describe.sh
for path; do describe "$path"; done
