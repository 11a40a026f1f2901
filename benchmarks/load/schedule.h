// The times at which an open loop sends its requests, whether or not earlier ones are answered.
#pragma once

#include <cstdint>
#include <random>

#include "clock.h"

namespace grpcload {

class Schedule {
 public:
  // Never.
  Schedule() = default;

  // On average `interval_ns` apart, at random (a Poisson process), or exactly so.
  static Schedule poisson(double interval_ns, uint64_t seed) { return Schedule(interval_ns, true, seed); }
  static Schedule regular(double interval_ns) { return Schedule(interval_ns, false, 0); }

  void start(int64_t now) {
    at_ = static_cast<double>(now);
    advance();
  }

  int64_t next() const { return interval_ns_ == 0 ? kNever : static_cast<int64_t>(at_); }
  void advance() { at_ += interval_ns_ * (random_ ? distribution_(generator_) : 1); }

 private:
  Schedule(double interval_ns, bool random, uint64_t seed)
      : interval_ns_(interval_ns), random_(random), generator_(seed) {}

  double interval_ns_ = 0;
  bool random_ = false;
  double at_ = 0;
  std::mt19937_64 generator_;
  std::exponential_distribution<double> distribution_{1.0};
};

}  // namespace grpcload
