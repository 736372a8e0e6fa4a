#!/usr/bin/env bash
# The whole pipeline on scikit-learn's digits: teacher, phases, stage 1, stage 2, rivals, probes, report.
# Each step continues where it was stopped and skips what is finished. The seeds run side by side.
source "$(dirname "$0")/common.sh"

one_seed() {
  local sweep=(trainer.enable_progress_bar=false "seed=$1")
  train -m experiment=demo/blocks "${sweep[@]}"
  train -m experiment=demo/surrogates "${sweep[@]}"
  train -m experiment=demo/rivals "${sweep[@]}"
  train -m experiment=demo/probes "${sweep[@]}"
  train -m experiment=demo/probe_rivals "${sweep[@]}"
  train -m experiment=demo/probe_teacher,demo/probe_untrained "${sweep[@]}"
}

begin demo
step "teacher"
OMP_NUM_THREADS=2 train experiment=demo/teacher
step "phases"
python -m raptor.phases experiment=demo/phases
step "stage 1, stage 2, rivals, probes (seeds ${seeds[*]})"
side_by_side one_seed
step "report"
python -m raptor.report experiment=demo
