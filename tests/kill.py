"""Kills a run at random moments until it is through, and compares it with an unbroken one.

    python -m tests.kill --model er --dataset seq-digits --kills 20 [options of main.py]

Prints how many kills the run survived, and whether metrics.csv (without the clock), per_class.csv and model.safetensors
are those of the unbroken run, byte for byte. Exit code 0 if all are.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent


def start(words: list[str], results: Path, log: Path) -> subprocess.Popen:
    """The run of `words`, in a process group of its own."""
    command = [sys.executable, "main.py", *words, "--results", str(results), "--resume", "auto"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open(log, "a") as stream:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)


def run_once(words: list[str], results: Path, log: Path) -> float:
    """Seconds of a run that nobody disturbs."""
    began = time.monotonic()
    if start(words, results, log).wait() != 0:
        raise SystemExit(f"the unbroken run failed:\n{log.read_text()}")
    return time.monotonic() - began


def run_killed(words: list[str], results: Path, log: Path, kills: int, seconds: float, seed: int) -> tuple[int, int]:
    """Kills made, and of these how many the run survived, which is all of them if it comes to an end."""
    draw, made = random.Random(seed), 0
    while made < kills:
        process = start(words, results, log)
        try:
            code = process.wait(timeout=draw.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            made += 1
            continue
        if code != 0:
            return made, made - 1
        break  # through before all kills were made
    return made, made if start(words, results, log).wait() == 0 else made - 1


def same(one: Path, other: Path) -> bool:
    """Whether two folders of results hold the same run."""
    ((first,), (second,)) = ([path.parent for path in results.rglob("summary.json")] for results in (one, other))
    tables = [pd.read_csv(folder / "metrics.csv").drop(columns="seconds").to_csv() for folder in (first, second)]
    files = ("per_class.csv", "model.safetensors")
    return tables[0] == tables[1] and all((first / f).read_bytes() == (second / f).read_bytes() for f in files)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kill_seed", type=int, default=0)
    options, words = parser.parse_known_args(argv)
    words += ["--save_every", "0", "--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        whole, broken, log = Path(folder) / "whole", Path(folder) / "broken", Path(folder) / "log"
        seconds = run_once(words, whole, log)
        made, survived = run_killed(words, broken, log, options.kills, seconds, options.kill_seed)
        identical = survived == made and same(whole, broken)
        print(f"{' '.join(argv)}: survived {survived} of {made} kills, identical {'yes' if identical else 'no'}")
        if not identical:
            print(log.read_text(), file=sys.stderr)
    return 0 if identical else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
