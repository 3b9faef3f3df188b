"""Metrics that several objectives share, each computed from sums over batches and ranks."""
