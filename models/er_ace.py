"""ER-ACE: replay whose loss on new images runs over the classes of the batch only, which spares the old ones.

Source: Caccia et al., ICLR 2022, arXiv:2104.05025, section 4; releases: Mammoth, kangzhiq/MISA 3308d67. Memory, sizes
and optimiser are those of `er`. Departures:
1. Masking and replay begin with the first batch and with whatever is stored. In the releases both begin with the second
   task, for which they must know where it begins.
2. Classes not met yet never compete. In the releases they do, on incoming and on replayed images, here on the latter
   with `--train_mask none`.
3. As `er` in this setting: a batch gets several updates (`--online_iter`) and its images are stored after the last of
   them; what trains is the linear head of a pretrained ViT, with Adam. The paper makes one update per batch and
   trains a network from scratch with SGD, Mammoth's with cosine logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.er import Er
from utils.classes import mask_absent
from utils.contracts import Batch


class ErAce(Er):
    def loss(self, batch: Batch) -> Tensor:
        """L_ce(X_in, C_curr) + L_ce(X_bf, C_old + C_curr)."""
        count = len(batch.y)
        if not len(self.buffer):
            return F.cross_entropy(mask_absent(self(batch.x).float(), batch.y), batch.y)
        images, slots = self.buffer.sample(self.args.replay_size)
        logits = self(torch.cat((batch.x, self.info.augment(images)))).float()
        incoming = F.cross_entropy(mask_absent(logits[:count], batch.y), batch.y)
        return incoming + F.cross_entropy(self.masked(logits[count:], batch), slots)
