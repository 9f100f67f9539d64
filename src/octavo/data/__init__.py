"""From corpora to batches: documents, tokens in memory-mapped shards, packed rows, an order without state."""
