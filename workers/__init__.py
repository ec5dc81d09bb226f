"""Workers and exchanges: the computation of leaves, and the transports that carry parameters and gradient sums."""
