#!/bin/sh
# A hook of Proxmox VE's vzdump: `script: /usr/local/sbin/vzdump_hook.sh` in /etc/vzdump.conf, or in a backup job.
#
# vzdump freezes a guest by itself, and none of its phases lies between freeze and thaw. But where the guest can't be frozen
# it goes on all the same, with a line in its log, and when it is killed meanwhile, nothing thaws. With this hook
#   - a VM whose guest can't be frozen, or is frozen already, has no backup, but an error;
#   - what vzdump froze is thawed LEASE seconds later in any case;
#   - a guest that is frozen at the end is thawed, and the backup is an error.
#
# vzdump empties the environment, so the settings are in a file beside this one, vzdump_hook.sh.conf:
#   export GUESTWIRE_HOST=https://localhost:8006 GUESTWIRE_TOKEN_FILE=/root/guestwire.token GUESTWIRE_CA=/etc/pve/pve-root-ca.pem
#   LEASE=120                   # vzdump's own limit is longer
#   WITHOUT_AGENT="105 106"     # VMs whose guests have no agent: for those the hook does nothing
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
LEASE=120 WITHOUT_AGENT='' RUN=/run
# shellcheck source=/dev/null
. "$0.conf"
phase=$1 mode=${2:-} vmid=${3:-}
guard=$RUN/guestwire-vzdump-$vmid

# Phases of the whole job have no VM, and in the modes "stop" and "suspend" nothing is frozen.
case "$phase ${VMTYPE:-} $mode" in
    "backup-start qemu snapshot" | "post-restart qemu snapshot" | "backup-end qemu snapshot" | "backup-abort qemu snapshot") ;;
    *) exit 0 ;;
esac
case " $WITHOUT_AGENT " in *" $vmid "*) exit 0 ;; esac

vm=$(guestwire vm --json "$vmid")
case $vm in
    *'"status": "running"'*) ;;
    *) exit 0 ;;
esac

case $phase in
    backup-start)
        state=$(guestwire freeze-status "$vmid")
        if [ "$state" != thawed ]; then
            echo "VM $vmid is frozen already: no backup" >&2
            exit 1
        fi
        guestwire freeze --lease "$LEASE" "$vmid" -- true || {
            echo "the guest of VM $vmid can't be frozen: no backup" >&2
            exit 1
        }
        ;;
    post-restart)
        # The last phase before vzdump freezes the guest. The guard outlives vzdump, and holds none of its pipes.
        # shellcheck disable=SC2016
        setsid sh -c 'sleep "$1"; guestwire thaw "$2"; rm -f "$3"' guard "$LEASE" "$vmid" "$guard" </dev/null >/dev/null 2>&1 &
        echo $! >"$guard"
        ;;
    backup-end | backup-abort)
        [ ! -s "$guard" ] || kill -- "-$(cat "$guard")" 2>/dev/null || :
        rm -f "$guard"
        thawed=$(guestwire thaw --json "$vmid")
        if [ "$thawed" != 0 ]; then
            echo "the guest of VM $vmid was still frozen; it is thawed now" >&2
            exit 1
        fi
        ;;
esac
