"""What an artefact is made from: the runs of a ledger, and the models beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlora.errors import NloraError
from nlora.report.accuracy import over_streams
from nlora.report.runs import Run, Section, sections
from nlora.report.table import Value
from nlora.study.grid import folder

NO_PENALTY = "n-lora:l1=0"


@dataclass(frozen=True)
class Material:
    """Runs in one section, and the folder of `nlora compare` that holds their models, if any."""

    section: Section
    folder: Path | None = None

    def value(
        self, method: str, streams: Sequence[str], of: Callable[[Run], Any], form: str = ".1f"
    ) -> Value | None:
        """A number's mean over streams and its spread over seeds; None where a run is missing."""
        return over_streams(self.section, method, streams, of, form)

    def measured(self, methods: Sequence[str], streams: Sequence[str]) -> list[str]:
        """Those of the streams on which any of the methods was run."""
        return [s for s in streams if any(self.section.of(m, s) for m in methods)]

    def unpenalised(self, stream: str) -> str | None:
        """The point that is N-LoRA without its penalty: itself at λ = 0, or `inc-lora`, which is
        the same run where it had the same model, budget and other settings."""
        if self.section.of(NO_PENALTY, stream):
            return NO_PENALTY
        ours, plain = self.section.of("n-lora", stream), self.section.of("inc-lora", stream)
        same = ours and plain and _but_for_the_penalty(ours[0], plain[0])
        return "inc-lora" if same else None

    def model(self, method: str, stream: str) -> Path | None:
        """The model directory of the first seed of a cell, where it is there."""
        if self.folder is None:
            return None
        for run in self.section.of(method, stream):
            place = self.folder / folder(stream) / folder(method) / f"seed-{run.seed}"
            if (place / "model.json").is_file():
                return place
        return None


def _but_for_the_penalty(one: Run, other: Run) -> bool:
    """Whether two runs are alike but for it; what only one of them tells is not looked at."""
    told = (one.settings.keys() & other.settings.keys()) - {"penalty", "l1", "l1_unit"}
    return one.budget == other.budget and all(
        one.settings[name] == other.settings[name] for name in told
    )


def material(ledgers: Sequence[Path], models: Path | None = None) -> Material:
    """The runs of some ledgers together. Raises NloraError where two budgets have the same cell."""
    found = sections(ledgers)
    seen: dict[tuple[str, str], Section] = {}
    for section in found:
        for cell in section.cells:
            if cell in seen:
                method, stream = cell
                raise NloraError(
                    f"{method} on {stream} was run twice, as '{seen[cell].title}' and as "
                    f"'{section.title}'; give a ledger with one of them"
                )
            seen[cell] = section
    title = "; ".join(dict.fromkeys(section.title for section in found))
    return Material(Section(title, [run for section in found for run in section.runs]), models)
