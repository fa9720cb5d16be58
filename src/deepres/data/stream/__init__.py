"""Sets too large for memory: an index of where each picture lies (`index`), batches decoded by worker processes
(`loader`), the statistics that the augmentation needs (`statistics`) and a look at every picture (`check`)."""
