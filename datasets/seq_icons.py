"""Further concepts drawn as icons in grey, 200 classes, 32x32 pixels; on board, no download.

Concepts that `icons`, the pretraining set, does not contain, by the same hands; test pictures come from the sets of
icons whose pictures are tested there, too, so that neither pretraining nor the stream shows them. Ink is light on dark ground.
"""

from __future__ import annotations

from datasets.pictures.dataset import Pictures


class SeqIcons(Pictures):
    file = "seq-icons"
    num_classes = 200
    grey = True
    counts = (9_784, 1_810)
    settings = {"eval_period": 1000}
