"""The one compiled part; everything else about the package is in setup.cfg.

Where it cannot be compiled, the installation goes on without it, and frames are resized with Pillow. It uses nothing of
Python, so one build serves Python 3.10 and all later ones.
"""

import sysconfig

from setuptools import Extension, setup

RESIZE = Extension(
    "edge_ad.image.resize._resize",
    sources=["edge_ad/image/resize/resize.c"],
    extra_compile_args=["-O3"],
    py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"),
    optional=True,
)

# Free-threaded Pythons know no such builds.
ANY_PYTHON = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp310"}}

setup(ext_modules=[RESIZE], options=ANY_PYTHON)
