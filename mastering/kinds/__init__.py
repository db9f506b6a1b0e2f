"""The work of each kind of job (`mastering.contract.kinds`), one file a kind: what a rendering process calls."""
