"""The door from Python, and what the command line calls: measure, read back, ask. What `import harness` gives.

measure (run) · stored (Run, read) · together (several runs as one) · runs (runs as things) · history (a case over
commits) · tables, captions, exporting · answers (compare, crossover) · recommending (recommend, a run's last sentence)
· defined (a variant that a script or a notebook defines, carried to the worker) · engine (which measures) · progress,
bar (who tells how it goes). May import report, answers, sweep and what is below; only the command line stands above it.
"""
