#!/bin/sh
# Everything that the GPU at hand can measure, in one command of under 10 minutes (gpu.py says what).
#   benchmarks/gpu.sh [--engines DIR ...] [--page W H] [--steps N] [--out FILE]
#   benchmarks/gpu.sh --small --device cpu --no-compile --repeat 1     the same on tiny networks, to test the script
# Needs: torch, diffusers, transformers, safetensors, numpy, pillow; with --engines also the runtime's own needs.
# PYTHON: the interpreter (default python3). Nothing is installed or downloaded; colorflow-rt need not be installed.
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH="$PWD:$PWD/export:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH PYTHONUNBUFFERED=1
exec timeout --signal=INT --kill-after=10 590 "${PYTHON:-python3}" benchmarks/gpu.py "$@"
