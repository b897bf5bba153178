"""A tokenizer that, like T5's, has no brace and no Cyrillic: what it can write is known before."""

import string

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import Example, Task, TaskData
from nlora.data.writable import check_writable
from nlora.errors import NloraError


@pytest.fixture(scope="module")
def encoder():
    pieces = ["<pad>", "</s>", "<unk>", " ", *string.ascii_letters]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    raw.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    return Encoder(tokenizer, Prompter(), encoder_decoder=True)


def data(labels, text="a good story"):
    task = Task("forms", "Which?", labels)
    return TaskData(task, (Example(task, text, labels[0]),), ())


def test_a_label_without_its_pieces_is_named(encoder):
    check_writable(encoder, [data(("good", "bad"))])
    for label, piece in (("{x}", "{"), ("да", "д")):
        with pytest.raises(NloraError, match=f"'forms': .* '{piece}' of label '{label}'"):
            check_writable(encoder, [data(("good", label))])


def test_texts_with_many_unknown_pieces_are_told_and_with_most_refused(encoder):
    told = []
    check_writable(encoder, [data(("good", "bad"), "so {{ and")], told.append)
    assert "unknown" in told[0]
    with pytest.raises(NloraError, match="unknown"):
        check_writable(encoder, [data(("good", "bad"), "{ { {")])
    task = Task("say", "What?")
    spoken = TaskData(task, (Example(task, "a good story", "да"),), ())
    with pytest.raises(NloraError, match="100% of the tokens of its answers are unknown"):
        check_writable(encoder, [spoken])


def test_a_label_that_is_written_otherwise_is_named(encoder):
    with pytest.raises(NloraError, match="writes label 'négatif' as 'negatif', so no answer"):
        check_writable(encoder, [data(("positif", "négatif"))])
    check_writable(encoder, [data(("Positif", "negatif"))])
    told, task = [], Task("say", "What?")
    spoken = TaskData(task, tuple(Example(task, "a story", s) for s in ("oui", "déjà")), ())
    check_writable(encoder, [spoken], told.append)
    assert told == [
        "task 'say': the model's tokenizer writes 50% of its answers otherwise ('déjà' as 'deja'), "
        "so they cannot be given exactly"
    ]
