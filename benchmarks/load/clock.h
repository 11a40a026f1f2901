// The clock: nanoseconds of the monotonic clock.
#pragma once

#include <time.h>

#include <cstdint>

namespace grpcload {

constexpr int64_t kNever = INT64_MAX;

inline int64_t now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

inline int64_t to_ns(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

}  // namespace grpcload
