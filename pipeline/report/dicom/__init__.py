"""DICOM objects for a PACS: report, overlay and marks of a picture. Needs the extra ``dicom``.

Nothing here is imported before ``--dicom-out`` asks for it.
"""
