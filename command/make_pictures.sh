#!/usr/bin/env bash
# Makes the stored pictures of icons, seq-icons and seq-emoji again, from the npm package of icon sets and a renderer.
#
#   bash command/make_pictures.sh                             the committed files, to the same bytes, and their sheets
#   bash command/make_pictures.sh --out DIR                   the same into a folder
#   bash command/make_pictures.sh --size 224 --out DIR        larger ones, for --pictures DIR
#   bash command/make_pictures.sh --package FILE ...          from an archive of the package that is there already
#
# Needs npm, unless --package names the archive (104 MB; its digest is checked). Puts the renderer into the environment.
# PACKAGES  folder that keeps the package (default: build/pictures)
# Cost: about two minutes on one core and 2 GB of memory; with --size 224 about an hour, an estimate.
set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
packages="${PACKAGES:-$repo/build/pictures}"
case "$packages" in /*) ;; *) packages="$PWD/$packages" ;; esac
. "$repo/command/setup.sh"

# Whatever the version, only these files are installed.
"$VENV/bin/python" -m pip install -q --disable-pip-version-check --no-deps --require-hashes \
    -r "$repo/datasets/pictures/requirements.txt" >&2

given=()
has() { case " $* " in *" $option"*) return 0 ;; *) return 1 ;; esac; }
option=--out; has "$@" || given+=(--sheets "$repo/results/pictures")
option=--package
if ! has "$@"; then
    file="$packages/iconify-json-2.2.535.tgz"
    if [ ! -f "$file" ]; then
        command -v npm >/dev/null || { echo "make_pictures: no npm; name the package's archive with --package" >&2; exit 2; }
        mkdir -p "$packages"
        npm pack --silent --pack-destination "$packages" @iconify/json@2.2.535 >&2
    fi
    given+=(--package "$file")
fi

# Paths that were given count from where the caller stands.
PYTHONPATH="$repo" exec "$VENV/bin/python" -m datasets.pictures.make "${given[@]}" "$@"
