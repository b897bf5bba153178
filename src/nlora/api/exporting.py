"""A trained model for other programs: merged into one, or as adapters; and on the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nlora.api.arguments import place
from nlora.api.configs import Place
from nlora.api.results import Exported
from nlora.api.watching import watched
from nlora.errors import NloraError, option
from nlora.progress import spoken

if TYPE_CHECKING:
    from nlora.progress import Progress


def export(
    source: Place,
    out: Place,
    *,
    dtype: str | None = None,
    answers: str = "likely",
    max_lost: float = 1.0,
    adapter: bool = False,
    adapters: bool = False,
    rank: int | None = None,
    consolidation: str | None = None,
    push: str | None = None,
    model: str | None = None,
    progress: Progress | bool | None = None,
) -> Exported:
    """Write the model of a directory, or that of a PEFT adapter, to the new folder `out`.

    The arguments are the options of `nlora export`. What was measured is returned. Raises
    NloraError for options that do not go together, and as the kinds of exports do.
    """
    from nlora.continual.adapters_out import export_adapter, export_adapters
    from nlora.continual.export import export as export_model
    from nlora.continual.pushing import check_name
    from nlora.continual.pushing import push as upload
    from nlora.explain.answers import offsets_by

    told = watched(progress)
    source, out = place(source=source), place(out=out)
    if adapter and adapters:
        raise NloraError(
            f"{option('adapter')} is one for all and {option('adapters')} one per task; give one"
        )
    if push is not None:
        check_name(push)
    offsets = offsets_by(answers)
    if not (adapter or adapters):
        if rank is not None:
            raise NloraError(
                f"{option('rank')} is for {option('adapter')} and {option('adapters')}"
            )
        report = export_model(source, out, dtype, told, model, max_lost, offsets, consolidation)
    elif any(given is not None for given in (dtype, model, offsets, consolidation)):
        names = ", ".join(map(option, ("dtype", "model", "answers", "consolidation")))
        raise NloraError(f"{names} are for a plain model, not for adapters")
    else:
        report = (export_adapter if adapter else export_adapters)(source, out, rank, told)
    if push is not None:
        upload(out, push, spoken(told))
    return Exported(report)
