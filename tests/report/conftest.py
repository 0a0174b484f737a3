"""The tiny run whose results are compared."""

from digits import run, subject, trained, undrawn

__all__ = ["run", "subject", "trained", "undrawn"]
