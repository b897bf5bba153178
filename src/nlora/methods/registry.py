"""Methods by name: built-in ones, variants that are settings of them, and a user's own.

A package offers methods through the entry point group `nlora.methods`; a single file through
`--plugin FILE`. Either way a method is a subclass of `nlora.methods.base.Method` with a name.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nlora.errors import NloraError, option, shown, unknown
from nlora.installed import entry_points
from nlora.methods.avr import Avr
from nlora.methods.base import Method
from nlora.methods.c_lora import CLora
from nlora.methods.code_lora import CodeLora
from nlora.methods.ella import Ella
from nlora.methods.ewc import Ewc
from nlora.methods.gain_lora import GainLora
from nlora.methods.gorp import Gorp
from nlora.methods.inc_lora import IncLora
from nlora.methods.inf_lora import InfLora
from nlora.methods.l2p import L2p
from nlora.methods.lfpt5 import Lfpt5
from nlora.methods.lwf import Lwf
from nlora.methods.migu import Migu
from nlora.methods.mtl import Mtl
from nlora.methods.n_lora import NLora
from nlora.methods.null_space import NullSpace
from nlora.methods.o_lora import OLora
from nlora.methods.osf import Osf
from nlora.methods.per_task import PerTask
from nlora.methods.prog_prompt import ProgPrompt
from nlora.methods.ps_lora import PsLora
from nlora.methods.replay import Replay
from nlora.methods.sd_lora import SdLora
from nlora.methods.sdft import Sdft
from nlora.methods.seq_ft import SeqFt
from nlora.methods.seq_lora import SeqLora
from nlora.methods.slao import Slao
from nlora.methods.sparse_masks import SparseMasks
from nlora.methods.tree_lora import TreeLora
from nlora.methods.zero_shot import ZeroShot

if TYPE_CHECKING:
    from nlora.adapters.base import Adapter
    from nlora.merging.base import Consolidation

PLUGIN_MODULE = "nlora_plugin_"
"""How the name begins under which a user's file is imported."""

BUILT_IN: tuple[type[Method], ...] = (
    SeqFt,
    SeqLora,
    IncLora,
    OLora,
    NLora,
    Ella,
    InfLora,
    NullSpace,
    CLora,
    Slao,
    SdLora,
    Migu,
    PsLora,
    Gorp,
    GainLora,
    TreeLora,
    CodeLora,
    Replay,
    Avr,
    Ewc,
    Lwf,
    Sdft,
    Osf,
    ProgPrompt,
    L2p,
    Lfpt5,
    PerTask,
    SparseMasks,
    Mtl,
    ZeroShot,
)


@dataclass(frozen=True)
class Entry:
    """A name under which a method can be asked for."""

    name: str
    kind: type[Method]
    summary: str
    presets: dict[str, Any] = field(default_factory=dict)
    """Settings that this name stands for; settings given by the user win."""

    def build(self, settings: dict[str, Any]) -> Method:
        """The method with these settings. Raises NloraError naming the first bad one."""
        try:
            return self.kind(self.kind.Settings(**{**self.presets, **settings}))
        except ValidationError as error:
            raise setting_error(error) from error


VARIANTS = (
    Entry(
        "de-lora",
        IncLora,
        "an adapter per task, each on the bare base model, and a closed-form router by the input",
        {"consolidation": "none", "routing": "input"},
    ),
    Entry(
        "sure",
        Replay,
        "one LoRA adapter and a buffer of the texts that surprise it most (SuRe's selection)",
        {"adapter": "lora", "keep_by": "text-surprise"},
    ),
    Entry(
        "ns",
        NLora,
        "N-LoRA without its penalty (the paper's NS): IncLoRA",
        {"penalty": "none", "l1": 0.0},
    ),
    Entry("sa", NLora, "N-LoRA with ‖A‖₁ for its penalty (the paper's SA)", {"penalty": "l1-a"}),
    Entry("sb", NLora, "N-LoRA with ‖B‖₁ for its penalty (the paper's SB)", {"penalty": "l1-b"}),
    Entry("sab", NLora, "N-LoRA with ‖A‖₁ + ‖B‖₁ for its penalty (SAB)", {"penalty": "l1-ab"}),
    Entry(
        "released",
        NLora,
        "N-LoRA as released: λ = 0.4 (T5-large, orders 1 to 3) times the r×r product of A and B",
        {"penalty": "released", "l1": 0.4, "l1_unit": "sum"},
    ),
    Entry(
        "o-lora+n-lora",
        OLora,
        "O-LoRA with the ℓ₁ penalty on ΔW (the paper's Table 4)",
        {"penalty": "l1", "l1": NLora.Settings.model_fields["l1"].default},
    ),
)


