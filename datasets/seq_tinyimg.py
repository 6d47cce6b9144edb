"""Tiny ImageNet, 200 classes, 100,000 / 10,000 images of 64x64 pixels.

Stanford CS231n; 237 MB; a subset of ImageNet, for non-commercial research. The validation part is the test part.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import PublicDataset
from utils.decode import class_folders
from utils.download import Download
from utils.errors import UsageError
from utils.files import read_text


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
        ),
    )
    counts = (100_000, 10_000)
    stored_size = 64
    policy = "imagenet"

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        """Labels are places in wnids.txt, as in the released loaders."""
        wnids = _lines(folder / "wnids.txt")
        if len(set(wnids)) != self.num_classes or len(wnids) != self.num_classes:
            raise UsageError(f"{folder / 'wnids.txt'}: lists {len(set(wnids))} classes instead of {self.num_classes}")
        annotations = folder / "val" / "val_annotations.txt"
        if train or not annotations.is_file():  # some rearrange the test part into class folders
            part = folder / ("train" if train else "val")
            self.class_names(part)
            return class_folders(part, self.args.skip_bad, wnids)
        label_of = {wnid: label for label, wnid in enumerate(wnids)}
        class_of = {}
        for line in _lines(annotations):
            name, _, rest = line.partition("\t")
            class_of[name] = rest.partition("\t")[0]
            if class_of[name] not in label_of:
                raise UsageError(f"{annotations}: {line!r} names no class of wnids.txt")
        names = sorted(class_of)
        return [folder / "val" / "images" / name for name in names], [label_of[class_of[name]] for name in names]


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in read_text(file).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read ({error})") from None
