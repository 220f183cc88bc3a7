# facts GNU_FORMAT BSD_FORMAT FILE: prints facts about a file; a link is not followed.
# The stat of GNU has an -f too, which means something else: -c decides.
if stat -c %s / >/dev/null 2>&1; then
  facts() { stat -c "$1" -- "$3"; }
else
  facts() { stat -f "$2" -- "$3"; }
fi
