"""Accuracy over the classes met so far, or the error of predicted numbers, at any time of a run."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from utils.classes import SeenClasses, mask_unseen
from utils.contracts import Learner, Votes
from utils.data.features import kept_features
from utils.data.images import ImageSet, Transform
from utils.errors import UsageError
from utils.machine import describe
from utils.streams.base import Stream
from utils.training.metrics import class_accuracy


@dataclass(frozen=True)
class Scores:
    """average: share of correct images, NaN if no class has been met. per_class: [C] by slot, 0 where not met.

    per_task: by how it was measured, among all classes met ("class") or with the task told ("task"), the accuracy on
    the images of each task [T], NaN where none was met; empty where classes come in several tasks. Of a method that
    tells tasks apart also with the task inferred ("inferred", the same as "class", "inferred_X" by its criterion X) and
    the share of images whose task was ("found", "found_X").
    train: accuracy on the training images of the classes met, None where nobody asked.
    is_error: average is the mean squared error of predicted numbers, there is no class, and per_task has "mse_given"
    and "mse_inferred".
    """

    average: float
    per_class: Tensor
    per_task: dict[str, list[float]] = field(default_factory=dict)
    is_error: bool = False
    train: float | None = None


class Evaluator:
    """Evaluates a method on the images whose class has been met, of the test part or of that trained on, in ascending
    index.

    batch_size matters to methods whose prediction depends on the batch (MePo's batch alignment); the released trainers
    use twice the training batch. mask: "seen" masks classes not met, "none" lets them compete.
    Images go through the test transform batch by batch; a method's `fixed_features` are computed once per image
    and kept on the device, since its frozen backbone and the test transform never change. Where they suffice, images
    are not looked at any more. kept: the folder where runs share them (`utils.data.features`), None: this one does not.
    precision: of the run.
    stream: whose tasks have classes of their own, or share them under domains, is also measured task by task; where it
    announces them the accuracy is the one with the task told. slots: of all classes [raw labels], as they will have
    been met at the end of the stream; with them tasks to come can be measured, too (`ahead`).
    Of data with numbers to predict the mean squared error is taken. A method that tells tasks apart is asked for the
    votes of all its models once, from which follow the predictions with the task told and with the task inferred.
    Raises FloatingPointError for logits that are not finite, whose largest would mean nothing, of the classes that
    compete; of one that was not met, -inf is a method's own mask.
    """

    def __init__(
        self,
        images: ImageSet,
        transform: Transform,
        batch_size: int,
        mask: str = "seen",
        stream: Stream | None = None,
        slots: Tensor | None = None,
        kept: Path | None = None,
        precision: str = "32",
    ):
        self.images, self.transform, self.batch_size, self.mask = images, transform, batch_size, mask
        self.kept, self.precision = kept, precision
        self._fixed: Tensor | None = None
        self._tasks: Tensor | None = None  # of the images
        self._slots = None if slots is None else slots[images.labels]  # of the images, at the end of the stream
        tasks_of = None if stream is None else stream.tasks_of_labels()
        if stream is not None and tasks_of is not None:
            self._tasks = torch.tensor(tasks_of)[images.labels]
            self._own = torch.zeros(stream.num_tasks, stream.num_outputs, dtype=torch.bool)  # columns of each task
            for task in range(stream.num_tasks):
                columns = stream.columns(task)
                assert columns is not None
                self._own[task, columns.start : columns.stop] = True
            self._own, self._announced = self._own.to(images.device), stream.announces

    def check(self, labels: Tensor) -> None:
        """Raises UsageError unless there is an image of one of the classes, raw labels, that will be met."""
        if not len(self.images):
            raise UsageError("the test part holds no image; --validation holds out a share of the training images")
        if not torch.isin(self.images.labels, labels).any():
            raise UsageError("no test image is of a class that is trained on, so there would be no accuracy")

    @torch.no_grad()
    def ahead(self, model: Learner, first: int) -> list[float]:
        """Accuracy on the images of tasks `first` and later, none of which has begun, with the task told [T], NaN for
        earlier ones."""
        assert self._tasks is not None and self._slots is not None
        indices = torch.where((self._tasks >= first) & (self._slots >= 0))[0]
        if not len(indices):
            return [float("nan")] * len(self._own)
        was_training = model.training
        model.eval()
        if model.is_told:
            hits, undefined = self._told(model, indices, self._slots)
        else:
            parts = [
                self._own_hits(self._logits(model, c).float(), c, self._slots) for c in indices.split(self.batch_size)
            ]
            hits, undefined = (torch.cat(each) for each in zip(*parts))
        model.train(was_training)
        self._refuse(model, undefined)
        return self._by_task(hits.cpu(), indices)

    @torch.no_grad()
    def __call__(self, model: Learner, seen: SeenClasses) -> Scores:
        slots = seen.slots(self.images.labels)
        indices = torch.where(slots >= 0)[0]
        is_error = self.images.targets is not None
        if len(indices) == 0:
            return Scores(float("nan"), torch.zeros(0 if is_error else seen.num_classes), is_error=is_error)
        was_training = model.training
        model.eval()
        if is_error:
            scores = self._errors(model, indices)
        else:
            measure = self._hits_by_votes if model.tells_tasks_apart else self._hits
            hits, per_task = measure(model, indices, slots, len(seen))
            counts = torch.bincount(slots[indices], minlength=seen.num_classes)
            hits_per_class = torch.bincount(slots[indices], weights=hits.float(), minlength=seen.num_classes)
            scores = Scores(hits.double().mean().item(), class_accuracy(hits_per_class, counts), per_task)
        model.train(was_training)
        return scores

    def _hits(self, model: Learner, indices: Tensor, slots: Tensor, seen: int) -> tuple[Tensor, dict[str, list[float]]]:
        """Which of the images `indices` count as right, and `Scores.per_task`. seen: how many classes have been met."""
        correct, told, undefined = [], [], []
        for chunk in indices.split(self.batch_size):
            logits = self._logits(model, chunk).float()
            undefined.append(self._undefined(logits, seen))
            if self.mask == "seen":
                logits = mask_unseen(logits, seen)
            correct.append(logits.argmax(dim=1) == slots[chunk].to(logits.device))
            if self._tasks is not None and not model.is_told:
                told.append(self._own_hits(logits, chunk, slots)[0])
        if self._tasks is not None and model.is_told:
            hits, unknown = self._told(model, indices, slots, seen)
            told.append(hits)
            undefined.append(unknown)
        self._refuse(model, torch.cat(undefined))
        hits = torch.cat(correct).cpu()
        if self._tasks is None:
            return hits, {}
        told_hits = torch.cat(told).cpu()
        per_task = {"class": self._by_task(hits, indices), "task": self._by_task(told_hits, indices)}
        return told_hits if self._announced else hits, per_task

    def _hits_by_votes(
        self, model: Learner, indices: Tensor, slots: Tensor, seen: int
    ) -> tuple[Tensor, dict[str, list[float]]]:
        """As `_hits`, of a method that tells tasks apart."""
        found: dict[str, list[Tensor]] = defaultdict(list)
        undefined = []
        for chunk in indices.split(self.batch_size):
            votes = self._votes(model, chunk)
            known = votes.outputs[..., :seen] if self.mask == "seen" else votes.outputs
            undefined.append(~known.isfinite().all(dim=2).all(dim=0) | _without_score(votes))
            for name, logits in self._elected(votes, chunk, found).items():
                if self.mask == "seen":
                    logits = mask_unseen(logits, seen)
                own = self._own_hits(logits, chunk, slots)[0]
                found[name].append(own if name == "given" else logits.argmax(dim=1) == slots[chunk].to(logits.device))
        self._refuse(model, torch.cat(undefined))
        hits = {name: torch.cat(parts).cpu() for name, parts in found.items()}
        per_task = {"task": hits.pop("given"), "class": hits["inferred"], **hits}
        told = per_task["task" if self._announced else "class"]
        return told, {name: self._by_task(each, indices) for name, each in per_task.items()}

    def _errors(self, model: Learner, indices: Tensor) -> Scores:
        """Of predicted numbers."""
        assert self.images.targets is not None
        found: dict[str, list[Tensor]] = defaultdict(list)
        undefined = []
        for chunk in indices.split(self.batch_size):
            if model.tells_tasks_apart:
                votes = self._votes(model, chunk)
                undefined.append(_without_score(votes))
                predicted = self._elected(votes, chunk, found)
            else:
                with model.autocast():
                    predicted = self._told_and_untold(model, chunk)
            targets = self.images.targets[chunk.to(self.images.targets.device)]
            for name, numbers in predicted.items():
                found[f"mse_{name}"].append((numbers.double() - targets).square().mean(dim=1))
        values = {name: torch.cat(parts).cpu() for name, parts in found.items()}
        errors = [each for name, each in values.items() if name.startswith("mse_")]
        self._refuse(model, ~torch.stack(errors).isfinite().all(dim=0), "predictions")
        if undefined:
            self._refuse(model, torch.cat(undefined), "scores")
        average = values["mse_given" if self._tasks is not None and self._announced else "mse_inferred"].mean().item()
        per_task = {} if self._tasks is None else {name: self._by_task(each, indices) for name, each in values.items()}
        return Scores(average, torch.zeros(0), per_task, is_error=True)

    def _told_and_untold(self, model: Learner, chunk: Tensor) -> dict[str, Tensor]:
        """Numbers [B, K] that a method predicts with the task told ("given") and without ("inferred")."""
        x = self._inputs(chunk)
        untold = told = model(x)
        if self._tasks is not None and model.is_told:
            told, own = torch.empty_like(untold), self._tasks[chunk].to(x.device)
            for task in own.unique().tolist():
                told[own == task] = model.given(x[own == task], task)
        return {"given": told, "inferred": untold}

    def _votes(self, model: Learner, chunk: Tensor) -> Votes:
        with model.autocast():
            return model.votes(self._inputs(chunk))

    def _elected(self, votes: Votes, chunk: Tensor, found: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        """Outputs [B, ...] that count for each sample, with its task told ("given") and inferred by each criterion, of
        which the first has no name. Notes in `found` whether that is its task, and, where there are entropies, that of
        its task's model and the mean over other models."""
        assert self._tasks is not None
        own = self._tasks[chunk].to(votes.outputs.device)
        sample = torch.arange(len(chunk), device=votes.outputs.device)
        elected = {"given": votes.outputs[own, sample].float()}
        for place, (criterion, score) in enumerate(votes.scores.items()):
            suffix = f"_{criterion}" if place else ""
            winner = score.argmax(dim=0)
            found[f"found{suffix}"].append(winner == own)
            elected[f"inferred{suffix}"] = votes.outputs[winner, sample].float()
        if "ent" in votes.scores:
            entropy = (-votes.scores["ent"].float()).clamp_min(0)  # rounding
            others = entropy.isfinite()  # that of a model without classes is not
            others[own, sample] = False
            found["entropy_in"].append(entropy[own, sample])
            found["entropy_out"].append(entropy.where(others, 0).sum(dim=0) / others.sum(dim=0))  # NaN of one model
        return elected

    def _own_hits(self, logits: Tensor, chunk: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Which images have their class predicted among the columns of their own tasks, and for which there is no
        prediction, [B] each. logits: [B, C], masked as they are to be. slots: of all images."""
        assert self._tasks is not None
        own = self._own[self._tasks[chunk].to(self._own.device)]
        logits = logits.masked_fill(~own, -torch.inf)
        return logits.argmax(dim=1) == slots[chunk].to(logits.device), (logits.isnan() | (logits == torch.inf)).any(1)

    def _told(self, model: Learner, indices: Tensor, slots: Tensor, seen: int | None = None) -> tuple[Tensor, Tensor]:
        """As `_own_hits`, of a method that is told the task, in the order of `indices`; asked task by task. seen: how
        many classes compete; None: all."""
        assert self._tasks is not None
        found = torch.zeros(2, len(self.images), dtype=torch.bool)
        for task in self._tasks[indices].unique().tolist():
            for chunk in indices[self._tasks[indices] == task].split(self.batch_size):
                with model.autocast():
                    logits = model.given(self._inputs(chunk), task).float()
                if self.mask == "seen" and seen is not None:
                    logits = mask_unseen(logits, seen)
                found[:, chunk] = torch.stack(self._own_hits(logits, chunk, slots)).cpu()
        return found[0, indices], found[1, indices]

    def _refuse(self, model: Learner, undefined: Tensor, what: str = "logits") -> None:
        """Raises FloatingPointError if there are images without a prediction."""
        if lost := int(undefined.sum()):
            why = model.why_not_finite()
            raise FloatingPointError(
                f"the {what} of {lost} of {len(undefined)} test images are not finite numbers"
                + (f": {why}" if why else "")
            )

    def _by_task(self, hits: Tensor, indices: Tensor) -> list[float]:
        """Share of right images of each task [T]. hits: of the images `indices`."""
        assert self._tasks is not None
        counts = torch.bincount(self._tasks[indices], minlength=len(self._own)).double()
        right = torch.bincount(self._tasks[indices], weights=hits.double(), minlength=len(self._own))
        return (right / counts).tolist()  # NaN where there are none

    def _undefined(self, logits: Tensor, seen: int) -> Tensor:
        """Which rows of logits [B, C] give no prediction, [B]; `seen` classes have been met."""
        undefined = ~logits[:, :seen].isfinite().all(dim=1)
        if self.mask == "seen":
            return undefined
        unmet = logits[:, seen:]
        return undefined | (unmet.isnan() | (unmet == torch.inf)).any(dim=1)

    def _logits(self, model: Learner, chunk: Tensor) -> Tensor:
        with model.autocast():
            if not model.has_fixed_features:
                return model(self._inputs(chunk))
            if self._fixed is None:
                self._fixed = self._fixed_features(model)
            fixed = self._fixed[chunk.to(self._fixed.device)]
            return model(None if model.fixed_suffice else self._inputs(chunk), fixed)

    def _inputs(self, chunk: Tensor) -> Tensor:
        with torch.autocast(self.images.device.type, enabled=False):  # as in training
            return self.transform.test(self.images.raw(chunk))

    def _fixed_features(self, model: Learner) -> Tensor:
        """Of all images."""

        def of(part: Tensor) -> Tensor:
            return model.fixed_features(self._inputs(part))

        parts = [partial(of, part) for part in torch.arange(len(self.images)).split(self.batch_size)]
        name = None if self.kept is None else model.shared_as(self.precision)
        if self.kept is None or name is None:
            return torch.cat([part() for part in parts])
        machine = describe(self.images.device)
        rounding = [
            self.batch_size,
            *(machine[part] for part in ("cpu", "threads", "gpu")),
        ]  # they change the last bits
        settings = [name, self.images.sha256(), self.transform.settings(), *rounding]
        return kept_features(self.kept, model.backbone.state_dict(), settings, len(self.images), parts)


def _without_score(votes: Votes) -> Tensor:
    """For which samples the models cannot be compared, [B]."""
    return torch.stack([score.isnan().any(dim=0) for score in votes.scores.values()]).any(dim=0)
