"""Icons of a hundred hands in grey, 1,000 concepts, 32x32 pixels; on board, no download.

The second pretraining set. Each class is a thing, or a sign of an interface, that many free icon sets draw
(`datasets/pictures/LICENCES.md` names them), up to four pictures of it in a set. Test pictures come from families of
sets that training never shows. `seq-icons` has other concepts, and so has `seq-emoji`.

Ink is light on dark ground, as in `glyphs`; in training half of the images have ink and ground of other colours and a
quarter are inverted, since emoji are dark on light and of all colours.
"""

from __future__ import annotations

from torch import Generator, Tensor

from datasets.pictures.dataset import Pictures
from utils.data.augment import random_affine, random_colours


class Icons(Pictures):
    file = "icons"
    num_classes = 1000
    grey = True
    counts = (41_088, 6_941)

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """Turns, moves and scales, and gives colours to ink and ground, at random."""
        images = random_affine(images, 10, 2.5 * images.shape[-1] / 32, (0.85, 1.1), generator)
        return random_colours(images, generator)
