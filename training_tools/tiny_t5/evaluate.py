"""What `tiny-t5` can do, on the benchmark's data: one table, and the rows behind it.

    python -m training_tools.tiny_t5.evaluate zero-shot --model DIR --out FILE
    python -m training_tools.tiny_t5.evaluate sweep     --model DIR --out FILE --runs DIR
    python -m training_tools.tiny_t5.evaluate lora      --model DIR --out FILE --runs DIR
    python -m training_tools.tiny_t5.evaluate random    --model DIR --out FILE --runs DIR
    python -m training_tools.tiny_t5.evaluate baselines --out FILE
    python -m training_tools.tiny_t5.evaluate order-1   --model DIR --out FILE --runs DIR
    python -m training_tools.tiny_t5.evaluate table     --out FILE

Each appends JSON lines to FILE, and `table` prints FILE as markdown. The data is in `NLORA_DATA`.
Settings are chosen on dev (`sweep`); all else is on test. Runs that were stopped go on.
"""

import argparse
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from nlora.cli.console import Lines
from nlora.continual.learning import run
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.data.streams import load_stream
from nlora.data.task import Example, TaskData, sample
from nlora.evaluation.normalise import normalise
from nlora.plan.config import RunConfig

TASKS = ("agnews", "dbpedia", "yahoo", "amazon")


def load(name: str) -> TaskData:
    """A task of the benchmark."""
    return load_stream(name, Path(os.environ["NLORA_DATA"]))[0]


def zero_shot(options: argparse.Namespace) -> None:
    """Answers without fine-tuning: how many are right, listed, and the same in another order."""
    import torch

    from nlora.backbones.catalog import find
    from nlora.backbones.load import load as load_model
    from nlora.evaluation.answers import answer

    backbone = load_model(find(str(options.model)), torch.float32)
    encoder = Encoder(backbone.tokenizer, Prompter(), encoder_decoder=True)
    for name in TASKS:
        data = load(name)
        examples = sample(data.test, options.max_eval, seed=0)
        rng, turned = random.Random(0), []
        for e in examples:
            labels = list(e.task.labels or ())
            while tuple(labels) == e.task.labels:
                rng.shuffle(labels)
            turned.append(Example(replace(e.task, labels=tuple(labels)), e.text, e.label))
        first = answer(backbone.model, encoder, examples)
        second = answer(backbone.model, encoder, turned)
        listed = {normalise(label) for label in data.task.labels or ()}
        both = [*first, *second]
        counts: dict[str, int] = {}
        for p in first:
            counts[p.text] = counts.get(p.text, 0) + 1
        same = sum(
            normalise(a.text) == normalise(b.text) for a, b in zip(first, second, strict=True)
        )
        write(
            options,
            kind="zero-shot",
            task=name,
            examples=len(examples),
            accuracy=percent(sum(p.correct for p in both), len(both)),
            listed=percent(sum(normalise(p.text) in listed for p in both), len(both)),
            same_in_any_order=percent(same, len(examples)),
            chance=round(100 / len(listed), 1),
            answers=dict(sorted(counts.items(), key=lambda item: -item[1])[:20]),
        )


def percent(part: int, whole: int) -> float:
    """Per cent, with one decimal."""
    return round(100 * part / whole, 1)


def learn(
    options: argparse.Namespace, name: str, method: str, on_dev: bool = False, **settings: Any
) -> dict[str, Any]:
    """The results of a run on the tasks called `name`, on dev or on test."""
    stream = load_stream(name, Path(os.environ["NLORA_DATA"]))
    if on_dev:
        stream = [replace(data, test=data.dev) for data in stream]
    config = RunConfig(
        model=str(options.model),
        method=method,
        stream=name,
        data=os.environ["NLORA_DATA"],
        max_train=options.max_train,
        max_eval=options.max_eval,
        settings=settings,
    )
    words = "-".join(f"{k}{v}" for k, v in settings.items())
    folder = options.runs / f"{name}-{method}-{'dev' if on_dev else 'test'}-{words}"
    return run(config, folder, Lines(), stream=stream)


def sweep(options: argparse.Namespace) -> None:
    """Learning rate and epochs on dev."""
    for rate in map(float, options.rates.split(",")):
        for epochs in map(int, options.epochs.split(",")):
            for name in options.tasks.split(","):
                found = learn(
                    options, name, "seq-lora", on_dev=True, learning_rate=rate, epochs=epochs
                )
                write(
                    options,
                    kind="dev",
                    task=name,
                    learning_rate=rate,
                    epochs=epochs,
                    accuracy=found["average_accuracy"],
                    seconds=found["seconds"],
                )


def lora(options: argparse.Namespace) -> None:
    """Plain LoRA on each task, with what the model recommends or the first of the lists given."""
    settings = {"learning_rate": float(options.rates), "epochs": int(options.epochs)}
    for name in options.tasks.split(","):
        found = learn(options, name, "seq-lora", **settings)
        write(
            options,
            kind="lora",
            model=options.title,
            task=name,
            **settings,
            examples=options.max_train,
            accuracy=found["average_accuracy"],
            seconds=found["seconds"],
        )


