# Lists the folder $1; see describe.sh.
# include: describe.sh
# include: enter.sh
enter "$1" || exit 1
# As in walk.sh.
if find . -prune -printf '' 2>/dev/null; then
  exec find . -mindepth 1 -maxdepth 1 -printf '%y %s %m %Ts %P\0%U:%G:%u:%g:%l\0'
fi
# shellcheck disable=SC2035 # no name is taken for an option below
for name in .[!.]* ..?* *; do
  # A pattern that nothing matches stays as it is.
  if [ -e "$name" ] || [ -L "$name" ]; then describe "$name"; fi
done
