import re
from collections import Counter
from functools import cache
from itertools import combinations

import pytest

from nlora.data import demo_words as words
from nlora.data.comparing import normalise
from nlora.data.demo import demo_stream
from nlora.data.prompts import INSTRUCTIONS
from nlora.data.task import Example, TaskData
from nlora.errors import NloraError

SPLITS = ("train", "dev", "test")
KINDS = {"inference": ("premise", "hypothesis"), "same-meaning": ("deal", "deal")}
ONE_EVENT = re.compile(r"sentence 1: (.+)\nsentence 2: (.+)")
TWO_DEALS = re.compile(r"first sentence: (.+)\nsecond sentence: (.+)")


@pytest.fixture(scope="module")
def stream() -> dict[str, TaskData]:
    return {data.name: data for data in demo_stream()}


@pytest.fixture(scope="module")
def large() -> dict[str, TaskData]:
    return {data.name: data for data in demo_stream(train=480, test=240, dev=60)}


def texts(examples: tuple[Example, ...]) -> list[str]:
    return [example.text for example in examples]


def labels(examples: tuple[Example, ...]) -> list[str]:
    return [example.label for example in examples]


def bag_of_words(data: TaskData) -> float:
    """Test accuracy of a linear classifier of word counts."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=2000))
    model.fit(texts(data.train), labels(data.train))
    return float(model.score(texts(data.test), labels(data.test)))


def sentences(text: str, task: str) -> list[tuple[str, str]]:
    """The parts of a text that come from one template each, with the template's kind."""
    if task not in KINDS:
        return [(task, text)]
    match = (ONE_EVENT if task == "inference" else TWO_DEALS).fullmatch(text)
    assert match, text
    return list(zip(KINDS[task], match.groups(), strict=True))


@cache
def pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(template)))


def fits(sentence: str, template: str) -> bool:
    return pattern(template).fullmatch(sentence) is not None


def has(sentence: str, phrase: str) -> bool:
    return phrase in sentence and bool(re.search(rf"\b{re.escape(phrase)}\b", sentence))


def test_four_tasks_come_in_the_promised_order_with_the_prompts_of_their_groups(stream):
    assert list(stream) == ["topic", "sentiment", "inference", "same-meaning"]
    groups = ("TC", "SC", "NLI", "QQP")
    for data, group in zip(stream.values(), groups, strict=True):
        assert (data.task.group, data.task.dataset) == (group, data.name)
        assert data.task.instruction == INSTRUCTIONS[group]
        assert [len(getattr(data, split)) for split in SPLITS] == [96, 30, 60]


def test_labels_are_the_tasks_and_balanced_in_every_split(stream):
    for data in stream.values():
        for split in SPLITS:
            counts = Counter(labels(getattr(data, split)))
            assert set(counts) == set(data.task.labels)
            assert max(counts.values()) - min(counts.values()) <= 1


def test_the_seed_alone_decides_the_texts(stream):
    assert demo_stream() == list(stream.values())
    other = demo_stream(seed=1)
    assert not any(
        set(texts(a.test)) & set(texts(b.test)) for a, b in zip(other, demo_stream(), strict=True)
    )
    assert [data.test for data in demo_stream(train=16)] == [d.test for d in stream.values()]


def test_no_text_occurs_twice(large):
    for data in large.values():
        every = [normalise(text) for split in SPLITS for text in texts(getattr(data, split))]
        assert len(set(every)) == len(every) == 780


def test_more_texts_than_there_are_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(
        words, "TEMPLATES", words.TEMPLATES | {"topic": dict.fromkeys(SPLITS, ("Hm.",))}
    )
    with pytest.raises(NloraError, match=r"no more texts for 'Food'|no more texts for 'Sports'"):
        demo_stream()


def test_dev_and_test_are_phrased_as_no_training_text_is(large):
    for data in large.values():
        for split, other in [*combinations(SPLITS, 2), *combinations(SPLITS[::-1], 2)]:
            for text in texts(getattr(data, split)):
                for kind, sentence in sentences(text, data.name):
                    assert any(fits(sentence, own) for own in words.TEMPLATES[kind][split])
                    assert not any(fits(sentence, t) for t in words.TEMPLATES[kind][other])


