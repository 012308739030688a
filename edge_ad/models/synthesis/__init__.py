"""Anomalies made from good images: where (Perlin masks), with what (augmented textures), how strongly (overlay).

Every piece takes the random generator it draws from and touches no global state, so that the anomaly of sample i in
epoch e is that of `numpy.random.default_rng([seed, e, i])`, in whatever order and process it is made.
"""
