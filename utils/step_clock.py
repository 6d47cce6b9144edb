"""Internal steps that move by the number of images seen, for methods that must not know where a task ends."""

from __future__ import annotations

from typing import Any


class StepClock:
    """Counts `num_steps` steps of equal length over a stream of `num_images` images; the last one keeps the rest.

    Source: FlyGCL (AnAppleCore/FlyGCL, 79a6b51). A batch belongs as a whole to the step in which it begins.
    """

    def __init__(self, num_steps: int, num_images: int):
        self.num_steps = num_steps
        self.images_per_step = max(1, num_images // num_steps)
        self.step = 0
        self.images = 0  # seen since the step last moved

    def add(self, count: int) -> int:
        """Counts the images of a batch; gives the number of steps that ended with it."""
        before = self.step
        self.images += count
        while self.step < self.num_steps - 1 and self.images >= self.images_per_step:
            self.images -= self.images_per_step
            self.step += 1
        return self.step - before

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "images": self.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.images = state["step"], state["images"]
