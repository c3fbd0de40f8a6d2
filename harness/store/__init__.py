"""What is on disk, and which rows of it a table or a figure is made of. No torch.

record (Case, Reading, Row: the columns) · problem (causal, grouped, cross attention) · former (rows of earlier
versions) · runs (a run's folder, written row by row) · environment (what measured it) · csvfile, replacing (files that
survive a kill) · folders, tags, merging, differing (runs as things) · selection (rows that belong together) · pivot,
table (for a terminal) · curves (of a training) · trained_for (what a model was trained for) · contention (rows of a
machine that was not quiet, and their marks) · ceilings (what a row's device can do, by its session).
May import stats and errors.
"""
