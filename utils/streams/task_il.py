"""The class-incremental split of the older protocols, whose tasks are told."""

from __future__ import annotations

from utils.streams.class_il import ClassIncremental


class TaskIncremental(ClassIncremental):
    """The same tasks for the same seed as in the class-incremental stream. A task's classes get their columns when it
    begins, in the order of `task_classes`, and test predictions may use the task.
    """

    announces = True
