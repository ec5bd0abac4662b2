#!/usr/bin/env bash
# Known vulnerabilities of the pinned dependencies, by pip-audit in an environment of its own, from osv.dev. Where that
# cannot be reached, it says so and passes. Licences: tests/test_licences.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up test
if ! "$python" -c 'import urllib.request as u; u.urlopen("https://api.osv.dev/v1/vulns/PYSEC-2023-74", timeout=10)' 2>/dev/null; then
  echo "audit: not done, since osv.dev cannot be reached"
  exit 0
fi
"$python" -m venv .venv-audit
.venv-audit/bin/python -m pip install -q pip-audit
.venv-audit/bin/pip-audit --vulnerability-service osv --strict --no-deps --disable-pip -r constraints.txt
