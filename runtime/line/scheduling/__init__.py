"""A line's time table: what waits, what is judged next, what is left out, and the account of all of it.

The way of a frame, and the six words that are used for it:

    source ─► pace or trigger ─► intake ─► ledger ─► room ─► judging ─► ledger ─► output ─► sinks
              is it wanted?      is it a   opens a   waits    engine     closes    in order
                                 picture?  ticket    here                the ticket

A *lane* is one camera with its rules. *Pace* says which of its frames are wanted at all. *Intake* makes sure that
what came is a picture. The *ledger* of a lane opens a *ticket* for every captured frame and closes it with one
record. A *room* is how many tickets of a lane may wait to be judged, and whether a new one takes the place of the
old.

`schedule` decides and knows neither threads nor a clock of its own; `capture`, `judging` and `output` are the threads;
`ledger` and `counters` hold that every captured frame leaves one record.
"""
