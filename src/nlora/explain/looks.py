"""What a model after each stage says to texts: measured once, kept beside the run.

What the evaluation after a stage has kept of its tests' labels (`continual.scored`) is taken from
there.

RUN/explain/001-name/TASK-KIND.safetensors holds the scores (texts, labels) or the states (texts, d)
of one task's question after one stage, with a hash of all that they depend on and one of the
values. What was measured for another model, or about other texts, or was changed, is measured
again. Looks at the base model are the same for every run, and are kept in the cache folder by their
hash.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nlora.continual.scored import how_read, kept_scores
from nlora.continual.self_written import CACHE
from nlora.data.task import Example, digest
from nlora.explain.sources import NEUTRAL
from nlora.folders import cache_dir
from nlora.progress import shown
from nlora.store.atomic import write_bytes
from nlora.store.manifests import Manifests

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel


class Look(NamedTuple):
    """What the model after a stage makes of examples of a task, whose answers it is not told."""

    stage: int
    """0 is the base model."""
    task: str
    kind: str
    """Of the texts."""
    what: Literal["scores", "states"] = "scores"


class Looks:
    """The looks at one model, read from its folder or measured."""

    def __init__(
        self, model: "ContinualModel", folder: Path, on: str = "test", named: bool = False
    ) -> None:
        self.model = model
        self.folder = folder
        self.on = on
        """Where the examples of kind `test` come from."""
        self.named = named
        """Whether the task's own model is asked also about texts that it could be found by."""
        self.found: dict[Look, ndarray] = {}
        zero = model.directory.zero_shot()
        known = (*([zero] if zero else ()), *model.records)
        self._records = {record.index: record for record in known}
        read_in = model.plan.run.precision
        self._variant = "" if read_in == model.directory.precision() else f"-{read_in}"
        """An exported model is asked in fp32, whatever it was trained in."""

    def take(self, wanted: Iterable[tuple[Look, Sequence[Example]]]) -> None:
        """Have these looks in `found`. Each that is measured is kept before the next one."""
        missing: dict[int, list[tuple[Look, Sequence[Example], str]]] = {}
        for look, examples in dict(wanted).items():
            key = self._key(look, examples)
            known = self._tested(look, examples)
            known = _read(self._place(look, key), key) if known is None else known
            if known is None:
                missing.setdefault(look.stage, []).append((look, examples, key))
            else:
                self.found[look] = known
        total = sum(len(examples) for looks in missing.values() for _, examples, _ in looks)
        if not total:
            return
        with shown(self.model.progress, "asking", total):
            for stage, looks in sorted(missing.items()):
                with self.model.standing(stage):
                    for look, examples, key in looks:
                        self.found[look] = self._measure(look, examples)
                        self._keep(look, key)

    def _tested(self, look: Look, examples: Sequence[Example]) -> ndarray | None:
        """What an evaluation after the stage has kept, if it asked the same."""
        record = self._records.get(look.stage)
        if record is None or (look.kind, look.what) != ("test", "scores"):
            return None
        return kept_scores(self.model.directory, record, self.model.plan.run, examples)

    def _keep(self, look: Look, key: str) -> None:
        """Write a look to its place; a cache folder that cannot be written keeps nothing."""
        place = self._place(look, key)
        values = self.found[look]
        content = save({look.what: values}, metadata={"made_of": _made(key, values)})
        with contextlib.suppress(OSError) if look.stage == 0 else contextlib.nullcontext():
            place.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(place, content)

    def _measure(self, look: Look, examples: Sequence[Example]) -> ndarray:
        stage = self.model.own_stage(look.task) if self._of_own_model(look) else None
        if look.what == "scores":
            return np.array(self.model.scores(examples, look.task, stage), dtype=np.float64)
        return np.stack([state.numpy() for state in self.model.states(examples, look.task, stage)])

    def _of_own_model(self, look: Look) -> bool:
        """Whether the model of the task's stage is asked, where the input chooses among several:
        by texts that have nothing to do with the task it is not found."""
        routed = look.stage > 0 and self.model.method.routes_by_input
        return routed and (self.named or look.kind.startswith(NEUTRAL))

    def place(self, stage: int, task: str, name: str, ending: str) -> Path:
        """Where something about a task after a stage is kept."""
        known = re.sub(r"[^A-Za-z0-9.+_-]+", "-", task)
        if known != task:
            known += f"-{digest(task)}"  # two names may become one
        return self.folder / self._records[stage].folder / f"{known}-{name}{self._variant}{ending}"

    def made_of(self, stage: int) -> list[Any]:
        """All that the model after a stage depends on, and how it reads."""
        known = {record.folder: record.files for record in self.model.records}
        names = Manifests(self.model.records).after(stage)
        updates = [sorted(known[name].items()) for name in names]
        plan = self.model.plan
        method = [plan.config.method, plan.method.settings.model_dump(mode="json")]
        return [
            *(plan.base.title, plan.base.weights, how_read(plan.run)),
            self.model.encoder.max_length,  # what the model has room for, if that is less
            *((method, updates) if stage else ()),  # the base model is the same for all
        ]

    def _place(self, look: Look, key: str) -> Path:
        if look.stage == 0:
            return cache_dir() / CACHE / f"{key}.safetensors"
        kind = "asked-dev" if (look.kind, self.on) == ("test", "dev") else look.kind
        named = self._of_own_model(look) and not look.kind.startswith(NEUTRAL)
        kind += ("-named" if named else "") + ("" if look.what == "scores" else "-states")
        return self.place(look.stage, look.task, kind, ".safetensors")

    def _key(self, look: Look, examples: Sequence[Example]) -> str:
        task = examples[0].task.to_json() if examples else None
        texts = [example.text for example in examples]
        own = ["own model"] if self._of_own_model(look) else []
        return digest([*self.made_of(look.stage), task, texts, look.what, *own])


def _read(place: Path, key: str) -> ndarray | None:
    """What a file holds, if it was made of this; None too where it is damaged."""
    if not place.is_file():
        return None
    try:
        with safe_open(place, framework="np") as file:
            [name] = file.keys()
            values = file.get_tensor(name)
            return values if (file.metadata() or {}).get("made_of") == _made(key, values) else None
    except (SafetensorError, ValueError):
        return None


def _made(key: str, values: ndarray) -> str:
    """What a file says of its values: what they were made of, and their hash (in one, since the
    order of several would be another each time)."""
    return f"{key} {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"
