"""The update as a few entries of every adapted matrix, at fixed random positions; the rest is 0.

The matrices are those that LoRA adapts, and by default as many entries are trained as LoRA of the
run's rank has parameters there, r(in + out). Unlike LoRA's, where updates meet does not depend on
training: `adapters.masks` says it beforehand. The values start at 0 and are kept in fp32, also
beside a bf16 model, and there is no dropout.

PEFT's SHiRA has the same parametrisation. It fixes the number of entries at a multiple of
in + out, adapts `nn.Linear` alone, adds every earlier adapter in each forward pass, and adds
updates to bf16 weights, where rounding loses most of a small one: hence this adapter.

Earlier updates add up and are active at a cost that does not grow with their number (`past`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import Parameter
from torch.nn.functional import linear

from nlora.adapters.base import Abilities, Beginning
from nlora.adapters.layers import adapted, targets
from nlora.adapters.masks import Masks, collision_rate, mask
from nlora.adapters.past import Dense, Folded, Past
from nlora.adapters.settings import AdapterSettings
from nlora.adapters.stacked import Stacked
from nlora.errors import NloraError

FILE = "sparse.safetensors"


class Entries(NamedTuple):
    """One matrix' update: `values` (n,) at `positions` (n,) of the matrix read row by row."""

    positions: Tensor
    values: Tensor


class Branch(nn.Module):
    """The update of one matrix, (out, in), added to what the layer gives."""

    def __init__(self, shape: tuple[int, int], count: int, device: torch.device) -> None:
        super().__init__()
        self.shape = shape
        self.size = shape[0] * shape[1]
        self.positions: Tensor
        places = torch.arange(count, device=device)
        self.register_buffer("positions", places, persistent=False)
        self.values = Parameter(torch.zeros(count, device=device))

    def add(self, module: Any, inputs: Any, output: Tensor) -> Tensor:
        """A forward hook of the layer."""
        x: Any = inputs[0]
        return output + _Linear.apply(x, self.values, self.positions, self.shape)

    def entries(self) -> Entries:
        """The update as it is, copied."""
        return Entries(self.positions.clone(), self.values.detach().clone())

    @torch.no_grad()
    def put(self, positions: Tensor, values: Tensor | float) -> None:
        """Let these entries be the update."""
        self.positions.copy_(positions)
        self.values.copy_(torch.as_tensor(values))


class _Linear(torch.autograd.Function):
    """x @ ΔWᵀ; ΔW is made again in the backward pass, so that none is kept between the two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, positions: Tensor, shape: Any) -> Tensor:
        """(…, in) to (…, out)."""
        ctx.save_for_backward(x, values, positions)
        ctx.shape = shape
        return linear(x, _dense(values, positions, shape, x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        """The gradients of x and of the values: the whole matrix' gradient at the positions."""
        x, values, positions = ctx.saved_tensors
        of_x = of_values = None
        if ctx.needs_input_grad[0]:
            of_x = upstream @ _dense(values, positions, ctx.shape, upstream.dtype)
        if ctx.needs_input_grad[1]:
            rows = x.flatten(0, -2).to(upstream.dtype)  # another one under autocast
            whole = upstream.flatten(0, -2).T @ rows  # (out, tokens) @ (tokens, in)
            of_values = whole.flatten()[positions].to(values.dtype)
        return of_x, of_values, None, None


