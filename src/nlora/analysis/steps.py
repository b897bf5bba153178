"""What each stage changed: an update that goes on from another one, less that one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nlora.analysis.report import Update
from nlora.lowrank.factors import Factors, concatenate


@dataclass
class Step:
    """The difference of two updates of the same matrices, exactly, by the sum of their ranks."""

    after: Update
    before: Update
    notes: list[str] = field(default_factory=list)
    continues: str | None = None

    @property
    def name(self) -> str:
        """Of the stage that made the step."""
        return self.after.name

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of the difference by module."""
        return self.after.shapes

    def factors(self, module: str) -> Factors:
        """ΔW after the stage less ΔW before it."""
        before = self.before.factors(module)
        pair = [self.after.factors(module), before._replace(scaling=-before.scaling)]
        return concatenate(pair)


def steps(adapters: Sequence[Update]) -> Sequence[Update]:
    """The adapters in order; in place of one that `continues` another of them, the difference."""
    known = {adapter.name: adapter for adapter in adapters}
    return [a if a.continues is None else Step(a, known[a.continues]) for a in adapters]
