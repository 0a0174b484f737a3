"""One trained run, measured: a verb a file, each of which measures, saves and draws."""
