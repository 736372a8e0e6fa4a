#!/usr/bin/env bash
# The whole pipeline on scikit-learn's digits: teacher, phases, stage 1, stage 2, probes, report.
# Each step continues where it was stopped and skips what is finished. The seeds run side by side.
set -euo pipefail

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
seeds=(${SEEDS:-0 1})

trap 'trap - TERM; kill -TERM 0; exit 130' INT TERM # whatever stops this stops its jobs
if command -v flock >/dev/null; then # and if it was killed, its jobs hold this lock until they end
  mkdir -p "${RAPTOR_RUNS:-runs}"
  exec 9>"${RAPTOR_RUNS:-runs}/.demo.lock"
  flock 9
fi

step() { printf '\n== %s\n' "$1"; }
train() { python -m raptor.train "$@"; }

one_seed() {
  local sweep=(trainer.enable_progress_bar=false "seed=$1")
  train -m experiment=demo/blocks "${sweep[@]}"
  train -m experiment=demo/surrogates "${sweep[@]}"
  train -m experiment=demo/probes "${sweep[@]}"
  train -m experiment=demo/probe_teacher,demo/probe_untrained "${sweep[@]}"
}

step "teacher"
OMP_NUM_THREADS=2 train experiment=demo/teacher
step "phases"
python -m raptor.phases experiment=demo/phases
step "stage 1, stage 2, probes (seeds ${seeds[*]})"
jobs=()
for seed in "${seeds[@]}"; do
  one_seed "$seed" &
  jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
step "report"
python -m raptor.report experiment=demo
