"""What is on disk, and which rows of it a table or a figure is made of. No torch.

record (Case, Reading, Row: the columns) · runs (a run's folder, written row by row) · csvfile, replacing (files that
survive a kill) · folders, tags, merging, differing (runs as things) · selection (rows that belong together) · pivot,
table (for a terminal) · curves (of a training) · contention (rows of a machine that was not quiet, and their marks).
May import stats and errors.
"""
