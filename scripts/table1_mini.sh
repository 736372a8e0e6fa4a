#!/usr/bin/env bash
# Table 1 in miniature, on real pictures: data, pixel cache, teacher, phases, stage 1, stage 2, rivals, probes, report.
# Each step continues where it was stopped and skips what is finished. The seeds run side by side.
source "$(dirname "$0")/common.sh"
export RAPTOR_MINIATURE="${RAPTOR_MINIATURE:-data/miniature}"

one_seed() {
  for part in blocks surrogates rivals probes; do
    train -m "experiment=table1_mini/$part" trainer.enable_progress_bar=false "seed=$1"
  done
}

begin table1_mini
step "pictures"
[[ -e $RAPTOR_MINIATURE ]] || python scripts/make_miniature.py "$RAPTOR_MINIATURE"
step "pixel cache"
python -m raptor.extract experiment=table1_mini/pixels
step "teacher"
OMP_NUM_THREADS=2 train experiment=table1_mini/teacher
step "phases"
python -m raptor.phases experiment=table1_mini/phases
step "stage 1, stage 2, rivals, probes (seeds ${seeds[*]})"
side_by_side one_seed
step "report"
python -m raptor.report experiment=table1_mini
