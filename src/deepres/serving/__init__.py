"""A trained network in its fastest form: batch normalization folded, run by PyTorch, ONNX Runtime or OpenVINO."""
