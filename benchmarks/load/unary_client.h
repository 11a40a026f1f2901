// Sends unary calls.
#pragma once

#include <deque>
#include <string>
#include <string_view>

#include "client.h"

namespace grpcload {

// What all calls of a client have in common.
struct CallShape {
  std::string headers;            // a header block, without grpc-timeout
  std::string body;               // a message with its prefix
  int64_t deadline_ns = 0;        // counted from the intended moment; 0: none
  size_t min_response_bytes = 0;  // an OK answer with less is a bad one
  bool fail_fast = false;         // no request waits for a free stream; not while a number is kept in flight
};

class UnaryClient final : public Client {
 public:
  UnaryClient(const std::string& host, const std::string& port, Recorder& recorder, const CallShape& shape)
      : Client(host, port, recorder), shape_(shape) {}

  void start(size_t in_flight) override;
  void request(int64_t intended) override;
  void turn(int64_t now) override;
  int64_t next_expiry() const override;
  bool idle() const override { return in_flight_ == 0 && waiting_.empty(); }
  void abandon() override;

  void on_message(Stream& stream, std::string_view message) override { stream.response_bytes += message.size(); }
  void on_end(Stream& stream, const Ending& ending) override;

 private:
  struct Waiting {
    int64_t intended;
    bool second_try = false;
  };
  struct Sent {
    uint32_t stream;
    int64_t intended;
  };

  void open(Waiting request, int64_t now);
  void drop_expired(int64_t now);
  void fail_waiting(int64_t now, Outcome outcome);
  void finish(int64_t intended, int64_t now, Outcome outcome);
  bool expired(int64_t intended, int64_t now) const {
    return shape_.deadline_ns != 0 && now - intended >= shape_.deadline_ns;
  }

  const CallShape& shape_;
  size_t in_flight_ = 0;
  std::deque<Waiting> waiting_;  // what the peer's limit of streams holds back
  std::deque<Sent> sent_;        // with a deadline only: by deadline; may name calls that have ended
  std::string headers_;          // scratch
};

}  // namespace grpcload
