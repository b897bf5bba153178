"""Which updates make up the model after a stage: each record names an earlier one and what differs.

So a record is of one size however many stages lie below it, and a list is made when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field

from nlora.errors import NloraError
from nlora.store.reading import Kind, check

if TYPE_CHECKING:
    from nlora.store.records import StageRecord


LISTED = (1, 2)
"""Formats of records that list every update, in order."""


class _Listed(Kind):
    """What of such a record is its manifest."""

    updates: list[str]


class Manifest(Kind):
    """The updates after a stage: those after the stage `on`, but for some, and some behind them."""

    model_config = ConfigDict(extra="forbid")

    on: str | None = None
    """The folder of an earlier stage; None for the base model."""
    without: list[str] = Field(default_factory=list)
    adds: list[str] = Field(default_factory=list)
    """In order; the folders of stages whose updates they are."""


class Manifests:
    """The manifests of a directory's records, from which lists are made."""

    def __init__(self, records: Sequence[StageRecord]) -> None:
        self._records = records
        self._by_name = {record.folder: record.manifest for record in records}

    def after(self, stage: int) -> list[str]:
        """The stages whose updates, in order, make up the model after a stage; none after 0."""
        if stage == 0:
            return []
        found: dict[str, None] = {}
        for manifest in reversed([*self._down(stage)]):
            for name in manifest.without:
                found.pop(name, None)
            found.update(dict.fromkeys(manifest.adds))
        return list(found)

    def holds(self, stage: int, name: str) -> bool:
        """Whether the update of a stage (its folder) is among those after `stage`."""
        for manifest in self._down(stage):
            if name in manifest.adds:
                return True
            if name in manifest.without:
                return False
        return False

    def holding(self, names: set[str]) -> set[str]:
        """The stages, by folder, after which one of these updates is in the model."""
        held: dict[str | None, set[str]] = {None: set()}
        for record in self._records:
            own = record.manifest
            held[record.folder] = held[own.on].difference(own.without) | names.intersection(
                own.adds
            )
        return {folder for folder, inside in held.items() if folder is not None and inside}

    def _down(self, stage: int) -> Iterator[Manifest]:
        """The manifest of a stage, of the one that it is on, and so on."""
        name: str | None = self._records[stage - 1].folder
        while name is not None:
            manifest = self._by_name[name]
            yield manifest
            name = manifest.on


def check_manifests(folder: Path, records: Sequence[StageRecord]) -> None:
    """Raise NloraError if a record's manifest names other than the stages up to its own."""
    places = {record.folder: record.index for record in records}
    for record in records:
        own = record.manifest
        named = [*own.without, *own.adds]
        known = [places.get(name, 0) for name in named]
        if (
            (own.on is not None and not 0 < places.get(own.on, 0) < record.index)
            or len(named) > len(set(named))
            or any(not 0 < place <= record.index for place in known)
        ):
            raise NloraError(
                f"{folder / record.folder / 'stage.json'}: 'manifest' must be on an earlier stage "
                "and name committed stages up to this one, each once, not "
                f"{own.model_dump_json()}"
            )


def link(records: Sequence[StageRecord]) -> None:
    """Let records that list every update below them name what they went on from instead.

    So that they are as today's in memory. A list that is no other one with a few changes stays.
    """
    lists: dict[str, list[str]] = {}
    before: StageRecord | None = None
    for record in records:
        if record.manifest.on is None:
            lists[record.folder] = whole = record.manifest.adds
            for on in (record.notes.get("on_top_of"), before and before.folder):
                if on in lists and (manifest := _changed(lists[on], whole, on)):
                    record.manifest = manifest
                    break
        before = record


def _changed(earlier: Sequence[str], whole: Sequence[str], on: str) -> Manifest | None:
    """A list as what differs from another one; None if it has another order."""
    if list(whole[: len(earlier)]) == list(earlier):
        return Manifest(on=on, adds=list(whole[len(earlier) :]))
    there, here = set(earlier), set(whole)
    left = [name for name in earlier if name in here]
    adds = [name for name in whole if name not in there]
    without = [name for name in earlier if name not in here]
    return Manifest(on=on, without=without, adds=adds) if [*left, *adds] == list(whole) else None


def listed(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values of a record whose manifest is a list, as today's records have them.

    Raises NloraError if there is no such list.
    """
    adds = check(_Listed, values, path).updates
    return {name: v for name, v in values.items() if name != "updates"} | {
        "manifest": {"adds": adds}
    }
