"""Who may write a run's folder: the lock of a machine that has locks, the lease of a worker among many."""
