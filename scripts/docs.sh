#!/usr/bin/env bash
# Builds the pages as a site, strictly, into build/site; open build/site/index.html. Links and pictures are checked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up docs
exec "$python" scripts/build_docs.py
