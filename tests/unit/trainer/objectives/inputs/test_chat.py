"""Chat templates: the tokens to learn in the templates of common model families, and parts that a template leaves out."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import trl
from tests.support import tiny

from finetune_trainer.data.records.row import Row
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.inputs.chat import ChatRenderer, RenderedChat
from finetune_trainer.objectives.inputs.chat_coverage import Conversation
from finetune_trainer.objectives.inputs.chat_template import DEFAULT_TEMPLATE, ChatTemplate, tools_template
from finetune_trainer.objectives.instruction_tuning import InstructionTuning
from finetune_trainer.protocol.outcome import DataError

ASKED, ANSWERED, ENDED = (f"<\uff5c{word}\uff5c>" for word in ("User", "Assistant", "end▁of▁sentence"))  # DeepSeek's
SPECIAL = [
    "<|user|>", "<|assistant|>",
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end|>",
    "<start_of_turn>", "<end_of_turn>", "</s>", "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>",
    ASKED, ANSWERED, ENDED, "[INST]", "[/INST]",
]  # fmt: skip
USER, SYSTEM = {"role": "user", "content": "May I?"}, {"role": "system", "content": "Be brief."}
YES, WHY, WHY_NOT = (
    {"role": "assistant", "content": "Yes,\n\n  you may."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Why not?"},
)
TURNS = [USER, YES, WHY, WHY_NOT]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris", "days": 2}}}
CALLING = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "sunny"}, YES]
EACH = "{% for m in messages %}"
PROMPT = "{% if add_generation_prompt %}"

WRITTEN = {
    "ChatML": EACH + "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    + PROMPT + "{{ '<|im_start|>assistant\n' }}{% endif %}",
    "Llama 2": "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "Mistral 0.1": EACH + "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ m.content + eos_token + ' ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
    "Mistral 0.3": "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% endif %}{% set questions = turns | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in turns %}{% if m.role == 'user' %}"
    "{% if m == questions[-1] and system is defined %}{{ '[INST] ' + system + '\n\n' + m.content + '[/INST]' }}"
    "{% else %}{{ '[INST] ' + m.content + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}",
    "Mistral 7": EACH + "{% if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}"
    "{% elif m.role == 'system' %}{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
    "Phi 4": EACH + "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
    + PROMPT + "{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
    "Zephyr": EACH + "{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}",
    "OLMo": EACH + "{% if m.role == 'assistant' %}{{ '<|assistant|>\n' + m.content + eos_token }}"
    "{{ '' if loop.last else '\n' }}{% else %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}",
    "Granite": EACH + "{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}{% endfor %}"
    + PROMPT + "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
    "SmolLM": EACH + "{% if loop.first and m.role != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    + PROMPT + "{{ '<|im_start|>assistant\n' }}{% endif %}",
    "DeepSeek 2": EACH + "{% if m.role == 'user' %}{{ 'User: ' + m.content + '\n\n' }}"
    "{% elif m.role == 'assistant' %}{{ 'Assistant: ' + m.content + eos_token }}{% else %}{{ m.content + '\n\n' }}{% endif %}"
    "{% endfor %}" + PROMPT + "{{ 'Assistant:' }}{% endif %}",
    "DeepSeek R1": EACH + "{% if m.role == 'user' %}{{ '" + ASKED + "' + m.content }}"
    "{% elif m.role == 'system' %}{{ m.content }}{% else %}"
    "{{ '" + ANSWERED + "' + m.content.split('</think>')[-1] + '" + ENDED + "' }}{% endif %}{% endfor %}"
    + PROMPT + "{{ '" + ANSWERED + "<think>\n' }}{% endif %}",
    "instruction after the last answer": "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}{% for m in turns %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + (system if loop.last and system else '') + m.content + '[/INST]' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
    "ends only the last turn": EACH + "{{ '\n' if not loop.first else '' }}{{ m.role + ': ' + m.content }}"
    "{% if loop.last and not add_generation_prompt %}{{ eos_token }}{% endif %}{% endfor %}"
    + PROMPT + "{{ '\nassistant: ' }}{% endif %}",
}  # fmt: skip
"""Templates as the families write them; None of them marks the assistant's words."""
ENDS = {
    "ChatML": "<|im_end|>\n", "Llama 2": " </s>", "Mistral 0.1": "</s> ", "Mistral 0.3": "</s>", "Mistral 7": "</s>",
    "Phi 4": "<|im_end|>", "Zephyr": "</s>\n", "OLMo": "</s>", "Granite": "<|end_of_text|>\n", "SmolLM": "<|im_end|>\n",
    "DeepSeek 2": "</s>", "DeepSeek R1": ENDED, "ends only the last turn": "</s>",
    "llama3": "<|eot_id|>", "llama3_1": "<|eot_id|>", "llama3_2": "<|eot_id|>", "qwen2_5": "<|im_end|>\n",
    "qwen3": "<|im_end|>\n", "qwen3_instruct_2507": "<|im_end|>\n", "gemma": "<end_of_turn>\n", "gemma3": "<end_of_turn>\n",
    "phi3": "<|end|>\n", "phi3_5": "<|end|>\n", "deepseekv3": ENDED,
    "deepseek_r1_distill": ENDED,
}  # fmt: skip
"""The end of a turn in each template, by name; lower-case names are files of trl."""


