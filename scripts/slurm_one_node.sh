#!/usr/bin/env bash
# A real SLURM on this machine, for the tests and to try things out: slurm_one_node.sh start|stop DIR [--nodes N]
# With --nodes it has N nodes, node1 to nodeN: a slurmd for each, whose process id is in DIR/slurmd.nodeI.pid. A node
# that does not answer for 10 seconds counts as dead; "node DIR nodeI" starts its slurmd again.
# It needs root and Debian's packages (apt-get install slurmctld slurmd slurm-client munge); all its files are in DIR,
# its ports are its own, and its two GPUs stand in for real ones (they are the null device).
# "start" ends by printing what to put into the environment:  eval "$(scripts/slurm_one_node.sh start DIR)"
set -euo pipefail
usage() { echo "usage: $0 start|stop DIR [--nodes N] | node DIR NAME" >&2; exit 2; }
[[ $# -ge 2 ]] || usage
nodes=1
case $1:$# in
  start:4) [[ $3 == --nodes && $4 =~ ^[1-9][0-9]*$ ]] || usage; nodes=$4 ;;
  start:2 | stop:2 | node:3) ;;
  *) usage ;;
esac
mkdir -p "$2"
dir=$(cd "$2" && pwd)

stop() {
  local file pids=()
  for file in "$dir"/slurmd.*.pid "$dir/slurmctld.pid" "$dir/munged.pid"; do
    [[ -f $file ]] && pids+=("$(cat "$file")") && rm -f "$file"
  done
  ((${#pids[@]})) || return 0
  kill "${pids[@]}" 2>/dev/null || true
  for _ in $(seq 50); do kill -0 "${pids[@]}" 2>/dev/null || break; sleep 0.1; done
  kill -9 "${pids[@]}" 2>/dev/null || true
}

# wait_for SECONDS COMMAND...
wait_for() {
  local tries=$(($1 * 5)); shift
  for _ in $(seq "$tries"); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done
  echo "$* did not succeed; logs are in $dir" >&2
  exit 1
}

free_ports() {
  python3 - "$1" <<'PY'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PY
}

start_node() {
  slurmd -f "$SLURM_CONF" -N "$1" >>"$dir/slurmd.out" 2>&1
  wait_for 30 bash -c "sinfo -h -n '$1' -o %T | grep -qE '^(idle|mixed|allocated)$'"
}

start() {
  local host cores memory ports names spool program i
  [[ $EUID -eq 0 ]] || { echo "$0: SLURM's daemons need root" >&2; exit 1; }
  for program in slurmctld slurmd squeue munged; do
    command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || {
      echo "$0: no $program here: apt-get install slurmctld slurmd slurm-client munge" >&2; exit 1; }
  done
  export PATH=$PATH:/usr/sbin
  stop
  host=$(hostname -s) cores=$(nproc) memory=$(($(grep -oP 'MemTotal:\s+\K\d+' /proc/meminfo) / 1024 * 9 / 10))
  read -ra ports < <(free_ports $((nodes + 1)))
  names=("$host") spool=$dir/spool
  if ((nodes > 1)); then mapfile -t names < <(seq -f 'node%.0f' "$nodes") && spool=$dir/spool/%n; fi
  mkdir -p "$dir"/{state,spool,munge}
  for i in 0 1; do [[ -e $dir/gpu$i ]] || mknod -m 666 "$dir/gpu$i" c 1 3; done

  [[ -f $dir/munge/key ]] || head -c 1024 /dev/urandom >"$dir/munge/key"
  chmod 711 "$dir"
  chown -R munge: "$dir/munge"
  chmod 700 "$dir/munge"
  chmod 400 "$dir/munge/key"
  # munged wants no folder above its files that others may write to; --force lets /tmp pass
  mkdir -p "$dir/socket" && chown munge: "$dir/socket" && chmod 755 "$dir/socket"
  runuser -u munge -- munged --force --key-file="$dir/munge/key" --socket="$dir/socket/munge" \
    --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" 2>>"$dir/munged.log"
  wait_for 10 test -s "$dir/munge/pid"
  cp "$dir/munge/pid" "$dir/munged.pid"

  cat >"$dir/slurm.conf" <<EOF
ClusterName=one_node
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$dir/socket/munge
SlurmUser=root
SlurmctldPort=${ports[0]}
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
StateSaveLocation=$dir/state
SlurmdSpoolDir=$spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobRequeue=1
ReturnToService=2
MinJobAge=3600
KillWait=10
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
DefMemPerNode=$((memory / 8))
MpiDefault=none
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
EOF
  ((nodes == 1)) || echo "SlurmdTimeout=10" >>"$dir/slurm.conf"
  : >"$dir/gres.conf"
  for i in "${!names[@]}"; do
    echo "NodeName=${names[i]} NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[i + 1]} CPUs=$cores" \
      "RealMemory=$memory Gres=gpu:2 State=UNKNOWN" >>"$dir/slurm.conf"
    echo "NodeName=${names[i]} Name=gpu File=$dir/gpu[0-1]" >>"$dir/gres.conf"
    mkdir -p "$dir/spool/${names[i]}"
  done
  export SLURM_CONF=$dir/slurm.conf
  slurmctld -f "$SLURM_CONF" >>"$dir/slurmctld.out" 2>&1
  for i in "${names[@]}"; do start_node "$i"; done
  echo "export SLURM_CONF=$dir/slurm.conf"
}

case $1 in
  start) start ;;
  stop) stop ;;
  node) SLURM_CONF=$dir/slurm.conf PATH=$PATH:/usr/sbin start_node "$3" ;;
esac
