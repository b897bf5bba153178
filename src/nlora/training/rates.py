"""How far an optimiser's last step went per unit of gradient: what a proximal step must match."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from nlora.methods.context import Rates


def step_rates(optimizer: Any, clipped: Tensor | float = 1.0) -> Rates:
    """The rates of a step that has been taken, for gradients before they were `clipped`.

    Adam and its kin divide each entry's gradient by its running size √v̂, so there the rate is
    lr / (√v̂ + ε), and 0 where an entry never had a gradient: the proximal step is then that of
    Adam's metric. (At the bare learning rate a penalty that is small beside the task's gradient
    would do nothing, since Adam's steps are about lr whatever the gradient's size.) For every other
    optimiser it is the learning rate (`readable` tells which are meant).
    """
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}

    def rate(parameter: Parameter) -> Tensor | float:
        if parameter not in groups:  # frozen in this stage
            return 0.0
        group, state = groups[parameter], optimizer.state.get(parameter, {})
        rate = clipped * group["lr"]
        square = state.get("exp_avg_sq")
        if square is None or "betas" not in group or square.shape != parameter.shape:
            return rate
        size = (square / (1 - group["betas"][1] ** float(state["step"]))).sqrt()
        return torch.where(size > 0, rate / (size + group["eps"]), 0.0)

    return rate


def readable(optimizer: str) -> bool:
    """Whether `step_rates` knows the steps of an optimiser (Adam's and SGD's) of this name."""
    return optimizer in ("sgd", "adamw_torch", "adamw_torch_fused", "adamw_anyprecision")
