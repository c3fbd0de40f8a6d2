"""In which order cases are measured, by whom, and what is written when.

conduct (a sweep from its description to its rows) · crew (several places at once) · journal (what reaches the disk) ·
disturbed (which moments were not quiet) · plan (what a sweep would do). May import engines and what is below.
"""
