"""A trained policy in other forms (ONNX, quantised, TensorRT, C) and proof that they decide alike."""
