"""The error of a local run."""


class LocalRunError(Exception):
    """The job cannot run on this machine; the message has one sentence per line."""
