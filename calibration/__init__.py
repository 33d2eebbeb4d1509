"""Calibration: frame selection, FP16, INT8 Q/DQ, sensitivity, quality gate."""
