"""Omniglot's evaluation alphabets, 659 characters of 20 alphabets, 84x84 pixels: OML learns them one by one.

Source, licence, parts and values as `omniglot`, with which it shares no alphabet; 6.5 MB. The release draws its classes
from the first 650.
"""

from __future__ import annotations

from datasets.omniglot import Omniglot, archive, characters

EVALUATION = """
    Angelic 20 Atemayar_Qelisayer 26 Atlantean 26 Aurek-Besh 26 Avesta 26 Ge_ez 26 Glagolitic 45 Gurmukhi 45 Kannada 41
    Keble 26 Malayalam 47 Manipuri 40 Mongolian 30 Old_Church_Slavonic_(Cyrillic) 45 Oriya 46 Sylheti 28
    Syriac_(Serto) 23 Tengwar 25 Tibetan 42 ULOG 26
"""


class SeqOmniglot(Omniglot):
    num_classes = 659
    names = characters(EVALUATION)
    markers = (("images_evaluation",),)
    downloads = (archive("images_evaluation", "6b91aef0f799c5bb55b94e3f2daec811"),)
    counts = (9_885, 3_295)