def template(name: str) -> str:
    return WRITTEN[name] if name in WRITTEN else (Path(trl.__file__).parent / f"chat_templates/{name}.jinja").read_text()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    words = [message["content"] for message in (*TURNS, SYSTEM)] * 4
    trained = tokenizer_training.train_tokenizer(words, 300)
    trained.add_special_tokens({"additional_special_tokens": SPECIAL, "bos_token": "<s>", "eos_token": "</s>"})
    return trained


def renderer(tokenizer: Any, source: str) -> ChatRenderer:
    options = {"type": "InstructionTuning", "instructionTuning": {"chatTemplate": source}}
    return InstructionTuning.from_spec(tiny.spec(objective=options), tokenizer).encoder.renderer


def render(tokenizer: Any, source: str, messages: Any, tools: Any = (), **options: Any) -> list[RenderedChat]:
    learned = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    row = Row({"messages": messages, "tools": tools}, "rows.jsonl:7", {"messages": "messages", "tools": "tools"})
    return renderer(tokenizer, source).render(Conversation(messages, tools), row, "messages", learned, **options)


def learnt(tokenizer: Any, source: str, messages: Any, tools: Any = ()) -> list[str]:
    """The learned tokens of each example, decoded."""
    chats = render(tokenizer, source, messages, tools)
    tokens = renderer(tokenizer, source).tokenize(chats)
    return [str(tokenizer.decode(ids[mask == 1])) for ids, mask in tokens]


def answers(name: str) -> list[str]:
    """What a model of the family says to the two questions, with the end of each turn."""
    words = [YES["content"], WHY_NOT["content"]]
    if name == "Llama 2" or name == "Mistral 0.3" or name == "DeepSeek 2":
        words = [f" {word}" for word in words]
    elif name == "qwen3":
        words = [f"<think>\n\n</think>\n\n{word}" for word in words]
    return [word + ENDS[name] for word in words]


@pytest.mark.parametrize("name", ENDS)
def test_learns_exactly_the_answers_and_their_ends(name: str, tokenizer: Any) -> None:
    found = learnt(tokenizer, template(name), TURNS)
    first, second = answers(name)
    if name == "ends only the last turn":
        assert found == [first, second], "each answer is an example of its own, in which it is the last"
    elif name in ("phi3", "phi3_5"):
        assert found == [first + second + "</s>"]
    else:
        assert found == [first + second]


@pytest.mark.parametrize("name", ENDS)
def test_learns_them_without_the_markers_of_a_known_template(name: str, tokenizer: Any) -> None:
    """With a comment, trl does not know its own templates."""
    found = learnt(tokenizer, "{# of our own #}" + template(name), [USER, YES])
    end = "</s>" if name in ("phi3", "phi3_5") else ""
    assert found == [answers(name)[0] + end]


def test_instruction_in_the_last_question_gives_an_example_for_each_answer(tokenizer: Any) -> None:
    chats = render(tokenizer, WRITTEN["Mistral 0.3"], [SYSTEM, *TURNS])
    assert [chat.text for chat in chats] == [
        "[INST] Be brief.\n\nMay I?[/INST] Yes,\n\n  you may.</s>",
        "[INST] May I?[/INST] Yes,\n\n  you may.</s>[INST] Be brief.\n\nWhy?[/INST] Why not?</s>",
    ]
    assert [chat.text[slice(*chat.answers[0])] for chat in chats] == [" Yes,\n\n  you may.</s>", " Why not?</s>"]


