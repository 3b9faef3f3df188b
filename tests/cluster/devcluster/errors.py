"""The tool's one kind of error."""


class ClusterError(Exception):
    """A step failed; the message is the one sentence a person needs, and names the log to read."""
