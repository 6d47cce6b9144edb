"""Omniglot's background alphabets, 964 characters of 30 alphabets, 84x84 pixels: OML meta-trains on them.

Lake, Salakhutdinov and Tenenbaum, Science 2015, github.com/brendenlake/omniglot; 9.5 MB; MIT licence. Twenty people
drew each character. Labels follow the names of alphabets and characters, and of the drawings of a character in the
order of their names the first 15 are for training and the last 5 for testing. As in OML's release (Javed and White,
NeurIPS 2019, arXiv:1905.12588) a drawing is black ink, 0, on white ground, 1, neither normalised nor augmented.
"""

from __future__ import annotations

from pathlib import Path

from torch import Generator, Tensor

from datasets.base import PublicDataset
from utils.data.download import Download
from utils.data.listing import images_below
from utils.errors import UsageError

DRAWINGS, TRAINING = 20, 15  # of a character
BACKGROUND = """
    Alphabet_of_the_Magi 20 Anglo-Saxon_Futhorc 29 Arcadian 26 Armenian 41 Asomtavruli_(Georgian) 40 Balinese 24
    Bengali 46 Blackfoot_(Canadian_Aboriginal_Syllabics) 14 Braille 26 Burmese_(Myanmar) 34 Cyrillic 33 Early_Aramaic 22
    Futurama 26 Grantha 43 Greek 24 Gujarati 48 Hebrew 22 Inuktitut_(Canadian_Aboriginal_Syllabics) 16
    Japanese_(hiragana) 52 Japanese_(katakana) 47 Korean 40 Latin 26 Malay_(Jawi_-_Arabic) 40 Mkhedruli_(Georgian) 41
    N_Ko 33 Ojibwe_(Canadian_Aboriginal_Syllabics) 14 Sanskrit 42 Syriac_(Estrangelo) 23 Tagalog 17 Tifinagh 55
"""


def characters(alphabets: str) -> list[str]:
    """Folders of all characters, sorted. alphabets: name and number of characters of each."""
    words = alphabets.split()
    return [
        f"{name}/character{k:02d}" for name, count in zip(words[::2], words[1::2]) for k in range(1, int(count) + 1)
    ]


def archive(part: str, md5: str) -> Download:
    address = f"https://raw.githubusercontent.com/brendenlake/omniglot/master/python/{part}.zip"
    return Download(address, f"{part}.zip", f"md5:{md5}", name_inside=part, most=10**8)


class Omniglot(PublicDataset):
    num_classes = 964
    names = characters(BACKGROUND)
    native_size = stored_size = 84  # of 105
    grey = True
    mean, std = (0.0,) * 3, (1.0,) * 3
    folders = ("omniglot-py", "omniglot")
    markers = (("images_background",),)
    address = "https://github.com/brendenlake/omniglot"
    downloads = (archive("images_background", "68d2efa1b9178cc56df9314c21c6e718"),)
    download_to = "omniglot-py"
    counts = (14_460, 4_820)
    settings = {"backbone": "conv6-256"}

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        """Raises UsageError unless every drawing is there, as labels and parts are places among them."""
        root = folder / self.markers[0][0]
        drawings = [images_below(root / name).paths if (root / name).is_dir() else [] for name in self.names]
        if odd := [name for name, own in zip(self.names, drawings) if len(own) != DRAWINGS]:
            raise UsageError(
                f"{root}: {len(odd)} characters have not the {DRAWINGS} drawings that were published, {odd[0]} the "
                "first of them; delete the folder and fetch it again"
            )
        part = slice(TRAINING) if train else slice(TRAINING, None)
        paths = [path for own in drawings for path in own[part]]
        return paths, [label for label, own in enumerate(drawings) for _ in own[part]]

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        return images
