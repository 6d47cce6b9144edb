"""What a dataset declares about itself; order, batches and devices belong to the stream and the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Generator, Tensor


class Dataset:
    """One image-classification dataset. A dataset file defines exactly one subclass.

    Attributes
    ----------
    num_classes: labels are the integers 0 ... num_classes - 1.
    image_size: height and width in pixels of the arrays that `load` returns.
    mean, std: per-channel statistics in [0, 1] with which images are normalised.
    settings: options of the run that fit this dataset (eval_period ...); a method's published values come before them.
    """

    num_classes: ClassVar[int]
    image_size: ClassVar[int]
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]
    settings: ClassVar[dict[str, Any]] = {}

    def load(self, root: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
        """The training or the test part: images uint8 [N, 3, H, W] (may be memory-mapped), labels int64 [N].

        `root` is the data folder of the run (`--data_dir`); a dataset keeps its files in a folder of its own there.
        """
        raise NotImplementedError

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """Training transform of a batch, one draw per image: float [B, 3, H, W] in [0, 1] to the same. Default: none.

        `generator` lives on the CPU; parameters are drawn there and moved to the images' device, so that every
        device sees the same draws.
        """
        return images
