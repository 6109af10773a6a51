"""The services as containers: an engine, the images, and what must hold of them."""
