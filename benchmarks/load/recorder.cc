#include "recorder.h"

#include <algorithm>
#include <cmath>

namespace grpcload {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

constexpr const char* kStatusNames[] = {
    "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED", "UNKNOWN_STATUS",    "IN_BAND_ERROR",      "BAD_ANSWER",
    "EXPIRED",   "REFUSED_HERE",    "FAILED_TRANSPORT",  "UNANSWERED",
};

void write_text(std::ostream& out, const std::string& text) {
  out << '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') out << '\\';
    out << (c >= ' ' && c <= '~' ? c : '?');
  }
  out << '"';
}

}  // namespace

// Small numbers have a bucket each; above, each power of two is divided into 2^kSubBits buckets.
void Histogram::add(int64_t nanoseconds) {
  const auto value = static_cast<uint64_t>(std::max<int64_t>(nanoseconds, 0));
  const int shift = std::max(63 - __builtin_clzll(value | 1) - kSubBits, 0);
  ++buckets_[(static_cast<size_t>(shift) << kSubBits) + (value >> shift)];
  ++count_;
  sum_ += static_cast<double>(value);
  max_ = std::max(max_, static_cast<int64_t>(value));
}

double Histogram::quantile_ms(double part) const {
  const auto wanted = static_cast<uint64_t>(std::ceil(part * static_cast<double>(count_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen < wanted || buckets_[i] == 0) continue;
    const size_t shift = i < (2u << kSubBits) ? 0 : (i >> kSubBits) - 1;
    const double low = std::ldexp(static_cast<double>(i - (shift << kSubBits)), static_cast<int>(shift));
    const double middle = low + (std::ldexp(1.0, static_cast<int>(shift)) - 1) / 2;
    return std::min(middle, static_cast<double>(max_)) / 1e6;
  }
  return 0;
}

void Recorder::began(int64_t intended) {
  ++in_flight_;
  if (!in_window(intended)) return;
  ++requests_;
  max_in_flight_ = std::max(max_in_flight_, in_flight_);
}

void Recorder::finished(int64_t intended, int64_t now, Outcome outcome) {
  --in_flight_;
  if (outcome == kOk && in_window(now)) ++ok_in_window_;
  if (!in_window(intended)) return;
  ++outcomes_[outcome];
  if (keeps_requests_) kept_.push_back({intended, now - intended, outcome});
  if (outcome != kOk) return;
  latency_.add(now - intended);
  if (now - intended <= kSecond) ++ok_within_second_;
}

void Recorder::explain(std::string_view text) {
  if (first_failure_.empty()) first_failure_ = text;
}

void Recorder::write_log(std::ostream& out) const {
  for (const auto& [intended, latency, outcome] : kept_) {
    out << intended << ' ' << latency << ' ' << kStatusNames[outcome] << '\n';
  }
}

void Recorder::write_json(std::ostream& out) const {
  const double seconds = static_cast<double>(end_ - begin_) / 1e9;
  out << "{\"requests\": " << requests_ << ", \"ok\": " << outcomes_[kOk] << ", \"statuses\": {";
  const char* separator = "";
  for (int status = 0; status <= kInBandError; ++status) {
    if (outcomes_[status] == 0) continue;
    out << separator << '"' << kStatusNames[status] << "\": " << outcomes_[status];
    separator = ", ";
  }
  out << "}, \"bad_answers\": " << outcomes_[kBadAnswer] << ", \"expired\": " << outcomes_[kExpired]
      << ", \"refused_by_client\": " << outcomes_[kRefusedHere]
      << ", \"failed_transport\": " << outcomes_[kTransport] << ", \"unanswered\": " << outcomes_[kUnanswered]
      << ", \"duration_s\": " << seconds << ", \"ok_per_s\": " << static_cast<double>(ok_in_window_) / seconds
      << ", \"ok_within_1s_per_s\": " << static_cast<double>(ok_within_second_) / seconds
      << ", \"max_in_flight\": " << max_in_flight_ << ", \"max_held_back\": " << max_held_back_
      << ", \"latency_ms\": {\"mean\": " << latency_.mean_ms() << ", \"p50\": " << latency_.quantile_ms(0.5)
      << ", \"p90\": " << latency_.quantile_ms(0.9) << ", \"p99\": " << latency_.quantile_ms(0.99)
      << ", \"p99_9\": " << latency_.quantile_ms(0.999) << ", \"max\": " << latency_.max_ms()
      << "}, \"first_failure\": ";
  write_text(out, first_failure_);
  out << "}";
}

}  // namespace grpcload
