#!/usr/bin/env bash
# Take one node out of service before a reboot: stop claiming, wait, stop the unit.
#
#   drain-node.sh [--force-after SECONDS] NODE
#
# Waits without limit by default. With --force-after the remaining jobs are handed back to the
# queue; they lose their progress but not an attempt. Never use `systemctl kill -s KILL`
# instead: the leases would have to expire first and each job would count a crash.
set -euo pipefail

force_after=0
if [[ "${1:-}" == "--force-after" ]]; then
  force_after=$2
  shift 2
fi
node=${1:?usage: drain-node.sh [--force-after SECONDS] NODE}
metrics="http://${node}:9477/metrics"

running() {
  curl -fsS --max-time 5 "$metrics" | awk '/^quern_jobs_running /{ print $2 }'
}

leader=$(curl -fsS --max-time 5 "$metrics" | awk '/^quern_scheduler_leader /{ print $2 }')
if [[ "$leader" == "1" ]]; then
  echo "note: ${node} leads the scheduler; another node takes over within 10 seconds"
fi

# SIGUSR1 stops claiming but keeps the process alive, so metrics stay reachable while it drains.
ssh "$node" sudo systemctl kill -s USR1 quern

started=$SECONDS
while left=$(running) && (( left > 0 )); do
  waited=$(( SECONDS - started ))
  if (( force_after > 0 && waited >= force_after )); then
    echo "handing ${left} jobs back after ${waited}s"
    break
  fi
  printf '\r%s: %s jobs running, %ss' "$node" "$left" "$waited"
  sleep 2
done
echo

ssh "$node" sudo systemctl stop quern
echo "${node} is drained"