def test_reasoning_that_the_history_loses_is_learned_where_it_is_last(tokenizer: Any) -> None:
    thinking = [USER, YES | {"reasoning_content": "Hm."}, WHY, WHY_NOT | {"reasoning_content": "Well."}]
    found = learnt(tokenizer, "{# of our own #}" + template("qwen3"), thinking)
    assert found == [
        "<think>\nHm.\n</think>\n\nYes,\n\n  you may.<|im_end|>\n", "<think>\nWell.\n</think>\n\nWhy not?<|im_end|>\n",
    ]  # fmt: skip
    inline = [USER, YES | {"content": "<think>\nHm.\n</think>\n\nYes."}, WHY, WHY_NOT]
    found = learnt(tokenizer, "{# of our own #}" + template("qwen3"), inline)
    assert found[0] == "<think>\nHm.\n</think>\n\nYes.<|im_end|>\n"


@pytest.mark.parametrize("name", ["ChatML", "Zephyr", "Granite", "llama3"])
def test_conversation_may_begin_with_the_assistant(name: str, tokenizer: Any) -> None:
    assert learnt(tokenizer, "{# of our own #}" + template(name), TURNS[1:]) == ["".join(answers(name))]


def test_templates_may_want_contents_in_parts(tokenizer: Any) -> None:
    source = EACH + "{{ m.role + ': ' }}{% for part in m.content %}{{ part.text }}{% endfor %}{{ eos_token }}{% endfor %}"
    found = learnt(tokenizer, source + PROMPT + "{{ 'assistant: ' }}{% endif %}", TURNS)
    assert found == [f"{YES['content']}</s>{WHY_NOT['content']}</s>"]


def test_tokenizer_may_have_a_template_for_tools(tokenizer: Any) -> None:
    several = copy.deepcopy(tokenizer)
    several.chat_template = {"default": WRITTEN["ChatML"], "tool_use": "tools {{ tools | length }}\n" + WRITTEN["ChatML"]}
    with_tools = ChatTemplate(WRITTEN["ChatML"], several.special_tokens_map, tools_template(several))
    assert with_tools.render(TURNS).text.startswith("<|im_start|>user")
    assert with_tools.render(TURNS, TOOLS).text.startswith("tools 1\n<|im_start|>user")


def test_whole_conversation_must_hold_all_reasoning(tokenizer: Any) -> None:
    thinking = [USER, YES | {"reasoning_content": "Hm."}, WHY, WHY_NOT]
    with pytest.raises(DataError, match=r"^rows.jsonl:7: column messages has in message 2 reasoning, .* set lossOn: Assistant"):
        render(tokenizer, "{# of our own #}" + template("qwen3"), thinking, whole=True)


def test_row_may_set_variables_of_the_template(tokenizer: Any) -> None:
    source = "{{ mood }}\n" + WRITTEN["ChatML"]
    row = Row({"messages": TURNS, "template_options": {}}, "a:1", {"messages": "m", "template_options": "kwargs"})
    own = renderer(tokenizer, source)
    [chat] = own.render(Conversation(TURNS, (), {"mood": "glad", "unknown": False}), row, "messages", [1, 3])
    assert chat.text.startswith("glad\n<|im_start|>user")
    with pytest.raises(
        DataError, match=r"^a:1: column kwargs holds xml_tools, which the chat template does not read: remove it"
    ):
        own.render(Conversation(TURNS, (), {"mood": "glad", "xml_tools": ["a"]}), row, "messages", [1, 3])


def test_default_template_writes_everything(tokenizer: Any) -> None:
    [chat] = render(tokenizer, DEFAULT_TEMPLATE, [SYSTEM, *CALLING[:3], YES | {"reasoning_content": "Hm."}], TOOLS)
    assert chat.text == (
        f"tools\n{json.dumps(TOOLS[0])}\n</s>\n"
        "system\nBe brief.</s>\nuser\nMay I?</s>\n"
        'assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call></s>\n'
        "tool\nsunny</s>\nassistant\n<think>\nHm.\n</think>\n\nYes,\n\n  you may.</s>\n"
    )


