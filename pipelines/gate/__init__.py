"""The honest-edge gate: what a model must have shown, out of sample and after costs, before it may be champion.

    unseen      evidence as types that only out-of-sample results can make
    bounds      how sure a mean is whose observations come in clusters
    criteria    `judge(evidence) -> Verdict`: a plain function
    gather      evidence from MLflow and the lake
    speed       how long one second's prediction takes, measured in a process of its own
    promotion   champion, challenger, rollback: aliases and tags of MLflow
    tables      a verdict for a terminal, for Dagster and as JSON

`python -m pipelines.gate --help`; the page docs/gate.md says of every criterion what it is and why.
"""
