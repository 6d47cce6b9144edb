"""Measures a run from inside of the loop: its own batches by phase, its evaluator, its checkpoints."""

from __future__ import annotations

import contextlib
import copy
import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import backbone as backbones
from command.workload import innermost, products_of, side_of
from utils import device as devices
from utils.data.decode import decode
from utils.machine import SQUARE, matmul_rate
from utils.phases import OTHER, Clock, Phases, flops_of, seconds_of, spent
from utils.plan import Plan
from utils.report.speed import (
    BACKWARD,
    BATCH,
    CHECKPOINT,
    DECODE,
    DRAW,
    FIRST,
    FORWARD,
    LATER,
    OPTIMISER,
    QUERY,
    TRANSFORM,
    Repeat,
)
from utils.runs import checkpoint
from utils.training.loop import Listener, Trainer

PICTURE, PICTURES = (500, 375), 4  # pixels of a JPEG, and how many are decoded


class _Enough(Exception):
    """All repeats were made, or their time is over."""


def measure(
    trainer: Trainer, plan: Plan, repeats: int, until: float, folder: Path
) -> tuple[dict[str, float], list[Repeat]]:
    """FLOPs per image by phase, and the repeats: at least one, at most so many, and no more once it is `until` on the
    monotonic clock. folder: for checkpoints. The first batch counts FLOPs and is not timed."""
    meter = _Meter(trainer, plan, repeats, until, folder)
    trainer.listeners = [meter]
    with meter.counting, contextlib.suppress(_Enough):
        meter.begin()
        trainer.train()
    return meter.flops, meter.repeats


def watch(trainer: Trainer, phases: Phases) -> None:
    """Makes a run say what it is at, by wrappers of what the loop calls and hooks of the network.

    A query is the pass without a gradient inside of the loss, or `fixed_features`. The loss is followed by the backward
    pass, until the optimiser steps.
    """
    learner: Any = innermost(trainer.model)
    around = phases.around
    for owner, name, phase, then in (
        (trainer.images, "raw", DRAW, None),
        (trainer.transform, "train", TRANSFORM, None),
        (trainer.transform, "test", TRANSFORM, None),
        (learner, "fixed_features", QUERY, None),
        (learner, "loss", FORWARD, BACKWARD),
        (trainer.model, "observe", OTHER, None),
    ):
        setattr(owner, name, around(phase, getattr(owner, name), then))
    # A memory is drawn and transformed by the method, through these.
    transform, images = trainer.transform, trainer.images
    learner.info = replace(learner.info, augment=transform.train, plain=transform.test, images=images.raw)
    if trainer.model.optimizer is not None:
        trainer.model.optimizer.register_step_pre_hook(lambda *_: phases.enter(OPTIMISER))
        trainer.model.optimizer.register_step_post_hook(lambda *_: phases.enter(OTHER))
    if not backbones.is_vit(learner.backbone):
        return
    first, inside = learner.backbone.blocks[0], [False]  # whether a pass stands in the first block

    def begins(*_: object) -> None:
        if not inside[0] and phases.now in (FORWARD, QUERY):
            phases.enter(FORWARD if torch.is_grad_enabled() else QUERY)
        inside[0] = True

    first.norm1.register_forward_pre_hook(begins)
    first.mlp.register_forward_hook(lambda *_: inside.__setitem__(0, False))


class _Meter(Listener):
    def __init__(self, trainer: Trainer, plan: Plan, repeats: int, until: float, folder: Path):
        self.trainer, self.plan, self.most, self.until, self.folder = trainer, plan, repeats, until, folder
        self.device, self.clock, self.phases = trainer.device, seconds_of(trainer.device), Phases()
        self.products = products_of(trainer.model.backbone, plan.run.batch_size)
        self.cold, self.warm = trainer.evaluator, copy.copy(trainer.evaluator)  # without queries, and with them
        self.pictures = _jpegs()
        self.flops: dict[str, float] = {}
        self.repeats: list[Repeat] = []
        self.limit: dict[str, dict[str, float]] = {}
        self.counting, self._began = contextlib.ExitStack(), 0.0
        watch(trainer, self.phases)

    def begin(self) -> None:
        """Before the first batch. Attention is counted as the products that it is, which its kernels hide."""
        counter = self.counting.enter_context(FlopCounterMode(display=False))
        self.counting.enter_context(sdpa_kernel(SDPBackend.MATH))
        self.flop_clock = flops_of(counter)
        self.phases.begin(self.flop_clock)

    def progress(self, trainer: Trainer) -> None:
        parts = self.phases.end()
        parts = {phase: count / self.plan.run.batch_size for phase, count in parts.items()}
        parts |= {BATCH: sum(parts.values())}
        if not self.flops:
            kinds = (FIRST, LATER)  # the queries of the first are known to the second
            self.flops = parts | {kind: self._evaluation(self.flop_clock, self.warm) for kind in kinds}
            self.counting.close()
            self._decode()
        else:
            self.repeats.append(self._repeat(parts))
            now = time.monotonic()
            if len(self.repeats) == self.most or now + (now - self._began) > self.until:
                raise _Enough
        self._before_batch()

    def _before_batch(self) -> None:
        """The limit, and then the batch that the loop goes on with."""
        self._began = time.monotonic()
        self.limit = {}
        for precision in dict.fromkeys(("32", self.plan.run.precision)):
            self.limit[precision] = {"square": matmul_rate([SQUARE], precision, self.device)}
            if self.products:
                self.limit[precision]["network"] = matmul_rate(self.products, precision, self.device)
        devices.reset_peak_memory(self.device)
        self.phases.begin(self.clock)

    def _repeat(self, parts: dict[str, float]) -> Repeat:
        """parts: seconds per image of the batch that was just trained on.

        The later evaluation comes before the first: what a method makes of its sums after training, before it
        predicts, is part of every evaluation of a run but one.
        """
        seconds = parts | {LATER: self._evaluation(self.clock, self.warm)}
        seconds[FIRST] = self._evaluation(self.clock, copy.copy(self.cold))
        peak = devices.peak_memory_mb(self.device)
        state = self.trainer.state_dict
        seconds[CHECKPOINT] = spent(self.clock, lambda: checkpoint.save(self.folder, state()))
        seconds[DECODE] = spent(self.clock, self._decode) / len(self.pictures)
        return Repeat(self.limit, seconds, peak)

    def _evaluation(self, clock: Clock, evaluator: Any) -> float:
        """Per test image."""
        return spent(clock, lambda: evaluator(self.trainer.model, self.trainer.seen)) / len(evaluator.images)

    def _decode(self) -> None:
        for picture in self.pictures:
            decode(io.BytesIO(picture), side_of(self.plan.run.backbone), "squash")


def _jpegs() -> list[bytes]:
    """Pictures whose files are about as long as those of photographs."""
    draws, files = np.random.default_rng(0), []
    for _ in range(PICTURES):
        coarse = Image.fromarray(draws.integers(0, 256, (PICTURE[1] // 8, PICTURE[0] // 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize(PICTURE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files
