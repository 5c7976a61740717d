#!/bin/sh
# A chunk of training on the device at hand, then the averaged weights in files under 16 MB.
#   benchmarks/gpu_train.sh STAGE OUT [options of colorflow-export train STAGE]     STAGE: vae clip unet gsrp parts descreen
# It resumes from WORK's checkpoint; on a fresh machine from OUT's files of an earlier chunk, if there are any.
# WORK (default /tmp/colorflow-train): data pool and checkpoints. CHAPTERS (default 100): size of the pool, drawn first.
# MINUTES (default 7, of which drawing the pool is not part). PYTHON: the interpreter (default python3).
set -eu
stage=$1 out=$2
shift 2
cd "$(dirname "$0")/.."
PYTHONPATH="$PWD:$PWD/export:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH PYTHONUNBUFFERED=1
work=${WORK:-/tmp/colorflow-train} python=${PYTHON:-python3}
mkdir -p "$work"
"$python" benchmarks/gpu_train.py take-up "$out" "$work"
"$python" -m colorflow_export train pool --work "$work" --chapters "${CHAPTERS:-100}"
"$python" -m colorflow_export train "$stage" --work "$work" --minutes "${MINUTES:-7}" "$@"
"$python" benchmarks/gpu_train.py give-back "$work" "$out" "$stage"
