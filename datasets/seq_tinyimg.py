"""Tiny ImageNet, 200 classes, 100,000 / 10,000 images of 64x64 pixels.

Stanford CS231n; 237 MB; a subset of ImageNet, for non-commercial research. The validation part is the test part,
as it comes, or sorted into class folders, `val/<wnid>/` or `val/<wnid>/images/`.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import PublicDataset
from utils.data.download import Download
from utils.data.listing import class_names
from utils.errors import UsageError
from utils.files.text import read_text


class SeqTinyimg(PublicDataset):
    num_classes = 200
    mean = (0.4802, 0.4481, 0.3975)
    std = (0.2302, 0.2265, 0.2262)
    folders = ("tiny-imagenet-200",)
    markers = (("wnids.txt", "train", "val"),)
    address = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    downloads = (
        Download(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "tiny-imagenet-200.zip",
            "md5:90528d7ca1a48142e341f4ef8d21d0de",
            name_inside="tiny-imagenet-200",
            most=10**9,
        ),
    )
    counts = (100_000, 10_000)
    stored_size = native_size = 64
    policy = "imagenet"

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        """Labels are places in wnids.txt, as in the released loaders."""
        wnids = _lines(folder / "wnids.txt")
        if len(set(wnids)) != self.num_classes or len(wnids) != self.num_classes:
            raise UsageError(f"{folder / 'wnids.txt'}: lists {len(set(wnids))} classes instead of {self.num_classes}")
        annotations, images = folder / "val" / "val_annotations.txt", folder / "val" / "images"
        if train:
            return self.class_folders(folder / "train", known=wnids, nested=True)
        # Some rearrange the test part into class folders, and leave the list or the empty folder behind.
        if not images.is_dir() or not any(images.iterdir()):
            return self.class_folders(folder / "val", known=wnids, nested=True, without=(images,))
        if any(name in wnids for name in class_names(folder / "val")):
            raise UsageError(f"{folder / 'val'}: holds class folders beside images; move one of them out of there")
        label_of = {wnid: label for label, wnid in enumerate(wnids)}
        class_of = {}
        for line in _lines(annotations):
            name, _, rest = line.partition("\t")
            class_of[name] = rest.partition("\t")[0]
            if class_of[name] not in label_of:
                raise UsageError(f"{annotations}: {line!r} names no class of wnids.txt")
        names = sorted(class_of)
        self._class_names = wnids
        return self.named(images, names, train), [label_of[class_of[name]] for name in names]


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in read_text(file).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read ({error})") from None