_registered: dict[str, type[Method]] = {}
"""Classes of one's own that this process was handed, by name."""


def register(kind: type[Method]) -> str:
    """The name under which a class of one's own can be asked for from now on.

    Raises NloraError for one that has none, or that of a built-in method.
    """
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise NloraError(f"{kind!r} is no method: a method is a class that extends Method")
    if kind in BUILT_IN:
        return kind.name
    if "name" not in vars(kind):
        raise NloraError(f"{kind.__name__} is no method yet: give it a name and a summary")
    if kind.name in {entry.name for entry in VARIANTS} | {known.name for known in BUILT_IN}:
        raise NloraError(f"{kind.__name__}: a method called '{kind.name}' is there; rename it")
    _registered[kind.name] = kind
    return kind.name


def methods(plugin: Path | None = None) -> dict[str, Entry]:
    """All methods by name; `plugin` is a user's own file. Raises NloraError if that fails."""
    found = [Entry(kind.name, kind, kind.summary) for kind in BUILT_IN]
    found += VARIANTS
    found += _entries(_registered.values())
    for point in entry_points(group="nlora.methods"):
        try:
            found += _entries([point.load()])
        except Exception as error:
            raise NloraError(
                f"the installed methods of '{point.value}' fail: {_brief(error)}"
            ) from error
    if plugin is not None:
        found += _entries(vars(import_plugin(plugin)).values())
    return {entry.name: entry for entry in found}


def method(name: str, plugin: Path | None = None) -> Entry:
    """The method of that name. Raises NloraError with the nearest names."""
    known = methods(plugin)
    if name not in known:
        own = "" if plugin else f" (one of your own: {option('plugin', 'FILE')})"
        raise NloraError(f"{unknown('method', name, known)}{own}")
    return known[name]


def setting_error(error: ValidationError) -> NloraError:
    """One line for the first setting that is wrong."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][:1])
    message = first["msg"].removeprefix("Value error, ")
    if not name:  # of several settings together
        return NloraError(message)
    return NloraError(
        f"setting '{name}': {message[0].lower()}{message[1:]}, not {shown(first['input'])}"
    )


def _entries(values: Iterable[Any]) -> list[Entry]:
    kinds = [v for v in values if isinstance(v, type) and issubclass(v, Method)]
    own = [k for k in kinds if "name" in vars(k) and k not in BUILT_IN]
    return [Entry(k.name, k, getattr(k, "summary", "")) for k in own]


def import_plugin(path: Path) -> Any:
    """The module of a user's own file; what it defines can be asked for by name from now on.

    These are methods, adapters, consolidations, and functions as metrics and as data sources.
    Raises NloraError.
    """
    from nlora.data import functions as sources
    from nlora.evaluation import own_metrics

    if not path.is_file():
        raise NloraError(f"plugin file {path} does not exist")
    spec = importlib.util.spec_from_file_location(f"{PLUGIN_MODULE}{path.stem}", path)
    if spec is None or spec.loader is None:
        raise NloraError(f"plugin file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pydantic look annotations up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise NloraError(f"plugin file {path} fails: {_brief(error)}") from error
    functions = [value for value in _own(module) if isinstance(value, FunctionType)]
    if not (functions or _entries(vars(module).values())):
        raise NloraError(
            f"plugin file {path} defines no method (a subclass of Method with a name), and no "
            "function as a metric or a data source"
        )
    _register_parts(module)
    own_metrics.register_file(path.stem, functions)
    sources.register_file(path.stem, functions)
    return module


def defines_parts(module: Any) -> bool:
    """Whether a plug-in defines what a model is made of, which it then needs for good."""
    return bool(_entries(vars(module).values())) or any(_parts(module))


def _own(module: Any) -> list[Any]:
    """What a plug-in defines itself."""
    return [v for v in vars(module).values() if getattr(v, "__module__", "") == module.__name__]


def _parts(module: Any) -> tuple[list[type[Adapter]], list[type[Consolidation]]]:
    """The adapters, and the consolidations, that a plug-in defines."""
    from nlora.adapters.base import Adapter
    from nlora.merging.base import Consolidation

    kinds = [v for v in _own(module) if isinstance(v, type) and "name" in vars(v)]
    return (
        [kind for kind in kinds if issubclass(kind, Adapter)],
        [kind for kind in kinds if issubclass(kind, Consolidation)],
    )


def _register_parts(module: Any) -> None:
    """Let adapters and consolidations that a plug-in defines be asked for by name, too."""
    from nlora.adapters import registry as adapters
    from nlora.merging import registry as consolidations

    own_adapters, own_consolidations = _parts(module)
    for adapter in own_adapters:
        adapters.register(adapter)
    for consolidation in own_consolidations:
        consolidations.register(consolidation)


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
