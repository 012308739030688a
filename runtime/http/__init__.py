"""The door of a line for machines: health, metrics, triggers and thresholds over HTTP; on loopback by default.

`routes` answers and `access` decides who may ask; neither knows a socket. `server` is the thread with the sockets, of
the extra `http`, loaded only where a line wants one.
"""
