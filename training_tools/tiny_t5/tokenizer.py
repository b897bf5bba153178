"""The teacher's wordpieces as a tokenizer that gives back the text, T5-style.

BERT's tokenizer forgets where spaces stood beside punctuation ("e-mail" comes back as "e - mail"),
so an answer might not equal its label. Here every punctuation mark has four tokens, with and
without a space before and after it (written "▁"); words are the teacher's, and each token has one
of the teacher's, so that the two models read the same sequence.
"""

import string

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
SIZE = 24_576
_SPACE = "▁"
_MARK = "[!-/:-@\\[-`{-~]"  # ASCII punctuation
_PLAIN = (("[‘’‛ʼ]", "'"), ("[“”„«»]", '"'), ("[‐‑‒–—―−]", "-"), ("…", "..."))


def vocabulary(teacher: dict[str, int]) -> dict[str, int]:
    """Our tokens in order, with the teacher's id of each.

    Kept are special tokens, punctuation and the teacher's most frequent ASCII wordpieces: its
    vocabulary is sorted by frequency, and `SIZE` cuts off the rarest.
    """
    tokens = {PAD: "[PAD]", EOS: "[SEP]", UNK: "[UNK]"}
    for mark in string.punctuation:
        for token in (mark, _SPACE + mark, mark + _SPACE, _SPACE + mark + _SPACE):
            tokens[token] = mark
    for token in sorted(teacher, key=teacher.__getitem__):
        if token.isascii() and token.removeprefix("##").isalnum() and len(tokens) < SIZE:
            tokens[token] = token
    return {token: teacher[theirs] for token, theirs in tokens.items()}


def build(teacher: dict[str, int]) -> PreTrainedTokenizerFast:
    """A fast tokenizer over `vocabulary`; every text ends with the end token, as T5's do."""
    ids = {token: i for i, token in enumerate(vocabulary(teacher))}
    raw = Tokenizer(models.WordPiece(vocab=ids, unk_token=UNK, max_input_chars_per_word=100))
    raw.normalizer = normalizers.Sequence(
        [
            *(normalizers.Replace(Regex(pattern), plain) for pattern, plain in _PLAIN),
            normalizers.BertNormalizer(
                clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
            ),
            normalizers.Strip(),
            normalizers.Replace(Regex(r"\s+"), _SPACE),
        ]
    )
    raw.pre_tokenizer = pre_tokenizers.Split(
        Regex(f"{_SPACE}?{_MARK}{_SPACE}?|[^{_SPACE}{_MARK[1:]}+"), behavior="removed", invert=True
    )
    raw.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace(Regex(f"(?<={_edge()}) | (?={_edge()})"), ""),
            decoders.Replace(_SPACE, " "),
        ]
    )
    raw.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, ids[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=512,
    )


def _edge() -> str:
    return _MARK[:-1] + _SPACE + "]"
