"""WikiArt, paintings of 27 styles, 81,444 images.

Saleh and Elgammal, arXiv:1505.00855, as arranged by the authors of ArtGAN; 25 GB; for non-commercial research. A
random split of all images, 80/20, seed 0, as in MISA, MePo and FlyGCL. The shorter side becomes 8/7 of the network's
input and the centre is taken, where the release crops at random, in testing too. Two members of the authors' archive
are damaged (their issues 4 and 14) and no part of the 81,444.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import PublicDataset
from utils.data.download import Download
from utils.data.splits import authors_split

DAMAGED = (
    "Baroque/rembrandt_woman-standing-with-raised-hands.jpg",
    "Post_Impressionism/vincent-van-gogh_l-arlesienne-portrait-of-madame-ginoux-1890.jpg",
)


class SeqWikiart(PublicDataset):
    num_classes = 27
    known_bad = DAMAGED
    folders = ("wikiart/wikiart", "wikiart")
    markers = (("Cubism", "Ukiyo_e"),)
    address = "https://github.com/cs-chan/ArtGAN/tree/master/WikiArt%20Dataset"
    downloads = (
        Download(
            "https://drive.google.com/uc?id=1vTChp3nU5GQeLkPwotrybpUGUXj12BTK",
            "wikiart.zip",
            name_inside="wikiart",
            damaged=tuple(f"wikiart/{name}" for name in DAMAGED),
        ),
    )
    counts = (65_155, 16_289)
    fit = "crop"
    policy = "imagenet"

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        paths, labels = self.drawn_over(folder, *self.class_folders(folder))
        rows = authors_split(len(paths), seed=0, train=train, in_order=True)
        return [paths[row] for row in rows], [labels[row] for row in rows]
