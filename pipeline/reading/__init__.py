"""Readers: decode files into network inputs, by default in isolated worker processes.

A reader turns one file, or content in memory, into prepared pictures. :mod:`.in_process` reads in
this process; :mod:`.worker_pool` uses workers (:mod:`.worker`) and communicates with them over
pipes (:mod:`.messages`); :mod:`.open_reader` chooses between them. This module imports nothing, so
that a worker starts quickly.
"""
