"""NCT-CRC-HE, 9 kinds of tissue in histological images of colorectal cancer, 100,000 / 7,180 images of 224x224 pixels.

Kather, Halama and Marx, Zenodo 1214456, CC BY 4.0; 11.7 and 0.8 GB. Trains on NCT-CRC-HE-100K (colour-normalised),
tests on CRC-VAL-HE-7K, whose patients are others. No AutoAugment, as released.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import PublicDataset
from utils.data.download import Download

ZENODO = "https://zenodo.org/records/1214456/files/"


class SeqNch(PublicDataset):
    num_classes = 9
    folders = ("NCH", "NCT-CRC-HE")
    markers = (("NCT-CRC-HE-100K/ADI", "CRC-VAL-HE-7K/ADI"),)
    address = "https://zenodo.org/records/1214456"
    downloads = (
        Download(
            f"{ZENODO}NCT-CRC-HE-100K.zip",
            "NCT-CRC-HE-100K.zip",
            "md5:6fd702d11df6292bc054397ae038a464",  # 035777... is that of its variant without normalisation
            name_inside="NCT-CRC-HE-100K",
        ),
        Download(
            f"{ZENODO}CRC-VAL-HE-7K.zip",
            "CRC-VAL-HE-7K.zip",
            "md5:2fd1651b4f94ebd818ebf90ad2b6ce06",
            name_inside="CRC-VAL-HE-7K",
        ),
    )
    download_to = "NCH"
    counts = (100_000, 7_180)

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        part = "NCT-CRC-HE-100K" if train else "CRC-VAL-HE-7K"
        return self.class_folders(folder / part, names_in=folder / "NCT-CRC-HE-100K")