def random_weights(options: argparse.Namespace) -> None:
    """Write a model of the same architecture with random weights to --runs/random, for `lora`."""
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    torch.manual_seed(0)
    folder = options.runs / "random"
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(options.model))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(options.model).save_pretrained(folder)


def baselines(options: argparse.Namespace) -> None:
    """TF-IDF, and the teacher's vectors, each with logistic regression."""
    import torch
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from training_tools.tiny_t5.teacher import Teacher, teacher_vocabulary
    from training_tools.tiny_t5.tokenizer import build, vocabulary

    known = vocabulary(teacher_vocabulary())
    tokenizer, teacher = build(teacher_vocabulary()), Teacher(list(known.values()))
    for name in TASKS:
        data = load(name)
        train, test = data.train, sample(data.test, options.max_eval, seed=0)
        answers, wanted = [e.label for e in train], [e.label for e in test]

        def vectors(examples: Any) -> Any:
            ids = tokenizer([e.text for e in examples], truncation=True, max_length=128)
            return teacher.vectors([torch.tensor(i[:-1]) for i in ids.input_ids], rows=64).numpy()

        words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        for kind, fitted, asked in (
            (
                "tf-idf",
                words.fit_transform([e.text for e in train]),
                words.transform([e.text for e in test]),
            ),
            ("teacher", vectors(train), vectors(test)),
        ):
            model = LogisticRegression(max_iter=1000, C=10.0).fit(fitted, answers)
            write(
                options, kind=kind, task=name, accuracy=round(100 * model.score(asked, wanted), 1)
            )


def order_1(options: argparse.Namespace) -> None:
    """The accuracy matrix of order-1 with four methods."""
    for method in options.methods.split(","):
        settings = {"learning_rate": float(options.rates), "epochs": int(options.epochs)}
        found = learn(options, "order-1", method, **settings)
        keys = ("accuracy_matrix", "average_accuracy", "learning_accuracy", "forgetting", "seconds")
        write(
            options,
            kind="order-1",
            method=method,
            **settings,
            examples=options.max_train,
            **{key: found[key] for key in keys},
        )


def table(options: argparse.Namespace) -> None:
    """Everything in FILE as markdown; of repeated measurements the last."""
    rows = [json.loads(line) for line in options.out.read_text().splitlines()]
    columns: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["kind"] in ("zero-shot", "lora", "tf-idf", "teacher"):
            title = row["kind"] + (f", {row['model']}" if "model" in row else "")
            columns.setdefault(title, {})[row["task"]] = row["accuracy"]
            if row["kind"] == "zero-shot":
                for key in ("chance", "listed", "same_in_any_order"):
                    title = f"zero-shot: {key.replace('_', ' ')}"
                    columns.setdefault(title, {})[row["task"]] = row[key]
    print("| | " + " | ".join(TASKS) + " |\n|-" + "|-" * len(TASKS) + "|")
    for title, found in columns.items():
        cells = (f"{found[t]:.1f}" if t in found else "" for t in TASKS)
        print(f"| {title} | " + " | ".join(cells) + " |")
    for row in rows:
        if row["kind"] == "order-1":
            print(
                f"\n{row['method']}: average {row['average_accuracy']:.1f}, learning "
                f"{row['learning_accuracy']:.1f}, forgetting {row['forgetting']:.1f}\n"
            )
            print("| after | dbpedia | amazon | yahoo | agnews |\n|-|-|-|-|-|")
            for number, line in enumerate(row["accuracy_matrix"], start=1):
                cells = " | ".join("" if v is None else f"{v:.1f}" for v in line)
                print(f"| {number} | {cells} |")


def write(options: argparse.Namespace, **row: Any) -> None:
    """Print a row and append it to the file."""
    line = json.dumps(row)
    print(line, flush=True)
    with options.out.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


COMMANDS = {
    "zero-shot": zero_shot,
    "sweep": sweep,
    "lora": lora,
    "random": random_weights,
    "baselines": baselines,
    "order-1": order_1,
    "table": table,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--model", type=Path, help="the folder of a model")
    parser.add_argument("--title", default="tiny-t5", help="the model's name in the table")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny-t5"))
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--rates", default="1e-3")
    parser.add_argument("--epochs", default="2")
    parser.add_argument("--methods", default="seq-lora,inc-lora,o-lora,n-lora")
    parser.add_argument("--max-train", type=int, default=2000)
    parser.add_argument("--max-eval", type=int, default=1000)
    options = parser.parse_args()
    if options.model is None and options.what not in ("baselines", "table"):
        parser.error(f"{options.what} needs --model DIR")
    if "NLORA_DATA" not in os.environ:
        parser.error("set NLORA_DATA to the benchmark's folder")
    COMMANDS[options.what](options)


if __name__ == "__main__":
    main()
