"""From finished runs to bundles: ONNX graphs, quantisation, parity, thresholds, fused graphs."""
