// The command line.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace grpcload {

struct Options {
  std::string host, port;
  std::string method;
  std::string data;  // a message, without gRPC's prefix
  std::vector<std::pair<std::string, std::string>> headers;
  size_t connections = 1;

  size_t closed = 0;  // requests in flight over all connections; 0: open loop
  double poisson_per_s = 0;
  uint64_t seed = 1;
  double duration_s = 5;
  double warmup_s = 1;
  double deadline_ms = 0;
  bool fail_fast = false;
  size_t min_response_bytes = 0;
  std::string log;  // the file that gets a line for each request; empty: none

  bool stream = false;
  size_t streams = 1;
  size_t packed = 1;
  bool count_field = false;

  std::string probe;  // the method of a second, light call; empty: none
  std::string probe_data;
  double probe_interval_ms = 20;
};

// Throws std::runtime_error with a text for the user when something is missing or contradicts.
Options parse_options(int argc, char** argv);

extern const char* const kUsage;

}  // namespace grpcload
