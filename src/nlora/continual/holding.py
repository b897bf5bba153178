"""The stage that the guard kept aside: accepted as it was trained or repaired, or discarded."""

from pathlib import Path
from typing import Any

from nlora.continual.guard import recorded
from nlora.continual.results import bring_up
from nlora.errors import NloraError
from nlora.progress import NoProgress, Progress
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.pending import REPAIRED, TRAINED


def accept(out: Path, repaired: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Let the pending stage of a model directory be in force, without training; the results.

    `repaired` takes the best repair: its update scaled back, or answers matched. Where nothing is
    pending nothing is done. Raises NloraError if there is no model, or no repaired stage.
    """
    progress, directory = progress or NoProgress(), _opened(out)
    with directory.locked():
        pending = directory.pending
        if pending.record() is None:
            progress.message(f"{out} holds no stage that is not in force, nothing to do")
        else:
            if repaired and pending.record(REPAIRED) is None:
                raise NloraError(
                    f"{out}: no repair was found with which nothing falls too far, so the stage "
                    f"can only stand as it was trained (`nlora accept {out}`), or be discarded "
                    f"(`nlora discard {out}`)"
                )
            record = pending.accept(REPAIRED if repaired else TRAINED)
            for line in recorded(record.notes["guard"]).told():
                progress.message(line)
            how = f": {done}" if (done := repair_of(record)) else ""
            progress.message(
                f"'{record.name}' is in force now, as stage {record.index} of {out}{how}"
            )
        return bring_up(directory)


def discard(out: Path, progress: Progress | None = None) -> None:
    """Remove the pending stage of a model directory, if there is one.

    Raises NloraError if there is no model.
    """
    progress, directory = progress or NoProgress(), _opened(out)
    with directory.locked():
        record = directory.pending.record()
        if record is None:
            progress.message(f"{out} holds no stage that is not in force, nothing to do")
            if directory.stages():
                bring_up(directory)  # an `accept` may have been killed
            return
        directory.pending.remove()
        progress.message(f"'{record.name}' is removed; {out} is as it was before")


def repair_of(record: StageRecord) -> str | None:
    """What was done to a stage so that it costs less, in words; None where it is as trained."""
    if record.matched:
        return f"answers to {', '.join(record.matched)} are matched"
    if "scaled" not in record.notes:
        return None
    from nlora.continual.repair import in_words  # slow, and seldom needed

    return f"its update is scaled back to {in_words(record.notes['scaled'])}"


def held(directory: ModelDirectory) -> str | None:
    """The folder name of the pending stage of a model directory; None where there is none."""
    record = directory.pending.record()
    return None if record is None else record.folder


def told(place: object, folder: str) -> str:
    """What to say of a pending stage wherever its model is shown."""
    return (
        f"held: {folder}, trained and not in force: `nlora accept {place}` or `nlora discard "
        f"{place}`"
    )


def _opened(out: Path) -> ModelDirectory:
    directory = ModelDirectory(out)
    directory.check_there()
    return directory
