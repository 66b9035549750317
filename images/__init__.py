"""Builds what hosts run: container images, the sample image, and the roots that local instances boot."""
