"""From arrays to stage outputs with ONNX Runtime: the only part that touches a device."""
