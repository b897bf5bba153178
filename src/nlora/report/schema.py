"""What a row of a ledger must hold before tables believe it."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from nlora.report.schema_explained import Explained
from nlora.report.schema_geometry import Geometry, Sparse
from nlora.store.documents import Base, Results
from nlora.store.reading import Count, Kind, Measured, Size, check


def _packed(text: str) -> str:
    """What `ledger.pack` wrote: a number of bits must be that of those that are there."""
    count, _, bits = text.partition(":")
    if not (count.isdecimal() and len(count) < 10 and _is_hex(bits)):
        raise ValueError("should be answers as COUNT:HEX")
    if len(bits) != 2 * -(-int(count) // 8):
        raise ValueError(f"should hold {count} answers, but has {4 * len(bits)} bits")
    return text


def _is_hex(text: str) -> bool:
    return text.isascii() and all(c in "0123456789abcdef" for c in text)


Packed = Annotated[str, AfterValidator(_packed)]


class Named(Kind):
    """What a run is called in a comparison; a single run has no name."""

    stream: str | None = None
    method: str | None = None
    seed: int | None = None


class Configuration(Kind):
    """What of `model.json` decides the result."""

    method: str
    tasks: list[str]
    seed: int
    max_train: int | None
    max_eval: int | None
    budgets: dict[str, Any] | None = None
    settings: dict[str, Any]

    @model_validator(mode="after")
    def _precision(self) -> "Configuration":
        if not isinstance(self.settings.get("precision"), str | None):
            raise ValueError("'settings.precision' should be a string")
        return self


class Machine(Kind):
    """Where it was run."""

    processor: str
    gpu: str | None = None
    cores: int
    threads: int | None = None


class Seconds(Kind):
    """How long was trained, and how long was answered."""

    training: Size
    evaluation: Size


class Cost(Kind):
    """What one stage took."""

    examples: Count
    steps: Count
    training: Size
    evaluation: Size
    peak_memory_bytes: Size


class Tuning(Kind):
    """What was tried."""

    trials: list[Any]


class Alike(Kind):
    """How alike two tasks are."""

    a: str
    b: str
    texts: Measured
    labels: Measured


class Movement(Kind):
    """KL(before ‖ after) of each stage, by task."""

    matrix: list[list[Measured | None]] = Field(default_factory=list)


class Needs(Kind):
    """What a method needs."""

    task_identity: bool = False
    old_data: bool = False
    storage: bool = False
    passes: float | None = None
    adapter: str | None = None


class Answers(Kind):
    """Which test examples were answered right, by task."""

    zero_shot: dict[str, Packed] | None
    stages: list[dict[str, Packed]]


class Row(Kind):
    """A row of a ledger of runs, also of one that failed."""

    cell: Named | None = None
    configuration: Configuration
    base: Base
    hash: str | None = None
    error: str | None = None
    tuning: Tuning | None = None


class FinishedRow(Results, Row):
    """The row of a run that ended."""

    needs: Needs = Field(default_factory=Needs)
    machine: Machine
    seconds_by: Seconds | None = None
    trainable_parameters: list[Count] = Field(default_factory=list)
    answers: Answers | None = None
    tests: dict[str, str] = Field(default_factory=dict)
    alike: list[Alike] = Field(default_factory=list)
    kl: Movement = Field(default_factory=Movement)
    geometry: dict[str, Any] | None = None
    explained: Explained = Field(default_factory=Explained)
    costs: dict[str, Cost] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    data: dict[str, str] = Field(default_factory=dict)
    notes: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _shapes(self) -> "FinishedRow":
        """Matrices have a row for each stage and a column for each task."""
        if len(self.accuracy_matrix) != len(self.stages):
            raise ValueError("'accuracy_matrix' should have a row for each of 'stages'")
        for name, matrix in (
            ("accuracy_matrix", self.accuracy_matrix),
            ("off_list.matrix", self.off_list.matrix),
            ("kl.matrix", self.kl.matrix),
        ):
            if any(len(row) != len(self.tasks) for row in matrix):
                raise ValueError(f"'{name}' should have a column for each of 'tasks'")
        if self.zero_shot is not None and len(self.zero_shot) != len(self.tasks):
            raise ValueError("'zero_shot' should have a number for each of 'tasks'")
        return self

    @model_validator(mode="after")
    def _answers_of_all(self) -> "FinishedRow":
        """After each stage its task, and after the last one all, with as many examples; a task that
        was learned again has more of them since."""
        if self.answers is None:
            return self
        found = self.answers.stages
        if len(found) != len(self.stages):
            raise ValueError(f"'answers.stages' has {len(found)} of {len(self.stages)} stages")
        counts: dict[str, str] = {}
        once = {*self.stages} <= {*self.tasks}
        for number, stage in enumerate(found):
            needed = [*self.tasks[: number + 1]] if self.stages == self.tasks else []
            for task in needed:
                if task not in stage:
                    raise ValueError(f"'answers.stages.{number}' lacks task '{task}'")
            for task, bits in stage.items():
                count = bits.partition(":")[0]
                if once and counts.setdefault(task, count) != count:
                    raise ValueError(f"'answers.stages.{number}.{task}' has another count")
        return self


def check_row(values: Mapping[str, Any], place: object) -> None:
    """Raise NloraError, with the place and the key, for a row that tables cannot be made of."""
    if values.get("error") is not None:
        check(Row, values, place)
        return
    found = check(FinishedRow, values, place)
    if found.geometry is not None and "error" not in found.geometry:
        check(Geometry, found.geometry, place, "geometry")
    for stage, note in found.notes.items():  # a method's own notes are its own
        if isinstance(note, dict) and "sparse" in note:
            check(Sparse, note["sparse"], place, "notes", stage, "sparse")
