"""A model directory handed on: copied whole, as a folder or an archive, without private paths."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nlora.backbones.catalog import BUILT_IN, find
from nlora.continual.history import kept, size
from nlora.continual.holding import held as pending
from nlora.continual.holding import told
from nlora.continual.results import columns, results
from nlora.errors import NloraError
from nlora.progress import NoProgress, Progress
from nlora.store.archives import ENDINGS, check_ending, is_archive, names_archive, pack, unpack
from nlora.store.atomic import check_outside, draft_text, new_folder, scratch, sync
from nlora.store.directory import WATCHED, ModelDirectory
from nlora.store.locks import held
from nlora.store.reading import read_json

_FOLDERS = re.compile(
    r"^(?:[A-Za-z]:)?[/\\][^:\n]*[/\\](?=[^:\n]*: )"
    r"|(?<![\w.:/\\])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\",;]+[/\\])+"
)
"""The folders of an absolute path that a sentence begins with, or of one within a sentence."""


def copy(
    source: Path,
    out: Path,
    model: str | None = None,
    plugin: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Copy a model directory, or the archive of one, to a new folder or archive.

    What somebody else can go on from is there: configuration, stages, results; what was set aside
    or is held, checkpoints and logs are not. Paths of this machine are left out: a base model in a
    folder is known by its name, and `model` says where it lies now, `plugin` where the method's
    file does. Files are compared with their hashes on the way. Raises NloraError.
    """
    progress = progress or NoProgress()
    if out.exists() or out.is_symlink():
        raise NloraError(f"{out} is there already; choose a new place")
    check_ending(out)
    check_outside(out, source)
    if source.is_file() and not is_archive(source):
        raise NloraError(f"{source} is no archive that `nlora copy` has written")
    if not source.exists():
        raise NloraError(f"{source} does not exist")
    if not source.is_file():
        ModelDirectory(source).check_there()
    draft = out.with_name(f".{out.name}.partial")
    with held(out):
        if names_archive(out):
            packed = out.with_name(f".{out.name}.packed")
            packed.unlink(missing_ok=True)  # a killed process may have left one
            try:
                with scratch(draft) as folder:
                    inside = folder / _stem(out)
                    inside.mkdir()
                    found = _fill(source, inside, model, plugin, progress)
                    pack(inside, packed, compressed=out.name.lower().endswith("gz"))
                packed.replace(out)  # last, so that nothing stays behind an archive that is there
            finally:
                packed.unlink(missing_ok=True)
            sync(out.parent)
        else:
            with new_folder(out, draft) as folder:
                found = _fill(source, folder, model, plugin, progress)
    return {"path": str(out), **found}


def _fill(
    source: Path, place: Path, model: str | None, plugin: str | None, progress: Progress
) -> dict[str, Any]:
    """Copy into the folder, which is there; what was copied."""
    if source.is_file():
        with scratch(place.with_name(f"{place.name}.unpacked")) as unpacked:
            unpack(source, unpacked)
            inner = [path.parent for path in unpacked.glob("*/model.json")]
            if len(inner) != 1:
                raise NloraError(f"{source} holds no model directory")
            try:
                return _write(ModelDirectory(inner[0]), place, model, plugin, progress)
            except NloraError as error:  # of what is in the archive
                raise NloraError(str(error).replace(str(unpacked), str(source))) from error
    directory = ModelDirectory(source)
    with directory.locked():
        return _write(directory, place, model, plugin, progress)


def _write(
    source: ModelDirectory,
    place: Path,
    model: str | None,
    plugin: str | None,
    progress: Progress,
) -> dict[str, Any]:
    document, name = _document(source.config(), model, plugin, progress)
    target = ModelDirectory(place)
    records, zero = source.stages(), source.zero_shot()
    rename = _renamed(name)
    for record in [*([zero] if zero else []), *records]:
        said = {name: without_folders(getattr(record, name)) for name in ("notes", "budget")}
        target.adopt(source, record, rename, sources={}, **said)
    for record in source.watched():
        watched = target.shelf(WATCHED)
        watched.adopt(source.shelf(WATCHED), record, rename, notes=without_folders(record.notes))
    target.write_config(document)
    tasks = columns(target, records, zero)
    target.write_results(results(target, tasks, document["method"]))
    if (source.path / "explain" / "explained-on-dev.json").is_file():
        progress.message(
            "what `nlora explain --dev` found is not copied: where it lets answers be matched, the "
            "copy gives the likeliest label"
        )
    if left := pending(source):
        progress.message(f"{told(source.path, left)}; it is not copied")
    return {"stages": len(records), "bytes": size(place), "kept": kept(target), "held": left}


