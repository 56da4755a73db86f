"""Readers: decode files into network inputs, by default in isolated worker processes.

A reader turns one file, or content in memory, into prepared pictures. :mod:`.here` reads in this
process; :mod:`.isolated` uses workers (:mod:`.worker`) and communicates with them over pipes
(:mod:`.wire`); :mod:`.opened` chooses between them. This module imports nothing, so that a worker
starts quickly.
"""
