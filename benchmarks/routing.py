"""What routing costs, and how often a router is right.

    python benchmarks/routing.py cost [--stages 15] [--texts 1000] [--pairs 3]
    python benchmarks/routing.py right --data DIR [--model tiny-t5] [--train 200] [--test 100]
        [--share 0.33]

`cost`: CPU seconds of `predict` of texts without a named task by a model that routes among so many
stages, against the same texts by a model that learned one task, as the median ratio of interleaved
pairs, on a small random Llama with the tokenizer of smollm2-135m; and how many tokens, padding
included, the model reads in how many passes and layers, which no other load of the machine changes
(`--pairs 0`: that alone). `right`: the share of test texts that are taken for their own task after
the last stage, by text and by prompt, on order-1 and order-4, and the pairs of tasks that the
router says it cannot tell apart; features are of the first half of the base's layers, as in a run,
or of another share (0 to 1). Nothing is trained: a router needs the base model alone.
"""

import argparse
import inspect
import random
import statistics
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.nn import Embedding, Module
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from nlora.backbones.catalog import find
from nlora.backbones.states import half_of_layers
from nlora.backbones.structure import base_model
from nlora.continual.answering import predict
from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.data.streams import load_stream
from nlora.data.task import Example, Task, TaskData, sample
from nlora.methods.parts.lora import RouterState
from nlora.methods.parts.routing import Router, unclear
from nlora.plan.config import RunConfig
from nlora.plan.resolve import resolve
from nlora.store.directory import ModelDirectory

LAYERS = 6
WORDS = [
    "river",
    "stone",
    "market",
    "engine",
    "letter",
    "garden",
    "doctor",
    "winter",
    "music",
    "planet",
    "bridge",
    "camera",
]


def small_llama(folder: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(find("smollm2-135m").target)
    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": LAYERS}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data.mul_(30)  # so that adapters can move the answers
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def made_up(number: int) -> TaskData:
    """A task whose texts have words of their own."""
    draw = random.Random(number)
    labels = ("good", "bad", "neither of the two")
    task = Task(f"task{number}", "What is it? Choose one from the option.", labels)
    own = [f"{draw.choice(WORDS)}{number}" for _ in range(6)]

    def split(count: int) -> tuple[Example, ...]:
        texts = [" ".join(draw.choices([*own, *WORDS], k=25)) for _ in range(count)]
        return tuple(Example(task, t, labels[i % 3]) for i, t in enumerate(texts))

    return TaskData(task, split(24), split(70))


class Passes:
    """Counts what the model below the head reads: for features of the router, and for answers."""

    def __init__(self) -> None:
        self.read = {"features": Counter[str](), "answers": Counter[str]()}

    def __enter__(self) -> "Passes":
        self.hook = register_module_forward_pre_hook(self._count)
        return self

    def __exit__(self, *error: object) -> None:
        self.hook.remove()

    def _count(self, module: Module, inputs: object) -> None:
        if not isinstance(inputs, tuple) or not isinstance(module, Embedding | LlamaDecoderLayer):
            return
        asks = any(frame.function == "mean_state" for frame in inspect.stack(0))
        told = self.read["features" if asks else "answers"]
        if isinstance(module, Embedding):
            told.update(passes=1, tokens=inputs[0].numel())
        else:
            told.update(work=inputs[0].shape[:-1].numel() / LAYERS)


def cost(stages: int, texts: int, pairs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(small_llama(folder / "model"))
        settings = {"routing": "input", "learning_rate": 3e-3, "epochs": 4, "precision": "fp32"}
        config = RunConfig(model=model, method="inc-lora", settings=settings, max_eval=3)
        tasks = [made_up(number) for number in range(stages)]
        for count, out in ((stages, "many"), (1, "one")):
            run(config, folder / out, stream=tasks[:count])
        asked = [e.text for data in tasks for e in data.test][:texts]
        times = []
        for _ in range(pairs + 1):
            both = []
            for out in ("many", "one"):
                started = time.process_time()
                with Passes() if not times else nullcontext() as passes:
                    found = predict(folder / out, asked)
                both.append(time.process_time() - started)
                for part, told in passes.read.items() if passes else ():
                    tokens, passes, work = (told[n] for n in ("tokens", "passes", "work"))
                    as_good_as = f"as much as {work:,.0f} through all layers"
                    print(f"{out}, {part}: {tokens:,} tokens in {passes} passes, {as_good_as}")
                used = len({a.task for a in found})
                print(f"{out}: {both[-1]:.2f} CPU seconds, answered as {used} tasks", flush=True)
            times.append(both)
        if not pairs:
            return
        ratio = statistics.median(many / one for many, one in times[1:])
        print(f"{len(asked)} texts over {stages} stages against one: {ratio:.2f} times as much")


def right(data: str, model: str, train: int, test: int, share: float | None) -> None:
    for name in ("order-1", "order-4"):
        stream = load_stream(name, Path(data))
        plan = resolve(RunConfig(model=model, method="inc-lora"), stream)
        with tempfile.TemporaryDirectory() as folder:
            ctx = ContinualModel.begin(plan, ModelDirectory(Path(folder) / "none")).context()
            base = base_model(ctx.model)
            layers = half_of_layers(base)
            if share is not None:
                layers = round(share * base.config.num_hidden_layers)
            for by in ("text", "prompt"):
                router = Router(RouterState(layers=layers), by)
                for stage, task in enumerate(stream, start=1):
                    router.add(stage, router.features(ctx, sample(task.train, train, 0)))
                shares, far = [], []
                for stage, task in enumerate(stream, start=1):
                    routes = router.routes(ctx, sample(task.test, test, 0))
                    shares.append(sum(r.stage == stage for r in routes) / len(routes))
                    far.append(sum(r.unknown for r in routes) / len(routes))
                names = [task.name for task in stream]
                counts = {names[s - 1]: row for s, row in router.confusion().items()}
                print(f"{name} by {by}: {100 * statistics.fmean(shares):.1f} % right, ", end="")
                print(f"{100 * statistics.fmean(far):.1f} % far; ", end="")
                print(", ".join(f"{n} {100 * s:.0f}" for n, s in zip(names, shares, strict=True)))
                for line in unclear(names, counts, by):
                    print(f"  {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    which = parser.add_subparsers(dest="which", required=True)
    one = which.add_parser("cost")
    for name, value in (("stages", 15), ("texts", 1000), ("pairs", 3)):
        one.add_argument(f"--{name}", type=int, default=value)
    other = which.add_parser("right")
    other.add_argument("--data", required=True)
    other.add_argument("--model", default="tiny-t5")
    for name, value in (("train", 200), ("test", 100)):
        other.add_argument(f"--{name}", type=int, default=value)
    other.add_argument("--share", type=float)
    given = vars(parser.parse_args())
    {"cost": cost, "right": right}[given.pop("which")](**given)


if __name__ == "__main__":
    main()
