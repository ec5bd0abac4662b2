#!/usr/bin/env bash
# Sets up .venv on a fresh machine and runs lint, types and the whole test suite. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up test

# Two test processes with one thread each: torch's own threads would fight over the same cores. To see that no test depends on
# a machine's rounding: OMP_NUM_THREADS=4 ONEDNN_MAX_CPU_ISA=AVX2 bash scripts/test.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1
export MKL_NUM_THREADS="$OMP_NUM_THREADS"
echo "ruff"
"$python" -m ruff check .
"$python" -m ruff format --check --quiet . || { echo "error: run: $python -m ruff format ." >&2; exit 1; }
echo "mypy"
"$python" -m mypy --no-error-summary
echo "pytest"
"$python" -m pytest -q -n 2 "$@"
