"""What computes: its names, and how fast it multiplies matrices, which is the limit of what a network can reach."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from utils.phases import seconds_of, spent

Product = tuple[int, int, int]  # rows, inputs and outputs of a linear layer
SQUARE: Product = (2048, 2048, 2048)
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16}  # by --precision
LONG = 0.1  # seconds that a rate is measured for, at least; a longer product is measured once
MOST = 200  # rounds of that


def describe(device: torch.device) -> dict[str, Any]:
    """The machine, for people who compare numbers."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": platform.platform(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@torch.no_grad()
def matmul_rate(products: Sequence[Product], precision: str, device: torch.device) -> float:
    """FLOP/s of linear layers of these sizes, one after the other."""
    pairs = [
        (torch.rand(rows, inputs, device=device), torch.rand(outputs, inputs, device=device))
        for rows, inputs, outputs in products
    ]
    pairs = [(x.to(DTYPES[precision]), weight.to(DTYPES[precision])) for x, weight in pairs]

    def work(rounds: int) -> None:
        for _ in range(rounds):
            for x, weight in pairs:
                F.linear(x, weight)

    clock = seconds_of(device)
    work(1)  # a first time takes longer
    rounds = min(MOST, 1 + int(LONG / max(spent(clock, lambda: work(1)), 1e-9)))
    seconds = spent(clock, lambda: work(rounds))
    return rounds * sum(2 * math.prod(product) for product in products) / seconds
