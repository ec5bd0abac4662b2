# Sourced by the other scripts: makes .venv in the repo's root and installs evotext into it, once for each state of the
# requirements. Usage: `source scripts/setup.sh; set_up [EXTRA]` from the root; $python is then the environment's Python.

find_python() {
  local name
  for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
    if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 &&
      "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
      printf '%s\n' "$name"
      return
    fi
  done
  echo "error: expected Python 3.11, 3.12 or 3.13, found none; install one or set PYTHON to it" >&2
  return 1
}

set_up() {
  local extra="${1:-}" base wanted
  if [ ! -x .venv/bin/python ]; then
    base=$(find_python) || return 1
    echo "making .venv with $("$base" --version)"
    "$base" -m venv .venv || {
      rm -rf .venv
      echo "error: $base cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv)" >&2
      return 1
    }
  fi
  python=.venv/bin/python
  # A stamp for each extra: what was asked for when the installation last succeeded.
  wanted=$(cat setup.cfg pyproject.toml constraints.txt | cksum)
  local stamp=".venv/installed${extra:+-$extra}"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing evotext${extra:+ with the extra '$extra'} into .venv (some minutes on the first time)"
    # torch first: its build for the CPU suffices here, and a later step must not replace it.
    "$python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch || return 1
    "$python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
      --editable ".${extra:+[$extra]}" || return 1
    printf '%s\n' "$wanted" >"$stamp"
  fi
}
