#include "options.h"

#include <getopt.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <stdexcept>

namespace grpcload {

const char* const kUsage = R"(grpcload --target HOST:PORT --method /PACKAGE.SERVICE/METHOD --data FILE
         (--closed N | --poisson RATE) [option ...]

Loads a gRPC server over cleartext HTTP/2 and prints one JSON object.

  --data FILE              the request: a serialised message, without gRPC's prefix
  --closed N               keep N requests in flight, over all connections
  --poisson RATE           send RATE requests a second at random times, whether or not earlier ones are answered
  --seed N                 seed of these times (1)
  --connections N          (1)
  --duration S             measured time in seconds (5), after
  --warmup S               seconds of warm-up (1)
  --deadline-ms D          deadline of each request, D ms after its scheduled time
  --fail-fast              with --poisson: a request without a free stream on its connection fails at once in the client
  --header 'NAME: VALUE'   add a header; may be repeated
  --min-response-bytes N   count an OK answer of fewer bytes as a bad one
  --log FILE               write a line for each request, when it has its outcome: the nanosecond of the monotonic
                           clock for which it was scheduled, its latency in nanoseconds, and the outcome

  --stream                 send the requests over long-lived streams
  --streams N              streams per connection (1)
  --packed N               the message of --data holds N requests (1)
  --count-field            a response message has a result in each field 1, as inferd's StreamInfer has;
                           otherwise it is one result, as of ModelStreamInfer

  --probe METHOD           also call this at fixed intervals, on a separate connection
  --probe-data FILE        its request (an empty message)
  --probe-interval-ms D    (20)
)";

namespace {

double to_number(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= 0)) throw std::runtime_error(text + ": not a number of zero or more");
  return value;
}

size_t to_count(const std::string& text) {
  char* end = nullptr;
  errno = 0;
  const unsigned long value = std::strtoul(text.c_str(), &end, 10);
  if (text.empty() || text[0] == '-' || *end != '\0' || errno != 0) throw std::runtime_error(text + ": not a count");
  return value;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void add_header(Options& options, const std::string& text) {
  const size_t colon = text.find(": ");
  if (colon == std::string::npos) throw std::runtime_error(text + ": not of the form 'NAME: VALUE'");
  options.headers.emplace_back(text.substr(0, colon), text.substr(colon + 2));
}

void set_target(Options& options, const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) throw std::runtime_error(text + ": not of the form HOST:PORT");
  options.host = text.substr(0, colon);
  options.port = text.substr(colon + 1);
}

void check(const Options& options, bool has_data) {
  const auto require = [](bool condition, const char* text) {
    if (!condition) throw std::runtime_error(text);
  };
  require(!options.port.empty(), "--target is missing");
  require(!options.method.empty(), "--method is missing");
  require(has_data, "--data is missing");
  require((options.closed > 0) != (options.poisson_per_s > 0), "give either --closed or --poisson");
  require(options.duration_s > 0, "--duration must be more than 0");
  require(options.connections > 0 && options.streams > 0 && options.packed > 0,
          "--connections, --streams and --packed must be at least 1");
  require(options.probe_interval_ms > 0, "--probe-interval-ms must be more than 0");
  require(options.stream || (options.streams == 1 && options.packed == 1 && !options.count_field),
          "--streams, --packed and --count-field need --stream");
  require(!options.stream || options.deadline_ms == 0, "a request on a stream has no --deadline-ms");
  require(!options.fail_fast || (options.poisson_per_s > 0 && !options.stream),
          "--fail-fast needs --poisson, and no --stream");
  const size_t lines = options.connections * options.streams;
  require(options.closed == 0 || options.closed >= lines * options.packed,
          "--closed is less than one message for each stream of each connection");
}

struct Option {
  int has_value;
  std::function<void(const std::string&)> set;
};

std::map<std::string, Option> make_table(Options& o, bool& has_data) {
  return {
      {"target", {1, [&](auto& text) { set_target(o, text); }}},
      {"method", {1, [&](auto& text) { o.method = text; }}},
      {"data", {1, [&](auto& text) { o.data = read_file(text), has_data = true; }}},
      {"header", {1, [&](auto& text) { add_header(o, text); }}},
      {"connections", {1, [&](auto& text) { o.connections = to_count(text); }}},
      {"closed", {1, [&](auto& text) { o.closed = to_count(text); }}},
      {"poisson", {1, [&](auto& text) { o.poisson_per_s = to_number(text); }}},
      {"seed", {1, [&](auto& text) { o.seed = to_count(text); }}},
      {"duration", {1, [&](auto& text) { o.duration_s = to_number(text); }}},
      {"warmup", {1, [&](auto& text) { o.warmup_s = to_number(text); }}},
      {"deadline-ms", {1, [&](auto& text) { o.deadline_ms = to_number(text); }}},
      {"fail-fast", {0, [&](auto&) { o.fail_fast = true; }}},
      {"min-response-bytes", {1, [&](auto& text) { o.min_response_bytes = to_count(text); }}},
      {"log", {1, [&](auto& text) { o.log = text; }}},
      {"stream", {0, [&](auto&) { o.stream = true; }}},
      {"streams", {1, [&](auto& text) { o.streams = to_count(text); }}},
      {"packed", {1, [&](auto& text) { o.packed = to_count(text); }}},
      {"count-field", {0, [&](auto&) { o.count_field = true; }}},
      {"probe", {1, [&](auto& text) { o.probe = text; }}},
      {"probe-data", {1, [&](auto& text) { o.probe_data = read_file(text); }}},
      {"probe-interval-ms", {1, [&](auto& text) { o.probe_interval_ms = to_number(text); }}},
  };
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options options;
  bool has_data = false;
  const std::map<std::string, Option> table = make_table(options, has_data);
  std::vector<::option> names;
  for (const auto& [name, option] : table) names.push_back({name.c_str(), option.has_value, nullptr, 0});
  names.push_back({});
  int index = 0;
  while (true) {
    const int found = getopt_long(argc, argv, "", names.data(), &index);
    if (found == -1) break;
    if (found != 0) throw std::runtime_error("see the usage");
    table.at(names[static_cast<size_t>(index)].name).set(optarg != nullptr ? optarg : "");
  }
  if (optind < argc) throw std::runtime_error(std::string(argv[optind]) + ": not an option");
  check(options, has_data);
  return options;
}

}  // namespace grpcload
