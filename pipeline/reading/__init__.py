"""From files to arrays that networks take, each file in a process that may die of it.

A reader turns one file, or content in memory, into what a run keeps of its pictures. :mod:`.here`
does it in this process, :mod:`.isolated` has workers for it (:mod:`.worker`), to whom it talks over
pipes (:mod:`.wire`); :mod:`.opened` has the choice. Nothing is imported here, for a worker has to
start quickly.
"""
