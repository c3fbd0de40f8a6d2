"""What is asked: the axes and settings of a sweep, the cases they stand for, the variants that there are.

axes (sizes as people write them) · space (Sweep, expand) · sharing (cases of several ranks) · catalogue (what the
variants are, kept in a file since asking costs seconds) · filters (which rows of a run a person means).
May import vision (sizes of models), machine, store and what is below.
"""
