"""From any file to clean training data: readers, checks, schema, target text, batches."""
