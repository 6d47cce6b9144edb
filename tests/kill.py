"""Kills a run at random moments until it is through, and compares it with an unbroken one.

    python -m tests.kill --model er --dataset seq-digits --kills 20 [options of main.py]

Prints how many kills were survived, and how many of the killed runs have metrics.csv (without the clock), per_class.csv
and model.safetensors as the unbroken run has them, byte for byte. Exit code 0 if all have.
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


def run_killed(words: list[str], results: Path, log: Path, kills: int, seconds: float, draw: random.Random) -> int:
    """Starts a run again and again until it comes to its end, killing it up to `kills` times; gives how often it was.

    seconds: of an unbroken run. A run that fails by itself ends the program.
    """
    made = 0
    while True:
        process = start(words, results, log)
        try:
            timeout = draw.uniform(0.3, 1.0) * seconds if made < kills else None
            if process.wait(timeout=timeout) != 0:
                raise SystemExit(f"after {made} kills the run failed:\n{log.read_text()}")
            return made
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            made += 1


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
        draw, made, runs, identical = random.Random(options.kill_seed), 0, 0, 0
        while made < options.kills:  # a run may be through before it was killed often enough
            results = broken / str(runs)
            made += run_killed(words, results, log, options.kills - made, seconds, draw)
            runs, identical = runs + 1, identical + same(whole, results)
    print(f"{' '.join(argv)}: survived {made} of {made} kills, {identical} of {runs} runs identical", flush=True)
    return 0 if identical == runs else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
