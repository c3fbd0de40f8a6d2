"""How one case is measured, in a process of its own.

worker (the process) · taking (a case from its request to its answer) · subject (a case made runnable) · metrics/ (ONE
FILE A METRIC) · calibrate (ceilings, canary) · probe (what the gate asks of a definition) · ranks (a case that several
processes share) · trained, judge (a checkpoint's network). May import cases and what is below; nothing that decides
what or where to measure.
"""
