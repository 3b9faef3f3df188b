"""Data checks, one a file. Each is pure: it reads no files and does not apply its policy.

A new check is a module with a `RowCheck`, an entry of `registry.CHECKS` and a field of `DataChecksConfig`.
"""
