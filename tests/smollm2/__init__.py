"""A real language model: what it answers over every protocol, and that answers do not depend on each other.

Not run by default: ``make test-smollm2`` downloads and converts the weights first.
"""
