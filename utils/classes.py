"""Which classes have been met: label -> slot in order of appearance, and the logit masks made from it. And how the
classes of several domains are labelled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def raw_label(domain: int, classes: Tensor, num_classes: int) -> Tensor:
    """The label under which classes [N] travel in a stream of several domains: each class once in every domain."""
    return domain * num_classes + classes


def class_of(raw: Any, num_classes: int) -> Any:
    """Classes of raw labels, a tensor or a number; of a stream without domains they are the labels themselves."""
    return raw % num_classes


def domain_of(raw: Tensor, num_classes: int) -> Tensor:
    """Domains of raw labels [N], int64 [N]."""
    return raw // num_classes


class SeenClasses:
    """Ordered list of the classes met so far. Output unit k of every head belongs to the k-th class ever met.

    known: classes taken as met from the start, in slot order (a pretraining stream knows all of its classes). With
    several domains a label (`raw_label`) counts as met once the class was met in that domain, and its slot is that of
    the class.
    """

    def __init__(self, num_classes: int, known: int = 0, num_domains: int = 1):
        self.num_classes = num_classes
        self.labels: list[int] = list(range(known))  # of classes, by slot
        self.met: list[int] = list(range(known))  # raw labels, in order
        self._slot_of_class = {label: label for label in self.labels}
        self._slot = torch.full((num_domains * num_classes,), -1, dtype=torch.int64)  # of every raw label
        self._slot[:known] = torch.arange(known)

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, labels: Tensor) -> None:
        """Registers the classes of a batch of raw labels [B], in the order of their first row."""
        new = labels[self._slot[labels] < 0]
        for label in dict.fromkeys(new.tolist()):  # at most once per class, domain and run
            self.met.append(label)
            if (own := class_of(label, self.num_classes)) not in self._slot_of_class:
                self._slot_of_class[own] = len(self.labels)
                self.labels.append(own)
            self._slot[label] = self._slot_of_class[own]

    def slots(self, labels: Tensor) -> Tensor:
        """Raw labels [B] -> slots [B]; -1 for a class not met yet."""
        return self._slot[labels]

    def state_dict(self) -> dict:
        return {"met": list(self.met)}

    def load_state_dict(self, state: dict) -> None:
        self.labels, self.met, self._slot_of_class = [], [], {}
        self._slot.fill_(-1)
        self.add(torch.tensor(state["met"], dtype=torch.int64))


def mask_unseen(logits: Tensor, seen: int) -> Tensor:
    """Seen mask: logits [B, C] with -inf in the columns from `seen` on (classes not met yet)."""
    unseen = torch.arange(logits.shape[1], device=logits.device) >= seen
    return logits.masked_fill(unseen, -torch.inf)


def mask_absent(logits: Tensor, slots: Tensor) -> Tensor:
    """Batch mask: logits [B, C] with -inf in the columns of classes that do not occur in slots [B]."""
    absent = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    absent.index_fill_(0, slots, False)  # unlike an assignment, does not wait for the device
    return logits.masked_fill(absent, -torch.inf)


def mask_for_training(logits: Tensor, slots: Tensor, seen: int, which: str) -> Tensor:
    """Logits [B, C] in float32 under the mask that the option `--train_mask` names: batch, seen or none."""
    if which == "none":
        return logits.float()
    return mask_absent(logits.float(), slots) if which == "batch" else mask_unseen(logits.float(), seen)


class TaskColumns(nn.Module):
    """Which task owns which column of logits [B, C], as its session says. Tasks that share the columns own all of them.

    A sample's task is that of its label's column, so that replayed samples need no task beside them.
    """

    owner: Tensor

    def __init__(self, num_classes: int):
        super().__init__()
        self.register_buffer("owner", torch.full((num_classes,), -1), persistent=False)  # [C], -1: none yet

    def begin(self, task: int, columns: range | None) -> None:
        """A task begins. columns: None where classes come back in several tasks, and nobody owns one."""
        if columns is not None:
            self.owner[columns.start : columns.stop] = task

    def foreign(self, slots: Tensor) -> Tensor:
        """For samples of slots [B] the columns of other tasks than their own, bool [B, C]."""
        return self.owner[slots][:, None] != self.owner

    def forward(self, logits: Tensor, slots: Tensor) -> Tensor:
        """Logits [B, C] in float32 with -inf in the columns of other tasks than the samples' own."""
        return logits.float().masked_fill(self.foreign(slots), -torch.inf)
