"""What faults cost: nothing but time. Real processes, real signals, and every run compared with one that was left alone."""
