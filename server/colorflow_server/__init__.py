"""The gRPC server of ColorFlow RT."""