def test_some_words_are_held_out_of_training(large):
    for name, lists in {
        "topic": [words.TOPICS["Food"]["thing"]],
        "sentiment": [words.OPINIONS["positive"]["adj"]],
        "inference": [[event.split(" | ")[0] for event in words.EVENTS]],
        "same-meaning": [[pair[0] for pair in words.OBJECTS]],
    }.items():
        train, test = ("\n".join(texts(getattr(large[name], split))) for split in ("train", "test"))
        for values in lists:
            assert all(value in train for value in values[: -words.HELD_OUT])
            assert not any(value in train for value in values[-words.HELD_OUT :])
            assert all(value in test for value in values)


def test_texts_have_a_paragraphs_length_whatever_the_label(large):
    for data in large.values():
        lengths = {label: [] for label in data.task.labels}
        for example in (*data.train, *data.test):
            lengths[example.label].append(len(example.text.split()))
        means = [sum(values) / len(values) for values in lengths.values()]
        assert max(means) - min(means) < 3
        assert 12 <= min(map(min, lengths.values())) <= max(map(max, lengths.values())) <= 45


def test_words_decide_topic_and_sentiment_but_not_inference_or_same_meaning(large):
    assert bag_of_words(large["topic"]) > 0.9
    assert bag_of_words(large["sentiment"]) > 0.8
    assert bag_of_words(large["inference"]) < 0.6
    assert bag_of_words(large["same-meaning"]) < 0.6


def test_the_default_size_is_enough_to_learn_topic_and_sentiment_from_words(stream):
    assert bag_of_words(stream["topic"]) > 0.8
    assert bag_of_words(stream["sentiment"]) > 0.7


def test_a_review_has_opinions_of_its_label(large):
    for example in large["sentiment"].train:
        values = [v for part in words.OPINIONS[example.label].values() for v in part]
        assert any(value in example.text for value in values)


def test_inference_labels_follow_from_the_events(large):
    """The label again, from the words of the pair alone."""
    restated, told = {}, {}
    for number, event in enumerate(words.EVENTS):
        did, same, instead, same_instead, _ = event.split(" | ")
        told |= {did: (number, 0), instead: (number, 1)}
        restated |= {same: (number, 0), same_instead: (number, 1)}
    denials = Counter()
    for example in (*large["inference"].train, *large["inference"].test):
        premise, hypothesis = ONE_EVENT.fullmatch(example.text).groups()
        (event,) = [value for phrase, value in told.items() if phrase in premise]
        denied = "did not" in hypothesis
        said = []
        for phrase, value in restated.items():
            verb, rest = phrase.split(" ", 1)
            past, infinitive = verb.split("/")
            if (f"did not {infinitive} {rest}" if denied else f" {past} {rest}") in hypothesis:
                said.append(value)
        (number, side) = said[0] if said else (None, 0)
        expected = "neutral"
        if number == event[0]:
            expected = "entailment" if (side == event[1]) != denied else "contradiction"
        assert example.label == expected
        denials[example.label, denied] += 1
    for label in large["inference"].task.labels:
        assert min(denials[label, True], denials[label, False]) > 20
    best = sum(
        max(denials[label, denied] for label in large["inference"].task.labels)
        for denied in (True, False)
    )
    assert best / denials.total() < 0.6  # whoever looks for "not" alone


def deal_told(sentence: str) -> tuple[object, ...]:
    """Deal, giver, taker, object and time, from the words of a sentence."""
    sides = {deal[i]: (deal, i == 0) for deal in words.DEALS for i in (0, 2)}
    verb = max((verb for verb in sides if has(sentence, verb)), key=len)  # "got back" has "got"
    deal, giver_first = sides[verb]
    people = sorted((p for p in words.PEOPLE if has(sentence, p)), key=sentence.index)
    assert len(people) == 2
    giver, taker = people if giver_first else reversed(people)
    what, when = (
        next(pair for pair in pairs if any(has(sentence, wording) for wording in pair))
        for pairs in (words.OBJECTS, words.TIMES)
    )
    return deal, giver, taker, what, when


def test_same_meaning_labels_follow_from_the_deals(large):
    """The label again, from the words of the pair alone; they are shared under both labels."""
    shared: dict[str, list[float]] = {"True": [], "False": []}
    for example in (*large["same-meaning"].train, *large["same-meaning"].test):
        first, second = TWO_DEALS.fullmatch(example.text).groups()
        assert example.label == str(deal_told(first) == deal_told(second))
        a, b = (Counter(normalise(sentence).split()) for sentence in (first, second))
        shared[example.label].append((a & b).total() / min(a.total(), b.total()))
    true, false = (sum(values) / len(values) for values in shared.values())
    assert false > 0.5
    assert true - false < 0.1
