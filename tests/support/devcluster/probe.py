"""Asks components over HTTP whether they are ready."""

import ssl
import urllib.request
from pathlib import Path

_SECONDS = 2.0


def answers(url: str, context: ssl.SSLContext | None = None) -> bool:
    """Whether a GET of the URL succeeds."""
    return fetch(url, context) is not None


def answers_unverified(url: str) -> bool:
    """The same for a component that serves with a certificate it signed itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return answers(url, context)


def trusting(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """A client that trusts one authority and shows a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context


def fetch(url: str, context: ssl.SSLContext | None = None, method: str = "GET") -> str | None:
    """What the URL answers, or None when it does not, or not with success."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS, context=context) as response:
            return str(response.read().decode(errors="replace"))
    except OSError:
        return None
