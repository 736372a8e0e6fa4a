#!/usr/bin/env bash
# The paper's Table 1 from the data sets to the report: 18 blocks, 9 surrogates, 33 probes, and two more seeds for each
# teacher. Every step continues where it was stopped and skips what is finished. Arguments go to every training:
#   RAPTOR_DATA=/data scripts/reproduce_table1.sh trainer.precision=32-true
# Where the data sets must lie: python -m raptor.train --cfg job --package paths
source "$(dirname "$0")/common.sh"

begin table1
step "Meta's linear heads"
python scripts/download_heads.py "${RAPTOR_DATA:-data}/heads"
step "pixel cache of ImageNet (193 GB)"
python -m raptor.extract content=pixels teacher=dinov2_vitb14_reg data=imagenet data.pixels=null
step "phases, to compare with the published ones"
python -m raptor.phases experiment=table1/phases
for part in blocks surrogates probes baselines; do
  step "$part"
  train -m "experiment=table1/$part" "$@"
done
step "report"
python -m raptor.report experiment=table1
