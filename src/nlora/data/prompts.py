"""The prompts of Table 6, in the paper's form and in the form that the released code uses.

paper:     "{instruction}\\nOption: {labels} \\n{text}\\nAnswer:"
released:  the same behind "Task:{group}\\nDataset:{dataset}\\n", which tells the model, in training
           and in test, which data set it sees; the paper's table has no such prefix.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from nlora.data.chat import ChatForm
from nlora.data.messages import asked
from nlora.data.task import Task
from nlora.errors import NloraError

PromptForm = Literal["paper", "released"]

ANSWER = "\nAnswer:"

_CHOOSE = "Choose one from the option."

INSTRUCTIONS: dict[str, str | None] = {
    "NLI": 'What is the logical relationship between the "sentence 1" and the "sentence 2"? '
    f"{_CHOOSE}",
    "QQP": 'Whether the "first sentence" and the "second sentence" have the same meaning? '
    f"{_CHOOSE}",
    "SC": f"What is the sentiment of the following paragraph? {_CHOOSE}",
    "TC": f"What is the topic of the following paragraph? {_CHOOSE}",
    "BoolQA": f"According to the following passage, is the question true or false? {_CHOOSE}",
    "MultiRC": "According to the following passage and question, is the candidate answer true or "
    f"false? {_CHOOSE}",
    "WiC": "Given a word and two sentences, whether the word is used with the same sense in both "
    f"sentence? {_CHOOSE}",
    "COPA": None,
}
"""Table 6 by group of the benchmark. COPA has no row there: its text asks the question itself."""


@dataclass(frozen=True)
class Prompter:
    """Turns a task and a text into a prompt, and says what stands between prompt and answer.

    `tokenizer` is needed only for `chat`, which wraps the prompt in the model's chat template, and
    for tasks of chats.
    """

    form: PromptForm = "paper"
    chat: bool = False
    tokenizer: Any = None

    def __post_init__(self) -> None:
        if self.chat and not self.tokenizer.chat_template:
            raise NloraError("the model's tokenizer has no chat template; leave chat=false")

    def head(self, task: Task) -> str:
        """All that stands before the text: the same for every example of a task.

        Labels stand in an option line, but for the group of the benchmark whose text asks the
        question itself (COPA).
        """
        head = f"Task:{task.group}\nDataset:{task.dataset}\n" if self.form == "released" else ""
        if task.instruction is not None:
            head += task.instruction + "\n"
        if task.labels is not None and INSTRUCTIONS.get(task.group, "") is not None:
            head += f"Option: {', '.join(task.labels)} \n"
        return head

    def prompt(self, task: Task, text: str) -> str:
        """The whole prompt, up to and with "Answer:" (and the template's turn of the assistant).

        Of a task of chats all turns, up to where the answer begins. Raises NloraError if the chat
        template refuses them.
        """
        if task.chat:
            return self.chats.prompt(asked(task, text))
        prompt = self.head(task) + text.rstrip("\n") + ANSWER
        if not self.chat:
            return prompt
        return self.chats.prompt([{"role": "user", "content": prompt}])

    @cached_property
    def chats(self) -> ChatForm:
        """How the model reads conversations."""
        return ChatForm(self.tokenizer)

    def templated(self, chat: bool) -> bool:
        """Whether prompts of a task, one of chats or not, go through the model's template."""
        return self.chat or (chat and self.chats.templated)

    def around_answer(self, chat: bool) -> tuple[str, str, str]:
        """What stands before an answer, and the blanks before and after it."""
        if chat:
            return self.chats.before_answer, self.chats.gap, self.chats.tail
        if self.chat:
            return self.prompt(Task(""), ""), self.chats.gap, self.chats.tail
        return ANSWER.strip(), " ", ""
