"""100 pretraining concepts of `icons`, as a stream; for choosing options, never for reporting.

The same pictures as in `icons`, test pictures of sets that training never shows. Options that hang on the backbone are
chosen here, so that the classes of `seq-icons` and `seq-emoji` stay unseen.
"""

from __future__ import annotations

from datasets.pictures.dataset import Pictures


class SeqIconsDev(Pictures):
    file = "icons"
    num_classes = 100
    grey = True
    counts = (6_917, 1_185)
    settings = {"backbone": "vit_tiny_icons", "eval_period": 500}

    def classes(self) -> list[int]:
        return self.stored.about.development
