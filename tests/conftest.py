"""What holds for all tests: servers in their process run on gRPC's core as `inferd serve` has it, in whatever order."""

import inferd.core_environment  # noqa: F401  grpc is to find it when it is first imported
