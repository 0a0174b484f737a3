"""Studies: many trainings and their evaluations, named in one file and done by child processes."""
