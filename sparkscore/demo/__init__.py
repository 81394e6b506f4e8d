"""The whole way on real data: train, package, register, and score three nights of flights."""
