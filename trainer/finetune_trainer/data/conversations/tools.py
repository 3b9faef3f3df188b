"""Tools and tool calls: lists or JSON, with or without OpenAI's wrapper around a function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def parse_tools(value: Any) -> list[dict[str, Any]]:
    """The tools of a row in OpenAI's form, none for an empty value; raises ValueError with the problem and the remedy."""
    tools = _parse_json(value, "has the tools")
    if not tools:
        return []
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list):
        raise ValueError(f"holds a {type(tools).__name__}, not a list of tools: correct the row")
    return [_parse_tool(tool, number) for number, tool in enumerate(tools, start=1)]


def parse_tool_calls(value: Any) -> list[dict[str, Any]]:
    """The tool calls of a message in OpenAI's form, with arguments as an object.

    Takes one call or several, as JSON or not; raises ValueError with the problem and the remedy.
    """
    calls = _parse_json(value, "the tool calls")
    if not calls:
        return []
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list):
        raise ValueError(f"tool calls that are a {type(calls).__name__}, not a list of calls: correct the row")
    return [_parse_call(call, number) for number, call in enumerate(calls, start=1)]


def without_nulls(value: Any) -> Any:
    """The value without keys whose value is null: columnar files give each object the keys of all objects of the column."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _parse_tool(tool: Any, number: int) -> dict[str, Any]:
    tool = _parse_json(tool, f"has tool {number}")
    if not isinstance(tool, dict):
        raise ValueError(f"has tool {number} that is {tool!r}, not an object: correct the row")
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"has no name of a function in tool {number}: correct the row")
    return tool if "function" in tool else {"type": "function", "function": tool}


def _parse_call(call: Any, number: int) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise ValueError(f"tool call {number} that is a {type(call).__name__}, not an object: correct the row")
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"no name of a function in tool call {number}: correct the row")
    arguments = _parse_json(function.get("arguments", function.get("parameters")), f"the arguments of tool call {number}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ValueError(
            f"arguments of tool call {number} that are a {type(arguments).__name__}, not an object: correct the row"
        )
    outer = {key: item for key, item in call.items() if key == "id" and item is not None}
    return outer | {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _parse_json(value: Any, subject: str) -> Any:
    """The value, parsed if it is a string; None for a blank one. An error begins with `subject`."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{subject} as a string that is not JSON ({error.msg} at character {error.pos + 1}): correct the row"
        ) from error
