"""The last 500 concepts of `icons`, for MePo's stages on a network that was pretrained on the first 500."""

from __future__ import annotations

from datasets.icons import Icons


class IconsLast(Icons):
    num_classes = 500
    counts = (21_613, 3_671)

    def classes(self) -> list[int]:
        return super().classes()[500:]
