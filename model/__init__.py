"""Pure mathematics in JAX and NumPy: networks, losses, leaf gradients, the reduction tree, updates, statistics."""
