"""The operator: creates the trainer pods of a FineTuneJob and replaces them when they fail. It does not import torch."""

__version__ = "0.1.0"
