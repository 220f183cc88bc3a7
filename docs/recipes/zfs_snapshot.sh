#!/bin/sh
# Takes a snapshot of a running VM's dataset, with all below it, and prints its name: zfs_snapshot.sh GUEST DATASET
#
# LEASE    seconds after which the guest is thawed in any case (30)
# STORAGE  runs a command on the machine that has the dataset, as "ssh storage1"; empty: this machine
#
# GUESTWIRE_HOST and the like say how guestwire reaches the guest. No snapshot is left when the guest was not frozen to its
# end: the exit code is 7 then.
set -eu
# A run that fails destroys what has this name: no other run of the same second may have it.
guest=$1 snapshot=$2@guestwire-$(date -u +%Y-%m-%dT%H:%M:%SZ)-$(uname -n)-$$ on=${STORAGE:-}
code=0
# shellcheck disable=SC2086  # $on is several words, or none
guestwire freeze --lease "${LEASE:-30}" "$guest" -- $on zfs snapshot -r "$snapshot" >&2 || code=$?
if [ "$code" != 0 ]; then
    $on zfs destroy -r "$snapshot" >/dev/null 2>&1 || :
    exit "$code"
fi
echo "$snapshot"
