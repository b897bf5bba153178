"""Adapters that PEFT wrote, anywhere: folders and Hub names, read without a model.

Only `adapter_config.json` and the safetensors file are read; nothing is unpickled. A file is opened
once, and the factors of a matrix are read when they are asked for.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from nlora.adapters.peft_config import CONFIG, AdapterConfig, read_config
from nlora.errors import NloraError

if TYPE_CHECKING:
    from nlora.lowrank.factors import Factors

WEIGHTS = "adapter_model.safetensors"

_FACTOR = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+?)\.lora_(?:embedding_)?(?P<letter>[AB])"
    r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?"
)
_EMBEDDING = re.compile(
    r"(embed_tokens|embed_in|wte|shared|embeddings?|lm_head)(\.base_layer)?\.weight"
)
"""What PEFT saves of an embedding beside factors (`save_embedding_layers`)."""
_MODULE = re.compile(r"\w[\w-]*(\.\w[\w-]*)*", re.ASCII)


@dataclass
class PeftAdapter:
    """One adapter: its update of every matrix, read when asked for."""

    name: str
    path: Path
    config: AdapterConfig
    shapes: dict[str, tuple[int, int]]
    """(out, in) of ΔW by module."""

    notes: list[str]
    """What the numbers leave out."""

    left_out: list[str]
    """Tensors that are no factors."""

    _keys: dict[str, dict[str, str]] = field(repr=False)
    _file: Any = field(repr=False)
    continues: str | None = None
    """The adapter that this one went on from, and whose change its ΔW holds too."""

    @property
    def embedding(self) -> str | None:
        """The first embedding among the modules."""
        return next((m for m, keys in self._keys.items() if "lora_embedding" in keys["A"]), None)

    def factors(self, module: str) -> "Factors":
        """The update of one module. Raises NloraError for a damaged file, NaN, infinite entries."""
        from nlora.lowrank.factors import Factors, check

        where = f"{self.path}: {module}"
        try:
            A, B = (self._file.get_tensor(self._keys[module][letter]) for letter in "AB")
        except SafetensorError as error:
            raise NloraError(f"{where} cannot be read: {error}") from error
        if A.dtype != B.dtype and A.dtype.is_floating_point and B.dtype.is_floating_point:
            A, B = A.double(), B.double()
        factors = Factors(A, B, self.config.scaling(module))
        check(factors, where)
        return factors


def read_adapter(folder: Path, name: str | None = None) -> PeftAdapter:
    """The adapter in a folder. Raises NloraError unless it is a whole LoRA adapter."""
    config = read_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").exists()
        hint = "; adapter_model.bin is a pickle and is not opened" if pickled else ""
        raise NloraError(f"{path} is missing{hint}")
    try:
        file = safe_open(path, "pt")
        names = list(file.keys())
        sizes = {key: tuple(file.get_slice(key).get_shape()) for key in names}
    except (SafetensorError, OSError) as error:
        raise NloraError(f"{path} is damaged or no safetensors file: {error}") from error
    keys, left_out = _factor_keys(path, names)
    shapes = {module: _shape(path, config, module, keys[module], sizes) for module in keys}
    notes = config.notes()
    copies = [name for name in left_out if _EMBEDDING.search(name)]
    if copies:
        notes.append(
            f"the embedding's own weights are in the file, too ({copies[0]!r}); if they were "
            "trained or got new rows, that is left out"
        )
    # Nothing new where the configuration has already said why they are there.
    others = [name for name in left_out if name not in copies]
    if others and not config.notes():
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        notes.append(f"tensors that are no LoRA factors are left out: {others[0]!r}{more}")
    notes += [f"{CONFIG} targets {t!r}, which has no factors" for t in _absent(config, shapes)]
    return PeftAdapter(name or folder.name, path, config, shapes, notes, left_out, keys, file)


def _factor_keys(path: Path, names: list[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The tensor names of A and B by module, and the names of all other tensors."""
    keys: dict[str, dict[str, str]] = {}
    left_out = []
    for name in names:
        match = _FACTOR.fullmatch(name)
        if match is None:
            left_out.append(name)
            continue
        module, letter = match["module"], match["letter"]
        if not _MODULE.fullmatch(module):
            raise NloraError(f"{path}: {name[:200]!r} is not the name of a module")
        if letter in keys.setdefault(module, {}):
            raise NloraError(f"{path}: {module} has two {letter}; one adapter a file is needed")
        keys[module][letter] = name
    for module, found in keys.items():
        if len(found) < 2:
            raise NloraError(f"{path}: {module} has {''.join(found)} but not the other factor")
    if not keys:
        raise NloraError(f"{path} holds no LoRA factors (lora_A, lora_B)")
    return dict(sorted(keys.items(), key=lambda item: _natural(item[0]))), left_out


def _shape(
    path: Path,
    config: AdapterConfig,
    module: str,
    keys: dict[str, str],
    sizes: dict[str, tuple[int, ...]],
) -> tuple[int, int]:
    """(out, in), from the shapes in the file's header."""
    A, B = sizes[keys["A"]], sizes[keys["B"]]
    rank = config.rank(module)
    if len(A) != 2 or len(B) != 2:
        raise NloraError(
            f"{path}: {module}: A is {list(A)}, B is {list(B)}; only adapters of matrices are "
            "analysed (linear layers and embeddings)"
        )
    if (A[0], B[1]) != (rank, rank):
        raise NloraError(
            f"{path}: {module}: A is {list(A)}, B is {list(B)}; rank {rank} by {CONFIG} needs "
            f"[{rank}, in] and [out, {rank}]"
        )
    return B[0], A[1]


def _absent(config: AdapterConfig, modules: Iterable[str]) -> list[str]:
    """Target modules without factors: PEFT lets a configuration name modules a model lacks."""
    targets = config.target_modules if isinstance(config.target_modules, list) else []
    absent = [t for t in targets if not any(f".{m}".endswith(f".{t}") for m in modules)]
    return [t for t in absent if not config.excludes(t)]


def adapter_folder(source: str) -> Path:
    """The folder of an adapter: itself, or the one that a Hub name is downloaded to."""
    from nlora.adapters.hub import download

    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise NloraError(f"{source} is a file; give the adapter's folder")
    return download(source, WEIGHTS)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key to sort names by, with layer 10 after layer 9."""
    return [(int(p), "") if re.fullmatch(r"\d{1,9}", p) else (-1, p) for p in name.split(".")]
