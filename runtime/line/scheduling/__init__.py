"""A line's time table: what waits, what is judged next, what is left out, and the account of all of it.

`schedule` decides and knows neither threads nor a clock of its own; `capture`, `judging` and `output` are the threads;
`ledger` and `counters` hold that every captured frame leaves one record.
"""
