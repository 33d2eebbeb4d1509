"""A page in the browser that shows live streams before and after deraining."""
