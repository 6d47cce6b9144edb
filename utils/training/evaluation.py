"""Accuracy over the classes met so far, at any time of a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from utils.classes import SeenClasses, mask_unseen
from utils.contracts import Learner
from utils.data.images import ImageSet, Transform
from utils.errors import UsageError
from utils.training.metrics import class_accuracy


@dataclass(frozen=True)
class Accuracy:
    """average: share of correct images, NaN if no class has been met. per_class: [C] by slot, 0 where not met."""

    average: float
    per_class: Tensor


class Evaluator:
    """Evaluates a method on the test images whose class has been met, in ascending test index.

    batch_size matters to methods whose prediction depends on the batch (MePo's batch alignment); the released trainers
    use twice the training batch. mask: "seen" masks classes not met, "none" lets them compete.
    Images go through the test transform batch by batch; a method's `fixed_features` are computed once per test image
    and kept on the device, since its frozen backbone and the test transform never change.
    Raises FloatingPointError for logits that are not finite, whose largest would mean nothing, of the classes that
    compete; of one that was not met, -inf is a method's own mask.
    """

    def __init__(self, images: ImageSet, transform: Transform, batch_size: int, mask: str = "seen"):
        self.images, self.transform, self.batch_size, self.mask = images, transform, batch_size, mask
        self._fixed: Tensor | None = None

    def check(self, labels: Tensor) -> None:
        """Raises UsageError unless there is an image of one of the classes, raw labels, that will be met."""
        if not len(self.images):
            raise UsageError("the test part holds no image; --validation holds out a share of the training images")
        if not torch.isin(self.images.labels, labels).any():
            raise UsageError("no test image is of a class that is trained on, so there would be no accuracy")

    @torch.no_grad()
    def __call__(self, model: Learner, seen: SeenClasses) -> Accuracy:
        slots = seen.slots(self.images.labels)
        indices = torch.where(slots >= 0)[0]
        num_classes = seen.num_classes
        if len(indices) == 0:
            return Accuracy(float("nan"), torch.zeros(num_classes))
        was_training = model.training
        model.eval()
        correct, undefined = [], []
        for chunk in indices.split(self.batch_size):
            logits = self._logits(model, chunk).float()
            undefined.append(self._undefined(logits, len(seen)))
            if self.mask == "seen":
                logits = mask_unseen(logits, len(seen))
            correct.append(logits.argmax(dim=1) == slots[chunk].to(logits.device))
        model.train(was_training)
        if lost := int(torch.cat(undefined).sum()):
            why = model.why_not_finite()
            raise FloatingPointError(
                f"the logits of {lost} of {len(indices)} test images are not finite numbers"
                + (f": {why}" if why else "")
            )
        hits, targets = torch.cat(correct).cpu(), slots[indices]
        counts = torch.bincount(targets, minlength=num_classes)
        hits_per_class = torch.bincount(targets, weights=hits.float(), minlength=num_classes)
        return Accuracy(hits.double().mean().item(), class_accuracy(hits_per_class, counts))

    def _undefined(self, logits: Tensor, seen: int) -> Tensor:
        """Which rows of logits [B, C] give no prediction, [B]; `seen` classes have been met."""
        undefined = ~logits[:, :seen].isfinite().all(dim=1)
        if self.mask == "seen":
            return undefined
        unmet = logits[:, seen:]
        return undefined | (unmet.isnan() | (unmet == torch.inf)).any(dim=1)

    def _logits(self, model: Learner, chunk: Tensor) -> Tensor:
        x = self.transform.test(self.images.raw(chunk))
        with model.autocast():
            fixed = self._fixed_features(model, chunk)
            return model(x) if fixed is None else model(x, fixed)

    def _fixed_features(self, model: Learner, chunk: Tensor) -> Tensor | None:
        """Rows of the cache, filled for all test images at the first call. None for methods without fixed features."""
        if not model.has_fixed_features:
            return None
        if self._fixed is None:
            parts = torch.arange(len(self.images)).split(self.batch_size)
            self._fixed = torch.cat([model.fixed_features(self.transform.test(self.images.raw(p))) for p in parts])
        return self._fixed[chunk.to(self._fixed.device)]