def _document(
    config: dict[str, Any], model: str | None, plugin: str | None, progress: Progress
) -> tuple[dict[str, Any], str]:
    """`model.json` without paths of this machine, and what the base model is called."""
    base: dict[str, Any] = config.get("base", {})
    found: dict[str, Any] = {k: v for k, v in config.items() if k != "format"} | {"data": None}
    name = str(found["model"])
    if os.path.isabs(name):
        name = str(base.get("title") or _last(name))
        if model is None:
            progress.message(
                f"the base model is a folder, '{name}', which is not copied: whoever goes on has "
                "it too, and says where (`nlora copy COPY NEW --model FOLDER`)"
            )
    found["model"] = name
    if model is not None:
        there, known = find(model), base.get("revision")
        if known not in (None, there.revision):
            raise NloraError(
                f"{model} is another model than was trained on, which is {base.get('title')} "
                f"({known}) and not {there.title} ({there.revision})"
            )
        folder = os.path.abspath(os.path.expanduser(model))
        found["model"] = folder if model not in BUILT_IN and os.path.isdir(folder) else model
    if found.get("plugin") and plugin is None:
        progress.message(
            f"the method is in a file, {_last(found['plugin'])}, which is not copied: whoever goes "
            "on needs it, and says where (`nlora copy COPY NEW --plugin FILE`)"
        )
    found["plugin"] = None if plugin is None else os.path.abspath(plugin)
    stream = found.get("stream")
    found["stream"] = None if stream and os.path.isabs(stream) else stream
    for key in found.keys() & {"from_adapter", "knows"}:
        found[key] = without_folders(found[key])
    return found | {"settings": _settings(found.get("settings", {}))}, name


def _settings(value: Any) -> Any:
    r"""Settings that name files by their last part alone; other texts, such as patterns, stay.

    >>> _settings({"replay": "/data/c4", "target_modules": r".*\.decoder\..*\.(q|v)"})
    {'replay': './c4', 'target_modules': '.*\\.decoder\\..*\\.(q|v)'}
    """

    def named(text: str) -> str:
        if not os.path.isabs(text):
            return text
        name = _last(text)
        return name if "." in name else f"./{name}"  # still a file, and no word

    return _texts(value, named)


def _renamed(base: str) -> Callable[[Path], None]:
    """Lets the PEFT adapters in a stage's folder name their base model so."""

    def change(folder: Path) -> None:
        for path in folder.rglob("adapter_config.json"):
            values = read_json(path)
            if os.path.isabs(values.get("base_model_name_or_path") or ""):
                values["base_model_name_or_path"] = base
            draft_text(path, json.dumps(values, indent=2, sort_keys=True))

    return change


def without_folders(value: Any) -> Any:
    """A value whose texts have only the last part of absolute paths.

    >>> without_folders({"source": "/home/me/a b/x.csv", "notes": ["in /tmp/a.csv: 1 row", "1/2"]})
    {'source': 'x.csv', 'notes': ['in a.csv: 1 row', '1/2']}
    """

    def shortened(text: str) -> str:
        return _last(text) if os.path.isabs(text) and "\n" not in text else _FOLDERS.sub("", text)

    return _texts(value, shortened)


def _texts(value: Any, made: Callable[[str], str]) -> Any:
    """The value with another text for each in it."""
    if isinstance(value, dict):
        return {name: _texts(inner, made) for name, inner in value.items()}
    if isinstance(value, list):
        return [_texts(inner, made) for inner in value]
    return made(value) if isinstance(value, str) else value


def _last(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _stem(archive: Path) -> str:
    name = archive.name
    return name[: -next(len(end) for end in ENDINGS if name.lower().endswith(end))] or "model"
