"""The first 500 concepts of `icons`, to pretrain on: MePo's meta stage then has classes that the network never saw."""

from __future__ import annotations

from datasets.icons import Icons


class IconsFirst(Icons):
    num_classes = 500
    counts = (19_475, 3_270)

    def classes(self) -> list[int]:
        return super().classes()[:500]
