"""HTTP readiness probes."""

import ssl
import urllib.request
from pathlib import Path

_TIMEOUT = 2.0


def responds(url: str, context: ssl.SSLContext | None = None) -> bool:
    """Whether a GET of the URL succeeds."""
    return fetch(url, context) is not None


def responds_unverified(url: str) -> bool:
    """Whether a GET of the URL succeeds, without verification of the server's self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return responds(url, context)


def client_context(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS settings of a client that trusts one authority and presents a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context


def fetch(url: str, context: ssl.SSLContext | None = None, method: str = "GET") -> str | None:
    """The body of a successful response; None if the request fails."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context) as response:
            return str(response.read().decode(errors="replace"))
    except OSError:
        return None
