"""Methods with settings of their own, as one text: the names that a comparison gives them."""

import re


def split_labels(text: str) -> list[str]:
    """The labels of a list: a part that is a setting belongs to the label before it.

    >>> split_labels("n-lora:l1=[0.1,0.2],rank=4, inc-lora:routing=input,mtl")
    ['n-lora:l1=[0.1,0.2],rank=4', 'inc-lora:routing=input', 'mtl']
    """
    labels: list[str] = []
    for part in split_settings(text):
        if labels and ":" in labels[-1] and "=" in part.partition(":")[0]:
            labels[-1] += f",{part}"
        else:
            labels.append(part)
    return labels


def split_settings(text: str) -> list[str]:
    """Split at commas outside brackets.

    >>> split_settings("l1=[0.1,0.2], rank=4")
    ['l1=[0.1,0.2]', 'rank=4']
    """
    return [part.strip() for part in re.split(r",(?![^\[(]*[\])])", text)]
