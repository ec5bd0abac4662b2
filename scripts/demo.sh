#!/usr/bin/env bash
# The main job on a fresh machine: tune the built-in model with eggroll, grpo and ppo on a single-turn and a multi-turn
# task with the same budget, and compare.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up

folder="runs/demo-$(date +%Y-%m-%d-%H-%M-%S)"
"$python" scripts/train.py -m algorithm=eggroll,grpo,ppo env=sort,recall model=tiny seed=0 budget=quick budget.limit=30 \
  hydra.sweep.dir="$folder" "$@"
"$python" scripts/compare.py "$folder" out="$folder/report"
