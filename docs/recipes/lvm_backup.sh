#!/bin/sh
# Gives a snapshot of a running VM's volume to COMMAND, on standard input: lvm_backup.sh GUEST GROUP/VOLUME COMMAND...
#
# LEASE    seconds after which the guest is thawed in any case (30)
# SIZE     room for what the guest writes until COMMAND has read all (1G); empty for a thin volume, which needs none
# STORAGE  runs a command on the machine that has the volume, as "ssh storage1"; empty: this machine
#
# GUESTWIRE_HOST and the like say how guestwire reaches the guest. Without the exit code 0 there is no backup, whatever
# COMMAND made of it: 7 says that the freeze was lost.
set -eu
guest=$1 volume=$2
shift 2
size=${SIZE-1G} on=${STORAGE:-}
# A run that fails removes what has this name: no other run of the same second may have it.
snapshot=${volume#*/}-$(date -u +%Y%m%d%H%M%S)-$(uname -n)-$$
read_all=$(mktemp)

clean() {
    rm -f "$read_all"
    # It is not there when the guest could not be frozen.
    $on lvremove --quiet --quiet --yes "${volume%/*}/$snapshot" >/dev/null 2>&1 || :
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

# Standard output is COMMAND's alone.
# shellcheck disable=SC2086  # $on is several words, or none
guestwire freeze --lease "${LEASE:-30}" "$guest" -- \
    $on lvcreate --quiet --snapshot --permission r --setactivationskip n --name "$snapshot" ${size:+--size "$size"} "$volume" >&2

# A pipe's exit code is that of its last command alone. When SIZE was too small, reading fails.
{ $on dd bs=1M status=none if="/dev/${volume%/*}/$snapshot" && echo yes >"$read_all"; } | "$@"
[ -s "$read_all" ] || { echo "lvm_backup.sh: the snapshot could not be read to its end" >&2; exit 1; }
