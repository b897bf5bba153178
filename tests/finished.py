"""Finished runs of each kind, made once for all tests that only read them."""

from pathlib import Path
from typing import Any, NamedTuple

from nlora.continual.learning import run
from nlora.plan.config import RunConfig
from tests.runs import LEARNING, config, write_stream

KINDS: dict[str, dict[str, Any]] = {
    "inc-lora": {},
    "n-lora": {"l1": 0.5},
    "replay": {"adapter": "lora"},
    "de-lora": {},
    "per-task": {},
    "seq-lora": {},
    "seq-ft": {"learning_rate": 1.5e-3},
    "prog-prompt": {},
    "sparse-masks": {"learning_rate": 1.5e-2},
    "osf": {"learning_rate": 2e-3},
}
"""A method and its settings beside LEARNING."""


class Finished(NamedTuple):
    """A run over `colour` and `animal`, which learned something; copy `out` to change it."""

    config: RunConfig
    stream: Path
    out: Path


def finish(kind: str, model: Path, folder: Path) -> None:
    """Make the run of a kind in the folder."""
    write_stream(folder, "colour", "animal", train=24)
    run(described(kind, model, folder).config, folder / "out")


def described(kind: str, model: Path, folder: Path) -> Finished:
    """The run that `finish` has made in the folder."""
    stream = folder / "stream.yaml"
    asked = config(model, stream, {**LEARNING, **KINDS[kind]}, method=kind, evaluate="all")
    return Finished(asked, stream, folder / "out")
