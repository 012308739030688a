"""One frame, one verdict: `loader` opens a bundle with an engine, `detector` judges, `postprocess` finds regions."""
