"""TensorRT engines: built, checked, kept and found again."""