def _dense(values: Tensor, positions: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    flat = values.new_zeros(shape[0] * shape[1], dtype=dtype)
    return flat.index_copy_(0, positions, values.to(dtype)).view(shape)


class Sparse(Stacked[Entries]):
    """A fresh update per stage, or one that is continued."""

    name = "sparse"
    summary = "a few entries of each matrix"
    can = Abilities(fold=True, gradients=True, merge=True)

    def __init__(
        self,
        model: Any,
        rank: int,
        target_modules: str | list[str] | None = None,
        fold: bool = True,
        masks: Masks = "independent",
        density: float | None = None,
    ) -> None:
        super().__init__()
        self.targets = targets(model, target_modules)
        self.model, self.layers = adapted(model, self.targets.modules)
        self.masks: Masks = masks
        self.branches: dict[str, Branch] = {}
        self._hooks: list[Any] = []
        for name, layer in self.layers.items():
            base = layer.get_base_layer()
            height, width = layer.out_features, layer.in_features
            size = height * width
            count = rank * (height + width) if density is None else int(density * size)
            branch = Branch((height, width), max(1, min(count, size)), base.weight.device)
            base.add_module("sparse", branch)
            self._hooks.append(base.register_forward_hook(branch.add))
            self.branches[name] = branch
        self._active: Past = Folded(self.layers) if fold else Dense(self.layers, model.dtype)

    @classmethod
    def build(
        cls,
        model: Any,
        settings: AdapterSettings,
        masks: Masks = "independent",
        density: float | None = None,
    ) -> Self:
        """As many entries as LoRA of `rank` has parameters, or the `density` of each matrix."""
        return cls(model, settings.rank, settings.target_modules, settings.fold, masks, density)

    def matrices(self) -> dict[str, Any]:
        """The model's own layers."""
        return {name: layer.get_base_layer() for name, layer in self.layers.items()}

    def update(self) -> dict[str, Tensor]:
        """Of every adapted matrix `values` (n,) and their `positions` (n,), read row by row."""
        found = {}
        for name, branch in self.branches.items():
            found[f"{name}.positions"] = branch.positions
            found[f"{name}.values"] = branch.values
        return found

    def check_room(self, tasks: int) -> None:
        """Raise NloraError unless so many tasks have room for their masks."""
        name, tightest = min(self.branches.items(), key=lambda pair: _room(pair[1]))
        if self.masks == "disjoint" and tasks > _room(tightest):
            raise NloraError(
                f"setting 'masks': {tasks} disjoint masks do not fit into '{name}', where each "
                f"task takes {len(tightest.values)} of {tightest.size} entries: at most "
                f"{_room(tightest)} do; set a density of at most 1/{tasks}, or other masks"
            )

    def prepare(self, asked: Beginning) -> None:
        """A fresh update on top of all earlier ones, or the last one continued.

        Raises NloraError where disjoint masks have no room for one more.
        """
        if not (asked.continued and self._trained):
            self.check_room(len(self.past) + self._trained + 1)
        super().prepare(asked)

    def draw(self, asked: Beginning) -> None:
        """Values 0 at new positions."""
        random = np.random.default_rng(int(torch.randint(2**62, ())))
        for name, branch in self.branches.items():
            earlier = [update[name].positions for update in self.past]
            count = len(branch.values)
            branch.put(mask(self.masks, branch.size, count, earlier, random), 0.0)

    def clear(self) -> None:
        """Values 0 at the positions that are there."""
        for branch in self.branches.values():
            branch.put(branch.positions.clone(), 0.0)

    def copy(self) -> dict[str, Entries]:
        """The positions and values of every adapted matrix."""
        return {name: branch.entries() for name, branch in self.branches.items()}

    def put(self, update: Mapping[str, Entries]) -> None:
        """Let these be the positions and values."""
        for name, branch in self.branches.items():
            branch.put(*update[name])

    def save(self, folder: Path) -> None:
        """The newest update in `sparse.safetensors`: by matrix `values` (n,), `indices` (2, n).

        `indices` are the rows and columns in the (out, in) matrix, as PEFT's SHiRA writes them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, branch in self.branches.items():
            width = branch.shape[1]
            places = torch.stack([branch.positions // width, branch.positions % width])
            tensors[f"{name}.indices"] = places.int()
            tensors[f"{name}.values"] = branch.values.detach()
        save_file(tensors, folder / FILE)

    def read(self, folder: Path) -> dict[str, Entries]:
        """The update in the folder's `sparse.safetensors`."""
        tensors, found = load_file(folder / FILE), {}
        for name, branch in self.branches.items():
            rows, columns = tensors[f"{name}.indices"].long()
            positions = (rows * branch.shape[1] + columns).to(branch.values.device)
            values = tensors[f"{name}.values"].to(branch.values)
            found[name] = Entries(positions, values)
        return found

    def activate(self) -> None:
        """The sum of the earlier updates."""
        if self.past:
            self._active.put(self._sum)
        else:
            self._active.clear()

    def merged(self) -> Any:
        """The plain model: the newest update is folded into the weights like those before it."""
        self.past.append(self.copy())
        self._active.clear()
        self.model.float()
        Folded(self.layers).put(self._sum)
        for hook in self._hooks:
            hook.remove()
        for layer in self.layers.values():
            del layer.get_base_layer().sparse
        return self.model

    def notes(self) -> dict[str, Any]:
        """Where the newest update meets each earlier one, and the size of it, per matrix and over
        all; and for bf16 models the relative error with which earlier updates are active."""
        matrices = {}
        for name, branch in self.branches.items():
            matrices[name] = {
                "density": len(branch.values) / branch.size,
                "frobenius": float(branch.values.detach().norm()),
                "collision_rates": [
                    collision_rate(branch.positions, update[name].positions, branch.size)
                    for update in self.past
                ],
            }
        found = {
            "density": _mean([m["density"] for m in matrices.values()]),
            "frobenius": float(np.linalg.norm([m["frobenius"] for m in matrices.values()])),
            "collision_rates": [
                _mean(rates)
                for rates in zip(*(m["collision_rates"] for m in matrices.values()), strict=True)
            ],
            "matrices": matrices,
        }
        if isinstance(self._active, Folded):
            return {"sparse": found}
        return {"history_error": self._active.error, "sparse": found}

    def _sum(self, name: str) -> Tensor:
        branch = self.branches[name]
        flat = branch.values.new_zeros(branch.size)
        for update in self.past:
            flat.index_add_(0, update[name].positions, update[name].values)
        return flat.view(branch.shape)


def _room(branch: Branch) -> int:
    return branch.size // len(branch.values)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
