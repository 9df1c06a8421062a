"""The HTTP edge: what producers and consumers reach the hub by. Thin over `riskhub.hub`."""
