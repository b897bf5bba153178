"""Prompts that list options, of changing wording, with the right one known.

It is the listed option nearest to the text by the teacher's vectors, at a distance from the next;
or a phrase of the text; or the words that follow it; or the mood that the text was made from.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import Tensor

from nlora.data.comparing import normalise
from training_tools.tiny_t5 import topics

_WORD = re.compile(r"[a-z]{3,}")
_SEPARATORS = (", ",) * 7 + ("; ", " | ", "\n- ")
MARGIN = 0.05
"""How much nearer (cosine) the right option is than the next."""


@dataclass(frozen=True)
class Prompt:
    """A prompt with the places (character spans) of its text and its options."""

    prompt: str
    answer: str
    text: tuple[int, int]
    options: tuple[tuple[int, int], ...]
    right: int
    window: int
    phrases: tuple[int, ...] = ()
    """Indices into the phrases, of options that are phrases."""


def phrases(texts: Sequence[str], limit: int = 9000) -> list[str]:
    """Frequent words and two-word phrases of the texts, then the project's topics and pairs."""
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        tokens = re.findall(r"[a-z]+|[^a-z ]", text.lower())
        words.update({w for w in tokens if len(w) > 3 and w not in ENGLISH_STOP_WORDS})
        pairs.update(
            {
                (a, b)
                for a, b in pairwise(tokens)
                if min(len(a), len(b)) > 2 and not {a, b} & ENGLISH_STOP_WORDS
            }
        )
    common = [w for w, n in words.most_common(limit) if n > 7]
    twice = [f"{a} {b}" for (a, b), n in pairs.most_common(limit) if n > 4]
    names = list(topics.TOPICS)
    rng = random.Random(0)
    for _ in range(1500):
        a, b = rng.sample(common[:4000] if rng.random() < 0.5 else names, 2)
        names.append(f"{a} {rng.choice(('&', 'and', 'or', '/'))} {b}")
    found = dict.fromkeys(names + common + twice)
    return [p for p in found if normalise(p) not in topics.NEVER_OPTIONS and p.isascii()]


def pairs(words: Sequence[str], count: int = 6000) -> list[str]:
    """Two of the words, together or joined, that have nothing to do with each other."""
    rng = random.Random(1)
    joints = (" ", " ", " & ", " and ", " or ", " / ", " of ")
    found = dict.fromkeys(rng.choice(joints).join(rng.sample(words, 2)) for _ in range(count))
    return [p for p in found if normalise(p) not in topics.NEVER_OPTIONS]


def split(indices: Sequence[int]) -> tuple[list[int], list[int]]:
    """Phrases to train on, and a tenth that is kept for measuring."""
    return [i for i in indices if i % 10], [i for i in indices if i % 10 == 0]


