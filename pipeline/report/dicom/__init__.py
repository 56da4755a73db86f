"""DICOM objects for a PACS: report, overlay and marks of a picture. Needs the extra ``dicom``.

These modules are imported only for ``--dicom-out``.
"""
