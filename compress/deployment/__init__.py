"""ONNX files that carry their preprocessing, the runtimes that run them, and what they take in time and memory."""
