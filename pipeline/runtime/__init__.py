"""Inference with ONNX Runtime; the only package that uses a device."""
