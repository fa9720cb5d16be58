"""Pictures with boxes on disk: layouts, indices and their faults."""
