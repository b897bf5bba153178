"""Two processes learn what one learns: by DDP and FSDP2 in a loop of their own, and by FSDP2 under
the Trainer.
"""

import os
import sys
import time

import pytest
import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import DistributedType
from transformers import Trainer, TrainingArguments

from nlora.continual import bringing
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from tests import tiny
from tests.continual.own_script import (
    EXACT,
    OVERLAP,
    check_same,
    collate,
    learned,
    plain_loop,
    rows,
    started,
    trained,
)
from tests.processes import two

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks processes")


def batches(rank=0, count=1):
    """Micro-batches of one row, whose answers are equally long, and the share of each process."""
    data = [row for row in rows("llama", count=24) if sum(i != -100 for i in row["labels"]) == 5]
    pairs = [data[i : i + 4] for i in range(0, len(data) - 3, 4)]
    return [[collate([row]) for row in four[rank::count]] for four in pairs]


def sharded(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def arguments(folder, processes, **more):
    """Of the Trainer, for two batches of four rows a step."""
    rows = {"per_device_train_batch_size": 4 // processes, "gradient_accumulation_steps": 2}
    return TrainingArguments(output_dir=str(folder), **{**EXACT, **rows, **more})


def by_the_trainer(lora, out):
    """What the Trainer learns under Accelerate's FSDP2; the adapter is saved."""
    shards = {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": "LlamaDecoderLayer"}}
    asked = arguments(out, 2, **shards)
    # Accelerate shards nothing on CPUs, and asks by this name whether they are GPUs.
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    told = {"train_dataset": rows("llama", count=24), "data_collator": collate}
    trainer = Trainer(model=lora.model, args=asked, callbacks=[lora], **told)
    trainer.train()
    with pytest.raises(NloraError, match="commit it from one process"):
        lora.commit(out / "model", name="sharded")
    trainer.save_model(str(out / "saved"))
    return learned(lora)


def together(rank, port, folder, adapters, out):
    """One of two processes: what it has learned, saved by each."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({n: str(v) for n, v in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    if rank:  # what the main process commits first must not be there already when this one looks
        soon = bringing._model
        bringing._model = lambda *given: (time.sleep(0.5), soon(*given))[1]
    found = {}
    for name, wrap in (("ddp", torch.nn.parallel.DistributedDataParallel), ("fsdp", sharded)):
        lora = started(folder, adapters, orthogonal=OVERLAP)
        found[name] = plain_loop(lora, batches(rank, 2), wrap(lora.model))
        if name == "ddp":
            lora.commit(out / "model", tiny.task())
    found["trainer"] = by_the_trainer(started(folder, adapters, orthogonal=OVERLAP), out)
    torch.save(found, out / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_learn_what_one_learns_and_commit_it_once(llama, adapters, tmp_path):
    def one():
        return started(llama, adapters, orthogonal=OVERLAP)

    with two(together, llama, adapters, tmp_path):
        start = learned(one())
        expected = plain_loop(one(), batches(), ours=False)
        more = {"data": rows("llama", count=24), "data_collator": collate}
        by_trainer = trained(Trainer, arguments(tmp_path, 1), one(), ours=False, **more)
    for rank in (0, 1):
        for name, found in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            check_same(found, by_trainer if name == "trainer" else expected, start)
    names = [record.name for record in ModelDirectory(tmp_path / "model").stages()]
    assert names == ["task-1", "task-2", "colour"]
    saved = one()
    saved.load(tmp_path / "saved")
    torch.testing.assert_close(learned(saved), found)