def test_learns_tool_calls(tokenizer: Any) -> None:
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call></s>\n'
    assert learnt(tokenizer, DEFAULT_TEMPLATE, CALLING, TOOLS) == [f"{call}{YES['content']}</s>\n"]
    own = "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}" + EACH + (
        "<|{{ m.role }}|>{{ m.content if m.content else '' }}{% if m.tool_calls %}{% for c in m.tool_calls %}"
        "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}{% endif %}"
        "{{ eos_token }}{% endfor %}"
    )  # fmt: skip
    call = '<call>weather {"city": "Paris", "days": 2}</call></s>'
    assert learnt(tokenizer, own + PROMPT + "<|assistant|>{% endif %}", CALLING, TOOLS) == [f"{call}{YES['content']}</s>"]


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "llama3_1", "llama3_2", "deepseekv3", "glm4moe"])
def test_templates_write_arguments_as_json_once(name: str, tokenizer: Any) -> None:
    tools = () if name == "deepseekv3" else TOOLS  # it writes none
    source = template(name)
    unknown = [] if name in ("deepseekv3", "glm4moe") else ["{# of our own #}" + source]
    for given in (source, *unknown):
        [chat] = render(tokenizer, given, CALLING[:2], tools)
        expected = "<arg_key>city</arg_key>" if name == "glm4moe" else '{"city": "Paris", "days": 2}'
        assert expected in chat.text[slice(*chat.answers[0])]


PARTS = [
    ("ChatML", CALLING, (), "messages has in message 2 tool calls, which the chat template does not write"),
    ("ChatML", TURNS, TOOLS, "tools holds tools, which the chat template does not write"),
    ("ChatML", [USER, YES | {"reasoning_content": "Hm."}], (), "messages has in message 2 reasoning, which the chat template"),
    ("DeepSeek R1", [USER, YES | {"content": "<think>Hm.</think>Yes."}], (), "messages has in message 2 reasoning, which"),
    ("Mistral 0.1", [SYSTEM, *TURNS], (), "messages does not suit the chat template (Only user and assistant roles"),
    ("gemma", [SYSTEM, *TURNS], (), "messages does not suit the chat template (System role not supported)"),
    ("qwen3", [USER, {"role": "developer", "content": "x"}, YES], (), "messages has in message 2 a content of the developer,"),
    ("llama3_1", [USER, YES | {"tool_calls": [CALL]}], TOOLS, "messages has in message 2 a content of the assistant, which"),
    ("instruction after the last answer", [SYSTEM, USER, YES], (), "messages has in message 1 a content of the system, which"),
    ("deepseekv3", TURNS, TOOLS, "tools holds tools, which the chat template does not write"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "messages", "tools", "message"), PARTS, ids=[f"{part[0]}-{part[3][:40]}" for part in PARTS])
def test_refuses_what_the_template_leaves_out(name: str, messages: Any, tools: Any, message: str, tokenizer: Any) -> None:
    with pytest.raises(DataError) as raised:
        render(tokenizer, template(name), messages, tools)
    assert str(raised.value).startswith(f"rows.jsonl:7: column {message}")


def test_finds_parts_again_in_other_rows_of_the_same_form(tokenizer: Any) -> None:
    """The answer "weather" and the tool of that name: words of the row are not mistaken for what the template writes."""
    question = [USER, {"role": "assistant", "content": "weather"}]
    with pytest.raises(DataError, match="column tools holds tools"):
        render(tokenizer, WRITTEN["ChatML"], question, TOOLS)


def test_names_that_the_template_does_not_write_are_reported(tokenizer: Any) -> None:
    named = [USER | {"name": "Ann"}, YES]
    assert [chat.drops_names for chat in render(tokenizer, WRITTEN["ChatML"], named)] == [True]
    writes_names = "{% for m in messages %}{{ m.name or 'it' }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    source = writes_names + "{% if add_generation_prompt %}it: {% endif %}"
    assert [chat.drops_names for chat in render(tokenizer, source, named)] == [False]


def test_date_is_the_same_on_every_day(tokenizer: Any) -> None:
    [chat] = render(tokenizer, template("llama3_2"), TURNS)
    assert "Today Date: 26 Jul 2024" in chat.text
