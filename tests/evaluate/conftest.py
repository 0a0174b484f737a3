"""The tiny run that evaluations are tried on."""

from digits import run, subject, trained, undrawn
from toys import toy

__all__ = ["run", "subject", "toy", "trained", "undrawn"]
