"""What each stage changed: an update that goes on from another one, less that one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nlora.analysis.report import Update
from nlora.lowrank.factors import Factors, concatenate


@dataclass
class Step:
    """The difference of two updates of the same matrices, exactly, by the sum of their ranks."""

    name: str
    """Of the stage that made the step."""
    shapes: dict[str, tuple[int, int]]
    after: Update
    before: Update
    notes: list[str] = field(default_factory=list)
    continues: str | None = None

    def factors(self, module: str) -> Factors:
        """ΔW after the stage less ΔW before it."""
        before = self.before.factors(module)
        pair = [self.after.factors(module), before._replace(scaling=-before.scaling)]
        return concatenate(pair)


def steps(adapters: Sequence[Update]) -> Sequence[Update]:
    """The adapters in order; in place of one that `continues` another of them, the difference."""
    known = {adapter.name: adapter for adapter in adapters}
    found: list[Update] = []
    for adapter in adapters:
        before = adapter.continues
        found.append(
            adapter
            if before is None
            else Step(adapter.name, adapter.shapes, adapter, known[before])
        )
    return found
