#!/usr/bin/env bash
# Sets up .venv on a fresh machine and runs lint, types and the whole test suite. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up test

# Two test processes with one thread each: torch's own threads would fight over the same cores.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1
echo "ruff"
"$python" -m ruff check .
"$python" -m ruff format --check --quiet . || { echo "error: run: $python -m ruff format ." >&2; exit 1; }
echo "mypy"
"$python" -m mypy --no-error-summary
echo "pytest"
"$python" -m pytest -q -n 2 "$@"
