"""The demo stream: four small tasks whose texts are generated, so that they need no download.

Topic and sentiment can be told from the words. Inference needs the relation of two sentences: the
same hypotheses occur under every label, denials ("did not") more often where they contradict. Same
meaning needs a comparison: pairs that differ share most words, and some pairs that do not differ
tell the deal from the other side or in other words. Dev and test have templates of their own, and
words that training lacks.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from random import Random
from typing import TypeVar

from nlora.data import demo_words as words
from nlora.data.comparing import normalise
from nlora.data.prompts import INSTRUCTIONS
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError

_T = TypeVar("_T")

_DENIALS = {"entailment": 0.2, "neutral": 0.2, "contradiction": 0.6}
"""Share of the hypotheses with "did not": it hints at the answer, as in real data, no more."""
_REWORDED = 0.25  # share of the objects and times that are told in the other wording
_TRIES = 1000


def demo_stream(train: int = 96, test: int = 60, dev: int = 30, seed: int = 0) -> list[TaskData]:
    """Topic, sentiment, inference and same meaning, with so many examples in each of the splits.

    Labels are balanced (their counts differ by at most one), no text occurs twice in a task, and
    the same seed gives the same texts: test does not depend on the size of train. Raises
    NloraError when there are fewer different texts than asked for.
    """
    stream = []
    for name, group, labels, kind in _TASKS:
        task = Task(name, INSTRUCTIONS[group], labels, group=group, dataset=name)
        splits: dict[str, tuple[Example, ...]] = {}
        seen: set[str] = set()
        for split, count in (("test", test), ("dev", dev), ("train", train)):
            rng = Random(f"{seed} {name} {split}")
            write = partial(kind, _Writer(rng, split))
            rows = [(_new(write, label, seen), label) for label in islice(cycle(labels), count)]
            rng.shuffle(rows)
            splits[split] = tuple(Example(task, text, label) for text, label in rows)
        stream.append(TaskData(task, splits["train"], splits["test"], splits["dev"]))
    return stream


def _new(write: Callable[[str], str], label: str, seen: set[str]) -> str:
    """A text for the label that is not `seen` yet; afterwards it is."""
    for _ in range(_TRIES):
        text = write(label)
        if (folded := normalise(text)) not in seen:
            seen.add(folded)
            return text
    raise NloraError(f"the demo has no more texts for '{label}'; ask for fewer examples")


class _Writer:
    """Draws the texts of one split."""

    def __init__(self, rng: Random, split: str) -> None:
        self.rng = rng
        self.split = split

    def pick(self, values: Sequence[_T]) -> _T:
        """One of the values; in training, not one of those held out."""
        known = len(values) - words.HELD_OUT if self.split == "train" else len(values)
        return self.rng.choice(values[:known])

    def other(self, values: Sequence[_T], value: _T) -> _T:
        """One of the values, but not this one."""
        while (found := self.pick(values)) == value:
            pass
        return found

    def fill(self, kind: str, **slots: str) -> str:
        """A sentence of this kind, from one of the split's templates."""
        return self.rng.choice(words.TEMPLATES[kind][self.split]).format(**slots)

    def topic(self, label: str) -> str:
        """A paragraph on the topic."""
        slots = {slot: self.pick(values) for slot, values in words.TOPICS[label].items()}
        return self.fill("topic", **slots)

    def sentiment(self, label: str) -> str:
        """A review; some quote the opposite opinion of somebody else."""
        good, bad = words.OPINIONS
        opposite = words.OPINIONS[bad if label == good else good]
        slots = {slot: self.pick(values) for slot, values in words.OPINIONS[label].items()}
        item, *aspects = self.pick(words.ITEMS)
        a, b = self.rng.sample(aspects, 2)
        adj2 = self.other(words.OPINIONS[label]["adj"], slots["adj"])
        other = self.pick(opposite["adj"])
        return self.fill("sentiment", item=item, a=a, b=b, adj2=adj2, other=other, **slots)

    def inference(self, label: str) -> str:
        """One of two events that rule each other out, and a hypothesis: it or its denial."""
        event = self.pick(words.EVENTS)
        did, same, instead, same_instead, detail = event.split(" | ")
        if self.rng.random() < 0.25:
            did, same, same_instead = instead, same_instead, same
        denied = self.rng.random() < _DENIALS[label]
        if label == "neutral":
            _, *unrelated, _ = self.other(words.EVENTS, event).split(" | ")
            phrase = self.rng.choice([detail, *unrelated[::2]])
        else:
            phrase = same if (label == "entailment") != denied else same_instead
        verb, rest = phrase.split(" ", 1)
        past, infinitive = verb.split("/")
        said = f"did not {infinitive} {rest}" if denied else f"{past} {rest}"
        name, job, town = map(self.pick, (words.NAMES, words.JOBS, words.TOWNS))
        premise = self.fill("premise", name=name, job=job, town=town, did=did)
        hypothesis = self.fill("hypothesis", name=name, job=job, said=said)
        return f"sentence 1: {premise}\nsentence 2: {hypothesis}"

    def same_meaning(self, label: str) -> str:
        """A deal told twice, or two deals that differ in the roles, the object or the time."""
        deal, what, when = self.pick(words.DEALS), self.pick(words.OBJECTS), self.pick(words.TIMES)
        giver = self.pick(words.PEOPLE)
        taker = self.other(words.PEOPLE, giver)
        first = self.tell(deal, giver, taker, what, when)
        if label == "False":
            change = self.rng.choice(["roles", "object", "object", "time"])
            if change == "roles":
                giver, taker = taker, giver
            elif change == "object":
                what = self.other(words.OBJECTS, what)
            else:
                when = self.other(words.TIMES, when)
        while (second := self.tell(deal, giver, taker, what, when)) == first:
            pass
        return f"first sentence: {first}\nsecond sentence: {second}"

    def tell(
        self,
        deal: tuple[str, str, str, str],
        giver: str,
        taker: str,
        what: tuple[str, str],
        when: tuple[str, str],
    ) -> str:
        """The deal from one side, in one of the wordings."""
        gave, to, took, from_ = deal
        who, did, prep, whom = self.rng.choice(
            [(giver, gave, to, taker), (taker, took, from_, giver)]
        )
        return self.fill(
            "deal",
            who=who,
            did=did,
            prep=prep,
            whom=whom,
            what=what[self.rng.random() < _REWORDED],
            when=when[self.rng.random() < _REWORDED],
        )


_TASKS = (
    ("topic", "TC", tuple(words.TOPICS), _Writer.topic),
    ("sentiment", "SC", tuple(words.OPINIONS), _Writer.sentiment),
    ("inference", "NLI", ("entailment", "neutral", "contradiction"), _Writer.inference),
    ("same-meaning", "QQP", ("True", "False"), _Writer.same_meaning),
)
