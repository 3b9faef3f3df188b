"""The shapes in which rows hold conversations, and the search for the shape of a source by its first row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune_trainer.config.conversation import ConversationConfig, ConversationPreset
from finetune_trainer.config.data import ColumnsConfig
from finetune_trainer.config.objectives.chat import AnswerKind
from finetune_trainer.data.conversations.messages import MessageKeys, MessageParser, as_messages, find_keys

MESSAGE_COLUMNS = ("messages", "conversations", "conversation")
INSTRUCTION_COLUMNS = ("instruction",)
OUTPUT_COLUMNS = ("output", "response", "completion", "answer")
PROMPT_COLUMNS = ("prompt", "question", "query", "input")
COMPLETION_COLUMNS = ("completion", "response", "answer", "output")
PAIR_COLUMNS = (
    ("chosen", "rejected"), ("chosen_messages", "rejected_messages"), ("chosen_response", "rejected_response"),
    ("chosen_conversations", "rejected_conversations"),
)  # fmt: skip
INPUT_COLUMNS = {"instruction": ("input", "context"), "question": ("context",)}
"""The columns whose text continues that of a question's column."""
HISTORY_COLUMNS = ("history",)
SYSTEM_COLUMNS = ("system", "system_prompt")
TOOLS_COLUMNS = ("tools", "functions")
OPTIONS_COLUMNS = ("chat_template_kwargs",)  # TRL's name of them
TEMPLATE_PARTS = (
    "system",
    "tools",
    "history",
    "template_options",
)  # parts that only a chat template can write in addition to a text

Values = Mapping[str, Any]


def first_present(columns: Sequence[str], values: Values) -> str | None:
    """The first of the columns that a row has, preferably one that is not null."""
    present = [column for column in columns if column in values]
    return next((column for column in present if values[column] is not None), present[0] if present else None)


@dataclass(frozen=True)
class Shape:
    """Where the rows of a source hold the parts of a conversation."""

    preset: ConversationPreset
    parser: MessageParser
    question: str | None
    """The column of the conversation, or of what comes before the answers; None where the answers share their beginning."""
    answers: Mapping[str, str] = field(default_factory=dict)
    """The column of `completion`, or those of `chosen` and `rejected`; none where the question is the whole conversation."""
    optional: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """For each part that a row may have, the columns that may hold it."""
    texts_are_turns: bool = True
    """Whether texts are turns of a conversation, rather than a prompt and its continuation."""

    def optional_column(self, part: str, values: Values) -> str | None:
        """The column of the row that holds an optional part, None for none."""
        column = first_present(self.optional.get(part, ()), values)
        value = None if column is None else values[column]
        is_missing = value is None or value != value  # pandas writes NaN for what a row lacks
        return None if is_missing else column

    def missing_columns(self, values: Values) -> Iterator[str]:
        """The columns that the row must have and does not."""
        for column in (self.question, *self.answers.values()):
            if column is not None and column not in values:
                yield column

    def columns(self, values: Values) -> dict[str, str]:
        """The columns that are read from a row, by what they hold."""
        columns = {} if self.question is None else {"prompt" if self.answers else "messages": self.question}
        columns |= self.answers
        for part in self.optional:
            if column := self.optional_column(part, values):
                columns[part] = column
        return columns


