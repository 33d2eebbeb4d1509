"""Training: networks, the five systems, losses, rain physics, data, trainer, evaluation. Needs the extra ``train``."""
