"""What is trained when, and at what rate."""

from dataclasses import dataclass

RATE = {"distil": 2e-3, "choose": 1e-3, "pairs": 6e-4}
DECAY = {"choose": 0.3, "pairs": 1.0}
"""The last share of a stage's steps, in which its learning rate falls to a tenth."""
EASE = 0.5
"""Share of the steps of `choose` in which its prompts grow from easy to full difficulty."""
WARMUP = 50


@dataclass(frozen=True)
class Schedule:
    """The number of steps of each stage, in order."""

    steps: dict[str, int]

    @property
    def total(self) -> int:
        """The steps of all stages."""
        return sum(self.steps.values())

    def place(self, step: int) -> tuple[str, int]:
        """The stage of a step (from 0), and its place in it. Raises ValueError at the end."""
        for stage, count in self.steps.items():
            if step < count:
                return stage, step
            step -= count
        raise ValueError("there are no more steps")

    def rate(self, stage: str, place: int) -> float:
        """The learning rate."""
        left = 1.0
        if stage in DECAY:
            left = (self.steps[stage] - place) / (DECAY[stage] * self.steps[stage])
        return RATE[stage] * min(1.0, (place + 1) / WARMUP, max(0.1, left))

    def ease(self, stage: str, place: int) -> float:
        """From 1, the easiest prompts, to 0."""
        if stage != "choose":
            return 0.0
        return max(0.0, 1 - place / (EASE * self.steps["choose"]))
