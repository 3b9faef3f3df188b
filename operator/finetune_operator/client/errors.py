"""Errors of requests to the API server."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

MAX_ERROR_BYTES = 500  # of a response that is not a Status object
MAX_RETRY_AFTER = 300.0  # seconds; a longer wait would look like an operator that hangs
RETRIABLE_CLIENT_ERRORS = frozenset({401, 404, 408, 409, 429})
WEBHOOK_FAILURE = "failed calling webhook"  # in the message of a 500, which the API server returns for a webhook that fails


class ApiError(Exception):
    """An error response of the API server: HTTP status, and the reason and message of its Status object.

    `retry_after` is the time in seconds that the server asks clients to wait, or 0.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after

    @property
    def is_rejection(self) -> bool:
        """Whether the request itself was rejected, so that an immediate retry would fail too.

        An admission webhook that fails rejects every request of its kind until an administrator repairs it.
        """
        if self.status >= 500:
            return WEBHOOK_FAILURE in self.message
        return self.status >= 400 and self.status not in RETRIABLE_CLIENT_ERRORS


REQUEST_ERRORS = (ApiError, aiohttp.ClientError, TimeoutError)
"""The errors of a request: an error response, or no response."""


def retry_after(error: Exception) -> float:
    """Seconds that an error asks its caller to wait before a retry; 0 if it does not."""
    return error.retry_after if isinstance(error, ApiError) else 0.0


class NotLeaderError(Exception):
    """A write was not sent, because another replica of the operator may be the leader by now."""


def error_of(status: int, text: bytes, wait: str = "") -> ApiError:
    """The error of a response; `wait` is its header Retry-After, which may also be a date, but not from the API server."""
    content = decode(text)
    message = str(content.get("message", text[:MAX_ERROR_BYTES]))
    seconds = min(float(wait), MAX_RETRY_AFTER) if wait.isdecimal() else 0.0
    return ApiError(status, str(content.get("reason", "")), message, seconds)


def decode(text: bytes) -> dict[str, Any]:
    """The JSON object in a response; empty if it contains none."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
