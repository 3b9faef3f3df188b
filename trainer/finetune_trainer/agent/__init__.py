"""Process 1 of a pod: launches the ranks of its node, keeps them in step with the other nodes, and says how it went.

Importing the package imports no torch; `store` and what stands on it do, for the TCPStore.
"""
