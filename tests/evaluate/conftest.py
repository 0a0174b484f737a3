"""The tiny run that evaluations are tried on."""

from digits import run, subject, trained, undrawn

__all__ = ["run", "subject", "trained", "undrawn"]
