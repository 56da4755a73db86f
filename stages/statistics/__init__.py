"""Metrics, intervals, calibration and thresholds, as functions of arrays; without torch."""
