"""Where a run's time goes, part by part.

    python benchmarks/where_time_goes.py --out runs/profile [--model smollm2-135m]
        [--stream order-1] [--method n-lora] [--max-train 96] [--max-eval 48] [--set KEY=VALUE]…

A whole run with every part of the way timed where it is called; what a part contains of another is
counted there alone. Prints one JSON line: seconds and share of each, and what is left over. On a
GPU the parts show when work was asked for, not when it was done.
"""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_started = time.perf_counter()


class Clock:
    """Seconds by part; a part that runs inside another does not count for it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._running: list[tuple[str, float]] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            now = time.perf_counter()
            if self._running:
                outer, since = self._running[-1]
                self.seconds[outer] += now - since
            self._running.append((part, now))
            try:
                return function(*args, **kwargs)
            finally:
                _, since = self._running.pop()
                now = time.perf_counter()
                self.seconds[part] += now - since
                if self._running:
                    self._running[-1] = (self._running[-1][0], now)

        return run

    def watch(self, part: str, owner: Any, name: str) -> None:
        setattr(owner, name, self.timed(part, getattr(owner, name)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--stream", default="order-1")
    parser.add_argument("--method", default="n-lora")
    parser.add_argument("--data", default=os.environ.get("NLORA_DATA"))
    parser.add_argument("--max-train", type=int, default=96)
    parser.add_argument("--max-eval", type=int, default=48)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    import accelerate
    import torch

    from nlora.continual import learning, model
    from nlora.data import batches, encode
    from nlora.methods.base import Method
    from nlora.plan import config, resolve
    from nlora.store.directory import ModelDirectory
    from nlora.training import gradients, loop

    clock = Clock()
    imported = time.perf_counter() - _started
    clock.watch("read data", resolve, "load_stream")
    clock.watch("load model", model, "load")
    clock.watch("tokenise", encode.Encoder, "all")
    clock.watch("tokenise", encode.Encoder, "prompts")
    clock.watch("collate", batches.Collator, "__call__")
    clock.watch("set up the Trainer", loop, "train")
    clock.watch("forward", Method, "loss")
    clock.watch("backward", accelerate.Accelerator, "backward")
    clock.watch("penalty and clipping", gradients.GradientCallback, "on_pre_optimizer_step")
    clock.watch("optimiser", torch.optim.AdamW, "step")
    clock.watch("evaluation", model, "answer")
    clock.watch("save", ModelDirectory, "commit")
    asked = config.RunConfig(
        model=options.model,
        method=options.method,
        stream=options.stream,
        data=options.data,
        max_train=options.max_train,
        max_eval=options.max_eval,
        settings=config.parse_overrides(options.overrides),
    )
    clock.timed("everything else", learning.run)(asked, options.out)
    parts = {"import": imported, **clock.seconds}
    total = sum(parts.values())
    shown = {
        name: {"seconds": round(value, 2), "per_cent": round(100 * value / total, 1)}
        for name, value in sorted(parts.items(), key=lambda item: -item[1])
    }
    print(json.dumps({"model": options.model, "total_seconds": round(total, 1), "parts": shown}))


if __name__ == "__main__":
    main()
