"""What requests may hold: `/predict`, and OpenAI's forms for text."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = str | list[dict[str, Any]]
"""A text, or a conversation."""


class PredictForm(BaseModel):
    """`POST /predict`: `text` or `texts`, of a task or of the one that the method finds."""

    model_config = ConfigDict(extra="forbid")

    text: Text | None = None
    texts: list[Text] | None = None
    task: str | None = None
    free: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> PredictForm:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give text or texts")
        return self

    def asked(self) -> list[Text]:
        """The texts."""
        return [self.text] if self.text is not None else self.texts or []


class StreamOptions(BaseModel):
    """What a stream ends with."""

    include_usage: bool = False


class _Form(BaseModel):
    """What both of OpenAI's forms have. Other keys are theirs, and change nothing here."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: Literal[1] = 1

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, given: Any) -> Any:
        """Clients send null for what they do not set."""
        if isinstance(given, dict):
            return {key: value for key, value in given.items() if value is not None}
        return given

    def stops(self) -> list[str]:
        """The texts before which an answer is cut."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class ChatForm(_Form):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[Any] = Field([], max_length=0)
    logprobs: Literal[False] = False


class CompletionForm(_Form):
    """`POST /v1/completions`."""

    prompt: str | list[str]
    logprobs: None = None
    echo: Literal[False] = False
    suffix: None = None

    def prompts(self) -> list[str]:
        """The texts to go on from."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt
