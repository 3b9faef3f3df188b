"""The operator: turns one FineTuneJob into pods and keeps them at it. It knows nothing of torch."""

__version__ = "0.1.0"
