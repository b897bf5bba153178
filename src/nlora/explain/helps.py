"""Whether matched answers help a task, as `nlora explain --dev` has found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from nlora.errors import NloraError, option
from nlora.explain.explain import FILE_ON_DEV, FOLDER
from nlora.report.schema_explained import Estimate
from nlora.store.reading import Count, Kind, check, read_json
from nlora.store.records import committed

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel


class _Lost(Kind):
    stage: Count
    helps: dict[str, Estimate] = Field(default_factory=dict)


class _Task(Kind):
    lost: list[_Lost]


class _OnDev(Kind):
    """`explained-on-dev.json`, as far as it is read here."""

    committed: dict[str, str] = Field(default_factory=dict)
    tasks: dict[str, _Task]


def helped(model: "ContinualModel", sources: Sequence[str]) -> dict[str, Estimate]:
    """The tasks that matching helps after the last stage, with the points that it adds on dev.

    By the first of the sources of offsets that was measured, where the whole interval is above 0.
    None where dev was not asked, or asked of other stages than there are now. Raises NloraError
    where the file is damaged.
    """
    file = model.directory.path / FOLDER / FILE_ON_DEV
    if not file.is_file():
        return {}
    try:
        read = check(_OnDev, read_json(file), file)
    except NloraError as error:
        raise NloraError(f"{error}; {option('answers', 'likely')} goes without it") from error
    if read.committed != committed(model.records):
        return {}
    found = {}
    for name, task in read.tasks.items():
        now = next((lost.helps for lost in task.lost if lost.stage == len(model.records)), {})
        gain = next((now[source] for source in sources if source in now), None)
        if gain is not None and gain.low is not None and gain.low > 0:
            found[name] = gain
    return found
