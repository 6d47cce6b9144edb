#!/usr/bin/env bash
# Runs the tests; arguments go to pytest:  bash command/test.sh -k stream
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repo/command/setup.sh"

cd "$repo"  # so that tests/... in the arguments means the same from every folder
exec "$VENV/bin/python" -m pytest "$@"
