#!/usr/bin/env bash
# Runs the tests; arguments go to pytest:  bash command/test.sh -k stream
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
REQUIREMENTS=requirements-dev.txt . "$repo/command/setup.sh"

cd "$repo"  # so that tests/... in the arguments means the same from every folder
# A process per core; each test takes one thread. With -n 0 all in this one, for a debugger.
exec "$VENV/bin/python" -m pytest -n auto --maxprocesses 8 --dist worksteal "$@"
