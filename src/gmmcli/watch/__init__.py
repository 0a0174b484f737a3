"""A training watched from outside, by the files of its run directory alone."""