class Writer:
    """Writes prompts for windows whose vectors are known.

    `table` (phrases, 384) are the teacher's vectors of `names`. Those at `index` are listed; the
    first `general` of all name topics and are listed most. `measuring` asks for the nearest alone.
    """

    def __init__(
        self,
        names: Sequence[str],
        table: Tensor,
        index: Sequence[int],
        general: int,
        measuring: bool = False,
    ) -> None:
        self.index = torch.tensor(index)
        self.general = int((self.index < general).sum())
        self.names = names
        self.table = table[self.index]
        self.measuring = measuring

    def write(
        self,
        rows: Sequence[int],
        windows: Sequence[dict[str, str]],
        vectors: Tensor,
        rng: random.Random,
        ease: float = 0.0,
    ) -> list[Prompt]:
        """One prompt per row of `windows`; `vectors` (rows, 384) are theirs.

        `ease` from 1 to 0: shorter texts and lists, options that differ more, more that are copied.
        """
        similar = vectors @ self.table.T
        top = similar.topk(min(400, similar.shape[1]), dim=1).indices.tolist()
        mention, title = 0.10 + 0.25 * ease, 0.08
        found = []
        for i, row in enumerate(rows):
            kind = 1.0 if self.measuring else rng.random()
            words = windows[row]["text"].split()
            text = " ".join(words[: round(70 - 35 * ease)])
            if kind < mention:
                found.append(self._mention(row, text, windows, rng))
            elif kind < mention + title and windows[row]["other"]:
                found.append(self._title(row, text, windows, rng))
            elif kind < mention + title + 0.08:
                found.append(self._mood(rng))
            else:
                found.append(self._nearest(row, text, similar[i], top[i], rng, ease))
        return found

    def _nearest(
        self,
        row: int,
        text: str,
        similar: Tensor,
        top: list[int],
        rng: random.Random,
        ease: float,
    ) -> Prompt:
        count = max(2, round(2 * (10 - 7 * ease) ** rng.random()))
        size, margin = len(self.index), MARGIN + 0.1 * ease
        if rng.random() < 0.55 - 0.4 * ease:  # any list; its nearest option is right
            pool = self.general if rng.random() < 0.7 else size
            chosen = rng.sample(range(pool), min(count + 2, pool))
        else:  # an option that fits well, others that nearly do, and others
            near = round(rng.randint(0, count - 1) * (1 - ease))
            chosen = [rng.choice(top[:25]), *rng.sample(top[25:], min(near, len(top) - 25))]
            chosen += rng.sample(range(size), count - len(chosen))
        chosen = list(dict.fromkeys(chosen))
        scores = similar[torch.tensor(chosen)].tolist()
        best = max(scores)
        right = chosen[scores.index(best)]
        others = [c for c, s in zip(chosen, scores, strict=True) if s < best - margin]
        others = others[: count - 1] or [int(similar.argmin())]
        listed = [right, *others]
        rng.shuffle(listed)
        names = [self.names[int(self.index[c])] for c in listed]
        indices = tuple(int(self.index[c]) for c in listed)
        ask = rng.choice(topics.SUBJECT_WORDINGS)
        return _prompt(ask, names, listed.index(right), text, row, rng, indices)

    def _mention(
        self, row: int, text: str, windows: Sequence[dict[str, str]], rng: random.Random
    ) -> Prompt:
        right = _piece(text, rng)
        inside, others = text.lower(), []
        for _ in range(rng.randint(1, 9)):
            piece = _piece(windows[rng.randrange(len(windows))]["text"], rng)
            if piece not in inside and piece not in others:
                others.append(piece)
        return _listed(rng.choice(topics.MENTION_WORDINGS), right, others, text, row, rng)

    def _title(
        self, row: int, text: str, windows: Sequence[dict[str, str]], rng: random.Random
    ) -> Prompt:
        right = windows[row]["other"]
        others = [windows[rng.randrange(len(windows))]["other"] for _ in range(rng.randint(1, 4))]
        others = [o for o in others if o and o != right]
        return _listed(rng.choice(topics.TITLE_WORDINGS), right, others, text, row, rng)

    def _mood(self, rng: random.Random) -> Prompt:
        mood = rng.choice(list(topics.MOODS))
        thing = rng.choice(_split(topics.THINGS))
        said = rng.sample(_split(topics.MOOD_SENTENCES[mood]), rng.randint(1, 4))
        text = ". ".join(said).format(x=thing, n=rng.randint(2, 30)) + "."
        moods = [mood, *(m for m in topics.MOODS if m != mood and rng.random() < 0.7)]
        names = [rng.choice(_split(topics.MOODS[m])) for m in moods]
        names += [rng.choice(topics.TOPICS)] if len(names) == 1 else []
        return _listed(rng.choice(topics.MOOD_WORDINGS), names[0], names[1:], text, -1, rng)


def _split(text: str) -> list[str]:
    return " ".join(text.split()).split("; ")


def _piece(text: str, rng: random.Random) -> str:
    """One to three words in a row, of which the first and the last mean something."""
    words = text.lower().split()
    for _ in range(12):
        start = rng.randrange(len(words))
        part = words[start : start + rng.randint(1, 3)]
        ends = part[0], part[-1].rstrip(".")
        telling = all(w.isalpha() and len(w) > 3 and w not in ENGLISH_STOP_WORDS for w in ends)
        if telling and all(w.rstrip(".").isalpha() for w in part):
            return " ".join(part).rstrip(".")
    return rng.choice(words).strip(".,;:!?\"'()-") or words[0]


def _listed(
    ask: str, right: str, others: list[str], text: str, row: int, rng: random.Random
) -> Prompt:
    if not others:
        others = [rng.choice(topics.TOPICS)]
    names = [right, *others]
    rng.shuffle(names)
    return _prompt(ask, names, names.index(right), text, row, rng)


def _prompt(
    ask: str,
    names: Sequence[str],
    right: int,
    text: str,
    row: int,
    rng: random.Random,
    indices: tuple[int, ...] = (),
) -> Prompt:
    separator = rng.choice(_SEPARATORS)
    form = topics.FORMS[0] if rng.random() < 0.5 else rng.choice(topics.FORMS[1:])
    if rng.random() < 0.1:
        ask = f"Task: {rng.choice(topics.TOPICS)}\n{ask}"
    if rng.random() < 0.15:
        text = f"{rng.choice(('Title', 'Text', 'Paragraph', 'Review', 'Passage'))}: {text}"
    lead = "- " if separator == "\n- " else ""
    head, *rest = re.split(r"(\{ask\}|\{options\}|\{text\})", form)
    out, spans, options = head, {}, []
    for part in rest:
        if part == "{options}":
            out += lead
            for i, name in enumerate(names):
                out += separator if i else ""
                options.append((len(out), len(out) + len(name)))
                out += name
        else:
            add = {"{ask}": ask, "{text}": text}.get(part, part)
            spans[part] = (len(out), len(out) + len(add))
            out += add
    return Prompt(out, names[right], spans["{text}"], tuple(options), right, row, indices)
