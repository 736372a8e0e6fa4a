#!/usr/bin/env bash
# Table 1 in miniature, on real pictures: data, pixel cache, teacher, phases, stage 1, stage 2, probes, report.
# Each step continues where it was stopped and skips what is finished. The seeds run side by side.
set -euo pipefail
cd "$(dirname "$0")/.."

export RAPTOR_MINIATURE="${RAPTOR_MINIATURE:-data/miniature}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
seeds=(${SEEDS:-0 1})

trap 'trap - TERM; kill -TERM 0; exit 130' INT TERM # whatever stops this stops its jobs
if command -v flock >/dev/null; then # and if it was killed, its jobs hold this lock until they end
  mkdir -p "${RAPTOR_RUNS:-runs}"
  exec 9>"${RAPTOR_RUNS:-runs}/.table1_mini.lock"
  flock 9
fi

step() { printf '\n== %s\n' "$1"; }
train() { python -m raptor.train "$@"; }

one_seed() {
  for part in blocks surrogates probes; do
    train -m "experiment=table1_mini/$part" trainer.enable_progress_bar=false "seed=$1"
  done
}

step "pictures"
[[ -e $RAPTOR_MINIATURE ]] || python scripts/make_miniature.py "$RAPTOR_MINIATURE"
step "pixel cache"
python -m raptor.extract experiment=table1_mini/pixels
step "teacher"
OMP_NUM_THREADS=2 train experiment=table1_mini/teacher
step "phases"
python -m raptor.phases experiment=table1_mini/phases
step "stage 1, stage 2, probes (seeds ${seeds[*]})"
jobs=()
for seed in "${seeds[@]}"; do
  one_seed "$seed" &
  jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
step "report"
python -m raptor.report experiment=table1_mini
