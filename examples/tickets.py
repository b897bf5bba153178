"""Tickets of a help desk that never was, generated: what the examples and docs/help-desk.md learn.

    python examples/tickets.py FOLDER

writes the tickets of twelve months, `01-train.jsonl`, `01-test.jsonl`, …, and `bad-train.jsonl`.
"""

import argparse
import json
from pathlib import Path
from random import Random

import nlora

QUESTION = "Which team answers this ticket? Choose one from the option."
TEAMS = ("billing", "technical", "delivery")
WORDS = {
    "billing": ("invoice", "refund", "payment", "card", "price", "receipt"),
    "technical": ("crash", "error", "login", "password", "update", "screen"),
    "delivery": ("parcel", "courier", "address", "package", "shipment", "driver"),
}
PRODUCTS = ("lamp", "radio", "kettle", "scale", "clock", "fan")
PHRASES = (
    "there is a problem with the {topic} of my {thing}",
    "please look at the {topic} for the {thing}",
    "my {thing} and its {topic}: why does nobody answer",
    "since Monday the {topic} of the {thing} is wrong",
    "hello, a question about the {topic} and my {thing}",
)


def month(number: int, rows: int = 48, wrong: bool = False) -> list[dict[str, str]]:
    """The tickets of a month, as many of each team: rows with `text` and `label`, in any order.

    Each month has the words of two topics a team. With `wrong` somebody has put the labels into
    another column, so that each ticket has that of the next team.
    """
    random = Random(number)
    found = []
    for i in range(rows):
        team = TEAMS[i % len(TEAMS)]
        topics = [WORDS[team][(number + k) % len(WORDS[team])] for k in range(2)]
        thing = f"{random.choice(PRODUCTS)} {random.randrange(1000)}"
        text = random.choice(PHRASES).format(topic=random.choice(topics), thing=thing)
        label = TEAMS[(i + 1) % len(TEAMS)] if wrong else team
        found.append({"text": text, "label": label})
    random.shuffle(found)
    return found


def held_out(number: int, rows: int = 24) -> list[dict[str, str]]:
    """Other tickets on the topics of a month."""
    return month(number + 600, rows)


def task(number: int, rows: int = 48) -> nlora.Task:
    """The tickets of a month as a task, with half as many to test."""
    train, test = month(number, rows), held_out(number, rows // 2)
    return nlora.Task("tickets", train=train, test=test, instruction=QUESTION, labels=TEAMS)


def chat(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """A ticket as a conversation: what a user asks, and what the model is to answer."""
    asked = f"{QUESTION}\n{', '.join(TEAMS)}\n{row['text']}"
    return {
        "prompt": [{"role": "user", "content": asked}],
        "completion": [{"role": "assistant", "content": row["label"]}],
    }


def write(folder: Path, name: str, rows: list[dict[str, str]]) -> None:
    """The rows as a JSONL file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    place = parser.parse_args().folder
    for number in range(1, 13):
        write(place, f"{number:02d}-train", month(number, 24))
        write(place, f"{number:02d}-test", held_out(number, 6))
    write(place, "bad-train", month(13, 48, wrong=True))
