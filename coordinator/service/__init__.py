"""The gRPC service: jobs are accepted durably, queued, run each in its own process, and watched."""
