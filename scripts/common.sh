# Sourced by the scripts that run a whole study: one call at a time, the seeds side by side.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seeds=(${SEEDS:-0 1})

step() { printf '\n== %s\n' "$1"; }
train() { python -m raptor.train "$@"; }

# begin STUDY: whatever stops this call stops its jobs; if it was killed, they hold the lock until they end
begin() {
  trap 'trap - TERM; kill -TERM 0; exit 130' INT TERM
  if command -v flock >/dev/null; then
    mkdir -p "${RAPTOR_RUNS:-runs}"
    exec 9>"${RAPTOR_RUNS:-runs}/.$1.lock"
    flock 9
  fi
}

# side_by_side FUNCTION: call it with each seed, on one thread each
side_by_side() {
  local jobs=() seed job
  for seed in "${seeds[@]}"; do
    OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$1" "$seed" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job"; done
}
