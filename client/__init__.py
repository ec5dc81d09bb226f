"""shardsgd: data-parallel minibatch SGD with the same bits for any number of workers.

Importing this package loads neither ray nor jax.
"""
