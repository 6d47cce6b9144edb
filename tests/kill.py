"""Kills a run at random moments until it is through, and compares it with an unbroken one.

    python -m tests.kill --model er --dataset seq-digits --kills 20 [options of main.py]
    python -m tests.kill --model all --kills 60
    python -m tests.kill --model all --kills 60 --signal TERM

Prints how many kills were survived, and how many of the killed runs have metrics.csv (without the clock), per_class.csv
and model.safetensors as the unbroken run has them, byte for byte. Exit code 0 if all have. `all` is a short run of
every method and stage, the kills shared among them.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

IMPORTED = ["main", "timm", "sklearn.datasets", "backbone", "datasets.base", "models.base", "utils.runs.plots"]
IMPORTED += ["matplotlib.style", "matplotlib.figure", "matplotlib.patches", "matplotlib.backends.backend_agg"]
SIGNALS = {"KILL": -9, "TERM": 75, "HUP": 75, "INT": 130, "USR1": 75, "USR2": 75}  # exit codes
SHORT = ["--dataset", "seq-digits", "--online_iter", "1", "--batch_size", "128", "--device", "cpu"]
STREAM = ["--n_tasks", "2", "--eval_period", "500"]
STAGES = {
    "mepo_meta": ["--samples", "4", "--meta_epochs", "2", "--group_size", "10", "--num_tasks", "5"],
    "mepo_cov": ["--samples", "50"],
    "misa_isa": ["--samples", "6", "--num_sessions", "2", "--forget_classes", "2", "--n_epochs", "2"],
    "supervised": ["--n_epochs", "2"],
    "srnn": ["--n_epochs", "2"],
    "oml_meta": ["--backbone", "conv4-8", "--steps", "60", "--tasks", "2", "--batch_size", "1"],
}
OWN = {
    "flyprompt": ["--rp_dim", "64"],
    "ranpac": ["--rp_dim", "64"],
    "slca": ["--ca_epochs", "1"],
    "joint": ["--updates", "1"],
    "misa": ["--load_pt", "none"],
    "oml": ["--rln", "none", "--backbone", "conv4-8", "--scenario", "class-il", "--eval_train"],
    "bcl": ["--n_memories", "20", "--replay_batch_size", "16", "--memory_strength", "1"],
    "er_ring": ["--n_memories", "20", "--replay_batch_size", "16"],
    **{name: ["--memory_size", "50", "--lr", "0.01"] for name in ("der", "fdr", "icarl")},
    "gem": ["--n_memories", "20"],
    "agem": ["--n_memories", "20", "--replay_batch_size", "16"],
    "ftml": ["--n_memories", "20"],
    "lmsrr": ["--buffer_size", "50", "--minibatch_size", "16"],
    "posterior_replay": ["--backbone", "mlp-16", "--train_sample_size", "2", "--val_sample_size", "3"],
    "vcl": ["--backbone", "mlp-16", "--train_sample_size", "2", "--val_sample_size", "3"],
    "ewc_posterior": ["--backbone", "mlp-16", "--val_sample_size", "3"],
    "mepo": ["--host", "misa", "--load_pt", "none", "--meta_path", "none", "--align_stats", "running"],
}


def short_run(method: str, folder: Path) -> list[str]:
    """Options of a short run of any method on digits that needs no stage. folder: for a covariance."""
    words = ["--model", method, *SHORT, *(STAGES[method] if method in STAGES else [*STREAM, *OWN.get(method, [])])]
    if method == "mepo":
        draws = np.random.default_rng(0).normal(size=(512, 128))
        np.save(folder / "covariance.npy", draws.T @ draws / len(draws))
        words += ["--cor_path", str(folder / "covariance.npy")]
    return words


def run(words: list[str], log: Path) -> None:
    """What a process of its own does."""
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import main

    sys.exit(main.main(words))


@functools.cache
def server():
    """Makes processes by a fork of one that has imported what all need and done nothing; waits until that is ready."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    first = context.Process(target=os.getpid)
    first.start()
    first.join()
    return context


def start(words: list[str], results: Path, log: Path) -> multiprocessing.Process:
    """The run of `words` in a process of its own."""
    process = server().Process(target=run, args=([*words, "--results", str(results), "--resume", "auto"], log))
    process.start()
    return process


def run_once(words: list[str], results: Path, log: Path) -> float:
    """Seconds of a run that nobody disturbs."""
    server()  # so that the seconds do not count its start
    began, process = time.monotonic(), start(words, results, log)
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"the unbroken run failed:\n{log.read_text()}")
    return time.monotonic() - began


def run_killed(
    words: list[str], results: Path, log: Path, kills: int, seconds: float, draw: random.Random, name: str
) -> int:
    """Starts a run again and again until it comes to its end, killing it up to `kills` times; gives how often it was.

    seconds: of an unbroken run. name: of the signal. A run that fails by itself ends the program.
    """
    number, made = signal.Signals[f"SIG{name}"], 0
    expected = (-number, SIGNALS[name])  # the first is that of a process which has yet to begin, too
    while True:
        process = start(words, results, log)
        process.join(draw.uniform(0.2, 1.0) * seconds if made < kills else None)
        if process.is_alive():
            os.kill(process.pid, number)
            process.join()
            made += process.exitcode in expected
        if process.exitcode == 0:
            return made
        if process.exitcode not in expected or "Traceback" in log.read_text():
            raise SystemExit(f"after {made} kills the run failed:\n{log.read_text()}")


def same(one: Path, other: Path) -> bool:
    """Whether two folders of results hold the same run."""
    ((first,), (second,)) = ([path.parent for path in results.rglob("summary.json")] for results in (one, other))
    tables = [pd.read_csv(folder / "metrics.csv").drop(columns="seconds").to_csv() for folder in (first, second)]
    files = ("per_class.csv", "model.safetensors")
    return tables[0] == tables[1] and all((first / f).read_bytes() == (second / f).read_bytes() for f in files)


def compare(
    words: list[str], kills: int, folder: Path, draw: random.Random, name: str = "KILL"
) -> tuple[int, int, int]:
    """Kills survived, runs that were killed, and how many of these came out as the unbroken one."""
    words = [*words, "--save_every", "0", "--device", "cpu"]
    folder.mkdir(exist_ok=True)
    whole, log = folder / "whole", folder / "log"
    seconds = run_once(words, whole, log)
    made, runs, identical = 0, 0, 0
    while made < kills:  # a run may be through before it was killed often enough
        results = folder / "broken" / str(runs)
        made += run_killed(words, results, log, kills - made, seconds, draw, name)
        runs, identical = runs + 1, identical + same(whole, results)
    return made, runs, identical


def main(argv: list[str]) -> int:
    from utils.registry import METHODS

    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kill_seed", type=int, default=0)
    parser.add_argument("--signal", choices=SIGNALS, default="KILL")
    options, words = parser.parse_known_args(argv)
    methods = list(METHODS.files()) if options.model == "all" else [options.model]
    draw, total = random.Random(options.kill_seed), np.zeros(3, dtype=int)
    for k, method in enumerate(methods):
        kills = options.kills // len(methods) + (k < options.kills % len(methods))
        with tempfile.TemporaryDirectory() as folder:
            run = short_run(method, Path(folder)) if options.model == "all" else ["--model", method, *words]
            made, runs, identical = compare(run, kills, Path(folder), draw, options.signal)
        print(f"{method}: survived {made} of {made} kills, {identical} of {runs} runs identical", flush=True)
        total += made, runs, identical
    made, runs, identical = total
    print(f"in all: survived {made} of {made} kills, {identical} of {runs} runs identical")
    return 0 if identical == runs else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
