#!/bin/sh
# Backs up a disk of a running VM with restic: restic_backup.sh GUEST QMP DISK FOLDER
#
# As qemu_backup.py; the copy is for a while in FOLDER, which needs room for the whole disk, and where QEMU may write.
# RESTIC_REPOSITORY, RESTIC_PASSWORD_FILE and the like are restic's; GUESTWIRE_HOST and the like guestwire's.
set -eu
guest=$1 qmp=$2 disk=$3 name=$1-$3.raw
copy=$4/$name
trap 'rm -f "$copy"' EXIT
trap 'exit 1' HUP INT TERM

# A raw image has each block at its own place, so that restic finds again what has not changed.
"$(dirname "$0")/qemu_backup.py" --lease "${LEASE:-30}" --format raw "$guest" "$qmp" "$disk=$copy"
restic backup --stdin --stdin-filename "$name" <"$copy"
