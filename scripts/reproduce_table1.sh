#!/usr/bin/env bash
# The paper's Table 1 from the data sets to the report: 18 blocks, 9 surrogates, 33 probes, and two more seeds for each
# teacher. Called again, it runs what is missing or failed. Arguments go to raptor.reproduce:
#   RAPTOR_DATA=/data scripts/reproduce_table1.sh hydra/launcher=slurm
# Where the data sets must lie: python -m raptor.train --cfg job --package paths
source "$(dirname "$0")/common.sh"

python scripts/download_heads.py "${RAPTOR_DATA:-data}/heads"
python -m raptor.reproduce experiment=table1 "$@"
