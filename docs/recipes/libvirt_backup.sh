#!/bin/sh
# Copies a disk of a running domain of libvirt: libvirt_backup.sh DOMAIN DISK TARGET
#
# DISK is as `virsh domblklist DOMAIN` shows it, TARGET a new image, where QEMU may write. It appears when it is whole.
# LEASE: seconds after which the guest is thawed in any case (30). LIBVIRT_DEFAULT_URI is virsh's, GUESTWIRE_HOST and the
# like are guestwire's. Exit codes: 0; 7 when the freeze was lost; others are guestwire's or virsh's.
set -eu
domain=$1 disk=$2 target=$3
export LC_ALL=C
job=$(mktemp)

clean() {
    # Only what is this run's: another one may be under way.
    if [ -e "$job.begun" ] && [ -e "$target.partial" ]; then
        virsh --quiet domjobabort "$domain" 2>/dev/null || :
        rm -f "$target.partial"
    fi
    rm -f "$job" "$job.begun"
}
escape() { printf '%s' "$1" | sed "s/&/\\&amp;/g; s/</\\&lt;/g; s/'/\\&apos;/g"; }
trap clean EXIT
trap 'exit 1' HUP INT TERM

cat >"$job" <<XML
<domainbackup>
  <disks><disk name='$(escape "$disk")' type='file'><target file='$(escape "$target.partial")'/><driver type='qcow2'/></disk></disks>
</domainbackup>
XML
info=$(virsh domjobinfo "$domain")
case $info in *None*) rm -f "$target.partial" ;; esac # of a run that was killed
# shellcheck disable=SC2016
guestwire freeze --lease "${LEASE:-30}" "$domain" -- \
    sh -c 'virsh --quiet backup-begin "$1" "$2" && : >"$2.begun"' sh "$domain" "$job"
while :; do
    info=$(virsh domjobinfo "$domain") # when the domain has ended, this fails, and so does the backup
    case $info in *None*) break ;; esac
    sleep 0.5
done
virsh domjobinfo --completed "$domain" | grep -q '^Job type: *Completed' || {
    echo "libvirt_backup.sh: libvirt's backup job failed" >&2
    exit 1
}
qemu-img check -q "$target.partial"
mv "$target.partial" "$target"
