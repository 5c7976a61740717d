"""Generated from proto/colorflow/v1/colorflow.proto by `make proto`; tests/test_proto.py compares."""