@dataclass(frozen=True)
class ShapeFinder:
    """Finds the shape of a source by its first row, within what the document says about it."""

    columns: ColumnsConfig
    conversation: ConversationConfig
    answers: AnswerKind

    @property
    def named_roles(self) -> list[str]:
        """The roles whose columns the document names; optional ones, which a row may lack, are not among them."""
        roles = ("messages", "prompt", "completion") if self.answers == "completion" else ("prompt", "chosen", "rejected")
        return [role for role in roles if self._is_named(role)]

    def find(self, values: Values) -> Shape | None:
        """The shape of a row, None if it has none that is known, or not the one that the document names."""
        return self._find_pair(values) if self.answers == "pair" else self._find_conversation(values)

    def _find_conversation(self, values: Values) -> Shape | None:
        preset = self.conversation.preset
        if preset == "PromptCompletion" or (preset == "Auto" and self._is_named("prompt")):
            return self._find_prompt(values)
        if preset == "Alpaca":
            return self._find_alpaca(values)
        for column in self._candidates("messages", MESSAGE_COLUMNS):
            if column in values and (preset != "Auto" or self._is_named("messages") or as_messages(values[column])):
                return self._shape(preset, values, column)
        if preset != "Auto":
            return None
        found = self._find_alpaca(values) or self._find_prompt(values)
        if found is None and any(column in values for column in MESSAGE_COLUMNS):
            # Its messages are not of a known form: reading them says why.
            return self._shape(preset, values, next(column for column in MESSAGE_COLUMNS if column in values))
        return found

    def _find_alpaca(self, values: Values) -> Shape | None:
        instruction = first_present(self._candidates("prompt", INSTRUCTION_COLUMNS), values)
        output = first_present(self._candidates("completion", OUTPUT_COLUMNS), values)
        if instruction is None or output is None:
            return None
        return self._shape("Alpaca", values, instruction, {"completion": output})

    def _find_prompt(self, values: Values) -> Shape | None:
        prompt = first_present(self._candidates("prompt", PROMPT_COLUMNS), values)
        completion = first_present(self._candidates("completion", COMPLETION_COLUMNS), values)
        if prompt is None or completion is None:
            return None
        return self._shape("PromptCompletion", values, prompt, {"completion": completion})

    def _find_pair(self, values: Values) -> Shape | None:
        pairs: Sequence[tuple[str, str]] = PAIR_COLUMNS
        if self._is_named("chosen") or self._is_named("rejected"):
            pairs = ((self.columns.chosen, self.columns.rejected),)
        for chosen, rejected in pairs:
            if chosen in values and rejected in values:
                return self._pair_shape(values, {"chosen": chosen, "rejected": rejected})
        return None

    def _pair_shape(self, values: Values, answers: Mapping[str, str]) -> Shape:
        if self._is_named("prompt"):
            question: str | None = self.columns.prompt
        elif self._is_named("messages"):
            question = self.columns.messages
        else:
            usual = ("prompt", *MESSAGE_COLUMNS, *INSTRUCTION_COLUMNS, *PROMPT_COLUMNS)
            question = first_present(usual, values)
        preset = self.conversation.preset
        shown = [values.get(column) for column in (question, *answers.values()) if column]
        if preset == "Auto" and not any(map(as_messages, shown)):
            preset = "Alpaca" if question in INSTRUCTION_COLUMNS else "PromptCompletion"
        return self._shape(preset, values, question, answers)

    def _shape(
        self, preset: ConversationPreset, values: Values, question: str | None, answers: Mapping[str, str] | None = None
    ) -> Shape:  # fmt: skip
        """The shape with these columns; for the preset Auto its messages are the kind of the row's."""
        answers = answers or {}
        keys = self._keys(values, question, answers)
        if preset == "Auto":
            preset = "ShareGPT" if keys.role == "from" else "Messages"
        optional = self._optional(question)
        has_instructions = any(column in values for part in TEMPLATE_PARTS for column in optional[part])
        return Shape(
            preset, MessageParser(keys, self.conversation.roles), question, answers, optional,
            texts_are_turns=preset != "PromptCompletion" or has_instructions,
        )  # fmt: skip

    def _optional(self, question: str | None) -> dict[str, Sequence[str]]:
        return {
            "input": INPUT_COLUMNS.get(question or "", ()),
            "history": HISTORY_COLUMNS,
            "system": self._candidates("system", SYSTEM_COLUMNS),
            "tools": self._candidates("tools", TOOLS_COLUMNS),
            "template_options": OPTIONS_COLUMNS,
        }

    def _keys(self, values: Values, question: str | None, answers: Mapping[str, str]) -> MessageKeys:
        """The keys of messages: the document's, those of its preset, or those of the row's first message."""
        found = MessageKeys("role", "content")
        if self.conversation.preset == "ShareGPT":
            found = MessageKeys("from", "value")
        elif self.conversation.preset != "Messages":
            for column in (question, *answers.values()):
                messages = as_messages(values.get(column)) if column else None
                if messages and (keys := find_keys(messages[0])):
                    found = keys
                    break
        return MessageKeys(self.conversation.role_key or found.role, self.conversation.content_key or found.content)

    def _is_named(self, role: str) -> bool:
        """Whether the document names the column of a role itself."""
        return bool(getattr(self.columns, role) != ColumnsConfig.model_fields[role].default)

    def _candidates(self, role: str, usual: Sequence[str]) -> Sequence[str]:
        """The columns that may hold a role: the document's, or the usual ones."""
        return (getattr(self.columns, role),) if self._is_named(role) else usual
