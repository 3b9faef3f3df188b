"""Process 1 of a pod: starts the ranks of its node, coordinates with the agents of the other nodes, and reports the outcome.

Importing the package does not import torch; `store` and the modules that use it do, for the TCPStore.
"""
