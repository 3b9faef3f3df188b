"""Kinds of models that several objectives train."""
