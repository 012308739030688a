"""An engine in a process of its own: a crash or a hang costs the batch in hand, and a fresh process takes over.

::

    this process                                the other one

    engine: the protocol of an engine
      keeper: which process, and when the next
        worker: one process, one batch   ──wire──▶  child: loads the engine, computes batches
        launch: how it is started        ─memory─▶

Both sides know `wire`, what they say to each other, and `memory`, where pictures and maps lie. The other process is not
trusted: what it says is read as JSON and checked, and its memory holds numbers only.
"""
