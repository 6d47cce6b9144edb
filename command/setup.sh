#!/usr/bin/env bash
# Makes the virtual environment that every other command uses, and keeps it while the requirements are unchanged.
#
#   bash command/setup.sh        make or refresh it
#   . command/setup.sh           the same, from another bash script; VENV then holds its absolute path, and there is
#                                need_whole NAME VALUE..., which refuses what is no whole number from 1 on
#
# VENV    the folder of the environment (default: .venv in the repository)
# REQUIREMENTS  what it is to hold: requirements.txt (default), or requirements-dev.txt, which the tests need
# PYTHON  the interpreter to make it with, 3.10 or newer (default: the first one found on PATH)
# JOBS    how many runs at a time, of the scripts that say so: looked at here

# Sourced: do the work in a process of its own, so that no option, trap or exit reaches the caller's shell.
if [ "${BASH_SOURCE[0]}" != "$0" ]; then
    bash "${BASH_SOURCE[0]}" || return
    VENV="${VENV:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv}"
    case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac
    export VENV
    need_whole() {
        local name="$1" value
        shift
        for value in "$@"; do
            [[ "$value" =~ ^[1-9][0-9]{0,8}$ ]] && continue
            echo "$(basename "$0" .sh): $name: '$value' is no whole number from 1 on" >&2
            return 2
        done
    }
    need_whole JOBS "${JOBS:-2}" || return
    return 0
fi

set -euo pipefail

# Progress goes to stderr: the commands that call this one keep their stdout for their results.
say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${VENV:-$repo/.venv}"
case "$venv" in /*) ;; *) venv="$PWD/$venv" ;; esac

stamp="$venv/.requirements.sha256"  # a line for each file of requirements that is installed; absent during an install
made="$venv/.made-by-setup"         # we made this environment, so we may empty it to repair it
lock="$venv/.setup.lock"

requirements="${REQUIREMENTS:-requirements.txt}"
case "$requirements" in
    requirements.txt) files=("$repo/requirements.txt") ;;
    requirements-dev.txt) files=("$repo/requirements.txt" "$repo/requirements-dev.txt") ;;
    *) die "REQUIREMENTS=$requirements is neither requirements.txt nor requirements-dev.txt" ;;
esac
digest() { cat "$@" | { sha256sum || shasum -a 256; } 2>/dev/null | cut -c1-64; }
wanted="$(digest "${files[@]}")" || die "cannot hash ${files[*]} (needs the files, and sha256sum or shasum)"

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then  # an explicit choice is obeyed or refused, never replaced
        new_enough "$PYTHON" || die "PYTHON=$PYTHON is not a working Python 3.10 or newer"
        python="$PYTHON"
        return
    fi
    for python in python3 python3.13 python3.12 python3.11 python3.10; do
        if new_enough "$python"; then return; fi
    done
    die "no Python 3.10 or newer on PATH; install one, or name one with PYTHON=/path/to/python3"
}

ready() { grep -qx "$wanted" "$stamp" 2>/dev/null && new_enough "$venv/bin/python"; }

# One install at a time. flock lets go by itself when its holder dies; the link, where there is no flock,
# names its holder, so that one left by a killed process can be told and taken away.
take_lock() {
    if command -v flock >/dev/null; then
        exec 9>"$lock"
        flock -n 9 || { say "waiting for another setup of $venv"; flock 9; }
        return
    fi
    local holder waited=
    until ln -s "$$" "$lock.pid" 2>/dev/null; do
        holder="$(readlink "$lock.pid" || true)"
        if [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null; then rm -f "$lock.pid"; continue; fi
        [ -n "$waited" ] || say "waiting for another setup of $venv"
        waited=yes
        sleep 1
    done
    trap 'rm -f "$lock.pid"' EXIT
}

# The usual case, and it writes nothing: a complete environment may be read-only.
if ready; then
    say "using $venv"
    exit 0
fi

# Never write into a folder that is something else. One we had only begun to fill is known by our marks.
if [ -e "$venv" ] && [ ! -d "$venv" ]; then die "VENV=$venv is not a folder"; fi
if [ -d "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ ! -e "$made" ] && [ ! -e "$lock" ] && [ ! -L "$lock.pid" ] &&
    [ -n "$(ls -A "$venv")" ]; then
    die "VENV=$venv is neither empty nor a virtual environment; name another folder"
fi

find_python
mkdir -p "$venv" 2>/dev/null && [ -w "$venv" ] || die "cannot write to $venv; name another folder with VENV"

trap 'say "interrupted; the next call repairs $venv"; exit 130' INT TERM
take_lock
if ready; then  # the one we waited for did it
    say "using $venv"
    exit 0
fi

# An environment of ours without a stamp is an interrupted or failed install, and a half-written package can pass
# for an installed one: start again (pip has what it downloaded in its cache). Somebody else's is never emptied.
if [ -e "$made" ] && { [ ! -e "$stamp" ] || ! new_enough "$venv/bin/python"; }; then
    say "clearing an incomplete $venv"
    find "$venv" -mindepth 1 -maxdepth 1 ! -name "${made##*/}" ! -name "${lock##*/}*" -exec rm -rf {} +
fi

if [ ! -e "$venv/pyvenv.cfg" ]; then
    say "making $venv with $("$python" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])')"
    : >"$made"
    # Shown only when it fails: on Ctrl-C it would be a Python traceback.
    out="$("$python" -m venv "$venv" 2>&1)" || { echo "$out" >&2; die "could not make the environment in $venv"; }
fi
new_enough "$venv/bin/python" ||
    die "the environment in $venv has no working Python 3.10 or newer; name another folder"

say "installing $requirements (the first time: some minutes and about 6 GB)"
rm -f "$stamp"
"$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$repo/$requirements" >&2 ||
    die "the install failed (pip's message is above); the next call starts it again"
printf '%s\n' "$(digest "$repo/requirements.txt")" "$wanted" >"$stamp"  # the one holds the other
say "ready: $venv"
