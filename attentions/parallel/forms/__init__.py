"""One file a variant: how its sums over the tokens become sums over the ranks. Found by file name.

A file defines `attend(core, ranks, *arguments, **keywords)`, called with what the variant's module gives its backend,
for this rank's tokens; and `volume(work, ranks)`, what it passes to collectives for `work`, whose n is all tokens. It
may define `refuses(core)`: why a core with some options has no such form, or None.
"""
