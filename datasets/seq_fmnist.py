"""Fashion-MNIST, 10 kinds of clothes, 60,000 / 10,000 images of 28x28 pixels.

Xiao, Rasul and Vollgraf, 2017; 31 MB; MIT licence. The four files of the original, compressed or not, as torchvision
and Debian's package dataset-fashion-mnist keep them.
"""

from __future__ import annotations

from pathlib import Path

from datasets.seq_mnist import FILES, SeqMnist
from utils.data.download import Download

MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package puts the files


class SeqFmnist(SeqMnist):
    mean = (0.2860, 0.2860, 0.2860)
    std = (0.3530, 0.3530, 0.3530)
    folders = ("FashionMNIST/raw", "FashionMNIST", "fashion-mnist")
    address = "https://github.com/zalandoresearch/fashion-mnist"
    downloads = tuple(
        Download(f"{MIRROR}{name}.gz", f"{name}.gz", f"md5:{md5}", most=10**8) for name, md5 in zip(FILES, MD5)
    )
    download_to = "FashionMNIST/raw"
    names = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
    )  # fmt: skip

    def find(self, data: Path) -> Path | None:
        """The folder of Debian's package, or one below `data`."""
        installed = any(all((DEBIAN / part).exists() for part in parts) for parts in self.markers)
        return DEBIAN if installed else super().find(data)
