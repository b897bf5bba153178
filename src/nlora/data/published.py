"""Streams of other papers: their tasks, their orders, and how each task is measured.

trace        TRACE (Wang et al. 2023): eight tasks, 5,000 to train on and 2,000 to test on each
superni-15   SAPT (Zhao et al. 2024): fifteen tasks of Super-NaturalInstructions

Converted (`nlora.data.convert`), a task is a folder `<Group>/<Task>` with `task.json`: its
instruction and its metric. Their answers are free text.
"""

TRACE: dict[str, str] = {
    "C-STANCE": "verbatim",
    "FOMC": "verbatim",
    "MeetingBank": "rouge-l",
    "Py150": "edit-similarity",
    "ScienceQA": "choice",
    "NumGLUE-cm": "verbatim",
    "NumGLUE-ds": "verbatim",
    "20Minuten": "sari",
}
"""TRACE's tasks in its first order, and what each is measured by."""

SUPERNI: tuple[str, ...] = (
    "task1572_samsum_summary",
    "task363_sst2_polarity_classification",
    "task1290_xsum_summarization",
    "task181_outcome_extraction",
    "task002_quoref_answer_generation",
    "task1510_evalution_relation_extraction",
    "task639_multi_woz_user_utterance_generation",
    "task1729_personachat_generate_next",
    "task073_commonsenseqa_answer_generation",
    "task1590_diplomacy_text_generation",
    "task748_glucose_reverse_cause_event_detection",
    "task511_reddit_tifu_long_text_summarization",
    "task591_sciq_answer_generation",
    "task1687_sentiment140_classification",
    "task875_emotion_classification",
)
"""SAPT's tasks in its first order; all are measured by ROUGE-L of stems."""

_SECOND = (10, 8, 9, 6, 0, 13, 12, 1, 5, 7, 3, 11, 4, 2, 14)

GROUPS: dict[str, tuple[str, ...]] = {"TRACE": tuple(TRACE), "SuperNI": SUPERNI}
"""The tasks of each group, by the names of their folders."""

METRICS: dict[str, str] = TRACE | dict.fromkeys(SUPERNI, "rouge-l-stem")

FOLDERS: dict[str, str] = {
    task.lower(): f"{group}/{task}" for group, tasks in GROUPS.items() for task in tasks
}
"""The folder of each task, by its name in a stream."""

ORDERS: dict[str, tuple[str, ...]] = {
    "trace": tuple(task.lower() for task in TRACE),
    "superni-15": SUPERNI,
    "superni-15-order-2": tuple(SUPERNI[i] for i in _SECOND),
}
SOURCES: dict[str, str] = {"trace": "TRACE", "superni-15": "SuperNI"}
"""The group that each of the published collections becomes."""
