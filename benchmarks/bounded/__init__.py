"""Trials of language models under loads that they cannot serve; see ``benchmarks/generation_overload.py``."""
