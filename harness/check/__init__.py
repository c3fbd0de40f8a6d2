"""The regression gate behind `harness check`: is this revision slower, larger or less right than that one? No torch.

decide       one case's verdict from paired log-ratios: pure statistics
pairs        fresh processes in ABBA order, and the differences they give
revisions    the base side: a git worktree, its import path and its interpreter
suite        which cases, on which side
deterministic, complexity    what needs no quiet machine
baseline     the committed file of deterministic values
gate         all of the above, in order; verdict and output say what came out
rules        what was tried for telling a slowdown, and which of it is used
selftest, pool, peers, account    the gate's own error rates on this machine
contributed, judged    what a stored run of somebody else must pass

May import sweep and what is below.
"""
