"""Icons of a hundred hands in grey, 1,000 concepts, 32x32 pixels; on board, no download.

The second pretraining set. Each class is a thing, or a sign of an interface, that many free icon sets draw
(`datasets/pictures/LICENCES.md` names them), up to four pictures of it in a set. Test pictures come from families of
sets that training never shows. `seq-icons` has other concepts, and so has `seq-emoji`.
"""

from __future__ import annotations

from datasets.pictures.dataset import Pictures


class Icons(Pictures):
    file = "icons"
    num_classes = 1000
    grey = True
    counts = (41_088, 6_941)
