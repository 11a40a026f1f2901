// Outcomes of the requests, and latencies of the OK answers.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace grpcload {

// Outcome of a request: a gRPC status code, or one of those below.
enum Outcome : int {
  kOk = 0,
  kLastStatus = 16,
  kUnknownStatus,  // a number that gRPC does not know
  kInBandError,    // a message of a stream that says "error" without a code
  kBadAnswer,      // OK, but smaller than an answer can be
  kExpired,        // its deadline passed here before an answer came
  kRefusedHere,    // it found no free stream, and was not to wait for one
  kTransport,      // its stream or connection was lost
  kUnanswered,     // nothing had come when the wait after the end was over
  kOutcomes
};

inline Outcome outcome_of(uint64_t status) {
  return status <= kLastStatus ? static_cast<Outcome>(status) : kUnknownStatus;
}

// Counts durations in buckets less than 0.8 % wide; the maximum and the mean are exact.
class Histogram {
 public:
  Histogram() : buckets_(kBuckets) {}
  void add(int64_t nanoseconds);
  uint64_t count() const { return count_; }
  double quantile_ms(double part) const;
  double mean_ms() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_) / 1e6; }
  double max_ms() const { return static_cast<double>(max_) / 1e6; }

 private:
  static constexpr int kSubBits = 7;
  static constexpr size_t kBuckets = (64 - kSubBits + 1) << kSubBits;
  std::vector<uint64_t> buckets_;
  uint64_t count_ = 0;
  double sum_ = 0;
  int64_t max_ = 0;
};

// A request is measured if its scheduled time lies in the window.
class Recorder {
 public:
  void set_window(int64_t begin, int64_t end) { begin_ = begin, end_ = end; }
  // Keeps each request that is measured, for write_log.
  void keep_requests() { keeps_requests_ = true; }

  void began(int64_t intended);
  void finished(int64_t intended, int64_t now, Outcome outcome);
  // Notes how many requests wait within one client for a free stream.
  void held_back(size_t requests) { max_held_back_ = std::max(max_held_back_, requests); }
  // Keeps the text of the first failure.
  void explain(std::string_view text);

  void write_json(std::ostream& out) const;
  void write_log(std::ostream& out) const;

 private:
  struct Request {
    int64_t intended, latency;
    Outcome outcome;
  };

  bool in_window(int64_t time) const { return time >= begin_ && time < end_; }

  int64_t begin_ = 0, end_ = 0;
  uint64_t requests_ = 0;
  std::array<uint64_t, kOutcomes> outcomes_{};
  uint64_t ok_in_window_ = 0;      // OK answers that came within the window, whenever they were asked for
  uint64_t ok_within_second_ = 0;  // those of the requests that were answered within a second
  int64_t in_flight_ = 0, max_in_flight_ = 0;
  size_t max_held_back_ = 0;
  Histogram latency_;
  bool keeps_requests_ = false;
  std::vector<Request> kept_;
  std::string first_failure_;
};

}  // namespace grpcload
