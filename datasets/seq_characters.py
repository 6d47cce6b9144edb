"""Characters of the DejaVu fonts that `glyphs` lacks, 414 classes, 8,280 images of 32x32 pixels; no download.

All letters and symbols of `datasets.drawing.characters` that are no class of `glyphs`, the pretraining set, drawn as
those are: same faces, strokes and tones (same fonts and licence), 15 images per class for training and 5 for testing,
as many as OML takes of a character of Omniglot (Javed and White, NeurIPS 2019, arXiv:1905.12588). Made on first use.
Images are learnt as they are, without augmentation. The first 200 classes are those of `seq-glyphs`, drawn otherwise.
"""

from __future__ import annotations

from torch import Generator, Tensor

from datasets.drawing import characters
from datasets.glyphs import TEST_FACES, TRAIN_FACES, Glyphs


class SeqCharacters(Glyphs):
    folder = "seq-characters"
    chosen = characters.NOT_PRETRAINING
    training = (TRAIN_FACES, 15, 5)
    test = (TEST_FACES, 5, 6)
    num_classes = 414
    counts = (6_210, 2_070)
    settings = {"backbone": "conv4-64", "eval_period": 500}

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        return images
