"""What stored rows say: which is faster, from which n, which to take.

compare (two runs) · history, steps (a case over commits) · crossover, measure_crossover (from which n A beats B) ·
recommend, measure_candidates (which to take at n) · candidates, wording, terminal (theirs) · scaling (what
sequence-parallel ranks would do).
May import sweep, to measure what is missing, figures and what is below.
"""
