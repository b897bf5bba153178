"""Which stage's model answers which example, where a method has several, and what is told of it."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from nlora import processes
from nlora.data.task import Example, TaskData
from nlora.methods.base import Route
from nlora.store.records import StageRecord

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel

T = TypeVar("T")


class Routing:
    """Has each example answered by the model that the method says."""

    def __init__(self, model: "ContinualModel") -> None:
        self.model = model
        self.taken: dict[str, list[Route]] = {}
        """By task, as of the last evaluation, where the method routes."""

    def of(self, tasks: Sequence[TaskData]) -> list[list[Route] | None]:
        """The routes of each task's tests, where the method chooses by the input; else None.

        Of all at once: a router takes the longer to be asked, the more tasks it knows.
        """
        asked = [example for data in tasks for example in data.test]
        found = self._routes(asked) if self.model.method.routes_by_input else None
        rest = None if found is None else iter(found)
        return [None if rest is None else list(islice(rest, len(data.test))) for data in tasks]

    def ask(
        self,
        examples: Sequence[Example],
        task: str,
        stage: int | None,
        ask: Callable[[Sequence[Example]], list[T]],
        routes: Sequence[Route] | None = None,
    ) -> list[T]:
        """What `ask` says to the examples of a task, each asked of the model that answers it.

        That is the model of the task's stage if the method needs to know it, that of the stage that
        each example is routed to, or the one model. `stage` is the one that all are known to belong
        to, if there is more than one model; `routes` are theirs, where these are known.
        """
        model, method = self.model, self.model.method
        ctx = model.context()
        if method.needs_task_id and (learned := model.stage_of(task)) is not None:
            stages: Sequence[int | None] | None = [learned] * len(examples)
        elif stage is not None and method.routes_by_input:
            stages = [stage] * len(examples)
        else:
            routes = self._routes(examples) if routes is None else routes
            own = [route.stage if route.own else None for route in routes or ()]
            stages = None if routes is None else own
            if routes:
                self.taken[task] = list(routes)
        if stages is None:
            return ask(examples)
        found: dict[int, T] = {}
        for one in sorted(set(stages), key=lambda stage: stage or 0):
            rows = [i for i, route in enumerate(stages) if route == one]
            with nullcontext() if one is None else method.at(ctx, one):
                found.update(zip(rows, ask([examples[i] for i in rows]), strict=True))
        return [found[i] for i in range(len(examples))]

    def _routes(self, examples: Sequence[Example]) -> list[Route] | None:
        if not examples:  # tasks without tests, whose texts no router reads
            return []
        return processes.from_main(self.model.method.routes(self.model.context(), examples))

    def tell(self, record: StageRecord) -> None:
        """Record which stages the tests of each task were answered by, and how many were far."""
        if not self.taken:
            return
        names = {known.index: known.name for known in self.model.records}
        told = record.notes.setdefault("routing", {})
        told["tests"] = {
            task: dict(Counter(names[route.stage] for route in routes))
            for task, routes in self.taken.items()
        }
        told["far"] = {
            task: sum(route.unknown for route in routes) / len(routes)
            for task, routes in self.taken.items()
        }
