#!/usr/bin/env bash
# Collect what a machine with a GPU and without network lacks: scripts/gpu_bundle.sh [PYTHON_VERSION]
#
# Such machines come with torch and its surroundings (present, below). The wheels of the rest go to build/gpu_bundle/,
# some MB, beside a script that runs python -m benchmarks.acceptance with them. build/raptor_gpu.tar.gz is the project
# with that folder. The wheels are for Linux on x86-64 and Python 3.12, or the version given.
set -euo pipefail
cd "$(dirname "$0")/.."

# what the machine must have: tests/test_gpu_bundle.py compares both lists with pyproject.toml
present="torch torchvision timm pytorch-lightning torchmetrics tensorboard safetensors huggingface-hub xxhash filelock rich
  numpy pillow pandas scikit-learn matplotlib tabulate jinja2 scipy threadpoolctl pytest jaxtyping"
wheels="hydra-core>=1.3.8,<1.4 omegaconf>=2.3,<2.4 pydantic>=2.10 submitit>=1.5 beartype>=0.19"
not_needed="wandb" # logger=wandb alone

version="${1:-3.12}"
python="${PYTHON:-python3}"
bundle=build/gpu_bundle
limit=30 # MB

rm -rf "$bundle" "$bundle.part"
mkdir -p "$bundle.part/wheels"
# omegaconf needs it, and there is no wheel of it
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$bundle.part/wheels" antlr4-python3-runtime==4.9.3
platforms=()
for glibc in 2_17 2_24 2_28; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
# shellcheck disable=SC2086 # a list of words
"$python" -m pip download --quiet --dest "$bundle.part/wheels" --find-links "$bundle.part/wheels" \
  --only-binary=:all: --implementation cp --python-version "$version" "${platforms[@]}" --platform manylinux2014_x86_64 $wheels

cat >"$bundle.part/run" <<'RUN'
#!/usr/bin/env bash
# Run python -m benchmarks.acceptance by this machine's Python with the wheels beside this file; no network is needed.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-python3}"
if [[ ! -d $here/site ]]; then
  rm -rf "$here/site.part"
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$here/site.part" "$here"/wheels/*.whl
  mv "$here/site.part" "$here/site"
fi
cd "$here/../.."
export PYTHONPATH="$here/site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m benchmarks.acceptance "$@"
RUN
chmod +x "$bundle.part/run"
mv "$bundle.part" "$bundle"

archive=build/raptor_gpu.tar.gz # the project with the bundle in it: one file to copy
{ git ls-files -z && find "$bundle" -type f -print0; } | tar --null --files-from=- --create --gzip --file "$archive"

for made in "$bundle" "$archive"; do
  size="$(du -sm "$made" | cut -f1)"
  if ((size > limit)); then
    echo "error: $made=$size MB: expected at most $limit MB. Fix: take out what the machine has." >&2
    exit 1
  fi
  echo "$made: $size MB"
done
# shellcheck disable=SC2086 # a list of words
echo "$(find "$bundle/wheels" -name '*.whl' | wc -l) wheels, for a machine that has:" $present "(and not $not_needed)."
echo "There: tar xzf raptor_gpu.tar.gz, then $bundle/run"
