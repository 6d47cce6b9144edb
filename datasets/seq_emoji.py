"""Emoji of nine styles in colour, 300 classes, 32x32 pixels; on board, no download.

Things and faces that neither `icons` nor `seq-icons` contains, in painted styles: stands to `icons` as ImageNet-R
stands to ImageNet. Test pictures are of three styles that training never shows (Twemoji: flat; Firefox: shaded;
EmojiOne: one colour), each once, on white. A training picture comes as five fixed views: as it is, and turned, scaled
and moved a little on tinted grounds (`datasets.pictures.views`). They are drawn on first use.
"""

from __future__ import annotations

import numpy as np

from datasets.base import Places
from datasets.drawing import characters
from datasets.pictures import stored, views
from datasets.pictures.dataset import Pictures


class SeqEmoji(Pictures):
    file = "seq-emoji"
    num_classes = 300
    counts = (8_395, 900)
    settings = {"backbone": "vit_tiny_icons", "eval_period": 1000}

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        pictures, labels = self.part(train)
        if not train:
            return views.on_white(pictures), labels
        images = characters.cached(*self._drawn(places), lambda: views.views(pictures))
        return images, labels.repeat(views.VIEWS)

    def is_there(self, places: Places, train: bool) -> bool:
        return not train or characters.is_cached(*self._drawn(places))

    def _drawn(self, places: Places) -> tuple:
        """Folder and name of the file of views, and the settings it depends on."""
        return places.cache / "seq-emoji", "train", (stored.digest_of(self.folder, self.file), views.settings())
