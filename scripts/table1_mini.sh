#!/usr/bin/env bash
# Table 1 in miniature, on real pictures: data, pixel cache, teacher, phases, stage 1, stage 2, probes, report.
# Each step continues where it was stopped and skips what is finished. The seeds run side by side.
set -euo pipefail
cd "$(dirname "$0")/.."

export RAPTOR_DATA="${RAPTOR_DATA:-data/miniature}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
seeds=(${SEEDS:-0 1})

step() { printf '\n== %s\n' "$1"; }
train() { python -m raptor.train "$@"; }

one_seed() {
  for part in blocks surrogates probes; do
    train -m "experiment=table1_mini/$part" trainer.enable_progress_bar=false "seed=$1"
  done
}

step "pictures"
[[ -e $RAPTOR_DATA ]] || python scripts/make_miniature.py "$RAPTOR_DATA"
step "pixel cache"
python -m raptor.extract experiment=table1_mini/pixels
step "teacher"
OMP_NUM_THREADS=2 train experiment=table1_mini/teacher
step "phases"
python -m raptor.phases experiment=table1_mini/phases
step "stage 1, stage 2, probes (seeds ${seeds[*]})"
set -m # each seed in a process group of its own, so that Ctrl-C ends all of it
jobs=()
trap 'for job in "${jobs[@]}"; do kill -- "-$job" 2>/dev/null || true; done' EXIT
trap 'exit 130' INT TERM
for seed in "${seeds[@]}"; do
  one_seed "$seed" &
  jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
trap - EXIT
step "report"
python -m raptor.report experiment=table1_mini
