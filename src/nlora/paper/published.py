"""What the paper reports: the numbers of its tables, and those that its figures are told with.

*Is Parameter Collision Hindering Continual Learning in LLMs?* (N-LoRA), by our names of methods
and streams. Averages are not here: three of the printed ones are not the means of their rows
(SeqLoRA on 15 tasks 1.37, not 1.6; L2P on 4 tasks 61.0, not 60.7; Table 4's gain on order 3 2.8,
not 3.2).
"""

from collections.abc import Sequence

STANDARD = ("order-1", "order-2", "order-3")
LARGE = ("order-4", "order-5", "order-6")
ORDERS = (*STANDARD, *LARGE)

Rows = dict[str, dict[str, float]]
"""By method, by order."""


def _rows(streams: Sequence[str], values: dict[str, tuple[float, ...]]) -> Rows:
    return {name: dict(zip(streams, row, strict=True)) for name, row in values.items()}


TABLE_1: Rows = _rows(
    ORDERS,
    {
        "prog-prompt": (75.2, 75.0, 75.1, 78.0, 77.7, 77.9),
        "per-task": (70.0, 70.0, 70.0, 78.1, 78.1, 78.1),
        "mtl": (80.0, 80.0, 80.0, 76.5, 76.5, 76.5),
        "seq-ft": (18.9, 24.9, 41.7, 7.4, 7.4, 7.5),
        "seq-lora": (44.6, 32.7, 53.7, 0.6, 1.9, 1.6),
        "inc-lora": (66.0, 64.9, 68.3, 63.3, 58.5, 61.7),
        "replay": (55.2, 56.9, 61.3, 55.0, 54.6, 53.1),
        "ewc": (48.7, 47.7, 54.5, 45.3, 44.5, 45.6),
        "lwf": (54.4, 53.1, 49.6, 50.1, 43.1, 47.4),
        "l2p": (60.3, 61.7, 61.1, 57.5, 53.8, 56.9),
        "lfpt5": (67.6, 72.6, 77.9, 70.4, 68.2, 69.1),
        "o-lora": (75.4, 75.7, 76.3, 72.3, 64.8, 71.6),
        "n-lora": (79.2, 78.4, 78.8, 73.6, 70.3, 73.2),
    },
)
"""Average accuracy, T5-large."""

TABLE_2: Rows = _rows(STANDARD, {"o-lora": (76.8, 75.7, 75.7), "n-lora": (77.2, 77.3, 78.4)})
"""Average accuracy, LLaMA-7B."""

TABLE_3: dict[str, Rows] = {
    "OO": _rows(
        ORDERS,
        {
            "o-lora": (21.00, 20.50, 20.13, 30.75, 31.38, 34.50),
            "n-lora": (3.80, 4.16, 3.42, 13.94, 11.06, 2.47),
        },
    ),
    "AWOM": _rows(
        ORDERS,
        {
            "o-lora": (55.42, 126.25, 118.75, 14.40, 14.40, 6.57),
            "n-lora": (0.13, 0.17, 0.15, 0.19, 0.19, 0.03),
        },
    ),
}
"""Overlap of updates (Eqs. 7 and 8), T5-large."""

TABLE_4: Rows = _rows(
    ORDERS,
    {
        "o-lora": (75.4, 75.7, 76.3, 72.3, 64.8, 71.6),
        "o-lora+n-lora": (79.7, 79.8, 79.1, 72.9, 67.2, 74.0),
    },
)
"""Average accuracy, T5-large."""

FIGURE_1C = {"nuclear norm": 6.80 / 0.14, "OO": 4.1, "ACR": 58.1, "accuracy": 2.9}
"""How many times lower than O-LoRA's, and points of average accuracy above it (Section 1)."""

FIGURE_2 = {"o-lora": {"average": 48.5, "OO": 14.9}, "n-lora": {"average": 58.2, "OO": 2.8}}
"""Accuracy and overlap of the two methods whose parameters it shows."""

FIGURE_3 = {"o-lora": 6.80, "n-lora": 0.14}
"""Nuclear norm, the mean over layers, first task of order 1."""

FIGURE_4 = {"n-lora": 49.54, "o-lora": 49.54 - 19.78}
"""Accuracy on the task that is not learned yet, the mean over orders (Section 4.3)."""

FIGURE_5 = {"n-lora": 2.37, "o-lora": 4.20}
"""Forgetting in points, the mean over orders (Section 4.4)."""
