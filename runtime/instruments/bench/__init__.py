"""`edge-ad bench`: how fast a bundle is on this machine, how fast it could be, and whether it became slower."""

from __future__ import annotations
