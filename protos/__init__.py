"""Protocol buffers of the gRPC service. The messages arrive with the service itself."""
