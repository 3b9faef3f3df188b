"""Conversations in the shapes that people store them in, and their one normal form.

A conversation in normal form is a list of messages in the format of OpenAI's chat completions: `role` (one of `SPEAKERS`),
`content` (a string, or None where there are tool calls), and where the data has them `reasoning_content`, `tool_calls` (each
`{"type": "function", "function": {"name": ..., "arguments": {...}}}`) and `weight` (0 or 1). Other keys are passed on to the
chat template. Pure: nothing here reads files.
"""
