"""What it costs to know the most likely label beside what greedy decoding says, on a trained model.

    python -m benchmarks.among MODEL_DIR [ROUNDS]

For each task of a model directory, the seconds of its test examples by greedy decoding, by the
labels' likelihoods, and by both in one reading; the shortest of some rounds in which they take
turns. Seconds are those of the process on its processors, which other work beside it changes less.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nlora.cli.console import show
from nlora.continual.model import ContinualModel
from nlora.data.task import Example, Task
from nlora.evaluation.among import answers_and_log_likelihoods, log_likelihoods
from nlora.evaluation.answers import answer, off_list


def seconds(works: list[Callable[[], object]], rounds: int) -> list[float]:
    """The shortest time of each; they take turns."""
    found = [float("inf")] * len(works)
    for _ in range(rounds):
        for i, work in enumerate(works):
            started = time.process_time()
            work()
            found[i] = min(found[i], time.process_time() - started)
    return found


def main(path: Path, rounds: int) -> None:
    """Measure and print."""
    model = ContinualModel.open(path)
    net, encoder, tokens = model.adapter.model, model.encoder, model.plan.run.eval_tokens
    tests = model.directory.tests()
    rows = []
    for data in model.stream:
        task: Task = data.task
        if task.labels is None:
            continue
        examples = [Example(task, row["text"], row["label"]) for row in tests[task.name]]
        encoder.prompts(examples)  # kept from here on
        works = [
            lambda e=examples: answer(net, encoder, e, batch_tokens=tokens),
            lambda e=examples: log_likelihoods(net, encoder, e, tokens),
            lambda e=examples: answers_and_log_likelihoods(net, encoder, e, tokens),
        ]
        free, among, both = seconds(works, rounds)
        off = off_list(answer(net, encoder, examples, batch_tokens=tokens), task.labels)
        times = [free, among, both, among / free, both / free]
        rows.append([task.name, len(examples), len(task.labels), off, *times])
        print(*rows[-1], flush=True)
    columns = ["task", "tests", "labels", "off the list (%)", "free (s)", "among (s)", "both (s)"]
    threads = f"{torch.get_num_threads()} threads"
    show(f"{path.name}, {threads}", [*columns, "among/free", "both/free"], rows, ".2f")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int([*sys.argv, 1][2]))
