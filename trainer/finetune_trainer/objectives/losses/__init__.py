"""Losses that several objectives share, each a sum over terms."""
