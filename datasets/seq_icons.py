"""Further concepts drawn as icons in grey, 200 classes, 32x32 pixels; on board, no download.

Concepts that `icons`, the pretraining set, does not contain, by the same hands, as light ink on dark ground. Test
pictures come from the sets that are tested on there, too, so that neither pretraining nor the stream shows them.
"""

from __future__ import annotations

from datasets.pictures.dataset import Pictures


class SeqIcons(Pictures):
    file = "seq-icons"
    num_classes = 200
    grey = True
    counts = (9_784, 1_810)
    settings = {"backbone": "vit_tiny_icons", "eval_period": 1000}
