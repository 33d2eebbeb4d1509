"""Export: a checkpoint to an ONNX file that any engine accepts and any camera can feed."""
