#!/usr/bin/env bash
# One part of a visit to a bare GPU machine without a network; tests, bench and train stop before ten minutes. Run it from the root of the checkout:
#   SITE=site.tar.xz tools/gpu/part.sh setup        unpacks the packages of tools/gpu/collect.sh
#   tools/gpu/part.sh tests                         the tests that need a GPU
#   tools/gpu/part.sh bench [SECTION ...]           the benchmarks; the result is $OUT/RESULTS.md
#   DATA=molecules.smi.xz tools/gpu/part.sh data    starts to prepare training data on all cores, in the background
#   tools/gpu/part.sh train [KEY=VALUE ...]         trains run=gpu_cmim for SECONDS_TO_TRAIN (460); repeat it to resume
# Results are written to $OUT (default: out), which has files of at most 15 MB. What stays on the machine is in $STATE. DATA is a list of
# SMILES: `sort -u molecules.smi | xz -9 > molecules.smi.xz` takes about 6 bytes a molecule.
set -euo pipefail
STATE=${STATE:-/tmp/nemo_cmim_gpu}
OUT=${OUT:-out}
PYTHON=${PYTHON:-python3}
mkdir -p "$STATE" "$OUT"
export PYTHONPATH=$STATE/site:$PWD PYTHONUNBUFFERED=1
part=${1:?usage: tools/gpu/part.sh setup|tests|bench|data|train}
shift

case $part in
  setup)
    rm -rf "$STATE/site" && mkdir "$STATE/site"
    tar --directory "$STATE/site" --extract --xz --file "$SITE"
    "$PYTHON" -W ignore -c 'import torch, nemo_cmim.training.run; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
    ;;
  tests)
    timeout "${SECONDS_TO_TEST:-570}" "$PYTHON" -m pytest -m gpu tests/gpu -p no:cacheprovider "$@" 2>&1 | tee "$OUT/tests.log"
    ;;
  bench)
    smiles=$STATE/molecules.smi.xz
    [ -e "$smiles" ] || smiles=tests/real_smiles/molecules.smi
    timeout "${SECONDS_TO_TEST:-570}" "$PYTHON" -W ignore -m benchmarks.gpu "$@" --smiles "$smiles" --record --results "$OUT/RESULTS.md" 2>&1 | tee "$OUT/bench.log"
    ;;
  data)
    cp "$DATA" "$STATE/molecules.smi.xz"
    setsid nohup "$PYTHON" -m nemo_cmim.cli prepare "$STATE/molecules.smi.xz" -o "$STATE/data" --properties standard --fingerprint-bits 512 \
      --max-molecular-weight inf --max-logp inf --max-tokens 255 --valid-molecules 4000 --test-molecules 4000 > "$STATE/data.log" 2>&1 &
    echo "preparing; the log is $STATE/data.log"
    ;;
  train)
    while pgrep -f "prepare $STATE/molecules" > /dev/null; do sleep 2; done    # data still prepares
    status=0
    timeout --signal=USR1 --kill-after=60 "${SECONDS_TO_TRAIN:-460}" "$PYTHON" -m nemo_cmim.cli train run=gpu_cmim "model.train_ds.folder='$STATE/data'" \
      "exp_manager.explicit_log_dir='$STATE/run'" "$@" 2>&1 | tee "$OUT/train.log" || status=$?
    [ "$status" -ne 124 ] || status=0    # 124: the time is up, and a checkpoint is saved
    gzip -c "$STATE/run/metrics/steps.jsonl" > "$OUT/steps.jsonl.gz" || status=1
    if "$PYTHON" -m nemo_cmim.cli export "$STATE/run" -o "$STATE/model.nemo" --overwrite; then
      split --bytes=15M "$STATE/model.nemo" "$OUT/model.nemo."    # fp32: cat model.nemo.* > model.nemo
    else
      status=1
    fi
    exit "$status"
    ;;
  *)
    echo "unknown part: $part" >&2
    exit 2
    ;;
esac
