"""A frozen base model whose layers are shared out over the processes that train it (FSDP2).

Each process keeps its share of the weights of every layer. They are gathered for the layer's pass
and given back after it, forwards and backwards. Embeddings, the head and what adapters add to the
model stay whole in every process: an update is a few thousandths of the model, and what is computed
of it (penalties, clipping, checkpoints, files) is then computed as in a single process.

Every pass through the model needs all processes, so outside of training, where each has its share
of a batch, all of them make the same passes (`processes.share_of_passes`).
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from nlora import processes
from nlora.backbones.hardware import device
from nlora.errors import NloraError


def shard(model: Any, name: str) -> Any:
    """The model, on the main memory, with its layers shared out and the rest on the device.

    Raises NloraError where it has no list of layers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layers = list(_layers(model))
    if not layers:
        raise NloraError(f"model '{name}' has no list of layers, so it cannot be sharded")
    model.requires_grad_(False)
    mesh = init_device_mesh(device().type, (processes.count(),))
    for layer in layers:
        # Each is gathered by itself: PEFT and decoding reach layers without the model's `forward`.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # The Trainer then averages the gradients of what is whole, as of a model that Transformers has
    # sharded itself (which it cannot do for T5). DDP takes no model with sharded weights.
    model._is_distributed_loading_by_transformers = True
    processes.pass_together()
    return model.to(device())


def is_sharded(model: nn.Module) -> bool:
    """Whether some of the model's weights are shared out over processes."""
    if processes.count() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the uppermost lists of modules: the layers of encoder and decoder."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)
