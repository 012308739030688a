"""CUDA kernels, and what is needed to launch them: their sources, tables, arguments and grids.

Nothing here touches a GPU or imports a CUDA package. A plan is made once for a size; the caller copies its tables to
the device and hands `Launch` objects to its driver.
"""
