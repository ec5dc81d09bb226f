"""Protocol buffers of the gRPC service: training.proto and what protoc makes of it (`make protos`)."""
