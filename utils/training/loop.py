"""The one training loop: downstream methods, pretraining, MePo's meta stage and its covariance stage all run here."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from utils import device as devices
from utils.classes import SeenClasses
from utils.contracts import Batch, Learner, Session
from utils.data.images import ImageSet, Transform
from utils.finite import FiniteRows
from utils.streams.base import Draw, Stream
from utils.training.evaluation import Evaluator, Scores
from utils.training.history import History

CHECK_EVERY = 50  # batches between two looks at the loss; each look waits for the device


class Listener:
    """What the loop tells about its progress. Every method may be left out."""

    def progress(self, trainer: Trainer) -> None:
        """Called after every batch."""

    def task_ended(self, trainer: Trainer) -> None:
        """Called after every task, when the trainer stands before the next one."""

    def evaluated(self, trainer: Trainer) -> None:
        """Called after every evaluation."""


class Trainer:
    """Runs one method over one stream and evaluates it on the way. `listeners` are told how it goes, in their order.

    eval_period: images between anytime evaluations (negative: none). evaluator None: the method is never evaluated.
    online_iter: updates per arriving batch, of a method that repeats them. every_pass: whether it is evaluated after
    every pass over a task, or after the last alone. ahead: whether that measures the tasks to come as well, and once
    all before the first. on_training: evaluates the images trained on, whenever `evaluator` does; None: nobody asked.

    The state of a run between two batches is `state_dict`; a new Trainer of the same settings, with the same weights of
    a frozen backbone, that loads it goes on exactly where the other stood.

    skip_nan: an update whose loss or gradient is not finite, or which leaves weights that are not, is left out and
    counted: all that the method holds is put back as it was before, its own draws too, from a copy that is made before
    every update. What is no part of the method goes on: the draws of the augmentation and of torch's generators, so
    that the next update is not the same again, and the stream with what a method counts or stores of it in `end_batch`,
    from which `FiniteRows` keeps out what is not finite. Without skip_nan, the default, all of these end the run; it
    then never waits for the device between two looks at the loss.
    """

    def __init__(
        self,
        model: Learner,
        stream: Stream,
        images: ImageSet,
        transform: Transform,
        evaluator: Evaluator | None,
        online_iter: int,
        eval_period: int,
        skip_nan: bool = False,
        every_pass: bool = True,
        ahead: bool = False,
        on_training: Evaluator | None = None,
    ):
        self.model, self.stream, self.images, self.transform = model, stream, images, transform
        self.evaluator, self.online_iter, self.eval_period = evaluator, online_iter, eval_period
        self.listeners: list[Listener] = []
        self.skip_nan, self.every_pass, self.ahead, self.on_training = skip_nan, every_pass, ahead, on_training
        self.device = images.device
        self.history = History()
        self.seen = SeenClasses(stream.num_classes, stream.known_classes, stream.num_domains)
        self.task = self.epoch = self.batch = 0  # position: the next batch to train on
        self.images_met = 0  # images of the stream consumed, every pass counted
        self.nominal = eval_period  # images at which the next anytime evaluation is due
        self.loss_sum = torch.zeros((), device=self.device)  # since the last row of the history
        self.losses = 0
        self.skipped = 0  # updates left out
        self.left_out = 0  # images that sums and memories left out
        self._gates = [module for module in model.modules() if isinstance(module, FiniteRows)]
        for gate in self._gates:
            gate.leave_out = skip_nan
        self._bad_gradient = False  # in the update at hand
        if skip_nan and model.optimizer is not None:
            model.optimizer.register_step_pre_hook(self._look_at_gradients)
        # The run cannot change these, so they are no part of its state.
        fixed = {id(p) for p in model.backbone.parameters() if not p.requires_grad}
        self._fixed = {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in fixed}
        # Pass, batch, images, loss and rows not finite of batches that are not checked yet; all of the task at hand.
        self._recent: list[tuple[int, int, Tensor, Tensor, Tensor]] = []
        self._seconds_before, self._started = 0.0, time.monotonic()
        self._peak_before: float | None = None

    @property
    def seconds(self) -> float:
        """Time spent on the run so far, over all its parts."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def peak_memory_mb(self) -> float | None:
        """The largest of all parts of the run, MiB; None if unknown."""
        peaks = [self._peak_before, devices.peak_memory_mb(self.device)]
        return max((peak for peak in peaks if peak is not None), default=None)

    def train(self) -> History:
        """The rest of the stream. Raises FloatingPointError soon after the first loss that is not finite."""
        self.model.train()
        if self.evaluator is not None and self.ahead and self.history.untrained is None:
            self.history.untrained = self.evaluator.ahead(self.model, 0)
        while self.task < self.stream.num_tasks:
            if self.epoch == self.batch == 0:
                if self.stream.announces:
                    self.seen.add(torch.tensor(self.stream.task_classes(self.task)))
                self._tell("begin_task")
            while self.epoch < self.stream.num_epochs:
                self._pass()
                self.epoch, self.batch = self.epoch + 1, 0
            self._tell("end_task")
            self.task, self.epoch = self.task + 1, 0
            for listener in self.listeners:
                listener.task_ended(self)
        self.model.end_stream()
        return self.history

    def learn(self, images: ImageSet, batch_size: int) -> None:
        """Trains on images that arrive behind the end of the stream, once, in their order, by the step of the loop.

        Raises FloatingPointError as `train` does.
        """
        self.images = images
        self.model.train()
        for indices in torch.arange(len(images)).split(batch_size):
            self.images_met += self._step(Draw(indices))
        self.check()

    def _tell(self, hook: str) -> None:
        """Session borders are told only to methods that declare that they need them."""
        if self.model.needs_task_boundaries:
            task, stream = self.task, self.stream
            again = partial(self._again, task)
            size = len(stream.rows(task))
            updates = stream.num_epochs * len(stream.batches(task, 0)) // stream.batches_per_update
            updates *= self.online_iter if self.model.repeats else 1
            session = Session(task, stream.task_classes(task), stream.columns(task), size, again, updates)
            getattr(self.model, hook)(session)

    def _again(self, task: int, batch_size: int) -> Iterator[Batch]:
        """The samples of a task in stored order, under the test transform, for a method that declares to read them."""
        if not self.model.rereads:
            raise RuntimeError(f"{self.model.label()} reads a session again (`Session.again`) without `rereads = True`")
        return map(self._plain_batch, self.stream.rows(task).split(batch_size))

    def _plain_batch(self, indices: Tensor) -> Batch:
        raw = self.images.raw(indices)
        functions = self._functions(indices)
        return Batch(self.transform.test(raw), self._wanted(indices), raw, len(self.seen), indices, functions)

    def _wanted(self, indices: Tensor) -> Tensor:
        """What is to be predicted of images [B], `Batch.y`."""
        if self.images.targets is not None:
            return self.images.targets[indices.to(self.device, non_blocking=True)]
        return self.seen.slots(self.images.labels[indices]).to(self.device, non_blocking=True)

    def _functions(self, indices: Tensor) -> Tensor | None:
        """`Batch.functions`, of a stage, which is not evaluated."""
        return None if self.images.targets is None or self.evaluator is not None else self.images.labels[indices]

    def _pass(self) -> None:
        """The rest of one pass over one task, and the evaluation at its end."""
        draws = self.stream.batches(self.task, self.epoch)
        while self.batch < len(draws):
            size = self._step(draws[self.batch])
            self.batch += 1
            self.images_met += size
            if self.batch % CHECK_EVERY == 0:
                self.check_loss()
            if self.eval_period > 0 and self.images_met + size > self.nominal:
                self.history.add_anytime(self.images_met, self.nominal, self._evaluate(), **self._common())
                self.nominal += self.eval_period  # once per batch, even if the period is shorter than a batch
                self._evaluated()
            for listener in self.listeners:
                listener.progress(self)
        if self.epoch == self.stream.num_epochs - 1:
            self._tell("end_updates")
        if not (self.every_pass or self.epoch == self.stream.num_epochs - 1):
            return
        # A task without images leaves everything as it was, unless the method is told of its borders.
        same = not self.model.needs_task_boundaries and self.history.ended_at() == self.images_met
        accuracy = self.history.last_scores() if same else self._with_tasks_ahead(self._evaluate())
        self.history.add_task_end(self.images_met, self.task, accuracy, self.seen.labels, **self._common())
        if not same:
            self._evaluated()

    def _evaluated(self) -> None:
        for listener in self.listeners:
            listener.evaluated(self)

    def _step(self, draw: Draw) -> int:
        """All updates on one arriving batch; gives its number of images."""
        labels = self.images.labels[draw.indices]
        raw = self.images.raw(draw.indices)
        self.seen.add(labels)
        wanted = self._wanted(draw.indices)
        transform = self.transform.train if draw.augment else self.transform.test
        before = self.loss_sum.clone()
        for _ in range(self.online_iter if self.model.repeats else 1):
            batch = Batch(transform(raw), wanted, raw, len(self.seen), draw.indices, self._functions(draw.indices))
            loss = self._update(batch)
            if loss is not None:
                self.loss_sum += loss
                self.losses += 1
        self.model.end_batch(batch)
        self._recent.append((self.epoch, self.batch, draw.indices, self.loss_sum - before, self._lost()))
        return len(labels)

    def _update(self, batch: Batch) -> Tensor | None:
        """The loss of one update; None where nothing was trained, or the update is left out."""
        if not self.skip_nan:
            return self.model.observe(batch)
        before = copy.deepcopy(self._learned())
        self._bad_gradient = False
        loss = self.model.observe(batch)
        if not self._bad_gradient and (loss is None or loss.isfinite()) and self._weights_are_finite():
            return loss
        self._put_back(before)
        self.skipped += 1
        return None

    def _look_at_gradients(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Before a step."""
        gradients = [w.grad for group in optimizer.param_groups for w in group["params"] if w.grad is not None]
        self._bad_gradient |= not torch.nn.utils.get_total_norm(gradients).isfinite()

    def _weights_are_finite(self) -> bool:
        trained = [weight.detach() for weight in self.model.parameters() if weight.requires_grad]
        return bool(torch.nn.utils.get_total_norm(trained).isfinite())

    def _lost(self) -> Tensor:
        """Images that were not finite where a method keeps something of them, since the run or its part began."""
        return sum((gate.lost for gate in self._gates), torch.zeros((), dtype=torch.int64, device=self.device))

    def _evaluate(self) -> Scores | None:
        self.check_loss()  # what follows from it has nothing to say
        if self.evaluator is None:
            return None
        scores = self.evaluator(self.model, self.seen)
        if self.on_training is None:
            return scores
        return replace(scores, train=self.on_training(self.model, self.seen).average)

    def _with_tasks_ahead(self, accuracy: Scores | None) -> Scores | None:
        """An accuracy at the end of the task at hand, with those on tasks to come."""
        if accuracy is None or self.evaluator is None or not self.ahead:
            return accuracy
        ahead = self.evaluator.ahead(self.model, self.task + 1)
        nothing = [float("nan")] * len(ahead)
        known = dict.fromkeys(("class", "task"), nothing) | accuracy.per_task
        told = known["task"][: self.task + 1] + ahead[self.task + 1 :]
        return replace(accuracy, per_task=known | {"task": told})

    def _common(self) -> dict[str, Any]:
        """Columns of every row; the mean loss is taken since the row before."""
        loss = self.loss_sum.item() / self.losses if self.losses else None
        self.loss_sum.zero_()
        self.losses = 0
        return {"loss": loss, "classes_exposed": len(self.seen), "seconds": round(self.seconds, 3)}

    def check_loss(self) -> None:
        """Raises FloatingPointError, which names the batch, if a loss since the last look is not finite, or what a
        method was to keep of a batch; the latter is counted only, if it was left out."""
        recent, self._recent = self._recent, []
        if not torch.isfinite(self.loss_sum).item():
            first = next(row for row in recent if not torch.isfinite(row[3]).item())
            raise FloatingPointError(f"{self.model.why_not_finite() or 'the loss is not finite'}: {self._place(first)}")
        if self._gates and (lost := int(self._lost())):
            if not self.skip_nan:
                first = next(row for row in recent if row[4].item())
                raise FloatingPointError(f"what the method keeps of images is not finite: {self._place(first)}")
            self.left_out += lost
            for gate in self._gates:
                gate.lost.zero_()

    def _place(self, row: tuple) -> str:
        epoch, batch, images, *_ = row
        return (
            f"task {self.task}, pass {epoch}, batch {batch}, images {' '.join(map(str, images.tolist()))} of the "
            "training part"
        )

    def check(self) -> None:
        """Raises FloatingPointError if a loss since the last look, or a trained weight, is not finite."""
        self.check_loss()
        if not self._weights_are_finite():
            raise FloatingPointError(
                f"the weights are not finite: task {self.task}, pass {self.epoch}, before batch {self.batch}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything the run's future depends on, between two batches."""
        return {
            "position": [self.task, self.epoch, self.batch],
            "images_met": self.images_met,
            "nominal": self.nominal,
            "loss": [self.loss_sum.item(), self.losses],
            "skipped": self.skipped,
            "left_out": self.left_out,
            "seconds": self.seconds,
            "peak_memory_mb": self.peak_memory_mb,
            "seen": self.seen.state_dict(),
            "history": self.history.state_dict(),
            "random": devices.random_states(self.device),
            "augment": self.transform.generator.get_state(),
            **self._learned(),
        }

    def _learned(self) -> dict[str, Any]:
        """What the method holds."""
        model = self.model
        return {
            "model": {name: value for name, value in model.state_dict().items() if name not in self._fixed},
            "extra": model.extra_state(),
            "optimizer": model.optimizer.state_dict() if model.optimizer else None,
            "scheduler": model.scheduler.state_dict() if model.scheduler else None,
        }

    def _put_back(self, state: dict[str, Any]) -> None:
        """Takes back what `_learned` gave."""
        self.model.load_state_dict(self.model.state_dict() | state["model"])
        self.model.load_extra_state(state["extra"])
        if self.model.optimizer:
            self.model.optimizer.load_state_dict(state["optimizer"])
        if self.model.scheduler:
            self.model.scheduler.load_state_dict(state["scheduler"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.task, self.epoch, self.batch = map(int, state["position"])
        if not (0 <= self.task <= self.stream.num_tasks and 0 <= self.epoch <= self.stream.num_epochs):
            raise ValueError("it stands at no place of this stream")
        self.images_met, self.nominal = int(state["images_met"]), int(state["nominal"])
        loss, losses = state["loss"]
        self.loss_sum.fill_(loss)
        self.losses = int(losses)
        self.skipped = int(state["skipped"])
        self.left_out = int(state.get("left_out", 0))  # as the next, not in checkpoints of older versions
        self._peak_before = state.get("peak_memory_mb")
        self._seconds_before, self._started = float(state["seconds"]), time.monotonic()
        self.seen.load_state_dict(state["seen"])
        self.history.load_state_dict(state["history"])
        self._put_back(state)
        self.transform.generator.set_state(state["augment"])
        devices.set_random_states(state["random"], self.device)
