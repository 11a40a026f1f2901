// Sends requests as messages of a few long-lived bidirectional streams.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "client.h"
#include "unary_client.h"

namespace grpcload {

struct StreamShape {
  size_t streams = 1;          // per connection
  size_t packed = 1;           // requests in a message
  bool counts_fields = false;  // a response holds as many results as it has fields of number 1, else one
};

// Results have no number, so each one counts as the answer to the oldest request of its stream. Where
// answers overtake each other the mean latency is still right, and the percentiles are off by what they overtook.
class StreamClient final : public Client {
 public:
  StreamClient(const std::string& host, const std::string& port, Recorder& recorder, const CallShape& call,
               const StreamShape& shape)
      : Client(host, port, recorder), call_(call), shape_(shape) {}

  void start(size_t in_flight) override;
  void request(int64_t intended) override;
  void turn(int64_t) override {}
  void stop() override;
  bool idle() const override;
  void abandon() override;

  void on_message(Stream& stream, std::string_view message) override;
  void on_end(Stream& stream, const Ending& ending) override;

 private:
  struct Line {
    Stream* stream = nullptr;  // nullptr after its end
    size_t in_flight = 0;      // to be kept so
    std::deque<int64_t> intended;
  };

  void send(Line& line, int64_t intended);
  void refill(Line& line, int64_t now);
  void result(Line& line, int64_t now, Outcome outcome, size_t bytes);

  const CallShape& call_;
  const StreamShape& shape_;
  std::vector<Line> lines_;
  size_t next_line_ = 0;
};

}  // namespace grpcload
