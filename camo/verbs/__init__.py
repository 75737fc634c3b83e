"""Verbs of ``python -m camo``: score, evaluate, compare."""
