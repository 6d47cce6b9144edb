"""A-GEM: averaged GEM, which turns each gradient so that the mean loss over the memory does not rise.

Source: Chaudhry et al. 2019, arXiv:1812.00420, equation 11: where the gradient g of the minibatch has a negative
product with that of a draw from the memory, r, it becomes g - (g'r / r'r) r. The memory is GEM's: one ring per task,
whose write position goes on at a border.
1. As in the paper the memory's gradient is that of a draw from all past tasks, anew for each update.
2. Double precision, as in `gem`. No recorded case.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.gem import Gem, GemArgs
from utils.args import option
from utils.contracts import Batch


@dataclass(kw_only=True)
class AgemArgs(GemArgs):
    margin: float = 0.0  # none: no option of this method
    replay_batch_size: int = option(256, "samples of a draw, at most", "A-GEM: its runs on MNIST", low=1)


class Agem(Gem):
    Args = AgemArgs

    def learn(self, batch: Batch) -> Tensor:
        index = self.memory.draw(self.task, self.args.replay_batch_size)
        memory = [self.memory_gradient(index)] if len(index) else []
        return self.descend(batch, memory)

    def turn(self, memories: list[Tensor]) -> None:
        (r,) = (memory.double() for memory in memories)
        g = torch.cat([p.grad.flatten() for p in self.trained()]).double()
        share = (g @ r).clamp(max=0) / (r @ r).clamp(min=1e-30)  # 0 where nothing has to be done, without a look at it
        self.set_gradient(g - share * r)

    def measures(self) -> dict[str, float]:
        return {}
