"""The bandit: which of the candidates that clear their cost deserve the slots, learnt from what their fills earned.

    state     what it remembers, as it is journaled            arms      evidence per arm, shrunk symbol → cluster → all
    draws     normals whose bits every CPU agrees on           policies  UCB and Thompson, as functions of the evidence
    choice    sets, and the exact probability of each pick     budget    what exploration may cost a day
    records   win rate and Sharpe per arm, how sure            learner   all of it, as the engine uses it

It orders candidates and never makes one: the net-edge gate has spoken before, and does not see it. docs/bandit.md has
the formulas, the sources and what it measured.
"""
