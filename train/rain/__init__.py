"""Rain made by rule: the degradation model and two independent renderers, which need numpy and OpenCV only."""
