"""The adapters that are compared: PEFT folders, Hub names, the stages of a model directory."""

from collections.abc import Sequence
from pathlib import Path

from nlora.adapters.peft_config import CONFIG, printable
from nlora.adapters.peft_files import PeftAdapter, adapter_folder, read_adapter
from nlora.errors import NloraError, option
from nlora.store.directory import ModelDirectory
from nlora.store.records import standing


def read_adapters(sources: Sequence[str], same_base: bool = False) -> list[PeftAdapter]:
    """The adapters in these folders or of these Hub names, or the stages of one model directory.

    `same_base` takes their base models for one, whatever they are called. Raises NloraError for
    what is not a LoRA adapter, and for adapters that share no matrix. What only some of them update
    is left out, and their notes say so.
    """
    if not sources:
        raise NloraError("give adapters, or a model directory")
    directories = [s for s in sources if (Path(s).expanduser() / "model.json").is_file()]
    if directories and len(sources) > 1:
        raise NloraError(
            f"{directories[0]} is a model directory and stands alone; to compare one of its "
            "updates with others give stages/…/update"
        )
    if directories:
        adapters = read_stages(Path(sources[0]).expanduser())
    else:
        folders = [adapter_folder(source) for source in sources]
        names = _names(list(sources), folders)
        adapters = [read_adapter(f, n) for f, n in zip(folders, names, strict=True)]
    _check_alike(adapters, same_base)
    _keep_shared(adapters)
    return adapters


def read_stages(path: Path) -> list[PeftAdapter]:
    """The updates of a model directory's stages, in order, their files checked by hash.

    Those that the model is not made of, since they were not accepted or were taken out again, are
    left out. Raises NloraError where there is none, a file was changed, or an update is no LoRA
    adapter.
    """
    directory = ModelDirectory(path)
    directory.config()
    stages = directory.stages()
    if not stages:
        raise NloraError(f"{path} has no committed stage yet")
    # A stage that only took an update out has none of its own.
    records = [r for r in standing(stages) if "taken_out" not in r.notes]
    if not records:
        raise NloraError(f"{path} has no update left: none was accepted, or all were taken out")
    unique = len({r.name for r in records}) == len(records)
    adapters: list[PeftAdapter] = []
    places = [record.folder for record in records]
    for record in records:
        for name in record.files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise NloraError(f"{path}: stage {record.index} lists {name!r}, a path outside it")
        directory.verify(record)
        folder = directory.stage_path(record) / "update"
        if not (folder / CONFIG).is_file():
            raise NloraError(
                f"{folder} is no LoRA adapter; `nlora analyze` reads models trained with LoRA"
            )
        adapter = read_adapter(folder, printable(record.name) if unique else record.folder)
        replaced = [name for name in record.manifest.without if name in places]
        if record.folder in record.manifest.adds and replaced:  # it stands for what it leaves out
            adapter.continues = adapters[places.index(replaced[-1])].name
        adapters.append(adapter)
    return adapters


def _check_alike(adapters: list[PeftAdapter], same_base: bool) -> None:
    """Raise NloraError unless all are of the same model."""
    first = adapters[0]
    for other in adapters[1:]:
        here, there = first.config.base, other.config.base
        if not same_base and here and there and here.lower() != there.lower():
            raise NloraError(
                f"'{first.name}' was trained on {here}, '{other.name}' on {there}: updates of "
                "different models cannot be compared (give "
                f"{option('same_base', True)} if these are one model)"
            )
        if first.config.layer_replication != other.config.layer_replication:
            raise NloraError(f"'{first.name}' and '{other.name}' replicate layers differently")
        for module, shape in first.shapes.items():
            if other.shapes.get(module, shape) != shape:
                raise NloraError(
                    f"{module} is {shape} in '{first.name}' and {other.shapes[module]} in "
                    f"'{other.name}': adapters of different models"
                )


def _keep_shared(adapters: list[PeftAdapter]) -> None:
    """Leave out of each adapter the matrices that another one does not update, with a note.

    Raises NloraError if none is left.
    """
    first, *others = adapters
    shared = [m for m in first.shapes if all(m in other.shapes for other in others)]
    if not shared:
        updated = "; ".join(f"'{a.name}' updates {next(iter(a.shapes))}" for a in adapters[:3])
        raise NloraError(
            f"the adapters share no matrix ({updated}, …), so there is nothing to compare"
        )
    for adapter in adapters:
        own = [module for module in adapter.shapes if module not in set(shared)]
        if own:
            kinds = sorted({module.rpartition(".")[2] for module in own})
            adapter.notes.append(
                f"{len(own)} of its {len(adapter.shapes)} matrices are not updated by every "
                f"adapter and are left out ({', '.join(kinds[:4])}"
                f"{' …' if len(kinds) > 4 else ''}): these numbers are of {len(shared)} shared ones"
            )
            adapter.shapes = {module: adapter.shapes[module] for module in shared}


def _names(sources: list[str], folders: list[Path]) -> list[str]:
    """Short names where they differ, else what was given; one given twice gets a number."""
    short = [
        folder.resolve().name if Path(s).expanduser().is_dir() else s
        for s, folder in zip(sources, folders, strict=True)
    ]
    names = short if len(set(short)) == len(short) else sources
    return [
        name if names.count(name) == 1 else f"{name} #{names[: i + 1].count(name)}"
        for i, name in enumerate(names)
    ]
