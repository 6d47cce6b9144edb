"""Sine waves to learn one after the other, 500 functions: 500,000 / 500,000 points; made in code, no file.

The functions that `sines` goes on to: none of its own, drawn in the same way, in the same form. A run learns ten of
them, drawn by the stream seed, each as a task of 40 minibatches of 32, as OML's release does, which tests on 300
minibatches of new points per function; here it is the pool of 1,000.
"""

from __future__ import annotations

from datasets.sines import Sines


class SeqSines(Sines):
    functions = slice(400, 900)
    num_classes = 500
    counts = (500_000, 500_000)
    settings = Sines.settings | {
        "scenario": "task-il",
        "n_tasks": 10,
        "classes": 10,
        "n_iter": 40,
        "batch_size": 32,
        "online_iter": 1,
    }
