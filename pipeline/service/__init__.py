"""``fxpipe serve``: pictures arrive by HTTP, DICOM or a watched folder, verdicts go to a worklist.

Needs the extra ``serve``.
"""
